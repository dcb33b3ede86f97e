//! Cutting and joining, judged by etherparse: what is cut is right, and joining gives back what was cut.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

mod support;

use engine::counters::DropReason;
use engine::offload::join::{Coalesce, Joiner, Part};
use engine::offload::{Intake, segments};
use engine::wire::virtio::{self, VnetHeader};
use engine::wire::vxlan;
use etherparse::{NetHeaders, TransportHeader};
use proptest::prelude::*;
use support::*;

fn any_spec(max_payload: usize) -> impl Strategy<Value = Spec> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (any::<u32>(), any::<u16>(), any::<u8>(), prop::option::of(any::<u32>()), any::<bool>());
    (flags, numbers, 0..=max_payload).prop_map(
        |((v6, tcp, psh, fin, df), (seq, id, tos, timestamp, cwr), len)| Spec {
            v6,
            tcp,
            seq,
            id,
            dont_fragment: df,
            tos,
            timestamp: timestamp.filter(|_| tcp),
            psh: psh && tcp,
            fin: fin && tcp,
            cwr: cwr && tcp,
            payload: payload(len, seq),
            ..Spec::default()
        },
    )
}

/// Checks every datagram of a super-frame against the rules of segmenting.
fn check_cut(spec: &Spec, size: usize, datagrams: &[Vec<u8>]) {
    let mut rest = &spec.payload[..];
    for (i, datagram) in datagrams.iter().enumerate() {
        let (vni, frame) = vxlan::parse(datagram).unwrap();
        assert_eq!(vni, support::vni());
        assert!(frame.len() <= usize::from(MTU) + 14);
        let parsed = judge(frame);
        let (piece, after) = rest.split_at(size.min(rest.len()));
        assert_eq!(parsed.payload.slice(), piece);
        if let Some(NetHeaders::Ipv4(ip, _)) = &parsed.net {
            assert_eq!(ip.identification, spec.id.wrapping_add(i as u16));
            assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), spec.tos);
        }
        if let Some(TransportHeader::Tcp(tcp)) = &parsed.transport {
            assert_eq!(tcp.sequence_number, spec.seq.wrapping_add((i * size) as u32));
            let (first, last) = (i == 0, i + 1 == datagrams.len());
            assert_eq!((tcp.cwr, tcp.psh, tcp.fin), (spec.cwr && first, spec.psh && last, spec.fin && last));
            assert_eq!(tcp.acknowledgment_number, spec.ack);
        }
        rest = after;
    }
    assert!(rest.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2000 }))]

    #[test]
    fn a_super_frame_is_cut_and_joined_again(spec in any_spec(61_000), gso_size in 400..1600_u16) {
        let (vnet, frame) = spec.super_frame(gso_size);
        let room = usize::from(MTU) + 14 - spec.head_len();
        prop_assert_eq!(
            segments(&frame, &vnet),
            spec.payload.len().div_ceil(gso_size.into()).max(1) as u64,
            "segments as the sender counts them, whatever the room"
        );
        if !spec.tcp && usize::from(gso_size) > room {
            prop_assert_eq!(cut_one(vnet, &frame, MTU), Err(DropReason::TooBig));
            return Ok(());
        }
        let size = usize::from(gso_size).min(room);
        let datagrams = cut_one(vnet, &frame, MTU).unwrap();
        prop_assert_eq!(datagrams.len(), spec.payload.len().div_ceil(size).max(1));
        check_cut(&spec, size, &datagrams);

        let frames: Vec<_> = datagrams.iter().map(|d| d[vxlan::LEN..].to_vec()).collect();
        let joined = join_all(&frames, MTU);
        let full = datagrams.len() > 128 || spec.cwr;
        if datagrams.len() == 1 {
            prop_assert_eq!(&joined, &[(VnetHeader::default(), frames[0].clone(), 1)]);
        } else if !full {
            let vnet = VnetHeader { gso_size: size as u16, ..vnet };
            prop_assert_eq!(joined, [(vnet, frame, datagrams.len() as u16)]);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed(spec in any_spec(1300)) {
        let mut frame = spec.frame();
        make_partial(&mut frame, &spec);
        let datagrams = cut_one(spec.partial_header(), &frame, MTU).unwrap();
        prop_assert_eq!(datagrams.len(), 1);
        judge(&datagrams[0][vxlan::LEN..]);
        prop_assert_eq!(&datagrams[0][vxlan::LEN..], &spec.frame()[..]);
        // The same frame as a kernel VTEP on a virtual underlay would send it.
        prop_assert_eq!(join_all(&[frame.clone()], MTU), [(spec.partial_header(), frame, 1)]);
    }

    #[test]
    fn any_bytes_with_any_header_are_cut_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), gso in any::<u8>(), size in any::<u16>(), start in 0..120_u16, offset in 0..40_u16,
    ) {
        let vnet = VnetHeader { flags: gso & 1, gso_type: gso % 6, gso_size: size, csum_start: start, csum_offset: offset, hdr_len: 0 };
        let _ = cut_one(vnet, &bytes, 100);
        prop_assert!(segments(&bytes, &vnet) >= 1);
        let _ = join_all(&[bytes.clone(), bytes], 100);
    }

    /// Several flows, some of their frames broken, cut short or not joinable, in any order: each flow comes out as
    /// it went in, once super-frames are cut again.
    #[test]
    fn the_order_of_every_flow_is_kept(picks in prop::collection::vec((0..4_usize, 0..12_u8, 0..4_usize), 1..90)) {
        let mut flows: Vec<Spec> = (0..4).map(|i| Spec { ports: (1000 + i, 80), tcp: i != 3, v6: i == 2, timestamp: (i != 3).then_some(5), id: 0, ..Spec::default() }).collect();
        let mut sent = vec![];
        for (flow, kind, len) in picks {
            sent.push((flow, next_frame(&mut flows[flow], kind, [1000, 1000, 1000, 400][len])));
        }
        let frames: Vec<_> = sent.iter().map(|(_, frame)| frame.clone()).collect();
        let mut received = vec![];
        for (vnet, frame, _) in join_all(&frames, MTU) {
            if vnet.is_super() {
                received.extend(cut_one(vnet, &frame, MTU).unwrap().iter().map(|d| d[vxlan::LEN..].to_vec()));
            } else {
                received.push(frame);
            }
        }
        for flow in 0..4 {
            let of_flow = |frames: &[Vec<u8>]| frames.iter().filter(|f| flow_of(f) == flow).cloned().collect::<Vec<_>>();
            prop_assert_eq!(of_flow(&received), of_flow(&frames), "flow {}", flow);
        }
    }
}

/// One frame in some 65,000 sums up to zero. TCP carries that as it is; in UDP zero says that there is no checksum.
#[test]
fn a_checksum_of_zero_is_told_as_each_protocol_tells_it() {
    for (tcp, field, zero) in [(true, 16, 0), (false, 6, 0xffff)] {
        let of_port = |port| Spec {
            tcp,
            ports: (port, 5201),
            timestamp: None,
            payload: payload(8, 1),
            ..Spec::default()
        };
        let checksum = |frame: &[u8]| u16::from_be_bytes([frame[34 + field], frame[35 + field]]);
        let spec = (0..=u16::MAX).map(of_port).find(|spec| checksum(&spec.frame()) == zero).unwrap();
        let mut frame = spec.frame();
        make_partial(&mut frame, &spec);
        let completed = cut_one(spec.partial_header(), &frame, MTU).unwrap();
        assert_eq!(completed[0][vxlan::LEN..], spec.frame());

        let double = Spec { payload: [spec.payload.clone(), spec.payload.clone()].concat(), ..spec.clone() };
        let (vnet, frame) = double.super_frame(8);
        let cut = cut_one(vnet, &frame, MTU).unwrap();
        assert_eq!((cut.len(), checksum(&cut[0][vxlan::LEN..])), (2, zero));
    }
}

/// The next frame of a flow; `kind` makes some of them special.
fn next_frame(flow: &mut Spec, kind: u8, len: usize) -> Vec<u8> {
    let mut spec = Spec { payload: payload(len, flow.seq), ..flow.clone() };
    match kind {
        0 => spec.psh = spec.tcp,
        1 => spec.payload.clear(),
        2 => flow.ack += 1,
        3 => spec.tos = 3,
        4 => spec.cwr = spec.tcp,
        _ => {}
    }
    flow.seq = flow.seq.wrapping_add(spec.payload.len() as u32);
    flow.id = flow.id.wrapping_add(1);
    let mut frame = spec.frame();
    if kind == 5 {
        *frame.last_mut().unwrap() ^= 0xff;
    }
    if kind == 6 && !spec.v6 {
        frame[24] ^= 0xff;
    }
    frame
}

fn flow_of(frame: &[u8]) -> usize {
    let at = if frame[12] == 0x86 { 54 } else { 34 };
    usize::from(u16::from_be_bytes([frame[at], frame[at + 1]])) - 1000
}

#[test]
fn two_flows_that_take_turns_are_both_joined() {
    let mut flows =
        [Spec { ports: (1, 2), ..Spec::default() }, Spec { ports: (3, 4), v6: true, ..Spec::default() }];
    let frames: Vec<_> = (0..40).map(|i| next_frame(&mut flows[i % 2], 99, 1300)).collect();
    let joined = join_all(&frames, MTU);
    assert_eq!(joined.iter().map(|(_, _, segments)| *segments).collect::<Vec<_>>(), [20, 20]);
    assert_eq!(joined[0].0.gso_type, virtio::GSO_TCPV4);
    assert_eq!(joined[1].0.gso_type, virtio::GSO_TCPV6);
}

#[test]
fn a_wrong_checksum_is_passed_on_as_it_came() {
    let mut flow = Spec::default();
    let mut frames: Vec<_> = (0..3).map(|_| next_frame(&mut flow, 99, 1300)).collect();
    frames[1][200] ^= 1;
    let joined = join_all(&frames, MTU);
    let expected: Vec<_> = frames.into_iter().map(|frame| (VnetHeader::default(), frame, 1)).collect();
    assert_eq!(joined, expected);
}

#[test]
fn congestion_marks_are_neither_lost_nor_spread() {
    let mut flow = Spec { tos: 2, ..Spec::default() };
    let mut frames: Vec<_> = (0..6).map(|_| next_frame(&mut flow, 99, 1000)).collect();
    let marked = Spec { tos: 3, seq: flow.seq, id: flow.id, payload: payload(1000, 1), ..flow.clone() };
    frames.push(marked.frame());
    let joined = join_all(&frames, MTU);
    assert_eq!(joined.iter().map(|(_, _, segments)| *segments).collect::<Vec<_>>(), [6, 1]);
    assert_eq!(joined[1].1, frames[6]);
}

#[test]
fn a_segment_above_the_mtu_is_cut_only_when_its_checksum_is_known() {
    let spec = Spec { payload: payload(1400, 3), psh: true, ..Spec::default() };
    let datagrams = cut_one(VnetHeader::default(), &spec.frame(), 1000).unwrap();
    assert_eq!(datagrams.len(), 2);
    datagrams.iter().for_each(|datagram| drop(judge(&datagram[vxlan::LEN..])));
    let mut broken = spec.frame();
    broken[100] ^= 1;
    assert_eq!(cut_one(VnetHeader::default(), &broken, 1000), Err(DropReason::TooBig));
    let udp = Spec { tcp: false, timestamp: None, ..spec };
    assert_eq!(cut_one(VnetHeader::default(), &udp.frame(), 1000), Err(DropReason::TooBig));
}

#[test]
fn nonsense_offload_requests_are_refused() {
    let spec = Spec { payload: payload(9000, 3), ..Spec::default() };
    let (vnet, frame) = spec.super_frame(1400);
    let refused = |vnet| assert_eq!(cut_one(vnet, &frame, MTU), Err(DropReason::BadOffload), "{vnet:?}");
    refused(VnetHeader { gso_type: virtio::GSO_UDP_L4, ..vnet });
    refused(VnetHeader { gso_type: virtio::GSO_TCPV6, ..vnet });
    refused(VnetHeader { csum_start: 14, ..vnet });
    refused(VnetHeader { csum_offset: 6, ..vnet });
    refused(VnetHeader { gso_size: 1, ..vnet });
    let mut syn = frame.clone();
    syn[47] |= 2;
    assert_eq!(cut_one(vnet, &syn, MTU), Err(DropReason::BadOffload));
}

#[test]
fn tagged_frames_pass_and_count_their_tags() {
    let tag = |mut frame: Vec<u8>| {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        frame
    };
    let spec = Spec { payload: payload(9000, 3), ..Spec::default() };
    let (vnet, frame) = spec.super_frame(1398);
    let vnet = VnetHeader { csum_start: vnet.csum_start + 4, ..vnet };
    let datagrams = cut_one(vnet, &tag(frame), MTU).unwrap();
    assert_eq!(datagrams.len(), 7);
    for datagram in &datagrams {
        assert!(datagram.len() <= 1450 + 14 + 8);
        judge(&datagram[vxlan::LEN..]);
    }
    let frames: Vec<_> = datagrams.iter().map(|d| d[vxlan::LEN..].to_vec()).collect();
    assert_eq!(join_all(&frames, MTU).len(), 7);
}

#[test]
fn fragments_are_passed_on_and_keep_their_place() {
    let mut flow = Spec { tcp: false, timestamp: None, ..Spec::default() };
    let mut frames: Vec<_> = (0..2).map(|_| next_frame(&mut flow, 99, 500)).collect();
    let mut fragment = next_frame(&mut flow, 99, 500);
    fragment[20] = 0x20;
    frames.push(fragment);
    frames.extend((0..2).map(|_| next_frame(&mut flow, 99, 500)));
    let joined = join_all(&frames, MTU);
    assert_eq!(joined.iter().map(|(_, _, segments)| *segments).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!(joined[1].1, frames[2]);
}

#[test]
fn an_oversize_super_frame_is_passed_on_whole() {
    for v6 in [false, true] {
        let spec = Spec { v6, payload: payload(60_000, 3), psh: true, ..Spec::default() };
        let (vnet, partial) = spec.super_frame(MTU - (spec.head_len() - 14) as u16);
        assert_eq!(join_all(std::slice::from_ref(&partial), MTU), [(vnet, partial.clone(), 1)]);
        // With a whole checksum it is verified, and then handed over partial.
        assert_eq!(join_all(&[spec.frame()], MTU), [(vnet, partial.clone(), 1)]);
        assert_eq!(wire_segments(&partial), segments(&partial, &vnet));
        let mut broken = spec.frame();
        broken[5000] ^= 1;
        assert!(join_all(&[broken], MTU).is_empty());
    }
    let datagram = Spec { tcp: false, timestamp: None, payload: payload(9000, 1), ..Spec::default() };
    assert!(join_all(&[datagram.frame()], MTU).is_empty());
}

/// What the one frame that a joiner makes of `frame` stands for.
fn wire_segments(frame: &[u8]) -> u64 {
    let mut joiner = Joiner::new(Coalesce { tcp: true, udp: true });
    let part = Part { frame: 0..frame.len() as u32, gso_size: 0 };
    assert_eq!(joiner.push(frame, remote(), vni(), MTU, part), Ok(Intake::Taken));
    joiner.finish();
    joiner.joined()[0].wire_segments()
}
