use std::net::Ipv6Addr;

use etherparse::{EtherType, Ipv6FragmentHeader, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::wire::arp;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const V4: [u8; 4] = [10, 32, 0, 2];
const SECOND: [u8; 4] = [10, 32, 0, 9];
const GATEWAY: [u8; 4] = [10, 32, 0, 1];

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

fn fence() -> Fence {
    Fence::new(MAC, &[V4.into(), SECOND.into(), v6(2).into()])
}

fn framed(source: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&ether::header(OTHER, source, ethertype), payload].concat()
}

fn packet4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = ((20 + payload.len()) as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend([10, 32, 0, 3]);
    packet.extend_from_slice(payload);
    packet
}

fn packet6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], next, 255];
    packet.extend(source.octets());
    packet.extend(v6(3).octets());
    packet.extend_from_slice(payload);
    packet
}

fn of4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Judgement {
    fence().judge(&framed(MAC, ether::IPV4, &packet4(source, protocol, payload)))
}

fn of6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Judgement {
    fence().judge(&framed(MAC, ether::IPV6, &packet6(source, next, payload)))
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

/// A message of neighbour discovery about `target` that tells a MAC address.
fn neighbour(kind: u8, target: Ipv6Addr, told: Option<MacAddr>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != icmpv6::ROUTER_SOLICITATION {
        message.extend(target.octets());
    }
    message.extend(told.iter().flat_map(|mac| [&[2, 1][..], &mac.0].concat()));
    message
}

fn arp_of(operation: u8, sender: MacAddr, addr: [u8; 4]) -> Judgement {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(sender.0);
    packet.extend(addr);
    packet.extend([0; 6]);
    packet.extend(GATEWAY);
    fence().judge(&framed(MAC, ether::ARP, &packet))
}

#[test]
fn what_a_container_sends_in_its_own_name_passes() {
    for source in [V4, SECOND] {
        let builder = PacketBuilder::ethernet2(MAC.0, OTHER.0).ipv4(source, [10, 32, 0, 3], 64);
        let mut frame = Vec::new();
        builder.tcp(1000, 80, 1, 100).write(&mut frame, &[7; 3000]).unwrap();
        assert_eq!(fence().judge(&frame), Ok(()));
        assert_eq!(of4(source, udp::PROTOCOL, &ports(1000, 53)), Ok(()));
        assert_eq!(of4(source, ICMP, &[8, 0, 0, 0]), Ok(()));
        assert_eq!(arp_of(1, MAC, source), Ok(()));
        assert_eq!(arp_of(2, MAC, source), Ok(()));
    }
    for source in [v6(2), ndp::link_local(MAC)] {
        assert_eq!(of6(source, tcp::PROTOCOL, &[0; 20]), Ok(()));
        assert_eq!(of6(source, udp::PROTOCOL, &ports(546, 547)), Ok(()));
        assert_eq!(of6(source, icmpv6::PROTOCOL, &[128, 0, 0, 0]), Ok(()));
        let told = neighbour(icmpv6::ADVERTISEMENT, source, Some(MAC));
        assert_eq!(of6(source, icmpv6::PROTOCOL, &told), Ok(()));
        let asked = neighbour(icmpv6::SOLICITATION, v6(3), Some(MAC));
        assert_eq!(of6(source, icmpv6::PROTOCOL, &asked), Ok(()));
    }
    assert_eq!(fence().judge(&[0; 13]), Ok(()), "it goes nowhere anyway");
}

#[test]
fn another_station_cannot_be_spoken_for() {
    let foreign = framed(OTHER, ether::IPV4, &packet4(V4, 6, &[0; 20]));
    assert_eq!(fence().judge(&foreign), Err(DropReason::SpoofedMac));
    for source in [[10, 32, 0, 3], GATEWAY, [0; 4], [127, 0, 0, 1]] {
        assert_eq!(of4(source, tcp::PROTOCOL, &[0; 20]), Err(DropReason::SpoofedIp), "{source:?}");
        assert_eq!(of4(source, udp::PROTOCOL, &ports(9, 9)), Err(DropReason::SpoofedIp));
    }
    for source in [v6(3), ndp::link_local(OTHER), Ipv6Addr::UNSPECIFIED, "fe80::1".parse().unwrap()] {
        assert_eq!(of6(source, tcp::PROTOCOL, &[0; 20]), Err(DropReason::SpoofedIp), "{source:?}");
    }
    for (operation, sender, addr) in [
        (1, MAC, GATEWAY),
        (2, MAC, GATEWAY),
        (2, OTHER, V4),
        (1, OTHER, V4),
        (2, MAC, [0; 4]),
        (8, MAC, [9; 4]),
    ] {
        assert_eq!(
            arp_of(operation, sender, addr),
            Err(DropReason::SpoofedNeighbour),
            "{operation} {addr:?}"
        );
    }
    let spoofed = |kind, target, told| of6(v6(2), icmpv6::PROTOCOL, &neighbour(kind, target, told));
    let spoof = Err(DropReason::SpoofedNeighbour);
    assert_eq!(spoofed(icmpv6::ADVERTISEMENT, v6(1), Some(MAC)), spoof);
    assert_eq!(spoofed(icmpv6::ADVERTISEMENT, v6(1), None), spoof);
    assert_eq!(spoofed(icmpv6::ADVERTISEMENT, v6(2), Some(OTHER)), spoof);
    assert_eq!(spoofed(icmpv6::SOLICITATION, v6(3), Some(OTHER)), spoof);
    assert_eq!(spoofed(icmpv6::ROUTER_SOLICITATION, v6(3), Some(OTHER)), spoof);
}

#[test]
fn what_only_routers_and_servers_say_is_held() {
    assert_eq!(of4(V4, udp::PROTOCOL, &ports(67, 68)), Err(DropReason::DhcpAnswer));
    assert_eq!(of6(v6(2), udp::PROTOCOL, &ports(547, 546)), Err(DropReason::DhcpAnswer));
    assert_eq!(of4(V4, ICMP, &[5, 1, 0, 0]), Err(DropReason::Redirect));
    assert_eq!(of4(V4, ICMP, &[9, 0, 0, 0]), Err(DropReason::RouterAdvertisement));
    assert_eq!(of4(V4, IGMP, &[0x11, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::GroupQuery));
    let icmp = |kind| of6(ndp::link_local(MAC), icmpv6::PROTOCOL, &[kind, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0]);
    assert_eq!(icmp(icmpv6::ROUTER_ADVERTISEMENT), Err(DropReason::RouterAdvertisement));
    assert_eq!(icmp(icmpv6::REDIRECT), Err(DropReason::Redirect));
    assert_eq!(icmp(icmpv6::LISTENER_QUERY), Err(DropReason::GroupQuery));
}

#[test]
fn who_has_no_address_yet_may_ask() {
    assert_eq!(of4([0; 4], udp::PROTOCOL, &ports(68, 67)), Ok(()));
    assert_eq!(of4([0; 4], IGMP, &[0x22, 0, 0, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(arp_of(1, MAC, [0; 4]), Ok(()), "a probe");
    let nobody = Ipv6Addr::UNSPECIFIED;
    assert_eq!(of6(nobody, icmpv6::PROTOCOL, &neighbour(icmpv6::SOLICITATION, v6(7), None)), Ok(()));
    assert_eq!(of6(nobody, icmpv6::PROTOCOL, &neighbour(icmpv6::ROUTER_SOLICITATION, v6(7), None)), Ok(()));
    assert_eq!(of6(nobody, icmpv6::PROTOCOL, &[143, 0, 0, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(of6(nobody, icmpv6::PROTOCOL, &[128, 0, 0, 0]), Err(DropReason::SpoofedIp));
    // Only the one or the other.
    assert_eq!(of4([10, 32, 0, 3], udp::PROTOCOL, &ports(68, 67)), Err(DropReason::SpoofedIp));
}

#[test]
fn nothing_hides_behind_tags_and_other_ethertypes() {
    let spoofed = packet4(GATEWAY, 6, &[0; 20]);
    for tag in [ether::VLAN, ether::SERVICE_VLAN] {
        // Priority tags too: a kernel takes what is behind VLAN 0 as if there were none.
        for behind in [[0, 0, 8, 0], [0, 7, 8, 0], [0, 0, 0x81, 0]] {
            let frame = framed(MAC, tag, &[&behind[..], &spoofed].concat());
            assert_eq!(fence().judge(&frame), Err(DropReason::TaggedFrame));
        }
    }
    // A length (IEEE 802.3), RARP, QinQ of old, MPLS, PPPoE, a test number.
    for ethertype in [46, 0x8035, 0x9100, 0x8847, 0x8864, 0x88b5] {
        assert_eq!(fence().judge(&framed(MAC, ethertype, &spoofed)), Err(DropReason::Ethertype));
    }
}

#[test]
fn headers_are_followed_to_the_transport() {
    let server = ports(547, 546);
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0];
    let behind = |headers: &[(u8, Vec<u8>)], last: u8, payload: &[u8]| {
        let mut all = Vec::new();
        for (at, (_, header)) in headers.iter().enumerate() {
            let mut header = header.clone();
            header[0] = headers.get(at + 1).map_or(last, |next| next.0);
            all.extend(header);
        }
        all.extend_from_slice(payload);
        of6(v6(2), headers[0].0, &all)
    };
    let eight = |kind| (kind, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let longer = |kind| (kind, [vec![0, 1, 1, 12], vec![0; 12]].concat());
    let authentication = (AUTHENTICATION, [vec![0, 4], vec![0; 22]].concat());
    let first = (FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 7]);
    for headers in [
        vec![eight(HOP_BY_HOP)],
        vec![eight(DESTINATION), longer(ROUTING)],
        vec![authentication, eight(MOBILITY)],
        vec![first.clone()],
        vec![longer(HOP_BY_HOP), first.clone(), eight(DESTINATION)],
        vec![eight(HIP), eight(SHIM6)],
    ] {
        assert_eq!(behind(&headers, icmpv6::PROTOCOL, &advertisement), Err(DropReason::RouterAdvertisement));
        assert_eq!(behind(&headers, udp::PROTOCOL, &server), Err(DropReason::DhcpAnswer));
        assert_eq!(behind(&headers, udp::PROTOCOL, &ports(5353, 5353)), Ok(()));
        assert_eq!(behind(&headers, udp::PROTOCOL, &[2]), Err(DropReason::HiddenHeader), "cut short");
    }
    assert_eq!(behind(&[first], DESTINATION, &[]), Err(DropReason::HiddenHeader), "the rest comes later");
    let later = (FRAGMENT, vec![0, 0, 0, 8, 0, 0, 0, 7]);
    assert_eq!(behind(&[later], icmpv6::PROTOCOL, &advertisement), Ok(()), "its first was judged");
    let endless = vec![eight(DESTINATION); 10];
    assert_eq!(behind(&endless, tcp::PROTOCOL, &[0; 20]), Err(DropReason::HiddenHeader));
    // IPv4: options, and a first piece without its ports.
    let mut optioned = packet4(V4, udp::PROTOCOL, &[&[1; 4][..], &ports(67, 68)].concat());
    optioned[0] = 0x46;
    assert_eq!(fence().judge(&framed(MAC, ether::IPV4, &optioned)), Err(DropReason::DhcpAnswer));
    assert_eq!(of4(V4, udp::PROTOCOL, &[0, 67]), Err(DropReason::HiddenHeader));
    assert_eq!(of4(V4, ICMP, &[]), Err(DropReason::HiddenHeader));
    for (at, wrong) in [(0, 0x65), (0, 0x44)] {
        let mut packet = packet4(V4, 6, &[0; 20]);
        packet[at] = wrong;
        assert_eq!(fence().judge(&framed(MAC, ether::IPV4, &packet)), Err(DropReason::HiddenHeader));
    }
}

#[test]
fn a_piece_of_a_large_packet_passes() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC.0, OTHER.0).ipv6(v6(2).octets(), v6(3).octets(), 64);
    builder.icmpv6_echo_request(1, 1).write(&mut frame, &[7; 1300]).unwrap();
    let fragment = Ipv6FragmentHeader::new(icmpv6::PROTOCOL.into(), 0.try_into().unwrap(), true, 9);
    let mut piece = frame[..ether::LEN + ipv6::LEN].to_vec();
    piece[ether::LEN + 6] = FRAGMENT;
    piece.extend(fragment.to_bytes());
    piece.extend_from_slice(&frame[ether::LEN + ipv6::LEN..]);
    assert_eq!(fence().judge(&piece), Ok(()));
    assert_eq!(EtherType(u16::from_be_bytes([piece[12], piece[13]])), EtherType::IPV6);
}

proptest! {
    /// Whatever passes names its own station wherever it names one.
    #[test]
    fn nothing_passes_in_another_name(
        kind in prop_oneof![Just(ether::IPV4), Just(ether::IPV6), Just(ether::ARP), any::<u16>()],
        own in any::<bool>(),
        mut packet in proptest::collection::vec(any::<u8>(), 0..120),
        shape in 0..6_usize,
    ) {
        let shapes: [&[u8]; 6] = [&[], &[0x45], &[0x60, 0, 0, 0, 0, 80, 58, 255], &[0x60, 0, 0, 0, 0, 80, 0, 1],
            &[0, 1, 8, 0, 6, 4, 0, 1], &[0x46, 0, 0, 40, 0, 0, 0, 0, 64, 17]];
        let shape = shapes[shape];
        let len = shape.len().min(packet.len());
        packet[..len].copy_from_slice(&shape[..len]);
        let frame = framed(if own { MAC } else { OTHER }, kind, &packet);
        if fence().judge(&frame).is_ok() {
            prop_assert!(own);
            match kind {
                ether::IPV4 => prop_assert!([V4, SECOND, [0; 4]].contains(packet[12..16].first_chunk().unwrap())),
                ether::IPV6 => {
                    let source = Ipv6Addr::from(*packet[8..24].first_chunk::<16>().unwrap());
                    prop_assert!([v6(2), ndp::link_local(MAC), Ipv6Addr::UNSPECIFIED].contains(&source));
                }
                ether::ARP => {
                    let arp = arp::Arp::parse(&packet).unwrap();
                    prop_assert!(arp.sender_mac == MAC);
                    prop_assert!([V4, SECOND, [0; 4]].contains(&arp.sender_ip.octets()));
                }
                other => prop_assert!(false, "{other:#x} passed"),
            }
        }
    }
}
