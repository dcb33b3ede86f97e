#![allow(clippy::disallowed_methods, reason = "it starts at some instant; it is never asked again")]

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp as stack;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::packet::{ICMP, ICMPV6};
use super::*;
use crate::seam::Update;
use crate::types::{Holder, IpPrefix, MacAddr, PeerId};
use crate::wire::ether;

const PORT: PortId = PortId([1; 8]);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OWN_MAC: MacAddr = MacAddr::gateway(Vni::MESH);
const GATEWAY: [u8; 4] = [10, 32, 0, 1];
const ASKER: [u8; 4] = [10, 32, 0, 2];

/// A gateway, and what a container of it says and hears.
struct Bed {
    gateway: Gateway,
    names: Names,
    counters: Arc<GatewayCounters>,
    now: Instant,
}

fn v4(addr: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(addr).into()
}

/// From the container to the gateway: as the gateway would answer, the other way round.
fn ends(peer: IpAddr, own: IpAddr) -> Ends {
    Ends { mac: OWN_MAC, own_mac: MAC, peer: own, own: peer }
}

impl Bed {
    fn new() -> Self {
        let counters = Arc::new(GatewayCounters::default());
        let mut names = Names::default();
        let gateway = |addr: &str, len| IpPrefix { addr: addr.parse().unwrap(), len };
        names.apply(&Update::SetNetwork {
            vni: Vni::MESH,
            name: "mesh".into(),
            mtu: 1450,
            sealed: false,
            gateways: vec![gateway("10.32.0.1", 12), gateway("fd00::1", 64)],
        });
        for (id, name) in (3_u8..).zip(["web", "db", "crowd"]) {
            names.apply(&Update::SetNames {
                vni: Vni::MESH,
                holder: Holder { peer: PeerId([id; 16]), id: [id; 8] },
                names: vec![name.into()],
                addrs: vec![v4([10, 32, 0, id])],
                services: vec![],
                suspected: false,
            });
        }
        Bed { gateway: Gateway::new([9; 32], Arc::clone(&counters)), names, counters, now: Instant::now() }
    }

    fn forwards(mut self) -> Self {
        let networks = vec![Vni::MESH];
        self.names.apply(&Update::SetAsker { port: PORT, networks, links: vec![], forwards: true });
        self
    }

    fn send(&mut self, frame: &[u8], partial: bool) -> Result<(), DropReason> {
        let (index, port, vni) = (PortIndex(5), PORT, Vni::MESH);
        let incoming = Incoming { lane: 1, index, port, vni, mtu: 1450, partial, frame };
        self.gateway.handle_frame(self.now, &self.names, &incoming)
    }

    /// What the container is sent.
    fn heard(&mut self) -> Vec<Vec<u8>> {
        let transmits = std::iter::from_fn(|| self.gateway.poll_transmit());
        let frames = transmits.map(|transmit| {
            assert_eq!((transmit.lane, transmit.index, transmit.port), (1, PortIndex(5), PORT));
            assert_eq!(transmit.frame[..12], [MAC.0, OWN_MAC.0].concat());
            transmit.frame
        });
        frames.collect()
    }

    /// Asks over UDP; gives the answer as it came.
    fn ask(&mut self, message: &[u8]) -> Option<Message> {
        self.send(&ends(v4(ASKER), v4(GATEWAY)).datagram((40_000, 53), message).unwrap(), false).unwrap();
        let frames = self.heard();
        let [frame] = frames.as_slice() else { return None };
        let packet = Packet::open(frame, false).unwrap();
        assert_eq!((packet.ends.own, ports(packet.payload)), (v4(ASKER), Some((53, 40_000))));
        Some(Message::from_vec(&packet.payload[udp::LEN..]).unwrap())
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// An answer to [`question`] with nothing in it.
fn nothing(name: &str) -> Vec<u8> {
    let mut message = Message::response(0, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

#[test]
fn an_echo_request_is_answered() {
    let mut bed = Bed::new();
    for (peer, own, protocol, request, reply) in [
        (v4(ASKER), v4(GATEWAY), ICMP, 8, 0),
        ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap(), ICMPV6, 128, 129),
    ] {
        let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, 1];
        message.extend_from_slice(&[7; 1000]);
        let frame = ends(peer, own).sealed(protocol, 2, message.clone());
        bed.send(&frame, false).unwrap();
        let frames = bed.heard();
        let answer = Packet::open(&frames[0], false).expect("its checksums are right");
        assert_eq!((answer.ends.peer, answer.ends.own, answer.protocol), (own, peer, protocol));
        assert_eq!((answer.payload[0], &answer.payload[4..]), (reply, &message[4..]));
    }
    assert_eq!(bed.counters.totals().pings, 2);
}

impl Ends {
    /// A frame with a message whose checksum is made right.
    fn sealed(&self, protocol: u8, at: usize, mut message: Vec<u8>) -> Vec<u8> {
        self.finish(protocol, at, &mut message);
        self.frame(protocol, &message).unwrap()
    }
}

#[test]
fn a_question_over_udp_is_answered_at_once() {
    let mut bed = Bed::new();
    let answer = bed.ask(&question(7, "web")).unwrap();
    assert_eq!((answer.id, answer.answers[0].data.to_string().as_str()), (7, "10.32.0.3"));
    let counted = bed.counters.totals();
    assert_eq!((counted.questions, counted.answered, counted.forwarded), (1, 1, 0));
    assert!(bed.ask(&question(8, "nobody")).unwrap().answers.is_empty());
    assert_eq!(bed.counters.totals().nxdomain, 1);
}

#[test]
fn what_is_not_sound_is_dropped_by_name() {
    let mut bed = Bed::new();
    let to_us = ends(v4(ASKER), v4(GATEWAY));
    let good = to_us.datagram((40_000, 53), &question(1, "web")).unwrap();
    let change = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[at] = to;
        frame
    };
    let last = good.len() - 1;
    assert_eq!(bed.send(&change(last, 9), false), Err(DropReason::GatewayMalformed), "checksum");
    assert_eq!(bed.send(&change(last, 9), true), Ok(()), "not complete yet, as the sender says");
    assert_eq!(bed.send(&change(14 + 8, 1), false), Err(DropReason::GatewayMalformed), "header checksum");
    assert_eq!(bed.send(&good[..30], false), Err(DropReason::GatewayMalformed));
    assert_eq!(bed.send(&change(12, 0x12), false), Err(DropReason::GatewayMalformed), "no IP");
    let mut tagged = good.clone();
    tagged.splice(12..12, [0x81, 0, 0, 1]);
    assert_eq!(bed.send(&tagged, false), Err(DropReason::GatewayMalformed));
    let mut fragment = good.clone();
    fragment[14 + 6] = 0x20;
    ipv4::rewrite(&mut fragment[14..34], (good.len() - 14) as u16, 0);
    assert_eq!(bed.send(&fragment, false), Err(DropReason::GatewayFragment));
    let elsewhere = ends(v4(ASKER), v4([8, 8, 8, 8])).datagram((40_000, 53), &question(1, "web"));
    assert_eq!(bed.send(&elsewhere.unwrap(), false), Err(DropReason::GatewayNoRoute));
    let reply = to_us.datagram((40_000, 53), &nothing("web")).unwrap();
    assert_eq!(bed.send(&reply, false), Err(DropReason::GatewayNoQuestion));
    let other = to_us.frame(47, &[0; 20]).unwrap();
    assert_eq!(bed.send(&other, false), Err(DropReason::GatewayClosed));
    assert_eq!(bed.heard().len(), 1, "the one with the incomplete checksum");
}

#[test]
fn ports_where_nobody_listens_say_so_within_limits() {
    let mut bed = Bed::new();
    let to_us = ends(v4(ASKER), v4(GATEWAY));
    let datagram = to_us.datagram((40_000, 123), b"what time is it").unwrap();
    assert_eq!(bed.send(&datagram, false), Err(DropReason::GatewayClosed));
    let frames = bed.heard();
    let told = Packet::open(&frames[0], false).unwrap();
    assert_eq!((told.protocol, &told.payload[..2]), (ICMP, &[3, 3][..]));
    assert_eq!(told.payload[8..], datagram[14..], "with the packet that is meant");
    let syn = to_us.sealed(tcp::PROTOCOL, 16, segment(40_000, 22, 5, SYN));
    assert_eq!(bed.send(&syn, false), Err(DropReason::GatewayClosed));
    let frames = bed.heard();
    let reset = Packet::open(&frames[0], false).unwrap();
    assert_eq!((ports(reset.payload), reset.payload[13]), (Some((22, 40_000)), 0x14));
    assert_eq!(reset.payload[8..12], 6_u32.to_be_bytes(), "what was sent is acknowledged");
    let rst = to_us.sealed(tcp::PROTOCOL, 16, segment(40_000, 22, 5, 0x04));
    assert_eq!((bed.send(&rst, false), bed.heard().len()), (Err(DropReason::GatewayClosed), 0));
    for _ in 0..2 * REFUSALS_PER_SECOND {
        let _ = bed.send(&datagram, false);
    }
    assert!(bed.heard().len() < REFUSALS_PER_SECOND as usize);
    bed.now += Duration::from_secs(1);
    let _ = bed.send(&datagram, false);
    assert_eq!(bed.heard().len(), 1, "and again a second later");
}

fn segment(from: u16, to: u16, seq: u32, flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    segment
}

#[test]
fn names_of_others_are_asked_for_and_passed_on() {
    let mut bed = Bed::new().forwards();
    let asked = question(0x77, "www.example.com");
    assert_eq!(bed.ask(&asked), None);
    let Some(Event::Question { question: number, port, message, tcp }) = bed.gateway.poll_event() else {
        panic!("no question")
    };
    assert_eq!((port, message, tcp), (PORT, asked.clone(), false));
    bed.gateway.handle_answer(bed.now, &bed.names, number, nothing("www.example.com"));
    let frames = bed.heard();
    let packet = Packet::open(&frames[0], false).unwrap();
    assert_eq!(Message::from_vec(&packet.payload[udp::LEN..]).unwrap().id, 0x77);
    bed.gateway.handle_answer(bed.now, &bed.names, number, nothing("www.example.com"));
    assert!(bed.heard().is_empty(), "an answer is passed on once");
    assert_eq!(bed.ask(&asked), None);
    let due = bed.gateway.poll_timeout(bed.now).unwrap();
    bed.gateway.handle_timeout(due, &bed.names);
    assert_eq!((bed.gateway.poll_timeout(due), bed.counters.totals().unanswered), (None, 1));
    for _ in 0..questions::MAX_OPEN_OF_PORT {
        assert_eq!(bed.ask(&asked), None);
    }
    let refused = bed.ask(&asked).expect("an answer at once, when too many wait");
    assert_eq!(refused.response_code, ResponseCode::ServFail);
}

/// A container's side of TCP.
struct Client {
    stack: Interface,
    sockets: SocketSet<'static>,
    link: Wire,
    start: Instant,
}

#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sent<'_>)> {
        Some((Received(self.incoming.pop_front()?), Sent(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1450;
        capabilities
    }
}

impl Client {
    fn new(bed: &Bed, addr: IpAddr) -> Self {
        let mut link = Wire::default();
        let mut stack = Interface::new(Config::new(HardwareAddress::Ip), &mut link, StackInstant::ZERO);
        stack.update_ip_addrs(|addrs| addrs.push(IpCidr::new(addr.into(), 0)).unwrap());
        Client { stack, sockets: SocketSet::new(vec![]), link, start: bed.now }
    }

    fn connect(&mut self, to: IpAddr, from: u16) -> SocketHandle {
        let buffer = || stack::SocketBuffer::new(vec![0; 70_000]);
        let mut socket = stack::Socket::new(buffer(), buffer());
        let to: smoltcp::wire::IpAddress = to.into();
        socket.connect(self.stack.context(), (to, 53), from).unwrap();
        self.sockets.add(socket)
    }

    /// Lets both sides talk until they have nothing to say.
    fn talk(&mut self, bed: &mut Bed) {
        loop {
            let time = StackInstant::from_micros((bed.now - self.start).as_micros() as i64);
            self.stack.poll(time, &mut self.link, &mut self.sockets);
            bed.gateway.handle_timeout(bed.now, &bed.names);
            let mut quiet = true;
            for packet in self.link.outgoing.drain(..) {
                let kind = if packet[0] >> 4 == 4 { ether::IPV4 } else { ether::IPV6 };
                let frame = [&ether::header(OWN_MAC, MAC, kind)[..], &packet].concat();
                let _ = bed.send(&frame, false);
                quiet = false;
            }
            for frame in bed.heard() {
                self.link.incoming.push_back(frame[14..].to_vec());
                quiet = false;
            }
            if quiet {
                return;
            }
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut stack::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// The messages that have come.
    fn messages(&mut self, handle: SocketHandle) -> Vec<Message> {
        let mut bytes = vec![0; 70_000];
        let len = self.socket(handle).recv_slice(&mut bytes).unwrap_or_default();
        let (mut rest, mut messages) = (&bytes[..len], vec![]);
        while let [a, b, behind @ ..] = rest {
            let (message, next) = behind.split_at(usize::from(u16::from_be_bytes([*a, *b])));
            messages.push(Message::from_vec(message).unwrap());
            rest = next;
        }
        messages
    }
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect()
}

#[test]
fn questions_in_a_stream_are_answered_in_it() {
    for (own, gateway) in [(v4(ASKER), v4(GATEWAY)), ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap())]
    {
        let mut bed = Bed::new();
        let mut client = Client::new(&bed, own);
        let socket = client.connect(gateway, 50_000);
        client.talk(&mut bed);
        assert!(client.socket(socket).may_send());
        let bytes = framed(&[question(1, "web"), question(2, "nobody"), question(3, "db")]);
        // In pieces that know nothing of messages.
        for piece in bytes.chunks(19) {
            client.socket(socket).send_slice(piece).unwrap();
            client.talk(&mut bed);
        }
        let answers = client.messages(socket);
        assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(answers[2].answers[0].data.to_string(), "10.32.0.4");
        client.socket(socket).close();
        client.talk(&mut bed);
        assert!(bed.gateway.streams.is_empty(), "nothing is left of it");
        assert_eq!(bed.counters.totals().streams, 1);
    }
}

#[test]
fn a_long_answer_comes_whole_over_tcp() {
    let mut bed = Bed::new();
    for last in 0..250_u8 {
        bed.names.apply(&Update::SetNames {
            vni: Vni::MESH,
            holder: Holder { peer: PeerId([last; 16]), id: [99; 8] },
            names: vec!["crowd".into()],
            addrs: (0..10).map(|third| v4([10, 33, third, last])).collect(),
            services: vec![],
            suspected: false,
        });
    }
    assert!(bed.ask(&question(1, "crowd")).unwrap().truncation);
    let mut client = Client::new(&bed, v4(ASKER));
    let socket = client.connect(v4(GATEWAY), 50_000);
    client.talk(&mut bed);
    client.socket(socket).send_slice(&framed(&[question(2, "crowd")])).unwrap();
    client.talk(&mut bed);
    let answers = client.messages(socket);
    assert_eq!((answers[0].answers.len(), answers[0].truncation), (2501, false));
}

#[test]
fn a_stream_waits_for_the_answers_of_others() {
    let mut bed = Bed::new().forwards();
    let mut client = Client::new(&bed, v4(ASKER));
    let socket = client.connect(v4(GATEWAY), 50_000);
    client.talk(&mut bed);
    client.socket(socket).send_slice(&framed(&[question(1, "www.example.com"), question(2, "web")])).unwrap();
    client.socket(socket).close();
    client.talk(&mut bed);
    assert_eq!(client.messages(socket)[0].id, 2, "what is known comes first");
    let Some(Event::Question { question: number, tcp: true, .. }) = bed.gateway.poll_event() else {
        panic!("no question")
    };
    bed.gateway.handle_answer(bed.now, &bed.names, number, nothing("www.example.com"));
    client.talk(&mut bed);
    assert_eq!(client.messages(socket)[0].id, 1);
    // The client takes its time to acknowledge.
    bed.now += Duration::from_millis(20);
    client.talk(&mut bed);
    assert!(bed.gateway.streams.is_empty(), "then both sides are closed");
}

#[test]
fn streams_are_bounded_and_end_when_nobody_speaks() {
    let mut bed = Bed::new();
    let mut client = Client::new(&bed, v4(ASKER));
    let handles: Vec<_> =
        (0..MAX_STREAMS_OF_PORT as u16).map(|at| client.connect(v4(GATEWAY), 20_000 + at)).collect();
    client.talk(&mut bed);
    assert!(handles.iter().all(|&handle| client.socket(handle).may_send()));
    let to_us = ends(v4(ASKER), v4(GATEWAY));
    let syn = |from| to_us.sealed(tcp::PROTOCOL, 16, segment(from, 53, 5, SYN));
    assert_eq!(bed.send(&syn(40_000), false), Err(DropReason::GatewayStreams));
    client.socket(handles[0]).abort();
    client.talk(&mut bed);
    for from in 40_000..41_000 {
        assert_eq!(bed.send(&syn(from), false), Ok(()), "who does not answer gives way");
        assert!(bed.gateway.streams.len() <= MAX_STREAMS_OF_PORT);
    }
    bed.heard();
    // Those who never answered are gone first, then those who say nothing.
    for (seconds, left) in [(4, MAX_STREAMS_OF_PORT - 1), (20, 0)] {
        let end = bed.now + Duration::from_secs(seconds);
        while let Some(due) = bed.gateway.poll_timeout(bed.now).filter(|due| *due <= end) {
            bed.now = due.max(bed.now);
            bed.gateway.handle_timeout(bed.now, &bed.names);
            client.talk(&mut bed);
            bed.now += Duration::from_millis(1);
        }
        bed.now = end;
        assert_eq!(bed.gateway.streams.len(), left, "after {seconds} s");
    }
}

#[test]
fn what_cannot_be_a_question_ends_the_stream() {
    let mut bed = Bed::new();
    let mut client = Client::new(&bed, v4(ASKER));
    let socket = client.connect(v4(GATEWAY), 50_000);
    client.talk(&mut bed);
    client.socket(socket).send_slice(&[0xff, 0xff, 0, 0]).unwrap();
    client.talk(&mut bed);
    assert!(!client.socket(socket).is_open() && bed.gateway.streams.is_empty());
}
