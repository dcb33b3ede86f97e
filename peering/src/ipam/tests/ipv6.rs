//! Pools of IPv6 addresses, by the same rules.

use std::net::IpAddr;
use std::time::Duration;

use engine::types::NetworkId;

use super::world::{NETWORK, World, id, port, subnets};
use crate::ipam::Pool;
use crate::mesh::{AllocRequest, IpamState, RequestId};

#[test]
fn hosts_share_a_range_of_64_bits() {
    let mut world = World::acquainted(3, "fd00::/64", 5);
    let first = world.address(0, port(1), &[]);
    world.run(Duration::from_secs(10));
    let mut given = vec![first];
    for n in 0..9u64 {
        given.push(world.address(usize::try_from(n % 3).unwrap(), port(10 + n), &[]));
    }
    let range: ipnet::IpNet = "fd00::/64".parse().unwrap();
    assert!(given.iter().all(|addr| range.contains(addr)), "{given:?}");
    let different: std::collections::BTreeSet<&IpAddr> = given.iter().collect();
    assert_eq!(different.len(), given.len(), "{given:?}");
    for n in 0..3 {
        let status = &world.hosts[n].ipam.status(world.now)[0];
        assert_eq!(status.state, IpamState::Ready);
        assert!(status.free > 1 << 52, "each has units of its own");
    }
    let owners = &world.hosts[0].ipam.status(world.now)[0].owners;
    assert_eq!(owners.iter().map(|owner| owner.size).fold(0, u64::saturating_add), u64::MAX - 1);
}

#[test]
fn the_first_address_is_the_gateways_and_there_is_no_broadcast() {
    let mut world = World::new(1, "fd00::/120", 1);
    let mut addrs: Vec<IpAddr> = (0..4).map(|n| world.address(0, port(n), &[])).collect();
    assert_eq!(addrs[..2], ["fd00::2".parse::<IpAddr>().unwrap(), "fd00::3".parse().unwrap()]);
    for (addr, code) in [
        ("fd00::", "address_reserved"),
        ("fd00::1", "address_reserved"),
        ("fd00::1:0", "address_outside_range"),
        ("10.32.0.2", "address_outside_range"),
    ] {
        let request = world.allocate(0, port(50), &[addr]);
        assert_eq!(world.answer(0, request).unwrap_err().code(), code, "{addr}");
    }
    assert_eq!(world.address(0, port(51), &["fd00::ff"]).to_string(), "fd00::ff");
    world.release(0, port(1));
    for n in 0..250 {
        addrs.push(world.address(0, port(100 + n), &[]));
    }
    assert_eq!(addrs.last().unwrap().to_string(), "fd00::3", "the freed one comes last");
    let request = world.allocate(0, port(400), &[]);
    let error = world.answer(0, request).unwrap_err().to_string();
    assert!(error.contains("254 of 254") && error.contains("fd00::/120"), "{error}");
}

#[test]
fn the_largest_pools_count_without_overflow() {
    for range in ["fd00::/8", "fd00::/4", "fd00::/52", "fd00::/76"] {
        let pool = Pool::new(range.parse().unwrap()).unwrap();
        assert_eq!(pool.units(), 4096, "{range}");
        let (first, last) = pool.bounds(4095);
        assert_eq!((pool.unit_of(first), pool.unit_of(last)), (Some(4095), Some(4095)), "{range}");
        let mut world = World::new(2, range, 9);
        let addr = world.address(0, port(1), &[]);
        assert_eq!(pool.unit_of(addr), Some(0), "{range}");
        let status = &world.hosts[0].ipam.status(world.now)[0];
        assert_eq!((status.used, status.owned), (1, pool.size()), "{range}");
        assert_eq!(world.hosts[0].ipam.owner_of(NETWORK, last), Some(id(0)), "{range}");
    }
}

#[test]
fn who_cannot_use_one_of_ipv6_gets_one_of_ipv4_alone() {
    let mut world = World::new(1, "10.32.0.0/12", 1);
    world.address(0, port(0), &[]);
    let front = NetworkId([7; 32]);
    let both = [subnets("10.7.0.0/24"), subnets("fd00:7::/64")].concat();
    world.hosts[0].ipam.found_network(front, "front", &both);
    world.hosts[0].ipam.add_network(front, "front", &both).unwrap();
    let mut got = |n: u64, without_ipv6, wanted: &[&str]| {
        let wanted = wanted.iter().map(|addr| addr.parse().unwrap()).collect();
        let what =
            AllocRequest { port: port(n), network: front, holder: String::new(), wanted, without_ipv6 };
        world.hosts[0].ipam.allocate(world.now, RequestId(n), what);
        world.drain(0);
        let addrs = world.answer(0, n).unwrap();
        addrs.iter().map(|prefix| prefix.addr.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(got(101, false, &[]), ["10.7.0.2", "fd00:7::2"]);
    assert_eq!(got(102, true, &[]), ["10.7.0.3"]);
    assert_eq!(got(103, true, &["fd00:7::9"]), ["10.7.0.4", "fd00:7::9"], "one that people asked for");
}
