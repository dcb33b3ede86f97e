//! Hosts whose networks are sealed: what passes between them, what a wire or a stranger cannot make of it, and how each
//! loss is named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]

mod support;
#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Update;
use engine::counters::DropReason;
use engine::session::psk::Psk;
use engine::session::sealed::open;
use engine::session::suite::Suite;
use engine::types::{IpPrefix, MacAddr, PeerKeys, PortId, Vni};
use engine::wire::virtio::VnetHeader;
use engine::wire::{sealed, vxlan};
use support::{Spec, cut_one, payload, vni};
use world::{Burst, World, addr, peer_id};

/// The first word of every payload here.
const MARKER: &[u8] = b"nobody may read this";

#[derive(Clone, Copy)]
struct Station {
    host: usize,
    port: PortId,
    mac: MacAddr,
}

/// Two hosts with a container each, and a session between them.
struct Pair {
    world: World,
    stations: [Station; 2],
}

impl Pair {
    fn strangers(suite: Suite) -> Self {
        let mut pair = Pair { world: World::sealed(2, &[vni()], suite), stations: [station(0), station(1)] };
        (0..2).for_each(|host| pair.attach(host));
        pair
    }

    fn new(suite: Suite) -> Self {
        let mut pair = Self::strangers(suite);
        pair.write(0, &hello(1));
        assert_eq!(pair.arrivals(), [], "the first frame only asks for a session");
        assert_eq!(std::mem::take(&mut pair.world.drops), BTreeMap::from([(DropReason::NoSession, 1)]));
        pair
    }

    fn attach(&mut self, host: usize) {
        let Station { port, mac, .. } = self.stations[host];
        self.world.attach(host, vni(), port, Some(mac));
    }

    /// The container of `host` writes to the other one.
    fn write(&mut self, host: usize, (vnet, frame): &(VnetHeader, Vec<u8>)) -> Vec<u8> {
        let (from, to) = (self.stations[host], self.stations[1 - host]);
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&to.mac.0);
        frame[6..12].copy_from_slice(&from.mac.0);
        self.world.write(from.host, from.port, vni(), &[(*vnet, frame.clone())]);
        frame
    }

    fn arrivals(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        self.world.settle();
        self.world.delivered.drain(..).map(|delivered| (delivered.vnet, delivered.frame)).collect()
    }

    /// A frame each way, as it must be.
    fn both_ways(&mut self, number: u32) {
        for host in 0..2 {
            let frame = self.write(host, &hello(number));
            assert_eq!(self.arrivals(), [(VnetHeader::default(), frame)], "from host {host}");
        }
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.world.drops.iter().map(|(reason, count)| (*reason, *count)).collect()
    }
}

fn station(host: usize) -> Station {
    let number = host as u8 + 1;
    Station { host, port: PortId([number; 8]), mac: MacAddr([2, 0, 0, 0, 0, number]) }
}

fn marked(len: usize, salt: u32) -> Vec<u8> {
    [MARKER, &payload(len, salt)].concat()
}

fn hello(number: u32) -> (VnetHeader, Vec<u8>) {
    let spec = Spec { tcp: false, timestamp: None, payload: marked(40, number), ..Spec::default() };
    (VnetHeader::default(), spec.frame())
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn super_frames_cross_unchanged_and_nobody_sees_them() {
    for suite in Suite::ALL {
        let mut pair = Pair::new(suite);
        for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            let timestamp = tcp.then_some(1);
            let spec = Spec { v6, tcp, timestamp, payload: marked(40_000, 7), psh: tcp, ..Spec::default() };
            let (vnet, frame) = spec.super_frame(1300);
            let sent = pair.write(0, &(vnet, frame));
            let stride = 1300 + spec.head_len() + vxlan::LEN + sealed::OVERHEAD;
            for burst in &pair.world.wire {
                assert_eq!(burst.stride, stride, "one size but for the last: the kernel cuts");
                assert!(!contains(&burst.bytes, MARKER) && !contains(&burst.bytes, &sent[..12]));
                assert!(burst.bytes.chunks(stride).all(|datagram| datagram[0] == sealed::SEALED));
            }
            assert_eq!(pair.arrivals(), [(vnet, sent)], "v6 {v6}, tcp {tcp}");
        }
        assert_eq!(pair.drops(), []);
    }
}

#[test]
fn a_flood_goes_to_each_host_in_its_own_session() {
    let mut world = World::sealed(3, &[vni()], Suite::AesGcm);
    let stations = [0, 1, 2].map(station);
    stations.iter().for_each(|s| world.attach(s.host, vni(), s.port, None));
    let (vnet, mut frame) = hello(3);
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&stations[0].mac.0);
    for round in 0..2 {
        world.write(0, stations[0].port, vni(), &[(vnet, frame.clone())]);
        let bytes: Vec<_> = world.wire.iter().map(|burst| burst.bytes.clone()).collect();
        assert_eq!(bytes.len(), 2);
        assert_ne!(bytes[0], bytes[1]);
        world.settle();
        assert_eq!(world.delivered.len(), 2 * round, "sessions first");
    }
    assert_eq!(world.drops, BTreeMap::from([(DropReason::NoSession, 2)]));
}

#[test]
fn what_was_opened_once_is_never_opened_again() {
    let mut pair = Pair::new(Suite::AesGcm);
    let mut seen = vec![];
    for number in 0..20 {
        pair.write(0, &hello(number));
        seen.extend(pair.world.wire.iter().cloned());
        assert_eq!(pair.arrivals().len(), 1);
    }
    for _ in 0..500 {
        seen.iter().for_each(|burst| pair.world.receive(burst));
    }
    assert_eq!(pair.arrivals(), []);
    assert_eq!(pair.drops(), [(DropReason::Replayed, 10_000)]);
    // From wherever it comes: the address counts for nothing.
    pair.world.receive(&Burst { from: addr(77), ..seen[3].clone() });
    assert_eq!((pair.arrivals().len(), pair.drops()[0].1), (0, 10_001));
    pair.both_ways(99);
}

#[test]
fn frames_out_of_order_arrive_within_the_window_and_not_beyond() {
    let mut pair = Pair::new(Suite::ChaChaPoly);
    let late = pair.write(0, &hello(0));
    let held = pair.world.wire.pop().unwrap();
    for number in 1..4_000 {
        pair.write(0, &hello(number));
    }
    pair.world.wire.reverse();
    assert_eq!(pair.arrivals().len(), 3_999);
    pair.world.receive(&held);
    assert_eq!(pair.arrivals(), [(VnetHeader::default(), late)]);
    pair.write(0, &hello(1));
    let held = pair.world.wire.pop().unwrap();
    for number in 0..8_300 {
        pair.write(0, &hello(number));
    }
    assert_eq!(pair.arrivals().len(), 8_300);
    pair.world.receive(&held);
    assert_eq!(pair.arrivals(), []);
    assert_eq!(pair.drops(), [(DropReason::Replayed, 1)]);
}

#[test]
fn bent_and_truncated_datagrams_are_dropped_and_harm_nothing() {
    for suite in Suite::ALL {
        let mut pair = Pair::new(suite);
        pair.write(0, &hello(1));
        let burst = pair.world.wire.pop().unwrap();
        for at in 0..burst.bytes.len() {
            let mut bent = burst.clone();
            bent.bytes[at] ^= 0x41;
            pair.world.receive(&bent);
            pair.world.receive(&Burst { bytes: burst.bytes[..at].to_vec(), ..burst.clone() });
        }
        // What a changed number of the receiver asks for.
        pair.world.settle();
        assert_eq!(pair.arrivals(), []);
        let named = [DropReason::BadSealed, DropReason::UnknownSession, DropReason::Replayed];
        let others = [DropReason::TruncatedVxlan, DropReason::VxlanFlags];
        assert!(
            pair.drops().iter().all(|(r, _)| named.contains(r) || others.contains(r)),
            "{:?}",
            pair.drops()
        );
        // All but the one without a byte.
        assert_eq!(
            pair.drops().iter().map(|(_, count)| count).sum::<u64>(),
            2 * burst.bytes.len() as u64 - 1
        );
        pair.world.receive(&burst);
        assert_eq!(pair.arrivals().len(), 1, "the right one still fits");
        pair.both_ways(5);
    }
}

#[test]
fn a_session_is_renewed_under_way_and_nothing_is_lost() {
    let mut pair = Pair::new(Suite::AesGcm);
    let (mut sent, mut came, mut initiations) = (0, 0, 0);
    // Ten minutes, with frames in flight all the time.
    for number in 0..1200 {
        for host in 0..2 {
            pair.write(host, &hello(number));
            sent += 1;
        }
        pair.world.advance(Duration::from_millis(500));
        initiations += pair.world.wire.iter().filter(|burst| burst.bytes[0] == sealed::INITIATION).count();
        while pair.world.wire.len() > 2 {
            pair.world.step();
        }
        came += pair.world.delivered.drain(..).count();
    }
    came += pair.arrivals().len();
    assert_eq!(came, sent);
    // The wire takes longer than the first retry waits: an answer to what was repeated is no frame.
    assert!(
        pair.drops().iter().all(|(reason, _)| *reason == DropReason::StaleHandshake),
        "{:?}",
        pair.drops()
    );
    assert!(
        (4..=30).contains(&initiations),
        "{initiations}, repeated ones and those still on the wire included"
    );
}

#[test]
fn after_a_restart_traffic_flows_again_and_the_former_life_is_dead() {
    let mut pair = Pair::new(Suite::AesGcm);
    pair.both_ways(1);
    pair.write(1, &hello(2));
    let old = pair.world.wire.pop().unwrap();
    pair.world.restart(0, &[vni()], (Suite::AesGcm, 2, Psk::open()));
    (0..2).for_each(|host| pair.attach(host));
    // A second later the other host's frame for the session that is gone makes the new daemon begin another.
    pair.world.advance(Duration::from_secs(1));
    pair.write(1, &hello(3));
    assert_eq!(pair.arrivals(), []);
    assert_eq!(pair.drops(), [(DropReason::UnknownSession, 1)]);
    pair.both_ways(4);
    pair.world.receive(&old);
    assert_eq!(pair.arrivals(), []);
    pair.world.restart(0, &[vni()], (Suite::AesGcm, 3, Psk::open()));
    (0..2).for_each(|host| pair.attach(host));
    pair.write(0, &hello(5));
    assert_eq!(pair.arrivals(), [], "it begins by itself, too");
    pair.both_ways(6);
}

#[test]
fn hosts_with_different_secrets_exchange_nothing() {
    let mut pair = Pair::strangers(Suite::AesGcm);
    pair.world.restart(1, &[vni()], (Suite::AesGcm, 1, Psk::new([7; 32])));
    pair.attach(1);
    for number in 0..10 {
        for host in 0..2 {
            pair.write(host, &hello(number));
        }
        assert_eq!(pair.arrivals(), []);
        pair.world.advance(Duration::from_secs(1));
    }
    let named = [DropReason::NoSession, DropReason::StrangerHandshake];
    assert_eq!(pair.drops().iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), named);
}

#[test]
fn hosts_that_choose_other_suites_exchange_nothing() {
    // The peers' records say both, so each chooses its own: what is in the records has to be true.
    let mut pair = Pair::strangers(Suite::AesGcm);
    pair.world.restart(1, &[vni()], (Suite::ChaChaPoly, 1, Psk::open()));
    pair.attach(1);
    pair.write(0, &hello(1));
    assert_eq!(pair.arrivals(), []);
    assert_eq!(pair.drops(), [(DropReason::NoSession, 1), (DropReason::StrangerHandshake, 1)]);
}

#[test]
fn frames_in_clear_are_refused_on_a_sealed_network() {
    let mut pair = Pair::new(Suite::AesGcm);
    let mut frame = hello(1).1;
    frame[..6].copy_from_slice(&pair.stations[1].mac.0);
    frame[6..12].copy_from_slice(&pair.stations[0].mac.0);
    let bytes = [&vxlan::header(vni())[..], &frame].concat();
    pair.world.receive(&Burst { from: addr(0), to: addr(1), stride: 0, bytes });
    assert_eq!(pair.arrivals(), []);
    assert_eq!(pair.drops(), [(DropReason::PlainOnSealed, 1)]);
    // A declared VTEP gets nothing either: there is no session with one.
    let vtep = addr(50);
    pair.world.hosts[0].registry.apply(Update::AddVtep { vni: vni(), addr: vtep });
    let (vnet, mut frame) = hello(2);
    frame[..6].fill(0xff);
    pair.world.write(0, pair.stations[0].port, vni(), &[(vnet, frame)]);
    assert!(pair.world.wire.iter().all(|burst| burst.to != vtep));
}

/// Host `own` learns that it and host `other` trust the way between them, and whether the other end says so.
fn trust(world: &mut World, own: usize, other: usize, takes_clear: bool) {
    let registry = &mut world.hosts[own].registry;
    registry.apply(Update::SetPeer {
        peer: peer_id(other),
        candidates: vec![addr(other)],
        unadvertised: None,
        networks: vec![vni()],
        keys: None,
        trusted: vec![IpPrefix { addr: addr(0).ip(), len: 24 }],
    });
    registry.set_path(peer_id(other), Some(addr(other)));
    registry.set_sources(BTreeMap::from([(addr(other).ip(), addr(own).ip())]));
    registry.set_takes_clear(peer_id(other), takes_clear);
}

#[test]
fn hosts_that_trust_each_other_speak_in_clear_and_others_never_see_it() {
    let mut world = World::sealed(3, &[vni()], Suite::AesGcm);
    let stations = [0, 1, 2].map(station);
    stations.iter().for_each(|s| world.attach(s.host, vni(), s.port, Some(s.mac)));
    trust(&mut world, 0, 1, true);
    trust(&mut world, 1, 0, true);
    let (vnet, mut frame) = hello(1);
    frame[6..12].copy_from_slice(&stations[0].mac.0);
    // To everybody: in clear to the one, sealed to the other, in one batch.
    frame[..6].fill(0xff);
    for expected in [1, 2] {
        world.write(0, stations[0].port, vni(), &[(vnet, frame.clone())]);
        for burst in &world.wire {
            assert_eq!(contains(&burst.bytes, MARKER), burst.to == addr(1), "to {}", burst.to);
        }
        world.settle();
        assert_eq!(std::mem::take(&mut world.delivered).len(), expected, "sessions first");
    }
    // And to one alone.
    frame[..6].copy_from_slice(&stations[1].mac.0);
    world.write(0, stations[0].port, vni(), &[(vnet, frame.clone())]);
    assert!(world.wire.iter().all(|burst| contains(&burst.bytes, MARKER)));
    world.settle();
    assert_eq!(std::mem::take(&mut world.delivered).len(), 1);
    // The third host takes nothing in clear, also from a host that is trusted elsewhere.
    let bytes = [&vxlan::header(vni())[..], &frame].concat();
    world.receive(&Burst { from: addr(0), to: addr(2), stride: 0, bytes });
    assert!(world.delivered.is_empty());
    let reasons = [(DropReason::PlainOnSealed, 1), (DropReason::NoSession, 1)];
    assert_eq!(world.drops, BTreeMap::from(reasons));
}

#[test]
fn while_hosts_disagree_on_trust_frames_are_sealed() {
    let mut world = World::sealed(2, &[vni()], Suite::ChaChaPoly);
    let stations = [station(0), station(1)];
    stations.iter().for_each(|s| world.attach(s.host, vni(), s.port, Some(s.mac)));
    trust(&mut world, 0, 1, false);
    let (vnet, mut frame) = hello(1);
    frame[..6].copy_from_slice(&stations[1].mac.0);
    frame[6..12].copy_from_slice(&stations[0].mac.0);
    let write = |world: &mut World| {
        world.write(0, stations[0].port, vni(), &[(vnet, frame.clone())]);
        let seen = world.wire.iter().any(|burst| contains(&burst.bytes, MARKER));
        world.settle();
        (seen, world.delivered.drain(..).count())
    };
    assert_eq!([write(&mut world), write(&mut world)], [(false, 0), (false, 1)]);
    // They agree, and then do not any more: nothing is lost, and nothing is in clear that is not to be.
    trust(&mut world, 1, 0, true);
    trust(&mut world, 0, 1, true);
    assert_eq!(write(&mut world), (true, 1));
    world.hosts[0].registry.set_takes_clear(peer_id(1), false);
    assert_eq!(write(&mut world), (false, 1));
    assert_eq!(world.drops, BTreeMap::from([(DropReason::NoSession, 1)]));
}

#[test]
fn a_keepalive_of_a_former_session_does_not_tell_where_a_host_is() {
    let mut pair = Pair::new(Suite::AesGcm);
    let keepalive = |pair: &mut Pair| {
        let keeper = pair.world.hosts[0].keeper.as_mut().unwrap();
        keeper.show(peer_id(1));
        keeper.poll_transmit().unwrap().contents
    };
    let newest = |pair: &mut Pair, mut datagram: Vec<u8>| {
        let opened = open(&pair.world.hosts[1].registry.tables(), &mut datagram).unwrap();
        assert!(opened.frame.is_none() && opened.from.get() == 0);
        opened.newest
    };
    let [held_back, shown] = [(); 2].map(|()| keepalive(&mut pair));
    assert!(newest(&mut pair, shown));
    let later = keepalive(&mut pair);
    pair.world.advance(Duration::from_secs(2));
    let now = pair.world.now;
    pair.world.hosts[0].keeper.as_mut().unwrap().want_anew(now, peer_id(1));
    pair.arrivals();
    pair.both_ways(1);
    let current = keepalive(&mut pair);
    assert_ne!(current[4..8], later[4..8], "another session");
    assert!(!newest(&mut pair, held_back), "an earlier one of its session");
    assert!(!newest(&mut pair, later), "the last one of its session, which is not the newest");
    assert!(newest(&mut pair, current));
}

#[test]
fn a_peer_speaks_only_on_networks_that_it_has() {
    let other = Vni::new(7).unwrap();
    let mut world = World::sealed(2, &[vni(), other], Suite::AesGcm);
    let stations = [station(0), station(1)];
    stations.iter().for_each(|s| world.attach(s.host, other, s.port, Some(s.mac)));
    let (vnet, mut frame) = hello(1);
    frame[..6].copy_from_slice(&stations[1].mac.0);
    frame[6..12].copy_from_slice(&stations[0].mac.0);
    let frames = [(vnet, frame)];
    let write = |world: &mut World| {
        world.write(0, stations[0].port, other, &frames);
        world.settle();
        world.delivered.drain(..).count()
    };
    assert_eq!([write(&mut world), write(&mut world)], [0, 1]);
    let keys = PeerKeys { noise: [0; 32], suites: vec![1] };
    world.hosts[1].registry.apply(Update::SetPeer {
        peer: peer_id(0),
        candidates: vec![addr(0)],
        unadvertised: None,
        networks: vec![vni()],
        keys: Some(keys),
        trusted: vec![],
    });
    world.hosts[1].registry.set_path(peer_id(0), Some(addr(0)));
    assert_eq!(write(&mut world), 0);
    assert_eq!(world.drops[&DropReason::NotOnNetwork], 1);
}

/// Each frame comes out as a receiver without any offload would have it from the plain path, and what was wrong stays so.
#[test]
fn checksums_are_completed_where_they_must_and_repaired_nowhere() {
    let mut pair = Pair::new(Suite::AesGcm);
    let spec = Spec { payload: marked(200, 9), ..Spec::default() };
    let whole = spec.frame();
    let mut partial = whole.clone();
    support::make_partial(&mut partial, &spec);
    let mut wrong = whole.clone();
    wrong[60] ^= 1;
    let mut fragment = whole.clone();
    // More fragments follow.
    fragment[20] |= 0x20;
    let padded = [&partial[..], &[0; 6]].concat();
    // The sum of something inside, as of a tunnel.
    let inner = VnetHeader { csum_start: 70, csum_offset: 6, ..spec.partial_header() };
    let none = VnetHeader::default();
    for (name, vnet, frame) in [
        ("whole", none, whole.clone()),
        ("partial", spec.partial_header(), partial.clone()),
        ("looks partial, but is only wrong", none, partial.clone()),
        ("wrong", none, wrong),
        ("fragment", none, fragment),
        ("padded", spec.partial_header(), padded),
        ("inner", inner, whole),
    ] {
        let sent = pair.write(0, &(vnet, frame));
        let [(given, frame)] = &pair.arrivals()[..] else { panic!("{name}") };
        assert_eq!(given.needs_csum(), name == "partial", "{name}");
        let plain =
            |vnet, frame: &[u8]| cut_one(vnet, frame, support::MTU).unwrap()[0][vxlan::LEN..].to_vec();
        assert_eq!(plain(*given, frame), plain(vnet, &sent), "{name}");
        pair.world.advance(Duration::from_millis(1));
    }
    assert_eq!(pair.drops(), []);
}

#[test]
fn a_run_of_segments_with_a_wrong_one_is_joined_around_it() {
    let mut pair = Pair::new(Suite::AesGcm);
    let frames: Vec<Vec<u8>> = (0..6)
        .map(|i| {
            let spec = Spec { seq: i * 500, payload: payload(500, i), ..Spec::default() };
            let mut frame = spec.frame();
            if i == 3 {
                *frame.last_mut().unwrap() ^= 1;
            }
            frame
        })
        .collect();
    let (from, to) = (pair.stations[0], pair.stations[1]);
    let batch: Vec<_> = frames
        .iter()
        .map(|frame| {
            let mut frame = frame.clone();
            frame[..6].copy_from_slice(&to.mac.0);
            frame[6..12].copy_from_slice(&from.mac.0);
            (VnetHeader::default(), frame)
        })
        .collect();
    pair.world.write(0, from.port, vni(), &batch);
    let lens: Vec<_> = pair.arrivals().iter().map(|(vnet, frame)| (vnet.is_super(), frame.len())).collect();
    let one = batch[0].1.len();
    assert_eq!(lens, [(true, one + 1000), (false, one), (true, one + 500)]);
}
