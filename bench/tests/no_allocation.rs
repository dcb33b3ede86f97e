//! At steady state the path from frame to frame allocates nothing: counted by the allocator itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test has a clock, threads and files"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bench::alloc::{self, Counting};
use engine::counters::DropReason;
use engine::fdb::MAX_LEARNED;
use engine::fence::Fence;
use engine::io::device::{self, PortSpec};
use engine::io::engine::{Engine, EngineConfig, PortSettings};
use engine::io::netns::Netns;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut};
use engine::offload::join::{Coalesce, Joiner, parts};
use engine::packet::Batch;
use engine::session::keeper::Identity;
use engine::session::noise::StaticKey;
use engine::session::psk::Psk;
use engine::session::sessions::REKEY_AFTER;
use engine::session::suite::Suite;
use engine::switch::{Classes, Port, Switch, Verdict};
use engine::tables::Registry;
use engine::types::{Claim, IpPrefix, Location, MacAddr, PeerId, PeerKeys, PortId, Vni};
use engine::wire::sealed::OVERHEAD;
use engine::wire::{virtio, vxlan};
use engine::{Event, Update};
use netns_tests::{Addressed, Container, Host, IperfServer, Topology, Transport, pause, secs};

#[path = "../../engine/tests/support/mod.rs"]
mod support;

use support::{A, B, MTU, Spec, payload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NET: Vni = Vni::MESH;

#[test]
fn the_counter_sees_what_is_allocated() {
    let before = alloc::of_this_thread();
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(alloc::of_this_thread(), before + 1);
    let thread = std::thread::Builder::new().name("counted".into());
    let seen = thread.spawn(|| (alloc::of_threads("counted"), alloc::of_this_thread())).unwrap();
    let (threads, own) = seen.join().unwrap();
    assert!(threads.len() == 1 && threads[0].1 > 0 && threads[0].1 <= own, "{threads:?} of {own}");
}

/// One host in memory: what it cuts, it is given back as from a VTEP.
struct Loop {
    switch: Switch,
    from: Port,
    batch: Batch,
    classes: Classes,
    outbox: Outbox,
    joiner: Joiner,
    underlay: Vec<u8>,
    now: Instant,
}

impl Loop {
    fn new() -> Self {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        registry.apply(Update::SetNetwork {
            vni: NET,
            name: String::new(),
            mtu: MTU,
            sealed: false,
            gateways: vec![],
        });
        registry.apply(Update::AddVtep { vni: NET, addr: vtep() });
        let from = Port::Tap(registry.add_port(PortId([1; 8]), NET, None));
        Loop {
            switch: Switch::new(registry.tables()),
            from,
            batch: Batch::new(),
            classes: Classes::new(),
            outbox: Outbox::new(),
            joiner: Joiner::new(Coalesce { tcp: true, udp: true }),
            underlay: Vec::with_capacity(1 << 20),
            now,
        }
    }

    /// Reads, classifies and cuts, then opens, joins and forwards; returns the frames that came back.
    fn round(&mut self, reads: &[Vec<u8>]) -> usize {
        self.now += Duration::from_millis(1);
        self.batch.clear();
        for read in reads {
            self.batch.room()[..read.len()].copy_from_slice(read);
            self.batch.commit(read.len()).unwrap();
        }
        self.switch.classify(self.now, self.from, NET, &self.batch, &mut self.classes);
        let slots = self.classes.unicast().flat_map(|(_, _, group)| group.iter().map(|routed| routed.slot));
        let floods = self.classes.floods().iter().map(|flooded| flooded.slot);
        self.outbox.clear();
        for slot in floods.chain(slots) {
            let slot = &self.batch.frames()[usize::from(slot)];
            assert_eq!(cut(self.batch.arena(), slot, NET, MTU, &mut self.outbox), Ok(Intake::Taken));
        }
        assert!(self.outbox.runs(64, 65_490).count() > 0);
        self.receive()
    }

    fn receive(&mut self) -> usize {
        let from = self.switch.tables().source(vtep().ip(), NET).unwrap();
        self.underlay.clear();
        self.joiner.clear();
        for datagram in self.outbox.datagrams() {
            self.outbox
                .pieces(datagram, self.batch.arena())
                .iter()
                .for_each(|piece| self.underlay.extend_from_slice(piece));
        }
        let mut start = 0;
        for datagram in self.outbox.datagrams() {
            let end = start + datagram.len() as u32;
            for part in parts(&self.underlay, start..end, 0) {
                vxlan::parse(&self.underlay[start as usize..end as usize]).unwrap();
                let part = part.skip(vxlan::LEN);
                assert_eq!(self.joiner.push(&self.underlay, from, NET, MTU, part), Ok(Intake::Taken));
            }
            start = end;
        }
        self.joiner.finish();
        let mut came = 0;
        for joined in self.joiner.joined() {
            let start = self.joiner.start(joined, &self.underlay);
            // What was sent from here comes from there: nowhere but to local ports.
            let verdict = self.switch.forward(self.now, Port::Remote(from), NET, start);
            came += usize::from(!matches!(verdict, Verdict::Unicast(Port::Remote(_))));
            std::hint::black_box((self.joiner.head(joined), self.joiner.bodies(joined)));
        }
        came
    }
}

fn vtep() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], 4789))
}

/// Super-frames of TCP and UDP, small datagrams, a fragment's worth of noise, a broadcast.
fn reads() -> Vec<Vec<u8>> {
    let with = |(vnet, frame): (virtio::VnetHeader, Vec<u8>)| [&vnet.emit()[..], &frame].concat();
    let plain = |frame: Vec<u8>| with((virtio::VnetHeader::default(), frame));
    let tcp = Spec { payload: payload(50_000, 1), ..Spec::default() };
    let udp = Spec { tcp: false, timestamp: None, payload: payload(20_000, 2), ..Spec::default() };
    let small = |port| Spec {
        tcp: false,
        timestamp: None,
        ports: (port, 53),
        payload: payload(80, 3),
        ..Spec::default()
    };
    let broadcast = [&MacAddr::BROADCAST.0[..], &A.0, &[0x12, 0x34], &[7; 50]].concat();
    let mut reads = vec![with(tcp.super_frame(1386)), with(udp.super_frame(1400)), plain(broadcast)];
    reads.extend((1000..1020).map(|port| plain(small(port).frame())));
    reads
}

#[test]
fn the_pure_path_allocates_nothing() {
    let (mut host, reads) = (Loop::new(), reads());
    let warm: usize = (0..20).map(|_| host.round(&reads)).sum();
    assert!(warm >= 20, "nothing came through");
    let before = alloc::of_this_thread();
    let mut came = 0;
    for _ in 0..1000 {
        came += host.round(&reads);
    }
    let allocated = alloc::of_this_thread() - before;
    assert!(came >= 1000);
    assert_eq!(allocated, 0, "allocations in 1000 rounds of {} frames, {A} to {B}", reads.len());
}

#[test]
fn forged_sources_cost_a_bounded_table_and_then_nothing() {
    let (mut host, mut reads) = (Loop::new(), reads());
    let forge = |read: &mut Vec<u8>, number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        read[virtio::LEN + 6..virtio::LEN + 12].copy_from_slice(&[2, 9, 0, a, b, c]);
    };
    let mut number = 0;
    let mut flood = |host: &mut Loop, stations: u32| {
        let before = alloc::of_this_thread();
        for _ in 0..stations / reads.len() as u32 {
            for read in &mut reads {
                number += 1;
                forge(read, number);
            }
            host.round(&reads);
        }
        alloc::of_this_thread() - before
    };
    let learning = flood(&mut host, 100_000);
    let tables = std::sync::Arc::clone(host.switch.tables());
    let learned = tables.network(NET).unwrap().learned();
    assert_eq!(learned.len(), MAX_LEARNED, "of 100,000");
    // A table of pointers that grows by doubling, and an entry for each station.
    assert!(learning < 3 * MAX_LEARNED as u64, "{learning} allocations");
    assert_eq!(flood(&mut host, 100_000), 0, "a full table takes nobody in");
    assert_eq!(learned.len(), MAX_LEARNED);
}

/// An engine of this process in the namespace of a host, with one port.
struct Running {
    engine: Engine,
    events: Receiver<Event>,
    container: Container,
    address: IpPrefix,
}

impl Running {
    fn start(host: &Host, number: u8, sealed: bool) -> Running {
        let config = EngineConfig {
            workers: 2,
            listen: None,
            data_port: 4789,
            source_ports: 16,
            tunnel_gso: true,
            destinations: false,
            seed: [number; 32],
        };
        let netns = Netns::open(host.namespace().path()).unwrap();
        let container = Container::new(&format!("c{number}")).unwrap();
        let inside = Netns::open(container.namespace().path()).unwrap();
        let spec = spec(number, sealed);
        let address = spec.addresses[0];
        let (started, device) =
            netns.run(|| (Engine::start(&config), device::create(&spec, &inside))).unwrap();
        let (engine, events) = started.unwrap();
        engine.set_identity(Identity {
            key: key(number),
            start: 1,
            suites: vec![Suite::AesGcm],
            psks: vec![Psk::open()],
            renew_after: REKEY_AFTER,
            seed: [number; 32],
        });
        engine.apply([Update::SetNetwork {
            vni: NET,
            name: String::new(),
            mtu: mtu(sealed),
            sealed,
            gateways: vec![],
        }]);
        let fence = Fence::new(spec.mac, &[spec.addresses[0].addr]);
        engine
            .add_device(device.unwrap(), PortSettings { vni: NET, rate: None, fence: Some(fence) })
            .unwrap();
        Running { engine, events, container, address }
    }

    /// Tells the engine of the other host and its port.
    fn meet(&self, host: &Host, number: u8) {
        let peer = PeerId([number; 16]);
        let candidates = vec![SocketAddr::new(host.address().into(), 4789)];
        let (claim, there) = (Claim { version: 1, peer }, spec(number, false));
        self.engine.apply([
            Update::SetPeer {
                peer,
                candidates,
                unadvertised: None,
                networks: vec![NET],
                keys: Some(PeerKeys { noise: key(number).public(), suites: vec![1, 2] }),
                trusted: vec![],
            },
            Update::Pin {
                vni: NET,
                mac: there.mac,
                claim,
                location: Location::Peer(peer),
                addrs: there.addresses.iter().map(|prefix| prefix.addr).collect(),
            },
        ]);
    }

    fn wait_for_path(&self) {
        let mut events = std::iter::from_fn(|| self.events.recv_timeout(secs(10)).ok());
        assert!(events.any(|event| matches!(event, Event::PathUp { .. })), "no path");
    }
}

impl Addressed for Running {
    fn address(&self) -> std::net::IpAddr {
        self.address.addr
    }
}

/// What a wire of 1500 bytes leaves.
fn mtu(sealed: bool) -> u16 {
    if sealed { MTU - OVERHEAD as u16 } else { MTU }
}

fn spec(number: u8, sealed: bool) -> PortSpec {
    PortSpec {
        port: PortId([number; 8]),
        mac: MacAddr([2, 0, 0, 0, 0, number]),
        addresses: vec![IpPrefix { addr: [10, 32, 0, number].into(), len: 12 }],
        mtu: mtu(sealed),
        ifname: None,
        queues: 2,
    }
}

/// The private key of a host.
fn key(number: u8) -> StaticKey {
    StaticKey::new([number; 32])
}

/// TCP both ways and small datagrams, over a few connections.
fn traffic(server: &IperfServer, from: &Running) {
    for options in ["", "-R"] {
        server.measure(from.container.namespace(), Transport::Tcp { streams: 4 }, secs(1), options).unwrap();
    }
    let udp = Transport::Udp { payload_bytes: 64, bits_per_second: 5_000_000 };
    server.measure(from.container.namespace(), udp, secs(1), "-P 4").unwrap();
}

#[test]
fn workers_allocate_nothing_under_load() {
    // One after the other: threads are told apart by their names.
    carry("plain", false, 0);
    carry("sealed", true, 0);
    // What waits for a session is copied, once, and is nothing to what goes on beside it.
    carry("sealed, beside somebody who never gets a session", true, 10);
}

/// Traffic between two hosts, and `waiting` datagrams beside it for one that has no session.
fn carry(name: &str, sealed: bool, waiting: usize) {
    let net = Topology::new(&format!("two engines of one process, {name}")).unwrap().hosts(2).unwrap();
    let (one, two) = (Running::start(net.host(0), 1, sealed), Running::start(net.host(1), 2, sealed));
    one.meet(net.host(1), 2);
    two.meet(net.host(0), 1);
    [&one, &two].into_iter().for_each(Running::wait_for_path);
    if waiting > 0 {
        // It answers probes, and knows nothing of the key that handshakes are for.
        one.meet(net.host(1), 3);
        one.wait_for_path();
    }
    let server = IperfServer::start(two.container.namespace(), &two).unwrap();
    traffic(&server, &one);
    pause(secs(0.2));
    let before = alloc::of_threads("worker-");
    assert_eq!(before.len(), 4, "each worker allocated its buffers: {before:?}");
    let frames = |running: &Running| running.engine.snapshot().total.tap_in.frames;
    let carried = frames(&one) + frames(&two);
    let silent = one.container.namespace().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..waiting {
                silent.send_to(&[7; 100], (spec(3, true).addresses[0].addr, 7)).unwrap();
                pause(secs(0.2));
            }
        });
        traffic(&server, &one);
    });
    let after = alloc::of_threads("worker-");
    let carried = frames(&one) + frames(&two) - carried;
    assert!(carried > 10_000, "{carried} frames are no load");
    if waiting == 0 {
        return assert_eq!(before, after, "allocations of workers while they carried {carried} frames");
    }
    let sum = |threads: &[(_, u64)]| threads.iter().map(|(_, count)| count).sum::<u64>();
    let (kept, dropped) =
        (sum(&after) - sum(&before), one.engine.snapshot().total.dropped(DropReason::NoSession));
    // The datagrams, and the queue as it grows.
    assert!((1..=waiting as u64 + 10).contains(&kept), "{kept} allocations for {waiting} datagrams");
    assert!(dropped > 0, "nothing waited");
}
