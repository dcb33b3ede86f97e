//! One line for a frame, for people who look on.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, LaxNetSlice, LaxSlicedPacket,
    LinkSlice, TcpSlice, TransportSlice,
};

use super::pcapng::{LINKTYPE_RAW, Packet};

/// UDP port of VXLAN, the one after which Wireshark and tcpdump look too (RFC 7348 section 5).
const VXLAN_PORT: u16 = 4789;
const NANOSECONDS: u64 = 1_000_000_000;
/// Bytes before the frame in a VXLAN datagram.
const VXLAN_LEN: usize = 8;

/// `12:34:56.123456789 in  98 10.32.0.2 > 10.36.0.2: ICMP echo request`: time of day in UTC, direction, length in
/// bytes, and what it is.
pub(crate) fn line(link_type: u16, packet: &Packet<'_>) -> String {
    let (seconds, nanoseconds) = (packet.at_ns / NANOSECONDS, packet.at_ns % NANOSECONDS);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let direction = if packet.inbound { "in " } else { "out" };
    let bytes = packet.bytes.concat();
    let what = summary(link_type, &bytes);
    let len = packet.len;
    format!("{hours:02}:{minutes:02}:{seconds:02}.{nanoseconds:09} {direction} {len:>5} {what}\n")
}

/// What a frame is, as far as its first bytes tell.
pub(crate) fn summary(link_type: u16, bytes: &[u8]) -> String {
    let sliced = match link_type {
        LINKTYPE_RAW => LaxSlicedPacket::from_ip(bytes).ok(),
        _ => LaxSlicedPacket::from_ethernet(bytes).ok(),
    };
    sliced.map_or_else(|| "too short to be read".to_owned(), |sliced| describe(&sliced))
}

fn describe(packet: &LaxSlicedPacket<'_>) -> String {
    let mut text = String::new();
    for tag in packet.vlan_ids() {
        // Writing to a string cannot fail.
        let _ = write!(text, "vlan {}, ", tag.value());
    }
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            text + &flow(
                ends,
                packet.transport.as_ref(),
                header.protocol().0,
                header.is_fragmenting_payload(),
            )
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            let fragment = ip.is_payload_fragmented();
            text + &flow(ends, packet.transport.as_ref(), ip.payload().ip_number.0, fragment)
        }
        Some(LaxNetSlice::Arp(arp)) => text + &question(arp),
        None => text + &stations(packet),
    }
}

fn stations(packet: &LaxSlicedPacket<'_>) -> String {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return "not IP".to_owned() };
    let mac = |octets: [u8; 6]| octets.map(|octet| format!("{octet:02x}")).join(":");
    let (from, to) = (mac(ethernet.source()), mac(ethernet.destination()));
    format!("{from} > {to}: ethertype 0x{:04x}", ethernet.ether_type().0)
}

fn question(arp: &ArpPacketSlice<'_>) -> String {
    let ip = |octets: &[u8]| octets.first_chunk::<4>().map_or(Ipv4Addr::UNSPECIFIED, |o| Ipv4Addr::from(*o));
    let (sender, target) = (ip(arp.sender_protocol_addr()), ip(arp.target_protocol_addr()));
    if arp.operation().0 == 1 {
        format!("ARP: who has {target}? tell {sender}")
    } else {
        let mac: Vec<String> = arp.sender_hw_addr().iter().map(|octet| format!("{octet:02x}")).collect();
        format!("ARP: {sender} is at {}", mac.join(":"))
    }
}

fn flow(
    (from, to): (IpAddr, IpAddr),
    transport: Option<&TransportSlice<'_>>,
    protocol: u8,
    fragment: bool,
) -> String {
    match transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let (source, destination) = (tcp.source_port(), tcp.destination_port());
            format!("{from}:{source} > {to}:{destination}: TCP {}", segment(tcp))
        }
        Some(TransportSlice::Udp(udp)) => {
            let (source, destination) = (udp.source_port(), udp.destination_port());
            let payload = udp.payload();
            let inside = if destination == VXLAN_PORT { vxlan(payload) } else { None };
            let text =
                inside.unwrap_or_else(|| format!("{} bytes", usize::from(udp.length()).saturating_sub(8)));
            format!("{from}:{source} > {to}:{destination}: UDP {text}")
        }
        Some(TransportSlice::Icmpv4(icmp)) => format!("{from} > {to}: ICMP {}", icmpv4(icmp)),
        Some(TransportSlice::Icmpv6(icmp)) => format!("{from} > {to}: ICMPv6 {}", icmpv6(icmp)),
        Some(TransportSlice::Igmp(_)) => format!("{from} > {to}: IGMP"),
        None if fragment => format!("{from} > {to}: fragment, protocol {protocol}"),
        None => format!("{from} > {to}: protocol {protocol}"),
    }
}

fn segment(tcp: &TcpSlice<'_>) -> String {
    let flags = [
        (tcp.syn(), 'S'),
        (tcp.fin(), 'F'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
        (tcp.ack(), '.'),
    ];
    let flags: String = flags.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
    let (seq, ack, window) = (tcp.sequence_number(), tcp.acknowledgment_number(), tcp.window_size());
    format!("[{flags}] seq {seq} ack {ack} win {window} len {}", tcp.payload().len())
}

/// `vni 1 | ` and the frame inside.
fn vxlan(payload: &[u8]) -> Option<String> {
    let (header, frame) = payload.split_first_chunk::<VXLAN_LEN>()?;
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let inner = LaxSlicedPacket::from_ethernet(frame).ok()?;
    Some(format!("vni {vni} | {}", describe(&inner)))
}

fn icmpv4(icmp: &Icmpv4Slice<'_>) -> String {
    match icmp.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::DestinationUnreachable(_) => "destination unreachable".to_owned(),
        Icmpv4Type::TimeExceeded(_) => "time exceeded".to_owned(),
        _ => format!("type {}", icmp.type_u8()),
    }
}

fn icmpv6(icmp: &Icmpv6Slice<'_>) -> String {
    match icmp.icmp_type() {
        Icmpv6Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::NeighborSolicitation => "neighbour solicitation".to_owned(),
        Icmpv6Type::NeighborAdvertisement(_) => "neighbour advertisement".to_owned(),
        Icmpv6Type::RouterSolicitation => "router solicitation".to_owned(),
        _ => format!("type {}", icmp.type_u8()),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::super::outer;
    use super::super::pcapng::LINKTYPE_ETHERNET;
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn echo() -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(A, B).ipv4([10, 32, 0, 2], [10, 36, 0, 2], 64);
        let mut frame = Vec::new();
        builder.icmpv4_echo_request(7, 1).write(&mut frame, &[0; 56]).unwrap();
        frame
    }

    #[test]
    fn a_line_says_when_which_way_how_long_and_what() {
        let frame = echo();
        let at_ns = (3600 + 2 * 60 + 3) * NANOSECONDS + 4;
        let packet = Packet { at_ns, inbound: true, len: 98, bytes: [&frame, &[]] };
        let expected = "01:02:03.000000004 in     98 10.32.0.2 > 10.36.0.2: ICMP echo request, id 7, seq 1\n";
        assert_eq!(line(LINKTYPE_ETHERNET, &packet), expected);
    }

    #[test]
    fn a_datagram_shows_what_is_inside() {
        let (from, to) = ("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:4789".parse().unwrap());
        let payload = [vec![8, 0, 0, 0, 0, 0x12, 0x34, 0], echo()].concat();
        let packet = [outer::headers(from, to, payload.len()), payload].concat();
        let expected = "192.0.2.1:40000 > 192.0.2.2:4789: UDP vni 4660 | 10.32.0.2 > 10.36.0.2: ICMP echo \
                        request, id 7, seq 1";
        assert_eq!(summary(LINKTYPE_RAW, &packet), expected);
    }

    #[test]
    fn tcp_udp_arp_and_all_else_have_their_words() {
        let mut tcp = Vec::new();
        let builder = PacketBuilder::ethernet2(A, B).ipv6([0xfd; 16], [0xfc; 16], 64);
        builder.tcp(40_000, 80, 5, 1000).psh().ack(9).write(&mut tcp, b"GET").unwrap();
        let text = summary(LINKTYPE_ETHERNET, &tcp);
        assert!(text.ends_with(":80: TCP [P.] seq 5 ack 9 win 1000 len 3"), "{text}");

        let arp = |operation: u8| {
            let mut frame = [&[0xff; 6][..], &A, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
            frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 10, 32, 0, 2, 0, 0, 0, 0, 0, 0, 10, 36, 0, 2]);
            summary(LINKTYPE_ETHERNET, &frame)
        };
        assert_eq!(arp(1), "ARP: who has 10.36.0.2? tell 10.32.0.2");
        assert_eq!(arp(2), "ARP: 10.32.0.2 is at 02:00:00:00:00:01");

        let odd = [&A[..], &B, &[0x88, 0xcc, 1, 2]].concat();
        let text = summary(LINKTYPE_ETHERNET, &odd);
        assert_eq!(text, "02:00:00:00:00:02 > 02:00:00:00:00:01: ethertype 0x88cc");
        assert_eq!(summary(LINKTYPE_ETHERNET, &[1]), "too short to be read");
        assert_eq!(summary(LINKTYPE_RAW, &[]), "too short to be read");
    }

    #[test]
    fn what_is_cut_short_is_still_named() {
        let frame = echo();
        for len in 0..frame.len() {
            assert!(!summary(LINKTYPE_ETHERNET, &frame[..len]).is_empty());
        }
        assert!(summary(LINKTYPE_ETHERNET, &frame[..60]).starts_with("10.32.0.2 > 10.36.0.2"));
    }
}
