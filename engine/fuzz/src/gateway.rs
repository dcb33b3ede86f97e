//! The gateway under whatever a container sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::counters::gateway::GatewayCounters;
use engine::gateway::names::Names;
use engine::gateway::{Gateway, Incoming, MAX_STREAMS_OF_PORT};
use engine::seam::{Event, Service, Update};
use engine::tables::Registry;
use engine::types::{Holder, IpPrefix, MacAddr, PeerId, PortId, Vni};
use engine::wire::checksum::Sum;
use engine::wire::ether;

const MTU: u16 = 1450;

fn names(port: PortId, forwards: bool) -> Names {
    let mut names = Names::default();
    let prefix = |addr: &str, len| IpPrefix { addr: addr.parse().expect("an address"), len };
    names.apply(&Update::SetNetwork {
        vni: Vni::MESH,
        name: "mesh".into(),
        mtu: MTU,
        sealed: false,
        gateways: vec![prefix("10.32.0.1", 12), prefix("fd00::1", 64)],
    });
    for id in 0..40 {
        names.apply(&Update::SetNames {
            vni: Vni::MESH,
            holder: Holder { peer: PeerId([id; 16]), id: [id; 8] },
            names: vec![["web", "db"][usize::from(id & 1)].into(), "crowd".into()],
            addrs: vec![[10, 32, 0, id].into()],
            services: vec![Service { name: "_http._tcp.web".into(), port: 80 }],
            suspected: id & 2 != 0,
        });
    }
    let links = vec![("c5".into(), "db".into())];
    names.apply(&Update::SetAsker { port, networks: vec![Vni::MESH], links, forwards });
    names
}

/// The first byte says how to read the rest: frames as they are; IP packets; segments or datagrams whose addresses and checksums
/// are right; DNS messages in datagrams. Steps are a length and so many bytes; time passes between them. Whatever comes, the
/// gateway does not fail, stays within its bounds, and sends only sound frames, to who asked.
#[allow(clippy::disallowed_methods, reason = "it starts at some instant; it is never asked again")]
pub fn gateway(data: &[u8]) {
    let Some((&mode, mut rest)) = data.split_first() else { return };
    let (mut now, port) = (Instant::now(), PortId([1; 8]));
    let names = names(port, mode & 0x80 != 0);
    let mut gateway = Gateway::new([mode; 32], Arc::new(GatewayCounters::default()));
    let index = Registry::new(now).add_port(port, Vni::MESH, None);
    while let [len, pause, behind @ ..] = rest {
        let (step, next) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = next;
        let frame = frame(mode, step);
        let partial = mode & 0x40 != 0;
        let incoming = Incoming { lane: 0, index, port, vni: Vni::MESH, mtu: MTU, partial, frame: &frame };
        let _ = gateway.handle_frame(now, &names, &incoming);
        while let Some(event) = gateway.poll_event() {
            let Event::Question { question, message, .. } = event else { panic!("{event:?}") };
            let mut answer = message;
            answer.get_mut(2).into_iter().for_each(|flags| *flags |= 0x80);
            if pause & 1 == 0 {
                gateway.handle_answer(now, &names, question, answer);
            }
        }
        now += Duration::from_millis(u64::from(*pause) * 10);
        if gateway.poll_timeout(now).is_some_and(|due| due <= now) {
            gateway.handle_timeout(now, &names);
        }
        drain(&mut gateway);
        assert!(gateway.streams() <= MAX_STREAMS_OF_PORT);
    }
    // In the end nothing is left.
    for _ in 0..1000 {
        let Some(due) = gateway.poll_timeout(now) else { return };
        now = now.max(due) + Duration::from_millis(1);
        gateway.handle_timeout(now, &names);
        drain(&mut gateway);
    }
    panic!("it does not come to rest");
}

fn drain(gateway: &mut Gateway) {
    while let Some(transmit) = gateway.poll_transmit() {
        assert!(transmit.frame.len() <= ether::LEN + usize::from(u16::MAX));
        assert_eq!(transmit.frame.get(6..12), Some(&MacAddr::gateway(Vni::MESH).0[..]));
    }
}

/// What the bytes of a step stand for.
fn frame(mode: u8, step: &[u8]) -> Vec<u8> {
    let (own, mac) = (MacAddr::gateway(Vni::MESH), MacAddr([2, 0, 0, 0, 0, 2]));
    match mode & 3 {
        0 => step.to_vec(),
        1 => [&ether::header(own, mac, if mode & 4 == 0 { ether::IPV4 } else { ether::IPV6 }), step].concat(),
        2 => packet(own, mac, step.first().copied().unwrap_or_default(), step.get(1..).unwrap_or_default()),
        _ => {
            let len = (step.len() as u16 + 8).to_be_bytes();
            let datagram = [&[0x99, 0x99, 0, 53, len[0], len[1], 0, 0], step].concat();
            packet(own, mac, 17, &datagram)
        }
    }
}

/// A sound IPv4 packet of `protocol` to the gateway; in TCP, a zero checksum is made right.
fn packet(own: MacAddr, mac: MacAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [10, 32, 0, 2, 10, 32, 0, 1];
    let len = payload.len() as u16;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend_from_slice(&addresses);
    engine::wire::ipv4::rewrite(&mut header, len + 20, 0);
    let mut payload = payload.to_vec();
    let place = match protocol {
        1 => Some(2),
        6 => Some(16),
        _ => None,
    };
    if let Some(place) = place.filter(|place| payload.get(*place..place + 2) == Some(&[0, 0])) {
        let pseudo = Sum::default().bytes(&addresses).word(u16::from(protocol)).word(len);
        let sum = if protocol == 1 { Sum::default() } else { pseudo }.bytes(&payload).checksum();
        payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }
    [&ether::header(own, mac, ether::IPV4)[..], &header, &payload].concat()
}
