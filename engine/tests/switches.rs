//! Hosts that exchange frames over a wire that loses, repeats and reorders: what arrives, where, and what never does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]

mod support;
#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::Update;
use engine::counters::DropReason;
use engine::types::{Claim, Location, MacAddr, PortId, Vni};
use engine::wire::virtio::VnetHeader;
use engine::wire::vxlan;
use support::{Spec, cut_one, payload, vni};
use world::{Burst, World, addr, peer_id};

/// A container: its host, its port and its MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Station {
    host: usize,
    port: PortId,
    mac: MacAddr,
    vni: Vni,
}

fn station(world: &mut World, number: u8, host: usize, vni: Vni, pinned: bool) -> Station {
    let station = Station { host, port: PortId([number; 8]), mac: MacAddr([2, 0, 0, 0, 0, number]), vni };
    world.attach(host, vni, station.port, pinned.then_some(station.mac));
    station
}

/// A frame of the spec from one station to another.
fn addressed(mut frame: Vec<u8>, from: Station, to: MacAddr) -> Vec<u8> {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.mac.0);
    frame
}

fn send(world: &mut World, from: Station, to: MacAddr, spec: &Spec, gso_size: u16) -> Vec<u8> {
    let (vnet, frame) = spec.super_frame(gso_size);
    let frame = addressed(frame, from, to);
    world.write(from.host, from.port, from.vni, &[(vnet, frame.clone())]);
    frame
}

fn hello(from: Station, to: MacAddr) -> (VnetHeader, Vec<u8>) {
    let spec = Spec { tcp: false, timestamp: None, payload: payload(40, 1), ..Spec::default() };
    (VnetHeader::default(), addressed(spec.frame(), from, to))
}

fn arrivals(world: &mut World) -> Vec<(usize, PortId)> {
    world.settle();
    let mut all: Vec<_> = world.delivered.drain(..).map(|d| (d.host, d.port)).collect();
    all.sort();
    all
}

#[test]
fn super_frames_cross_two_hosts_unchanged() {
    let mut world = World::new(2, &[vni()]);
    let (a, b) = (station(&mut world, 1, 0, vni(), true), station(&mut world, 2, 1, vni(), true));
    let c = station(&mut world, 3, 0, vni(), true);
    for v6 in [false, true] {
        let spec = Spec { v6, payload: payload(40_000, 7), psh: true, ..Spec::default() };
        let remote = send(&mut world, a, b.mac, &spec, 1300);
        let local = send(&mut world, a, c.mac, &spec, 1300);
        assert!(
            world.wire.iter().all(|burst| burst.stride == usize::from(1300 + spec.head_len() as u16 + 8))
        );
        world.settle();
        let [to_c, to_b] = &world.delivered[..] else { panic!("{:?}", world.delivered.len()) };
        assert_eq!((to_c.port, &to_c.frame), (c.port, &local));
        assert_eq!((to_b.port, &to_b.frame, to_b.vnet), (b.port, &remote, to_c.vnet));
        world.delivered.clear();
    }
    assert!(world.drops.is_empty());
}

#[test]
fn a_flood_reaches_every_port_of_its_network_once() {
    let other = Vni::new(7).unwrap();
    let mut world = World::new(3, &[vni(), other]);
    let stations: Vec<_> = (0..6).map(|i| station(&mut world, i, usize::from(i) / 2, vni(), false)).collect();
    station(&mut world, 9, 1, other, false);
    world.write(0, stations[0].port, vni(), &[hello(stations[0], MacAddr::BROADCAST)]);
    let expected: Vec<_> = stations[1..].iter().map(|s| (s.host, s.port)).collect();
    assert_eq!(arrivals(&mut world), expected);
    // Everybody has learned where the sender is; nobody knows where station 5 is until it speaks.
    world.write(2, stations[5].port, vni(), &[hello(stations[5], stations[0].mac)]);
    assert_eq!(arrivals(&mut world), [(0, stations[0].port)]);
    world.write(0, stations[1].port, vni(), &[hello(stations[1], stations[5].mac)]);
    assert_eq!(arrivals(&mut world), [(2, stations[5].port)]);
    world.advance(Duration::from_secs(301));
    world.write(0, stations[1].port, vni(), &[hello(stations[1], stations[5].mac)]);
    assert_eq!(arrivals(&mut world).len(), 5);
}

#[test]
fn networks_do_not_meet() {
    let other = Vni::new(7).unwrap();
    let mut world = World::new(2, &[vni(), other]);
    let a = station(&mut world, 1, 0, vni(), true);
    let b = station(&mut world, 2, 1, other, true);
    world.write(0, a.port, vni(), &[hello(a, b.mac), hello(a, MacAddr::BROADCAST)]);
    assert!(arrivals(&mut world).is_empty());
    // A host that takes no part in the network cannot speak in it.
    let (_, frame) = hello(a, b.mac);
    let bytes = [&vxlan::header(other)[..], &frame].concat();
    world.hosts[1].registry.apply(Update::SetPeer {
        peer: peer_id(0),
        candidates: vec![addr(0)],
        unadvertised: None,
        networks: vec![vni()],
        keys: None,
        trusted: vec![],
    });
    world.receive(&Burst { from: addr(0), to: addr(1), stride: 0, bytes: bytes.clone() });
    world.receive(&Burst { from: addr(77), to: addr(1), stride: 0, bytes });
    assert!(world.delivered.is_empty());
    let drops: Vec<_> = world.drops.into_iter().collect();
    assert_eq!(drops, [(DropReason::UnknownSource, 1), (DropReason::NotOnNetwork, 1)]);
}

#[test]
fn a_container_that_moved_is_found_on_its_new_host() {
    let mut world = World::new(3, &[vni()]);
    let a = station(&mut world, 1, 0, vni(), true);
    let b = station(&mut world, 2, 1, vni(), true);
    world.write(0, a.port, vni(), &[hello(a, b.mac)]);
    assert_eq!(arrivals(&mut world), [(1, b.port)]);
    let moved = PortId([22; 8]);
    world.hosts[2].registry.add_port(moved, vni(), None);
    for (index, host) in world.hosts.iter_mut().enumerate() {
        let location = if index == 2 { Location::Port(moved) } else { Location::Peer(peer_id(2)) };
        let claim = Claim { version: 2, peer: peer_id(2) };
        host.registry.apply(Update::Pin { vni: vni(), mac: b.mac, claim, location, addrs: vec![] });
    }
    world.write(0, a.port, vni(), &[hello(a, b.mac)]);
    assert_eq!(arrivals(&mut world), [(2, moved)]);
    // The new host dies: the old claim was kept.
    for host in &mut world.hosts {
        host.registry.apply(Update::Unpin { vni: vni(), mac: b.mac, peer: peer_id(2) });
    }
    world.write(0, a.port, vni(), &[hello(a, b.mac)]);
    assert_eq!(arrivals(&mut world), [(1, b.port)]);
}

#[test]
fn a_peer_without_a_path_is_dropped_by_name() {
    let mut world = World::new(2, &[vni()]);
    let (a, b) = (station(&mut world, 1, 0, vni(), true), station(&mut world, 2, 1, vni(), true));
    world.hosts[0].registry.set_path(peer_id(1), None);
    world.write(0, a.port, vni(), &[hello(a, b.mac), hello(a, MacAddr::BROADCAST)]);
    assert!(arrivals(&mut world).is_empty());
    assert_eq!(world.drops, BTreeMap::from([(DropReason::NoPath, 1)]));
    // The other direction has one.
    world.write(1, b.port, vni(), &[hello(b, a.mac)]);
    assert_eq!(arrivals(&mut world), [(0, a.port)]);
}

/// Behind a fence; its addresses end like its MAC address.
fn fenced(world: &mut World, number: u8, host: usize) -> Station {
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    let station = Station { host, port: PortId([number; 8]), mac, vni: vni() };
    world.attach_fenced(host, vni(), station.port, mac);
    station
}

/// A UDP datagram that says it is from the station `source`, sent by another one.
fn datagram(from: MacAddr, source: u8, to: (MacAddr, [u8; 4]), ports: (u16, u16)) -> (VnetHeader, Vec<u8>) {
    let builder = etherparse::PacketBuilder::ethernet2(from.0, to.0.0).ipv4([10, 32, 0, source], to.1, 64);
    let mut frame = Vec::new();
    builder.udp(ports.0, ports.1).write(&mut frame, &[7; 40]).unwrap();
    (VnetHeader::default(), frame)
}

#[test]
fn behind_a_fence_a_container_speaks_for_itself() {
    let mut world = World::new(2, &[vni()]);
    let (a, b) = (fenced(&mut world, 1, 0), fenced(&mut world, 2, 1));
    let near = fenced(&mut world, 3, 0);
    let to = |station: Station| (station.mac, [10, 32, 0, station.mac.0[5]]);
    let spec = Spec { payload: payload(40_000, 3), ..Spec::default() };
    let (vnet, mut large) = spec.super_frame(1300);
    large[..6].copy_from_slice(&b.mac.0);
    large[6..12].copy_from_slice(&a.mac.0);
    world.write(
        0,
        a.port,
        vni(),
        &[
            datagram(a.mac, 1, to(b), (1000, 53)),
            datagram(a.mac, 2, to(b), (1000, 53)),
            datagram(near.mac, 3, to(b), (1000, 53)),
            datagram(a.mac, 1, to(near), (67, 68)),
            // Of a super-frame all segments are from one address, here not from that of the port.
            (vnet, large),
            datagram(a.mac, 1, to(near), (1000, 53)),
        ],
    );
    assert_eq!(arrivals(&mut world), [(0, near.port), (1, b.port)]);
    let held = [(DropReason::SpoofedMac, 1), (DropReason::SpoofedIp, 2), (DropReason::DhcpAnswer, 1)];
    assert_eq!(world.drops, BTreeMap::from(held));
}

#[test]
fn a_group_crosses_to_the_hosts_of_its_members() {
    let mut world = World::new(4, &[vni()]);
    let stations: Vec<_> = (1..=8).map(|n| fenced(&mut world, n, usize::from(n - 1) % 4)).collect();
    let (group, group_mac) = ([239, 1, 2, 3], MacAddr([1, 0, 0x5e, 1, 2, 3]));
    let igmp = |from: Station, kind: u8| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 32, 0, from.mac.0[5]];
        packet.extend([group, [kind, 0, 0, 0], group].concat());
        let header = engine::wire::ether::header(group_mac, from.mac, engine::wire::ether::IPV4);
        (VnetHeader::default(), [&header[..], &packet].concat())
    };
    let stream = |world: &mut World| {
        let from = stations[0];
        world.write(0, from.port, vni(), &[datagram(from.mac, 1, (group_mac, group), (1000, 5000))]);
        let hosts: BTreeSet<_> = world.wire.iter().map(|burst| burst.to).collect();
        (arrivals(world), hosts)
    };
    assert_eq!(stream(&mut world), (vec![], BTreeSet::new()));
    for member in [stations[4], stations[6]] {
        world.write(member.host, member.port, vni(), &[igmp(member, 0x16)]);
        assert!(arrivals(&mut world).is_empty(), "reports are for switches");
    }
    let members = vec![(0, stations[4].port), (2, stations[6].port)];
    assert_eq!(stream(&mut world), (members, BTreeSet::from([addr(2)])));
    // Renewed here, not there.
    world.advance(Duration::from_secs(200));
    world.write(0, stations[4].port, vni(), &[igmp(stations[4], 0x16)]);
    arrivals(&mut world);
    world.advance(Duration::from_secs(100));
    assert_eq!(stream(&mut world), (vec![(0, stations[4].port)], BTreeSet::new()));
    world.write(0, stations[4].port, vni(), &[igmp(stations[4], 0x17)]);
    arrivals(&mut world);
    assert_eq!(stream(&mut world), (vec![], BTreeSet::new()));
}

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn a_bad_wire_loses_but_never_invents_or_misdelivers() {
    for seed in 1..=12 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut world = World::new(3, &[vni()]);
        let stations: Vec<_> =
            (0..6).map(|i| station(&mut world, i, usize::from(i) % 3, vni(), true)).collect();
        let mut sent: BTreeMap<MacAddr, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut seq = 0;
        for _ in 0..60 {
            let (from, to) = (stations[random.below(6)], stations[random.below(6)]);
            if from == to {
                continue;
            }
            let size = 200 + random.below(1000);
            let len = 1 + random.below(20_000);
            let spec = Spec {
                v6: random.below(2) == 0,
                tcp: random.below(3) > 0,
                timestamp: None,
                ports: (1000 + u16::from(from.mac.0[5]), 80),
                seq,
                payload: payload(len, seq),
                ..Spec::default()
            };
            seq = seq.wrapping_add(len as u32);
            let frame = send(&mut world, from, to.mac, &spec, size as u16);
            let (vnet, _) = spec.super_frame(size as u16);
            let pieces = cut_one(vnet, &frame, support::MTU).unwrap();
            sent.entry(to.mac).or_default().extend(pieces.into_iter().map(|d| d[vxlan::LEN..].to_vec()));
            disturb(&mut world.wire, &mut random);
        }
        world.settle();
        assert!(world.delivered.len() > 20, "seed {seed}");
        for delivered in &world.delivered {
            let to = MacAddr(delivered.frame[..6].try_into().unwrap());
            let station = stations.iter().find(|station| station.mac == to).unwrap();
            assert_eq!((delivered.host, delivered.port), (station.host, station.port), "seed {seed}");
            for piece in cut_one(delivered.vnet, &delivered.frame, support::MTU).unwrap() {
                assert!(sent[&to].contains(&piece[vxlan::LEN..]), "seed {seed}");
            }
        }
        assert!(world.drops.is_empty(), "seed {seed}: {:?}", world.drops);
    }
}

/// Loses, repeats, swaps and splits what is on the wire, as networks and receive queues do.
fn disturb(wire: &mut Vec<Burst>, random: &mut Random) {
    let at = random.below(wire.len().max(1));
    let Some(burst) = wire.get(at).cloned() else { return };
    match random.below(8) {
        0 => drop(wire.remove(at)),
        1 => wire.push(burst),
        2 => wire.swap(0, at),
        3 if burst.stride > 0 => {
            let cut = burst.stride * (1 + random.below((burst.bytes.len() / burst.stride).max(1)));
            let (one, two) = burst.bytes.split_at(cut.min(burst.bytes.len()));
            wire[at].bytes = one.to_vec();
            wire.push(Burst { bytes: two.to_vec(), ..burst });
        }
        _ => {}
    }
}
