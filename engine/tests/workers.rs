//! Eight workers over one set of tables, while the control side changes them all the time: each flow stays in order and
//! leaves from one port, every frame is accounted for, and what is learned stays bounded.
//!
//! A worker is what it is in the shell: a switch of its own and a pointer to the newest tables. Flows are dealt out to
//! workers once, as the kernel does it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test has a clock and threads")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use arc_swap::ArcSwap;
use engine::Update;
use engine::fdb::MAX_LEARNED;
use engine::offload::source_port::SourcePort;
use engine::packet::Batch;
use engine::switch::{Classes, Port, Switch};
use engine::tables::{PortIndex, Registry, Tables};
use engine::types::{Claim, Location, MacAddr, PeerId, PortId, Vni};
use engine::wire::virtio;
use support::{Spec, payload};

const NET: Vni = Vni::MESH;
const WORKERS: u16 = 8;
/// Flows of one worker: half of them TCP, half UDP.
const FLOWS: u16 = 16;
/// Batches of 64 frames that each worker carries: two million frames in all.
const BATCHES: u32 = 4_000;
/// Bytes of payload that hold the number of a frame.
const NUMBER: usize = 8;

/// The world that the control side changes.
struct Shared {
    tables: ArcSwap<Tables>,
    done: AtomicBool,
    published: AtomicU64,
}

#[test]
fn eight_workers_keep_every_flow_in_order_while_tables_change() {
    let start = Instant::now();
    let mut registry = Registry::new(start);
    registry.apply(Update::SetNetwork {
        vni: NET,
        name: String::new(),
        mtu: 1450,
        sealed: false,
        gateways: vec![],
    });
    for number in 1..=8 {
        registry.apply(set_peer(number));
        registry.set_path(PeerId([number; 16]), Some(addr(number)));
        registry.apply(pin(number, number));
    }
    let ports: Vec<PortIndex> =
        (0..WORKERS).map(|worker| registry.add_port(PortId([worker as u8; 8]), NET, None)).collect();
    let shared = Shared {
        tables: ArcSwap::new(registry.tables()),
        done: AtomicBool::new(false),
        published: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let workers: Vec<_> = ports
            .iter()
            .zip(0..)
            .map(|(&port, number)| {
                scope.spawn({
                    let shared = &shared;
                    move || work(shared, number, port, start)
                })
            })
            .collect();
        let control = scope.spawn(|| change(&shared, &mut registry, start));
        let counted: Vec<Counted> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        shared.done.store(true, Ordering::Relaxed);
        control.join().unwrap();
        let frames: u64 = counted.iter().map(|c| c.routed + c.flooded + c.dropped).sum();
        assert_eq!(frames, u64::from(BATCHES) * 64 * u64::from(WORKERS), "{counted:?}");
        assert!(counted.iter().all(|c| c.routed > 9 * (c.flooded + c.dropped)), "{counted:?}");
        assert!(counted.iter().all(|c| c.tables > 10), "tables changed under each: {counted:?}");
    });
    assert!(shared.published.load(Ordering::Relaxed) > 100, "the control side was starved");
    let tables = shared.tables.load();
    let learned = tables.network(NET).unwrap().learned().len();
    assert!((1..=MAX_LEARNED + usize::from(WORKERS)).contains(&learned), "{learned} stations");
}

/// What a worker did with its frames, and how many tables it has seen.
#[derive(Default, Debug)]
struct Counted {
    routed: u64,
    flooded: u64,
    dropped: u64,
    tables: u64,
}

/// One flow: its frame, the next number to send, the last one that left, and from where.
struct Flow {
    read: Vec<u8>,
    next: u64,
    left: Option<u64>,
    source: Option<SourcePort>,
}

fn work(shared: &Shared, number: u16, port: PortIndex, start: Instant) -> Counted {
    let mut switch = Switch::new(shared.tables.load_full());
    let (mut batch, mut classes) = (Batch::new(), Classes::new());
    let mut flows: Vec<Flow> = (0..FLOWS).map(|flow| new_flow(number, flow)).collect();
    let mut counted = Counted::default();
    let mut dealt = usize::from(number);
    for _ in 0..BATCHES {
        let tables = shared.tables.load();
        if !Arc::ptr_eq(&tables, switch.tables()) {
            switch.set_tables(Arc::clone(&tables));
            counted.tables += 1;
        }
        drop(tables);
        batch.clear();
        let mut of_slot = [0; 64];
        for slot in &mut of_slot {
            dealt += 1 + dealt % 3;
            *slot = dealt % flows.len();
            read(&mut batch, &mut flows[*slot]);
        }
        switch.classify(Instant::now().max(start), Port::Tap(port), NET, &batch, &mut classes);
        let mut check = |slot: u16, source: SourcePort| {
            let frame = batch.frames()[usize::from(slot)].frame(batch.arena());
            leave(&mut flows[of_slot[usize::from(slot)]], frame, source);
        };
        // A flow whose station nobody knows at the moment is flooded as a whole: the batch has one set of tables.
        classes.floods().iter().for_each(|flooded| check(flooded.slot, flooded.source));
        for (_, source, group) in classes.unicast() {
            group.iter().for_each(|routed| check(routed.slot, source));
            counted.routed += group.len() as u64;
        }
        counted.flooded += classes.floods().len() as u64;
        counted.dropped += classes.drops().len() as u64;
    }
    counted
}

/// A frame left: later than the one before of its flow, from the same port.
fn leave(flow: &mut Flow, frame: &[u8], source: SourcePort) {
    let number = u64::from_be_bytes(*frame.last_chunk::<NUMBER>().unwrap());
    assert!(flow.left.is_none_or(|left| left < number), "{number} left after {:?}", flow.left);
    flow.left = Some(number);
    assert_eq!(*flow.source.get_or_insert(source), source, "the flow changed its port");
}

fn new_flow(worker: u16, flow: u16) -> Flow {
    let tcp = flow.is_multiple_of(2);
    let spec = Spec {
        tcp,
        timestamp: tcp.then_some(1),
        ports: (1000 + worker * FLOWS + flow, 5201),
        payload: payload(64, 1),
        ..Spec::default()
    };
    let mut frame = spec.frame();
    frame[..6].copy_from_slice(&mac(1 + (flow % 8) as u8).0);
    frame[6..12].copy_from_slice(&[2, 1, 0, worker as u8, 0, flow as u8]);
    let read = [&virtio::VnetHeader::default().emit()[..], &frame].concat();
    Flow { read, next: 0, left: None, source: None }
}

fn read(batch: &mut Batch, flow: &mut Flow) {
    *flow.read.last_chunk_mut::<NUMBER>().unwrap() = flow.next.to_be_bytes();
    flow.next += 1;
    batch.room()[..flow.read.len()].copy_from_slice(&flow.read);
    batch.commit(flow.read.len()).unwrap();
}

/// The control side: stations move from host to host and go, ports and hosts come and go, learned entries age.
fn change(shared: &Shared, registry: &mut Registry, start: Instant) {
    let mut round = 0u8;
    while !shared.done.load(Ordering::Relaxed) {
        round = round.wrapping_add(1);
        let (station, host) = (1 + round % 8, 1 + round / 8 % 8);
        registry.apply(pin(station, host));
        let port = PortId([100; 8]);
        if round.is_multiple_of(2) {
            registry.add_port(port, NET, None);
        } else {
            registry.remove_port(port);
        }
        let visitor = PeerId([99; 16]);
        match round % 3 {
            0 => registry.apply(set_peer(99)),
            1 => registry.set_path(visitor, Some(addr(99))),
            _ => registry.apply(Update::RemovePeer { peer: visitor }),
        }
        if round.is_multiple_of(16) {
            registry.sweep(Instant::now().max(start));
        }
        shared.tables.store(registry.tables());
        shared.published.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
}

fn set_peer(number: u8) -> Update {
    let peer = PeerId([number; 16]);
    Update::SetPeer {
        peer,
        candidates: vec![addr(number)],
        unadvertised: None,
        networks: vec![NET],
        keys: None,
        trusted: vec![],
    }
}

/// The station of this number lives on that host now: the claim of one claimant, changed.
fn pin(station: u8, host: u8) -> Update {
    let claim = Claim { version: 1, peer: PeerId([station; 16]) };
    let location = Location::Peer(PeerId([host; 16]));
    Update::Pin { vni: NET, mac: mac(station), claim, location, addrs: vec![[10, 32, 0, station].into()] }
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 4789))
}
