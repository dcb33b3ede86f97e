//! Frames for the tests of the pure engine: built and judged by etherparse, never by the code under test.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests may fail")]

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    NetHeaders, PacketBuilder, PacketHeaders, TcpHeader, TcpOptionElement, TransportHeader,
};

use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut};
use engine::offload::join::{Coalesce, Joined, Joiner, Part};
use engine::packet::Slot;
use engine::types::{MacAddr, Vni};
use engine::wire::virtio::{self, VnetHeader};

pub(crate) const MTU: u16 = 1450;
pub(crate) const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
pub(crate) const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

pub(crate) fn vni() -> Vni {
    Vni::MESH
}

/// One TCP segment or UDP datagram, possibly far too long for the wire.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) tos: u8,
    pub(crate) timestamp: Option<u32>,
    pub(crate) psh: bool,
    pub(crate) fin: bool,
    pub(crate) cwr: bool,
    pub(crate) payload: Vec<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            v6: false,
            tcp: true,
            ports: (40_000, 5201),
            seq: 1_000_000,
            ack: 77,
            id: 500,
            dont_fragment: true,
            tos: 0,
            timestamp: Some(1),
            psh: false,
            fin: false,
            cwr: false,
            payload: vec![],
        }
    }
}

/// Bytes that no two places share by accident.
pub(crate) fn payload(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Spec {
    fn ip_header(&self) -> NetHeaders {
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::try_from(0x1_2345).unwrap(),
                payload_length: 0,
                next_header: IpNumber::TCP,
                hop_limit: 64,
                source: [0xfd; 16],
                destination: [0xfc; 16],
            };
            return NetHeaders::Ipv6(header, Ipv6Extensions::default());
        }
        let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, [10, 32, 0, 2], [10, 32, 0, 3]).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        header.dscp = etherparse::IpDscp::try_new(self.tos >> 2).unwrap();
        header.ecn = etherparse::IpEcn::try_new(self.tos & 3).unwrap();
        header.fragment_offset = IpFragOffset::ZERO;
        NetHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    /// The frame, all checksums right.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(A.0, B.0);
        let builder = match self.ip_header() {
            NetHeaders::Ipv4(header, ext) => builder.ip(etherparse::IpHeaders::Ipv4(header, ext)),
            NetHeaders::Ipv6(header, ext) => builder.ip(etherparse::IpHeaders::Ipv6(header, ext)),
            NetHeaders::Arp(_) => unreachable!("never made"),
        };
        let mut frame = vec![];
        if self.tcp {
            builder.tcp_header(self.tcp_header()).write(&mut frame, &self.payload).unwrap();
        } else {
            builder.udp(self.ports.0, self.ports.1).write(&mut frame, &self.payload).unwrap();
        }
        frame
    }

    fn tcp_header(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.ports.0, self.ports.1, self.seq, 512);
        tcp.ack = true;
        tcp.acknowledgment_number = self.ack;
        (tcp.psh, tcp.fin, tcp.cwr) = (self.psh, self.fin, self.cwr);
        if let Some(value) = self.timestamp {
            let options =
                [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(value, 9)];
            tcp.set_options(&options).unwrap();
        }
        tcp
    }

    pub(crate) fn l4(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    pub(crate) fn head_len(&self) -> usize {
        self.l4() + if self.tcp { 20 + self.timestamp.map_or(0, |_| 12) } else { 8 }
    }

    /// The frame as the kernel hands it over: partial checksum, cut into `gso_size` by whoever sends it.
    pub(crate) fn super_frame(&self, gso_size: u16) -> (VnetHeader, Vec<u8>) {
        let mut frame = self.frame();
        make_partial(&mut frame, self);
        let gso_type = match (self.tcp, self.v6) {
            (true, false) => virtio::GSO_TCPV4,
            (true, true) => virtio::GSO_TCPV6,
            (false, _) => virtio::GSO_UDP_L4,
        };
        let hdr_len = self.head_len() as u16;
        (VnetHeader { gso_type, gso_size, hdr_len, ..self.partial_header() }, frame)
    }

    pub(crate) fn partial_header(&self) -> VnetHeader {
        let csum_offset = if self.tcp { 16 } else { 6 };
        VnetHeader {
            flags: virtio::NEEDS_CSUM,
            csum_start: self.l4() as u16,
            csum_offset,
            ..VnetHeader::default()
        }
    }
}

/// Leaves the sum of the pseudo-header in the checksum field.
pub(crate) fn make_partial(frame: &mut [u8], spec: &Spec) {
    let addresses = if spec.v6 { 22..54 } else { 26..34 };
    let len = (frame.len() - spec.l4()) as u32;
    let mut sum: u32 = frame[addresses].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum += len + if spec.tcp { 6 } else { 17 };
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = spec.l4() + if spec.tcp { 16 } else { 6 };
    frame[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

/// Panics unless every checksum of the frame is right; gives the parsed headers.
pub(crate) fn judge(frame: &[u8]) -> PacketHeaders<'_> {
    let parsed = PacketHeaders::from_ethernet_slice(frame).expect("a frame that etherparse reads");
    let payload = parsed.payload.slice();
    match (parsed.net.as_ref().expect("an IP packet"), parsed.transport.as_ref().expect("a transport")) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            match transport {
                TransportHeader::Tcp(tcp) => {
                    assert_eq!(Ok(tcp.checksum), tcp.calc_checksum_ipv4(ip, payload))
                }
                TransportHeader::Udp(udp) => {
                    assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv4(ip, payload))
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
            assert_eq!(Ok(tcp.checksum), tcp.calc_checksum_ipv6(ip, payload));
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
            assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv6(ip, payload));
        }
        (net, transport) => panic!("unexpected {net:?} {transport:?}"),
    }
    parsed
}

/// The UDP payloads that a frame becomes.
pub(crate) fn cut_one(
    vnet: VnetHeader,
    frame: &[u8],
    mtu: u16,
) -> Result<Vec<Vec<u8>>, engine::counters::DropReason> {
    // Not at the start of the arena, so that offsets and places cannot be confused.
    let mut arena = vec![0xee; 74];
    arena.extend_from_slice(frame);
    let slot = Slot { vnet, start: 74, end: arena.len() as u32 };
    let mut out = Outbox::new();
    assert_eq!(cut(&arena, &slot, vni(), mtu, &mut out)?, Intake::Taken);
    Ok(out.datagrams().iter().map(|datagram| out.pieces(datagram, &arena).concat()).collect())
}

/// What comes out of a joiner that is given `frames` in this order, all from one remote.
pub(crate) fn join_all(frames: &[Vec<u8>], mtu: u16) -> Vec<(VnetHeader, Vec<u8>, u16)> {
    let mut joiner = Joiner::new(Coalesce { tcp: true, udp: true });
    let mut arena = vec![];
    let mut parts = vec![];
    for frame in frames {
        let start = arena.len() as u32;
        arena.extend_from_slice(frame);
        parts.push(Part { frame: start..arena.len() as u32, gso_size: 0 });
    }
    let mut out = vec![];
    for part in parts {
        if joiner.push(&arena, remote(), vni(), mtu, part.clone()) == Ok(Intake::Full) {
            drain(&mut joiner, &arena, &mut out);
            assert_eq!(joiner.push(&arena, remote(), vni(), mtu, part), Ok(Intake::Taken));
        }
    }
    drain(&mut joiner, &arena, &mut out);
    out
}

fn drain(joiner: &mut Joiner, arena: &[u8], out: &mut Vec<(VnetHeader, Vec<u8>, u16)>) {
    joiner.finish();
    out.extend(
        joiner.joined().iter().map(|joined| (joined.vnet, whole(joiner, joined, arena), joined.segments)),
    );
    joiner.clear();
}

/// A joined frame in one piece.
pub(crate) fn whole(joiner: &Joiner, joined: &Joined, arena: &[u8]) -> Vec<u8> {
    let mut frame = joiner.head(joined).to_vec();
    for body in joiner.bodies(joined) {
        frame.extend_from_slice(&arena[body.start as usize..body.end as usize]);
    }
    assert_eq!(frame.len(), joined.len as usize);
    assert!(frame.starts_with(joiner.start(joined, arena)));
    frame
}

/// Some remote, as the tables would name it.
pub(crate) fn remote() -> engine::tables::RemoteIndex {
    use std::time::Instant;
    let mut registry = engine::tables::Registry::new(Instant::now());
    let addr = "192.0.2.1:4789".parse().unwrap();
    registry.apply(engine::Update::SetNetwork {
        vni: vni(),
        name: String::new(),
        mtu: MTU,
        sealed: false,
        gateways: vec![],
    });
    registry.apply(engine::Update::AddVtep { vni: vni(), addr });
    registry.tables().source(addr.ip(), vni()).unwrap()
}
