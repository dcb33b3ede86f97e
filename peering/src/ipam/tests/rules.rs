//! The rules of allocation, one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{NETWORK, World, id, port, subnets};
use crate::ipam::{Ipam, IpamOutput};
use crate::mesh::{AllocError, AllocRequest, IpamState, RequestId};
use crate::proto::{Message, SpaceRequest};

#[test]
fn freed_addresses_come_back_oldest_first_and_after_all_others() {
    let mut world = World::new(1, "10.9.0.0/29", 1);
    let mut addrs: Vec<_> = (0..5).map(|n| world.address(0, port(n), &[]).to_string()).collect();
    assert_eq!(addrs, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
    for n in [3, 1, 4] {
        world.release(0, port(n));
    }
    addrs = (10..13).map(|n| world.address(0, port(n), &[]).to_string()).collect();
    assert_eq!(addrs, ["10.9.0.5", "10.9.0.3", "10.9.0.6"]);
    let request = world.allocate(0, port(20), &[]);
    let error = world.answer(0, request).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no free address in the network mesh (10.9.0.0/29): 5 of 5 are used; space is held by {} (5 of 5)",
            id(0)
        )
    );
    assert_eq!(world.hosts[0].ipam.status(world.now)[0].state, IpamState::Full);
}

#[test]
fn asking_twice_gives_the_same_address() {
    let mut world = World::new(1, "10.32.0.0/12", 1);
    let first = world.address(0, port(1), &[]);
    assert_eq!(world.address(0, port(1), &[]), first);
    assert_eq!(world.address(0, port(1), &[&first.to_string()]), first);
    assert_ne!(world.address(0, port(2), &[]), first);
}

/// The requests that were answered, and whether each got an address.
fn answered(ipam: &mut Ipam) -> Vec<(u64, bool)> {
    let outputs = std::iter::from_fn(|| ipam.poll_output());
    let answers = outputs.filter_map(|output| match output {
        IpamOutput::Allocated { request, result } => Some((request.0, result.is_ok())),
        _ => None,
    });
    answers.collect()
}

#[test]
fn an_answer_waits_for_the_write_that_holds_it_and_for_no_later_one() {
    let mut world = World::new(1, "10.32.0.0/12", 1);
    world.address(0, port(0), &[]);
    let (now, ipam) = (world.now, &mut world.hosts[0].ipam);
    let ask = |ipam: &mut Ipam, n: u64| {
        let holder = String::new();
        let what =
            AllocRequest { port: port(n), network: NETWORK, holder, wanted: Vec::new(), without_ipv6: false };
        ipam.allocate(now, RequestId(n), what);
    };
    ask(ipam, 101);
    ipam.write_started();
    for n in 102..110 {
        // The disk is never idle, and something changes during each write.
        ask(ipam, n);
        assert_eq!(answered(ipam), []);
        ipam.handle_persisted(now, Ok(()));
        assert_eq!(answered(ipam), [(n - 1, true)]);
        assert!(ipam.is_dirty());
        ipam.write_started();
    }
    ask(ipam, 110);
    ipam.handle_persisted(now, Err("no space left".to_owned()));
    assert_eq!(answered(ipam), [(109, false), (110, false)]);
    let held = Ipam::restore(id(0), [0; 32], &ipam.save().unwrap()).unwrap();
    for n in [108, 109, 110] {
        let addrs = held.state.networks[&NETWORK].local.of(id(0), port(n));
        assert_eq!(addrs.len(), usize::from(n == 108), "{n}");
    }
}

#[test]
fn wrong_addresses_are_refused_by_name() {
    let mut world = World::new(1, "10.32.0.0/12", 1);
    let holder = world.address(0, port(1), &["10.32.0.9"]);
    for (addr, code) in [
        ("10.32.0.0", "address_reserved"),
        ("10.32.0.1", "address_reserved"),
        ("10.47.255.255", "address_reserved"),
        ("10.48.0.0", "address_outside_range"),
        ("fd00::1", "address_outside_range"),
        ("10.32.0.9", "address_in_use"),
    ] {
        let request = world.allocate(0, port(2), &[addr]);
        let error = world.answer(0, request).unwrap_err();
        assert_eq!(error.code(), code, "{addr}");
    }
    let request = world.allocate(0, port(2), &["10.32.0.10", "10.32.0.9"]);
    let error = world.answer(0, request).unwrap_err();
    assert_eq!(error.to_string(), format!("{holder} is in use by port {} on host0", port(1)));
    assert!(world.hosts[0].ipam.status(world.now)[0].used == 1, "the first of the two is free again");
}

#[test]
fn an_address_of_another_host_is_allocated_by_it_and_freed_there() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    let first = world.address(0, port(1), &[]).to_string();
    world.run(Duration::from_secs(5));
    let request = world.allocate(1, port(2), &[&first]);
    let error = world.answer(1, request).unwrap_err();
    assert_eq!(error.to_string(), format!("{first} is in use by port {} on host0", port(1)));
    world.release(0, port(1));
    assert_eq!(world.address(1, port(2), &[&first]).to_string(), first);
    assert_eq!(world.address(1, port(2), &[&first]).to_string(), first);
    let request = world.allocate(0, port(3), &[&first]);
    assert!(matches!(world.answer(0, request).unwrap_err(), AllocError::InUse { .. }));
    world.release(1, port(2));
    world.run(Duration::from_secs(2));
    assert_eq!(world.address(0, port(3), &[&first]).to_string(), first);
}

#[test]
fn the_tombstone_of_an_endpoint_frees_its_address_at_the_owner() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    let first = world.address(0, port(1), &[]).to_string();
    world.release(0, port(1));
    world.run(Duration::from_secs(5));
    let addr = world.address(1, port(2), &[&first]);
    world.show(0, 1, port(2), &[addr], "db on host1");
    let request = world.allocate(0, port(3), &[&first]);
    assert!(world.answer(0, request).is_err());
    let now = world.now;
    world.hosts[0].ipam.remove_endpoint(now, id(1), port(2));
    world.drain(0);
    assert_eq!(world.address(0, port(3), &[&first]), addr);
}

#[test]
fn addresses_in_endpoint_records_are_skipped_and_named() {
    let mut world = World::new(1, "10.32.0.0/12", 1);
    let taken: Vec<_> = ["10.32.0.2", "10.32.0.3"].iter().map(|addr| addr.parse().unwrap()).collect();
    world.show(0, 5, port(9), &taken, "web on host5");
    assert_eq!(world.address(0, port(1), &[]).to_string(), "10.32.0.4");
    let request = world.allocate(0, port(2), &["10.32.0.3"]);
    let error = world.answer(0, request).unwrap_err();
    assert_eq!(error.to_string(), "10.32.0.3 is in use by web on host5");
    let now = world.now;
    world.hosts[0].ipam.remove_endpoint(now, id(5), port(9));
    assert_eq!(world.address(0, port(2), &["10.32.0.3"]).to_string(), "10.32.0.3");
}

#[test]
fn an_owner_that_is_down_is_named() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    let first = world.address(0, port(1), &[]).to_string();
    world.run(Duration::from_secs(5));
    world.partition(&[0], &[1], true);
    let request = world.allocate(1, port(2), &[&first]);
    let error = world.answer(1, request).unwrap_err();
    assert_eq!(error.to_string(), format!("{first} can only be given by host0, which is down"));
    assert!(world.address(1, port(2), &[]).is_ipv4(), "its own space goes on");
}

#[test]
fn a_donor_keeps_half_and_answers_a_repetition_alike() {
    let mut world = World::new(1, "10.9.0.0/24", 1);
    world.address(0, port(1), &[]);
    let request = SpaceRequest {
        id: 7,
        network: NETWORK,
        subnet: "10.9.0.0/24".parse().unwrap(),
        wanted: 4000,
        free: 0,
    };
    let mut answers = Vec::new();
    for _ in 0..2 {
        let now = world.now;
        world.hosts[0].ipam.handle_message(now, id(1), Message::SpaceRequest(request));
        let ipam = &mut world.hosts[0].ipam;
        if ipam.is_dirty() {
            assert_eq!(ipam.poll_output(), None, "nothing leaves before it is written");
            ipam.write_started();
            ipam.handle_persisted(now, Ok(()));
        }
        answers.extend(std::iter::from_fn(|| ipam.poll_output()).filter_map(|output| match output {
            IpamOutput::Send { message: Message::SpaceAnswer(answer), .. } => Some(answer),
            _ => None,
        }));
    }
    let given: u32 = answers[0].granted.runs.iter().map(|run| u32::from(run.last - run.first) + 1).sum();
    assert_eq!(given, 126, "252 units are free");
    assert_eq!(answers[0].granted, answers[1].granted);
    assert_eq!(world.hosts[0].ipam.status(world.now)[0].free, 126);
}

#[test]
fn a_full_disk_refuses_and_forgets() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    world.address(0, port(1), &[]);
    world.run(Duration::from_secs(5));
    let before = (world.hosts[0].ipam.save().unwrap(), world.hosts[0].ipam.units_hash());
    world.hosts[0].disk_full = true;
    let request = world.allocate(0, port(2), &[]);
    assert_eq!(world.answer(0, request).unwrap_err().code(), "store_failed");
    let now = world.now;
    let space =
        SpaceRequest { id: 7, network: NETWORK, subnet: "10.32.0.0/12".parse().unwrap(), wanted: 9, free: 0 };
    world.hosts[0].ipam.handle_message(now, id(1), Message::SpaceRequest(space));
    world.drain(0);
    assert_eq!((world.hosts[0].ipam.save().unwrap(), world.hosts[0].ipam.units_hash()), before);
    world.hosts[0].disk_full = false;
    assert_ne!(world.address(0, port(2), &[]), world.address(0, port(1), &[]));
}

#[test]
fn a_restart_keeps_what_is_wanted_and_frees_the_rest() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    let kept = world.address(0, port(1), &[]);
    world.address(0, port(2), &[]);
    let theirs = kept.to_string();
    world.run(Duration::from_secs(5));
    world.crash(0);
    let now = world.now;
    world.hosts[0].ipam.retain(now, &BTreeSet::from([port(1)]));
    world.drain(0);
    assert_eq!(world.hosts[0].ipam.status(world.now)[0].used, 1);
    assert_eq!(world.address(0, port(1), &[]).to_string(), theirs);
}

#[test]
fn a_lost_memory_adopts_the_addresses_of_its_ports() {
    let mut world = World::acquainted(2, "10.32.0.0/12", 1);
    let mine = world.address(0, port(1), &[]);
    world.run(Duration::from_secs(5));
    let theirs = world.address(1, port(5), &[]);
    world.release(1, port(5));
    world.hosts[0].ipam = Ipam::new(id(0), [8; 32]);
    world.hosts[0].ipam.add_network(NETWORK, "mesh", &subnets("10.32.0.0/12")).unwrap();
    let now = world.now;
    for table in world.hosts[1].ipam.unit_tables() {
        world.hosts[0].ipam.handle_message(now, id(1), Message::Units(table));
    }
    world.hosts[0].ipam.adopt(now, port(1), NETWORK, &[mine, theirs], "web");
    world.drain(0);
    world.run(Duration::from_secs(3));
    assert_ne!(world.address(0, port(9), &[]), mine);
    let request = world.allocate(1, port(6), &[&theirs.to_string()]);
    assert_eq!(world.answer(1, request).unwrap_err().to_string(), format!("{theirs} is in use by web"));
    world.release(0, port(1));
    world.run(Duration::from_secs(2));
    assert_eq!(world.address(1, port(6), &[&theirs.to_string()]), theirs);
}

#[test]
fn stored_bytes_of_another_release_or_none_are_errors() {
    let restore = |bytes: &[u8]| Ipam::restore(id(0), [0; 32], bytes).err().map(|error| error.to_string());
    assert_eq!(restore(&[]).unwrap(), "the addresses cannot be read");
    assert_eq!(restore(&[2]).unwrap(), "addresses of version 2 cannot be read by this release");
    assert!(restore(&[1, 1, 2]).is_some());
}
