//! What happens at the bounds of the buffers, and how received buffers are sliced.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

mod support;

use engine::offload::Intake;
use engine::offload::cut::{MAX_DATAGRAMS, Outbox, cut};
use engine::offload::join::{Coalesce, Joiner, MAX_JOINED, MAX_SEGMENTS, Part, parts};
use engine::packet::Slot;
use engine::wire::virtio::VnetHeader;
use engine::wire::vxlan;
use support::*;

fn slot(vnet: VnetHeader, frame: &[u8]) -> Slot {
    Slot { vnet, start: 0, end: frame.len() as u32 }
}

fn udp(i: u16, len: usize) -> Spec {
    let id = i;
    Spec { tcp: false, timestamp: None, id, payload: payload(len, u32::from(i)), ..Spec::default() }
}

#[test]
fn a_full_outbox_says_so_and_takes_nothing() {
    let spec = Spec { payload: payload(60_000, 1), ..Spec::default() };
    let (vnet, frame) = spec.super_frame(200);
    let mut out = Outbox::new();
    let mut taken = 0;
    while cut(&frame, &slot(vnet, &frame), vni(), MTU, &mut out) == Ok(Intake::Taken) {
        taken += 1;
    }
    assert_eq!(taken, MAX_DATAGRAMS / 300);
    assert_eq!(out.datagrams().len(), taken * 300);
    assert_eq!(cut(&frame, &slot(vnet, &frame), vni(), MTU, &mut out), Ok(Intake::Full));
    let small = udp(1, 10).frame();
    assert_eq!(cut(&small, &slot(VnetHeader::default(), &small), vni(), MTU, &mut out), Ok(Intake::Taken));
    out.clear();
    assert_eq!(cut(&frame, &slot(vnet, &frame), vni(), MTU, &mut out), Ok(Intake::Taken));
}

#[test]
fn runs_hold_equal_sizes_and_keep_within_their_bounds() {
    let mut arena = vec![];
    let mut out = Outbox::new();
    for len in [100, 100, 100, 60, 60, 200, 200, 200, 200, 201] {
        let frame = udp(1, len).frame();
        let start = arena.len() as u32;
        arena.extend_from_slice(&frame);
        let slot = Slot { vnet: VnetHeader::default(), start, end: arena.len() as u32 };
        assert_eq!(cut(&arena, &slot, vni(), MTU, &mut out), Ok(Intake::Taken));
    }
    assert_eq!(out.runs(64, 65_000).collect::<Vec<_>>(), [0..4, 4..5, 5..9, 9..10]);
    assert_eq!(out.runs(2, 65_000).collect::<Vec<_>>(), [0..2, 2..4, 4..5, 5..7, 7..9, 9..10]);
    // Three datagrams of 250 bytes are 750.
    assert_eq!(out.runs(64, 750).last(), Some(9..10));
    assert_eq!(out.runs(64, 750).nth(3), Some(8..9));
}

#[test]
fn a_super_frame_takes_so_many_segments_and_a_joiner_so_many_frames() {
    let frames: Vec<_> = (0..300).map(|i| udp(i, 20).frame()).collect();
    let segments: Vec<_> = join_all(&frames, MTU).iter().map(|(_, _, segments)| *segments).collect();
    assert_eq!(segments, [MAX_SEGMENTS as u16, MAX_SEGMENTS as u16, 300 - 2 * MAX_SEGMENTS as u16]);

    let mut joiner = Joiner::new(Coalesce { tcp: false, udp: false });
    let frame = udp(1, 20).frame();
    let part = || Part { frame: 0..frame.len() as u32, gso_size: 0 };
    for _ in 0..MAX_JOINED {
        assert_eq!(joiner.push(&frame, remote(), vni(), MTU, part()), Ok(Intake::Taken));
    }
    assert_eq!(joiner.push(&frame, remote(), vni(), MTU, part()), Ok(Intake::Full));
    assert_eq!(joiner.joined().len(), MAX_JOINED);
    joiner.clear();
    assert_eq!(joiner.push(&frame, remote(), vni(), MTU, part()), Ok(Intake::Taken));
}

/// More flows than are looked at, more super-frames than there is room for: joined less, lost never.
#[test]
fn many_flows_are_passed_on_in_order() {
    let mut seqs = vec![0_u32; 100];
    let frames: Vec<_> = (0..900)
        .map(|i| {
            let flow = (i / 2) % 100;
            let spec = Spec {
                ports: (flow as u16, 80),
                seq: seqs[flow],
                payload: payload(100, i as u32),
                ..Spec::default()
            };
            seqs[flow] += 100;
            spec.frame()
        })
        .collect();
    let joined = join_all(&frames, MTU);
    assert_eq!(joined.iter().map(|(_, _, segments)| usize::from(*segments)).sum::<usize>(), 900);
    assert!(joined.len() < 900 - 64);
    let mut next = vec![0_u32; 100];
    for (_, frame, segments) in joined {
        let flow = usize::from(u16::from_be_bytes([frame[34], frame[35]]));
        let seq = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
        assert_eq!(seq, next[flow]);
        next[flow] += 100 * u32::from(segments);
    }
    assert_eq!(next, seqs);
}

#[test]
fn what_the_devices_do_not_take_is_not_joined() {
    let frames: Vec<_> = (0..4).map(|i| udp(i, 20).frame()).collect();
    let mut joiner = Joiner::new(Coalesce { tcp: true, udp: false });
    let arena = frames.concat();
    let len = frames[0].len() as u32;
    for i in 0..4 {
        let part = Part { frame: i * len..(i + 1) * len, gso_size: 0 };
        assert_eq!(joiner.push(&arena, remote(), vni(), MTU, part), Ok(Intake::Taken));
    }
    joiner.finish();
    assert_eq!(joiner.joined().len(), 4);
}

#[test]
fn a_received_buffer_is_sliced_by_its_stride() {
    let slices = |len: u32, stride| {
        let parts = parts(&[0; 100], 10..10 + len, stride);
        parts.map(|part| (part.frame.start, part.frame.end)).collect::<Vec<_>>()
    };
    assert_eq!(slices(50, 20), [(10, 30), (30, 50), (50, 60)]);
    assert_eq!(slices(50, 50), [(10, 60)]);
    assert_eq!(slices(50, 0), [(10, 60)]);
    assert!(slices(0, 0).is_empty());
}

/// A kernel VTEP on the same machine hands a container's UDP super-frame over whole. Its payload looks like VXLAN
/// here, and must not be taken for it.
#[test]
fn payload_of_a_whole_udp_super_frame_is_not_taken_for_headers() {
    let mut spec = udp(1, 0);
    let mut inner = vxlan::header(engine::types::Vni::new(7).unwrap()).to_vec();
    inner.resize(500, 0xaa);
    spec.payload = inner.repeat(8);
    let (vnet, frame) = spec.super_frame(500);
    let arena = [&vxlan::header(vni())[..], &frame].concat();
    let all: Vec<_> = parts(&arena, 0..arena.len() as u32, 500).collect();
    assert_eq!(all, [Part { frame: 0..arena.len() as u32, gso_size: 500 }]);
    let mut joiner = Joiner::new(Coalesce { tcp: true, udp: true });
    let part = all[0].clone().skip(vxlan::LEN);
    assert_eq!(joiner.push(&arena, remote(), vni(), MTU, part), Ok(Intake::Taken));
    joiner.finish();
    let joined = &joiner.joined()[0];
    assert_eq!((joined.vnet, whole(&joiner, joined, &arena)), (vnet, frame));
}
