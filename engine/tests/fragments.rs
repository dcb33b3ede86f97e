//! Packets that are too big for the way ahead: fragments, and what their senders are told, judged by etherparse.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use engine::counters::DropReason;
use engine::offload::Intake;
use engine::offload::cut::{Outbox, cut};
use engine::offload::fragment::fragment;
use engine::offload::too_big::{self, Limit};
use engine::packet::Slot;
use engine::types::MacAddr;
use engine::wire::virtio::{GSO_UDP_L4, VnetHeader};
use engine::wire::vxlan;
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, NetHeaders, PacketHeaders, TransportHeader, icmpv4};
use proptest::prelude::*;
use support::*;

fn fragments(vnet: VnetHeader, frame: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut arena = vec![0xee; 74];
    arena.extend_from_slice(frame);
    let slot = Slot { vnet, start: 74, end: arena.len() as u32 };
    let mut out = Outbox::new();
    assert_eq!(fragment(&arena, &slot, vni(), mtu, &mut out)?, Intake::Taken);
    let datagrams = out.datagrams().iter().map(|datagram| out.pieces(datagram, &arena).concat());
    Ok(datagrams.map(|datagram| vxlan::parse(&datagram).unwrap().1.to_vec()).collect())
}

/// The packets that a receiver puts together, in their order; each must be whole, and no fragment above `mtu`.
fn reassemble(frames: &[Vec<u8>], mtu: u16) -> Vec<Vec<u8>> {
    let mut parts: BTreeMap<u32, Vec<(usize, bool, Vec<u8>)>> = BTreeMap::new();
    let mut heads: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut order = Vec::new();
    for frame in frames {
        assert!(frame.len() <= usize::from(mtu) + 14, "{} bytes", frame.len());
        let packet = &frame[14..];
        let (id, offset, more, head, body) = if packet[0] >> 4 == 4 {
            let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
            let Some(NetHeaders::Ipv4(ip, _)) = parsed.net else { panic!("no IPv4") };
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), packet.len());
            let mut head = frame[..34].to_vec();
            head[16..18].fill(0);
            head[20..22].fill(0);
            head[24..26].fill(0);
            let offset = usize::from(ip.fragment_offset.value()) * 8;
            (u32::from(ip.identification), offset, ip.more_fragments, head, packet[20..].to_vec())
        } else {
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
            assert_eq!((packet[6], packet[41]), (44, 0), "a fragment header follows");
            let word = u16::from_be_bytes([packet[42], packet[43]]);
            let id = u32::from_be_bytes(packet[44..48].try_into().unwrap());
            let mut head = frame[..54].to_vec();
            (head[18], head[19], head[20]) = (0, 0, packet[40]);
            (id, usize::from(word & !7), word & 1 == 1, head, packet[48..].to_vec())
        };
        assert!(body.len() % 8 == 0 || !more);
        assert_eq!(*heads.entry(id).or_insert_with(|| head.clone()), head, "all have the same headers");
        if !parts.contains_key(&id) {
            order.push(id);
        }
        parts.entry(id).or_default().push((offset, more, body));
    }
    let join = |id: u32| {
        let parts = &parts[&id];
        let mut packet = heads[&id].clone();
        for (index, (offset, more, body)) in parts.iter().enumerate() {
            assert_eq!(*offset, packet.len() - heads[&id].len(), "no gap, no overlap");
            assert_eq!(*more, index + 1 < parts.len());
            packet.extend_from_slice(body);
        }
        let v6 = packet[14] >> 4 == 6;
        let len = (packet.len() - if v6 { 54 } else { 14 }) as u16;
        let at = if v6 { 18 } else { 16 };
        packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
        if !v6 {
            packet[18..20].copy_from_slice(&(id as u16).to_be_bytes());
            let sum = etherparse::Ipv4Header::from_slice(&packet[14..]).unwrap().0.calc_header_checksum();
            packet[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    };
    order.into_iter().map(join).collect()
}

fn udp(v6: bool, len: usize, dont_fragment: bool) -> Spec {
    Spec { v6, tcp: false, dont_fragment, timestamp: None, payload: payload(len, 7), ..Spec::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2000 }))]

    #[test]
    fn fragments_are_put_together_to_what_was_sent(len in 600..1400_usize, mtu in 100..600_u16, partial in any::<bool>(), v6 in any::<bool>()) {
        let len = if v6 { len.min(1232) } else { len };
        let spec = udp(v6, len, false);
        let mut frame = spec.frame();
        let mut vnet = VnetHeader::default();
        if partial {
            make_partial(&mut frame, &spec);
            vnet = spec.partial_header();
        }
        let frames = fragments(vnet, &frame, mtu).unwrap();
        prop_assert!(frames.len() > 1);
        let whole = reassemble(&frames, mtu);
        prop_assert_eq!(whole.len(), 1);
        judge(&whole[0]);
        prop_assert_eq!(&whole[0], &spec.frame());

        // A smaller way yet further on: fragments are fragmented again.
        let again: Vec<Vec<u8>> = frames.iter().flat_map(|frame| {
            fragments(VnetHeader::default(), frame, mtu / 2 + 40).unwrap()
        }).collect();
        prop_assert_eq!(&reassemble(&again, mtu / 2 + 40)[0], &spec.frame());
    }

    #[test]
    fn each_datagram_of_a_super_frame_is_fragmented_for_itself(len in 1..20_000_usize, size in 900..1400_u16, v6 in any::<bool>()) {
        let size = if v6 { size.min(1232) } else { size };
        let spec = udp(v6, len, false);
        let (vnet, frame) = spec.super_frame(size);
        let whole = reassemble(&fragments(vnet, &frame, 700).unwrap(), 700);
        prop_assert_eq!(whole.len(), len.div_ceil(size.into()));
        let mut rest = &spec.payload[..];
        for packet in &whole {
            let parsed = judge(packet);
            let (piece, after) = rest.split_at(rest.len().min(size.into()));
            prop_assert_eq!(parsed.payload.slice(), piece);
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_bytes_are_fragmented_answered_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0..3_u8, gso in any::<u8>(), size in any::<u16>(), start in 0..120_u16, offset in 0..40_u16, mtu in 0..200_u16,
    ) {
        let mut bytes = bytes;
        if bytes.len() > 20 {
            bytes[12..15].copy_from_slice([&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0]][usize::from(head)]);
        }
        let vnet = VnetHeader { flags: gso & 1, gso_type: gso % 6, gso_size: size, csum_start: start, csum_offset: offset, hdr_len: 0 };
        let _ = fragments(vnet, &bytes, mtu);
        let mut out = [0; too_big::MAX_LEN];
        let _ = too_big::answer(&bytes, mtu, B, |_| None, &mut out);
    }
}

#[test]
fn what_may_not_be_fragmented_is_refused() {
    let refused = |spec: Spec, mtu| fragments(VnetHeader::default(), &spec.frame(), mtu).err();
    assert_eq!(refused(udp(false, 1300, true), 1000), Some(DropReason::TooBig), "DF is set");
    assert_eq!(
        refused(udp(true, 1300, false), 1000),
        Some(DropReason::TooBig),
        "every IPv6 sender can do that"
    );
    assert_eq!(refused(udp(false, 1300, false), 27), Some(DropReason::TooBig), "no room for any payload");
    assert_eq!(refused(udp(true, 1200, false), 48), Some(DropReason::TooBig));
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 400]].concat();
    assert_eq!(fragments(VnetHeader::default(), &arp, 100).err(), Some(DropReason::TooBig));
    let spec = udp(false, 3000, true);
    let (vnet, frame) = spec.super_frame(1200);
    assert_eq!(vnet.kind(), GSO_UDP_L4);
    assert_eq!(fragments(vnet, &frame, 1000).err(), Some(DropReason::TooBig));
}

#[test]
fn options_that_are_for_the_first_alone_are_blanked_in_the_others() {
    let mut frame = udp(false, 1000, false).frame();
    // Record route (7) is not to be copied, a router alert (0x94) is.
    let options = [7, 3, 4, 0x94, 4, 0, 0, 0];
    frame.splice(34..34, options);
    frame[14] = 0x47;
    frame[16..18].copy_from_slice(&1036_u16.to_be_bytes());
    let frames = fragments(VnetHeader::default(), &frame, 600).unwrap();
    assert_eq!(frames.len(), 2);
    assert_eq!((&frames[0][34..42], &frames[1][34..42]), (&options[..], &[1, 1, 1, 0x94, 4, 0, 0, 0][..]));
    for frame in &frames {
        let ip = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
}

#[test]
fn a_full_outbox_takes_no_half_of_a_packet() {
    let frame = udp(false, 1400, false).frame();
    let slot = Slot { vnet: VnetHeader::default(), start: 0, end: frame.len() as u32 };
    let mut out = Outbox::new();
    while cut(&frame, &slot, vni(), 1500, &mut out) == Ok(Intake::Taken) {}
    let before = out.datagrams().len();
    assert_eq!(fragment(&frame, &slot, vni(), 100, &mut out), Ok(Intake::Full));
    assert_eq!(out.datagrams().len(), before);
    out.clear();
    assert_eq!(fragment(&frame, &slot, vni(), 100, &mut out), Ok(Intake::Taken));
}

fn gateway(sender: IpAddr) -> Option<IpAddr> {
    Some(if sender.is_ipv4() { "10.32.0.1".parse().unwrap() } else { "fd00::1".parse().unwrap() })
}

const GATEWAY: MacAddr = MacAddr([2, 0x6d, 0x65, 0, 0, 1]);

fn answer(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let mut out = [0; too_big::MAX_LEN];
    let len = too_big::answer(frame, mtu, GATEWAY, gateway, &mut out)?;
    Some(out[..len].to_vec())
}

#[test]
fn the_sender_is_told_what_passes() {
    let asked = udp(false, 1400, true).frame();
    let told = answer(&asked, 1230).unwrap();
    assert_eq!((&told[..6], &told[6..12]), (&A.0[..], &GATEWAY.0[..]));
    let parsed = PacketHeaders::from_ethernet_slice(&told).unwrap();
    let Some(NetHeaders::Ipv4(ip, _)) = &parsed.net else { panic!("no IPv4") };
    assert_eq!((ip.source, ip.destination), ([10, 32, 0, 1], [10, 32, 0, 2]));
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    let Some(TransportHeader::Icmpv4(icmp)) = &parsed.transport else { panic!("no ICMP") };
    let wanted = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1230 };
    assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(wanted));
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(parsed.payload.slice()));
    assert!(asked[14..].starts_with(parsed.payload.slice()) && usize::from(ip.total_len) == 576);

    let asked = udp(true, 1400, true).frame();
    let told = answer(&asked, 1230).unwrap();
    let parsed = PacketHeaders::from_ethernet_slice(&told).unwrap();
    let Some(NetHeaders::Ipv6(ip, _)) = &parsed.net else { panic!("no IPv6") };
    assert_eq!((ip.destination, ip.next_header), ([0xfd; 16], IpNumber::IPV6_ICMP));
    let Some(TransportHeader::Icmpv6(icmp)) = &parsed.transport else { panic!("no ICMPv6") };
    assert_eq!(icmp.icmp_type, Icmpv6Type::PacketTooBig { mtu: 1280 }, "less is none of IPv6's business");
    let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, parsed.payload.slice());
    assert_eq!(Ok(icmp.checksum), sum);
    assert!(asked[14..].starts_with(parsed.payload.slice()));
}

#[test]
fn groups_errors_and_later_fragments_are_not_answered() {
    let frame = udp(false, 1400, true).frame();
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    assert!(answer(&frame, 1000).is_some());
    let silent = [
        with(0, &[0xff; 6]),
        with(30, &[224, 0, 0, 1]),
        with(30, &[255; 4]),
        with(26, &[0; 4]),
        with(20, &[0, 7]),
        // An error of ICMP; an echo request is answered.
        with(23, &[1, 0, 0, 10, 32, 0, 2, 10, 32, 0, 3, 3]),
        with(12, &[0x81, 0]),
    ];
    for (index, frame) in silent.iter().enumerate() {
        assert!(answer(frame, 1000).is_none(), "the {index}th");
    }
    assert!(answer(&with(23, &[1, 0, 0, 10, 32, 0, 2, 10, 32, 0, 3, 8]), 1000).is_some());
}

#[test]
fn answers_are_limited() {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    let mut now = Instant::now();
    let mut limit = Limit::default();
    let count = |limit: &mut Limit, now| (0..1000).filter(|_| limit.admits(now)).count();
    assert_eq!(count(&mut limit, now), 64);
    now += Duration::from_millis(100);
    assert_eq!(count(&mut limit, now), 10);
    now += Duration::from_secs(60);
    assert_eq!(count(&mut limit, now), 64);
}
