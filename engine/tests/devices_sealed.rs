//! Two engines with sealed networks on a real kernel: containers, devices, sockets and workers.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use clocks, threads and plain sockets"
)]

mod devices_support;

use std::cell::RefCell;
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use devices_support::{eventually, namespace, prefix, wired_pair};
use engine::counters::DropReason;
use engine::fence::Fence;
use engine::io::device::{self, PortSpec};
use engine::io::engine::{Engine, EngineConfig, PortSettings};
use engine::io::netns::Netns;
use engine::io::socket;
use engine::session::keeper::Identity;
use engine::session::noise::StaticKey;
use engine::session::psk::Psk;
use engine::session::sessions::REKEY_AFTER;
use engine::session::suite::Suite;
use engine::types::{Claim, Location, MacAddr, PeerId, PeerKeys, PortId, Vni};
use engine::{Event, Update};

const NET: Vni = Vni::MESH;
const MTU: u16 = 1418;

/// An engine in its namespace, and a container with an address on the overlay.
struct Host {
    engine: Engine,
    events: Receiver<Event>,
    told: RefCell<Vec<Event>>,
    container: Netns,
}

fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn overlay(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 32, 0, number], 7000))
}

/// Host `number` in its `life`, with a container of its own.
fn start(netns: &Netns, number: u8, (life, secret): (u64, u8)) -> Host {
    start_as(netns, number, (life, secret), true)
}

fn start_as(netns: &Netns, number: u8, (life, secret): (u64, u8), sealed: bool) -> Host {
    let container = namespace();
    let config = EngineConfig {
        workers: 2,
        listen: None,
        data_port: 4789,
        source_ports: 16,
        tunnel_gso: true,
        destinations: false,
        seed: [number; 32],
    };
    let spec = PortSpec {
        port: PortId([number; 8]),
        mac: mac(number),
        addresses: vec![prefix(&overlay(number).ip().to_string(), 12)],
        mtu: MTU,
        ifname: None,
        queues: 2,
    };
    let started = netns.run(|| (Engine::start(&config), device::create(&spec, &container))).unwrap();
    let ((engine, events), device) = (started.0.unwrap(), started.1.unwrap());
    engine.set_identity(Identity {
        key: StaticKey::new([number; 32]),
        start: life,
        suites: vec![Suite::AesGcm, Suite::ChaChaPoly],
        psks: vec![Psk::new([secret; 32])],
        renew_after: REKEY_AFTER,
        seed: [number + life as u8; 32],
    });
    engine.apply([Update::SetNetwork { vni: NET, name: String::new(), mtu: MTU, sealed, gateways: vec![] }]);
    let fence = Fence::new(spec.mac, &[spec.addresses[0].addr]);
    engine.add_device(device, PortSettings { vni: NET, rate: None, fence: Some(fence) }).unwrap();
    Host { engine, events, told: RefCell::default(), container }
}

impl Host {
    /// Is told of the other host and its container.
    fn meet(&self, other: u8, suites: &[u16]) {
        let peer = PeerId([other; 16]);
        let keys = PeerKeys { noise: StaticKey::new([other; 32]).public(), suites: suites.to_vec() };
        let claim = Claim { version: 1, peer };
        let (location, addrs) = (Location::Peer(peer), vec![overlay(other).ip()]);
        self.engine.apply([
            Update::SetPeer {
                peer,
                candidates: vec![SocketAddr::from(([192, 0, 2, other], 4789))],
                unadvertised: None,
                networks: vec![NET],
                keys: Some(keys),
                trusted: vec![],
            },
            Update::Pin { vni: NET, mac: mac(other), claim, location, addrs },
        ]);
    }

    /// It has come, or comes now: what is waited for may be told in any order.
    fn wait_for(&self, wanted: impl Fn(&Event) -> bool) {
        let mut told = self.told.borrow_mut();
        while !told.iter().any(&wanted) {
            let event = self.events.recv_timeout(Duration::from_secs(15));
            told.push(event.unwrap());
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.engine.snapshot().total.dropped(reason)
    }
}

fn udp(host: &Host, number: u8) -> UdpSocket {
    let socket = host.container.run(|| UdpSocket::bind(overlay(number))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Datagrams pass both ways; the first may be what asks for the session.
fn both_ways(one: &Host, two: &Host) {
    let sockets = [udp(one, 1), udp(two, 2)];
    for (from, to, number) in [(0, 1, 2), (1, 0, 1)] {
        let mut buffer = [0; 2000];
        eventually("a datagram arrives", || {
            let _ = sockets[from].send_to(&[7; 1200], overlay(number));
            std::thread::sleep(Duration::from_millis(20));
            sockets[to].recv(&mut buffer).is_ok_and(|len| buffer[..len] == [7; 1200])
        });
    }
}

/// Ten million bytes arrive as they were sent.
fn stream(from: &Host, to: &Host, number: u8) {
    let listener = to.container.run(|| TcpListener::bind(overlay(number))).unwrap().unwrap();
    let bytes: Vec<u8> = (0..10_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut taken = vec![];
            listener.accept().unwrap().0.read_to_end(&mut taken).unwrap();
            taken
        });
        let mut giver = from.container.run(|| TcpStream::connect(overlay(number))).unwrap().unwrap();
        giver.write_all(&bytes).unwrap();
        drop(giver);
        assert!(taker.join().unwrap() == bytes);
    });
}

#[test]
fn sealed_traffic_flows_and_goes_on_after_a_restart() {
    for suites in [[1, 2], [2, 1]] {
        let wire = wired_pair();
        let (one, two) = (start(&wire[0], 1, (1, 0)), start(&wire[1], 2, (1, 0)));
        one.meet(2, &suites);
        two.meet(1, &suites);
        for host in [&one, &two] {
            host.wait_for(|event| matches!(event, Event::PathUp { mtu: MTU, .. }));
        }
        both_ways(&one, &two);
        let wanted = if suites[0] == 1 { Suite::AesGcm } else { Suite::ChaChaPoly };
        one.wait_for(|event| matches!(event, Event::SessionUp { suite, .. } if *suite == wanted));
        stream(&one, &two, 2);
        stream(&two, &one, 1);
        for host in [&one, &two] {
            eventually("the books balance", || {
                host.engine.snapshot().forwarded.conservation().difference() == 0
            });
            let snapshot = host.engine.snapshot();
            assert!(snapshot.total.super_frames_cut > 100, "what is sealed is cut in runs");
            assert!(snapshot.total.super_frames_whole == 0, "and never leaves whole");
            for reason in [DropReason::BadSealed, DropReason::Replayed, DropReason::PlainOnSealed] {
                assert_eq!(host.dropped(reason), 0, "{}", reason.name());
            }
        }

        drop(two);
        let two = start(&wire[1], 2, (2, 0));
        two.meet(1, &suites);
        both_ways(&one, &two);
    }
}

#[test]
fn a_plain_network_stays_plain_and_hosts_that_differ_exchange_nothing() {
    let wire = wired_pair();
    let (one, two) = (start_as(&wire[0], 1, (1, 0), false), start_as(&wire[1], 2, (1, 0), false));
    one.meet(2, &[1, 2]);
    two.meet(1, &[1, 2]);
    one.wait_for(|event| matches!(event, Event::PathUp { mtu: MTU, .. }));
    both_ways(&one, &two);
    stream(&one, &two, 2);
    one.told.borrow_mut().extend(one.events.try_iter());
    assert!(one.told.borrow().iter().all(|event| !matches!(event, Event::SessionUp { .. })));

    two.engine.apply([Update::SetNetwork {
        vni: NET,
        name: String::new(),
        mtu: MTU,
        sealed: true,
        gateways: vec![],
    }]);
    let (here, there) = (udp(&one, 1), udp(&two, 2));
    eventually("what comes in clear is refused", || {
        let _ = here.send_to(&[7; 100], overlay(2));
        std::thread::sleep(Duration::from_millis(50));
        two.dropped(DropReason::PlainOnSealed) > 0
    });
    assert!(there.recv(&mut [0; 100]).is_err(), "something arrived");
}

#[test]
fn initiations_behind_something_else_are_not_read() {
    let wire = wired_pair();
    let host = start(&wire[0], 1, (1, 0));
    let stranger = wire[1].run(|| socket::bind(None, 4789, 1)).unwrap().unwrap().control;
    let packet = |first: u8| {
        let datagrams: Vec<u8> = (0..30).flat_map(|_| [&[1][..], &[0; 159]].concat()).collect();
        let packet = [&[first][..], &[0; 159], &datagrams].concat();
        stranger.send("192.0.2.1:4789".parse().unwrap(), &[IoSlice::new(&packet)], Some(160)).unwrap();
    };
    packet(6);
    eventually("what comes in a packet of probes is dropped unread", || {
        host.dropped(DropReason::HandshakeLimit) == 30 && host.dropped(DropReason::UnknownSource) == 1
    });
    packet(1);
    // As many as there is time for.
    eventually("what comes by its own door is read", || {
        let (read, unread) =
            (host.dropped(DropReason::BadHandshake), host.dropped(DropReason::HandshakeLimit));
        read > 0 && read + unread == 30 + 31
    });
}

#[test]
fn with_another_secret_nothing_arrives() {
    let wire = wired_pair();
    let (one, two) = (start(&wire[0], 1, (1, 0)), start(&wire[1], 2, (1, 9)));
    one.meet(2, &[1, 2]);
    two.meet(1, &[1, 2]);
    one.wait_for(|event| matches!(event, Event::PathUp { .. }));
    let (here, there) = (udp(&one, 1), udp(&two, 2));
    eventually("the handshake is refused", || {
        let _ = here.send_to(&[7; 100], overlay(2));
        std::thread::sleep(Duration::from_millis(50));
        two.dropped(DropReason::StrangerHandshake) > 0 && one.dropped(DropReason::NoSession) > 0
    });
    assert!(there.recv(&mut [0; 100]).is_err(), "something arrived");
}
