//! From received datagrams to as few super-frames as possible.
//!
//! Consecutive segments of one flow become one super-frame, so that the switch decides once and the kernel of the
//! container works once for all of them. Several flows are in progress at a time.
//!
//! - Joined are TCP segments and UDP datagrams, over IPv4 and IPv6, that differ only where cutting would make them
//!   differ: same origin, addresses and ports, type of service (so no mark of congestion is lost or spread), time to
//!   live, acknowledgement, window and options; next sequence number; equal sizes but for a shorter last one. PSH
//!   and FIN end a super-frame. Not joined: fragments, tagged frames, IP options, SYN, RST, URG, CWR, UDP without a
//!   checksum.
//! - Checksums are verified before anything is joined. A frame whose checksum is wrong goes on alone, as it came:
//!   nothing is repaired.
//! - A checksum field that holds the sum of the pseudo-header alone counts as right: a kernel VTEP on a virtual
//!   underlay leaves it so, also in oversize super-frames, which go on whole.
//! - Of a sealed frame its sender says whether the checksum is partial, and the seal vouches for the rest: a partial one is
//!   believed, any other is verified, and nothing is guessed.
//! - The order within a flow is kept, whatever comes between. A frame's place is that of the first of its
//!   super-frame. What cannot be joined ends the super-frame of its flow; a fragment, or what has no sound transport
//!   header, ends those of all flows between its two addresses.

mod flow;

use std::ops::Range;

use super::Intake;
use super::headers::{Headers, Inner};
use crate::counters::DropReason;
use crate::tables::RemoteIndex;
use crate::types::Vni;
use crate::wire::ether::{self, Ether};
use crate::wire::ipv4;
use crate::wire::ipv6;
use crate::wire::tcp;
use crate::wire::udp;
use crate::wire::virtio::VnetHeader;
use flow::{Candidate, Fit, Flow, Flows};

pub use super::parts::{Part, parts};
pub use flow::Sums;

/// How many frames a [`Joiner`] holds, joined or not.
pub const MAX_JOINED: usize = 512;

/// How many received frames a super-frame holds; a `writev` of it stays far below `IOV_MAX`.
pub const MAX_SEGMENTS: usize = 128;

/// How many super-frames a [`Joiner`] makes; further frames are passed on as they came.
const MAX_SUPERS: usize = 64;

/// How many bytes of rewritten headers a [`Joiner`] holds.
const MAX_HEADS: usize = MAX_SUPERS * 128;

/// The largest rewritten head in bytes.
const MAX_HEAD: usize = 512;

/// Which super-frames the devices take, as the kernel granted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coalesce {
    /// TCP segments may be joined.
    pub tcp: bool,
    /// UDP datagrams may be joined (`TUN_F_USO4` and `TUN_F_USO6`, Linux 6.2).
    pub udp: bool,
}

/// A frame ready for the switch and a TAP: the head, if any, then the bodies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Who sent it.
    pub from: RemoteIndex,
    /// On which network.
    pub vni: Vni,
    /// What the kernel is told of it.
    pub vnet: VnetHeader,
    /// Rewritten headers, in [`Joiner::heads`]; empty when the frame is passed on as it came.
    pub head: Range<u32>,
    /// How many received frames are in it.
    pub segments: u16,
    /// Its length in bytes, without the virtio-net header.
    pub len: u32,
    body: Body,
}

impl Joined {
    /// How many frames of a wire it stands for: the received ones, or the segments of a super-frame that came whole.
    pub fn wire_segments(&self) -> u64 {
        let payload = self.len.saturating_sub(self.vnet.hdr_len.into());
        match (&self.body, u32::from(self.vnet.gso_size)) {
            (Body::One(_), size @ 1..) => payload.div_ceil(size).max(1).into(),
            _ => self.segments.into(),
        }
    }
}

/// Where the bodies of a frame are noted.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Body {
    /// Here: the frame, or what follows its rewritten head.
    One(Range<u32>),
    /// In the block of the super-frame with this number.
    Block(u16),
}

/// What completes the head of a super-frame.
#[derive(Clone, Copy, Debug)]
struct Super {
    joined: u16,
    headers: Headers,
    ending_flags: u8,
}

/// The frames of one burst of datagrams, joined where that is safe.
///
/// All buffers are bounded and allocated once; a full joiner says [`Intake::Full`]. Between two [`Joiner::clear`]s
/// all frames must lie in the same arena, unchanged.
#[derive(Debug)]
pub struct Joiner {
    coalesce: Coalesce,
    joined: Vec<Joined>,
    heads: Vec<u8>,
    supers: Vec<Super>,
    /// [`MAX_SEGMENTS`] ranges for each super-frame.
    blocks: Box<[Range<u32>]>,
    flows: Flows,
}

impl Joiner {
    /// An empty joiner. Allocates once for all it will ever hold.
    pub fn new(coalesce: Coalesce) -> Self {
        Joiner {
            coalesce,
            joined: Vec::with_capacity(MAX_JOINED),
            heads: Vec::with_capacity(MAX_HEADS),
            supers: Vec::with_capacity(MAX_SUPERS),
            blocks: vec![0..0; MAX_SUPERS * MAX_SEGMENTS].into_boxed_slice(),
            flows: Flows::new(),
        }
    }

    /// Takes the inner frame at `part` of `arena`, which came from `from` on the network `vni` with the MTU `mtu`.
    ///
    /// # Errors
    /// [`DropReason::Runt`] and [`DropReason::TruncatedTag`]; [`DropReason::TooBig`] for a frame above the MTU that
    /// is no super-frame. Nothing was taken then.
    pub fn push(
        &mut self,
        arena: &[u8],
        from: RemoteIndex,
        vni: Vni,
        mtu: u16,
        part: Part,
    ) -> Result<Intake, DropReason> {
        self.push_as(arena, (from, vni), mtu, part, Sums::Guessed)
    }

    /// The same for a frame whose checksums are known to be of one kind, because it was sealed.
    ///
    /// # Errors
    /// As [`Joiner::push`].
    pub fn push_as(
        &mut self,
        arena: &[u8],
        (from, vni): (RemoteIndex, Vni),
        mtu: u16,
        part: Part,
        sums: Sums,
    ) -> Result<Intake, DropReason> {
        let frame = arena.get(part.frame.start as usize..part.frame.end as usize).unwrap_or_default();
        let inner = Inner::parse(frame)?;
        if self.joined.len() == MAX_JOINED {
            return Ok(Intake::Full);
        }
        let oversize = is_oversize(frame, mtu);
        match inner {
            Inner::Flow(headers) => {
                let candidate = Candidate { from, vni, frame, headers, sums };
                if oversize {
                    return self.push_oversize(arena, &candidate, &part, mtu);
                }
                self.push_flow(arena, &candidate, part.frame);
            }
            Inner::Piece(_) | Inner::Other if oversize => return Err(DropReason::TooBig),
            Inner::Piece(addresses) => {
                self.flows.close_between(arena, addresses.of(frame));
                self.pass(from, vni, VnetHeader::default(), part.frame);
            }
            Inner::Other => self.pass(from, vni, VnetHeader::default(), part.frame),
        }
        Ok(Intake::Taken)
    }

    fn push_flow(&mut self, arena: &[u8], candidate: &Candidate<'_>, frame: Range<u32>) {
        let allowed = if candidate.headers.tcp { self.coalesce.tcp } else { self.coalesce.udp };
        let joinable = allowed && candidate.is_joinable();
        if let Some(at) = self.flows.find(arena, candidate) {
            if joinable && self.extend(at, arena, candidate, frame.start) {
                return;
            }
            self.flows.close(at);
        }
        if joinable && candidate.ending_flags() == 0 {
            self.flows.open(Flow::new(candidate, frame.start, self.joined.len()));
        }
        let partial = candidate.is_partial();
        let vnet = if partial { candidate.headers.partial() } else { VnetHeader::default() };
        self.pass(candidate.from, candidate.vni, vnet, frame);
    }

    /// Appends the frame at `start` to the super-frame of flow `at`; false when it does not fit there.
    fn extend(&mut self, at: usize, arena: &[u8], next: &Candidate<'_>, start: u32) -> bool {
        let Some(flow) = self.flows.get_mut(at) else { return false };
        let fit = flow.fit(arena, next);
        let intact = fit != Fit::No && (flow.verified || flow.first(arena).is_intact()) && next.is_intact();
        let flow = *flow;
        if !intact || !self.append(arena, &flow, next, start) {
            return false;
        }
        match (fit, self.flows.get_mut(at)) {
            (Fit::Continues, Some(flow)) => flow.advance(next),
            _ => self.flows.close(at),
        }
        true
    }

    /// Notes the payload of `next`; false when there is no room.
    fn append(&mut self, arena: &[u8], flow: &Flow, next: &Candidate<'_>, start: u32) -> bool {
        let Some(block) = self.block_of(arena, flow) else { return false };
        let Some(joined) = self.joined.get_mut(usize::from(flow.joined)) else { return false };
        let segments = usize::from(joined.segments);
        let range = start + u32::from(next.headers.payload)..start + next.headers.end;
        if segments >= MAX_SEGMENTS
            || !set(&mut self.blocks, usize::from(block) * MAX_SEGMENTS + segments, &range)
        {
            return false;
        }
        joined.segments += 1;
        joined.len += range.len() as u32;
        if let Some(record) = self.supers.get_mut(usize::from(block)) {
            record.ending_flags = next.ending_flags();
        }
        true
    }

    /// The block of the flow's super-frame. A frame that is none yet becomes one: its headers are copied.
    fn block_of(&mut self, arena: &[u8], flow: &Flow) -> Option<u16> {
        let joined = self.joined.get_mut(usize::from(flow.joined))?;
        if let Body::Block(block) = joined.body {
            return Some(block);
        }
        let first = flow.first(arena);
        let headers = first.frame.get(..usize::from(first.headers.payload))?;
        if self.supers.len() == MAX_SUPERS || self.heads.len() + headers.len() > MAX_HEADS {
            return None;
        }
        let block = self.supers.len();
        let payload = flow.first_range().start + u32::from(first.headers.payload)..flow.first_range().end;
        set(&mut self.blocks, block * MAX_SEGMENTS, &payload);
        self.supers.push(Super { joined: flow.joined, headers: first.headers, ending_flags: 0 });
        joined.head = append_head(&mut self.heads, headers);
        joined.body = Body::Block(block as u16);
        joined.len = first.headers.end;
        joined.vnet = first.headers.segmented(flow.size);
        Some(block as u16)
    }

    /// A frame above the MTU: a super-frame that came whole.
    fn push_oversize(
        &mut self,
        arena: &[u8],
        candidate: &Candidate<'_>,
        part: &Part,
        mtu: u16,
    ) -> Result<Intake, DropReason> {
        let (headers, frame) = (&candidate.headers, candidate.frame);
        let size = self.oversize_segment(headers, part.gso_size, mtu).ok_or(DropReason::TooBig)?;
        // A partial checksum is what the kernel is to be given; a whole one is verified and replaced.
        let rewritten = if candidate.is_partial() { 0 } else { usize::from(headers.payload) };
        if !candidate.is_intact() || !headers.may_repeat(frame) || rewritten > MAX_HEAD {
            return Err(DropReason::TooBig);
        }
        if self.heads.len() + rewritten > MAX_HEADS {
            return Ok(Intake::Full);
        }
        if let Some(at) = self.flows.find(arena, candidate) {
            self.flows.close(at);
        }
        let range = part.frame.start..part.frame.start + headers.end;
        self.pass(candidate.from, candidate.vni, headers.segmented(size), range);
        if rewritten > 0 {
            self.rewrite_last(candidate);
        }
        Ok(Intake::Taken)
    }

    /// Gives the last frame a head with a partial checksum.
    fn rewrite_last(&mut self, candidate: &Candidate<'_>) {
        let headers = &candidate.headers;
        let Some(joined) = self.joined.last_mut() else { return };
        let Body::One(range) = &mut joined.body else { return };
        range.start += u32::from(headers.payload);
        let bytes = candidate.frame.get(..usize::from(headers.payload)).unwrap_or_default();
        joined.head = append_head(&mut self.heads, bytes);
        let copy = self.heads.get_mut(joined.head.start as usize..).unwrap_or_default();
        put_pseudo_sum(copy, headers, headers.end as usize - usize::from(headers.l4));
    }

    /// Bytes of payload in each segment of an oversize frame; none when devices would not take it, or when nobody
    /// knows: the bounds of UDP datagrams are the sender's.
    fn oversize_segment(&self, headers: &Headers, gso_size: u16, mtu: u16) -> Option<u16> {
        let size = if headers.tcp {
            usize::from(mtu).checked_sub(headers.packet_headers_len()).filter(|_| self.coalesce.tcp)?
        } else {
            Some(usize::from(gso_size)).filter(|_| self.coalesce.udp)?
        };
        u16::try_from(size).ok().filter(|&size| size > 0)
    }

    fn pass(&mut self, from: RemoteIndex, vni: Vni, vnet: VnetHeader, frame: Range<u32>) {
        let len = frame.len() as u32;
        self.joined.push(Joined { from, vni, vnet, head: 0..0, segments: 1, len, body: Body::One(frame) });
    }

    /// Completes the headers of what was joined. Call it after the last [`Joiner::push`] and before the frames are
    /// used; more may be pushed afterwards.
    pub fn finish(&mut self) {
        for record in &self.supers {
            let Some(joined) = self.joined.get(usize::from(record.joined)) else { continue };
            let range = joined.head.start as usize..joined.head.end as usize;
            if let Some(head) = self.heads.get_mut(range) {
                record.complete(head, joined.len as usize);
            }
        }
    }

    /// The frames, in an order that keeps that of every flow.
    pub fn joined(&self) -> &[Joined] {
        &self.joined
    }

    /// The bytes that [`Joined::head`] points into.
    pub fn heads(&self) -> &[u8] {
        &self.heads
    }

    /// Rewritten headers of `joined`, empty when it is passed on as it came.
    pub fn head(&self, joined: &Joined) -> &[u8] {
        self.heads.get(joined.head.start as usize..joined.head.end as usize).unwrap_or_default()
    }

    /// The ranges of the arena that follow the head, in order.
    pub fn bodies<'a>(&'a self, joined: &'a Joined) -> &'a [Range<u32>] {
        match &joined.body {
            Body::One(range) => std::slice::from_ref(range),
            Body::Block(block) => {
                let start = usize::from(*block) * MAX_SEGMENTS;
                self.blocks.get(start..start + usize::from(joined.segments)).unwrap_or_default()
            }
        }
    }

    /// The start of the frame in one piece, for the switch: all headers at least, or the whole frame.
    pub fn start<'a>(&'a self, joined: &Joined, arena: &'a [u8]) -> &'a [u8] {
        match &joined.body {
            Body::One(range) if joined.head.is_empty() => {
                arena.get(range.start as usize..range.end as usize).unwrap_or_default()
            }
            _ => self.head(joined),
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.joined.clear();
        self.heads.clear();
        self.supers.clear();
        self.flows.clear();
    }
}

impl Super {
    /// Makes `head` that of a super-frame of `len` bytes.
    fn complete(&self, head: &mut [u8], len: usize) {
        let h = &self.headers;
        let (l3, l4) = (usize::from(h.l3), usize::from(h.l4));
        let Some(ip) = head.get_mut(l3..l4) else { return };
        if h.v6 {
            ipv6::rewrite(ip, (len - l3 - ipv6::LEN) as u16);
        } else {
            ipv4::rewrite(ip, (len - l3) as u16, 0);
        }
        if h.tcp {
            if let Some(flags) = head.get_mut(l4 + tcp::FLAGS_OFFSET) {
                *flags |= self.ending_flags;
            }
        } else if let Some(field) = head.get_mut(l4 + udp::LENGTH_OFFSET..).and_then(<[u8]>::first_chunk_mut)
        {
            *field = ((len - l4) as u16).to_be_bytes();
        }
        put_pseudo_sum(head, h, len - l4);
    }
}

/// Whether the packet is larger than the MTU. Tags do not count: another host may have room for them.
fn is_oversize(frame: &[u8], mtu: u16) -> bool {
    let tags = Ether::parse(frame).map_or(0, |ether| ether.payload_offset() - ether::LEN);
    frame.len() > usize::from(mtu) + ether::LEN + tags
}

/// Leaves the kernel the sum of the pseudo-header, not inverted, for a transport of `len` bytes.
fn put_pseudo_sum(head: &mut [u8], headers: &Headers, len: usize) {
    let sum = headers.pseudo_sum(head, len).fold();
    let at = usize::from(headers.l4 + headers.checksum_offset());
    if let Some(field) = head.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = sum.to_be_bytes();
    }
}

fn append_head(heads: &mut Vec<u8>, bytes: &[u8]) -> Range<u32> {
    let start = heads.len() as u32;
    heads.extend_from_slice(bytes);
    start..heads.len() as u32
}

/// Sets `blocks[at]`; false when there is no such place.
fn set(blocks: &mut [Range<u32>], at: usize, range: &Range<u32>) -> bool {
    blocks.get_mut(at).map(|place| *place = range.clone()).is_some()
}
