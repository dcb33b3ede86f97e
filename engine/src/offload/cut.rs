//! From a container's frame to VXLAN datagrams.
//!
//! A super-frame becomes one datagram per segment, each with its own VXLAN, Ethernet, IP and transport headers;
//! a frame with a partial checksum gets a whole one; any other frame gets a VXLAN header and nothing else. Only
//! headers are written, into [`Outbox::heads`].
//!
//! The rules of segmenting are the kernel's (Documentation/networking/segmentation-offloads.rst): the IP
//! identification counts up, the sequence number advances, FIN and PSH stay for the last segment, CWR for the
//! first (RFC 3168 section 6.1.2), everything else is repeated.
//!
//! What will be sealed ([`cut_for_sealing`]) keeps partial checksums partial where the frame's own header has them, and says
//! so in its VXLAN header: the seal covers every byte, and the kernel at the other end completes or believes them.
//!
//! The VXLAN payload is at most the network's MTU and an untagged Ethernet header: 802.1Q tags count as part of
//! the packet, or a tagged frame of full size would not fit the underlay that the MTU was made for. A TCP
//! segment above that is cut like a super-frame; anything else above it is [`DropReason::TooBig`].

use std::ops::Range;

use super::Intake;
use super::headers::{Headers, Inner};
use crate::counters::DropReason;
use crate::packet::Slot;
use crate::types::Vni;
use crate::wire::checksum::Sum;
use crate::wire::ipv4;
use crate::wire::ipv6;
use crate::wire::tcp;
use crate::wire::udp;
use crate::wire::virtio::VnetHeader;
use crate::wire::{ether, vxlan};

/// How many datagrams an [`Outbox`] holds: more than a batch of super-frames makes at usual segment sizes, and
/// than one super-frame makes at the smallest that Linux uses (48 bytes).
pub const MAX_DATAGRAMS: usize = 2048;

/// How many bytes of headers an [`Outbox`] holds.
const MAX_HEADS: usize = MAX_DATAGRAMS * 128;

/// The largest head of one datagram in bytes, VXLAN header included: room for every tag, option and extension
/// header that a kernel offloads over.
pub(super) const MAX_HEAD: usize = 512;

/// One UDP payload: the bytes of `head` in [`Outbox::heads`], then those of `body` in the batch's arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// VXLAN header and, where they were rewritten, the frame's own headers.
    pub head: Range<u32>,
    /// The rest of the frame, by reference.
    pub body: Range<u32>,
}

impl Datagram {
    /// Length of the UDP payload in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// True for no bytes at all, which [`cut`] never makes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Datagrams ready to be sent, to one address or, for a flood, to several.
#[derive(Debug)]
pub struct Outbox {
    heads: Vec<u8>,
    datagrams: Vec<Datagram>,
    /// Of the next packet that is fragmented and has none of its own.
    identification: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// An empty outbox. Allocates once for all it will ever hold.
    pub fn new() -> Self {
        Outbox {
            heads: Vec::with_capacity(MAX_DATAGRAMS * 160),
            datagrams: Vec::with_capacity(MAX_DATAGRAMS),
            identification: 0,
        }
    }

    /// The same with identifications of its own for the packets fragmented here: no other worker uses them.
    #[must_use]
    pub fn of_worker(mut self, lane: u8) -> Self {
        self.identification = u32::from(lane) << 24;
        self
    }

    /// An identification that is not soon used again: an odd factor visits all numbers.
    pub(super) fn next_identification(&mut self) -> u32 {
        self.identification = self.identification.wrapping_add(1);
        self.identification.wrapping_mul(0x9e37_79b1)
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.datagrams.clear();
    }

    /// The bytes that the heads point into.
    pub fn heads(&self) -> &[u8] {
        &self.heads
    }

    /// The datagrams in order.
    pub fn datagrams(&self) -> &[Datagram] {
        &self.datagrams
    }

    /// The two pieces of a datagram, given the batch's arena.
    pub fn pieces<'a>(&'a self, datagram: &Datagram, arena: &'a [u8]) -> [&'a [u8]; 2] {
        [slice(&self.heads, &datagram.head), slice(arena, &datagram.body)]
    }

    /// Whether `count` more datagrams with heads of `head` bytes fit.
    pub(super) fn has_room(&self, count: usize, head: usize) -> bool {
        self.datagrams.len() + count <= MAX_DATAGRAMS && self.heads.len() + count * head <= MAX_HEADS
    }

    /// Appends a datagram whose head is `vxlan` and `headers`, and gives its copy of `headers`.
    pub(super) fn push(&mut self, vxlan: &[u8; vxlan::LEN], headers: &[u8], body: Range<u32>) -> &mut [u8] {
        let start = self.heads.len();
        self.heads.extend_from_slice(vxlan);
        self.heads.extend_from_slice(headers);
        self.datagrams.push(Datagram { head: start as u32..self.heads.len() as u32, body });
        self.heads.get_mut(start + vxlan::LEN..).unwrap_or_default()
    }

    /// Runs of datagrams that one send with `UDP_SEGMENT` can carry: equal lengths, the last may be shorter, at
    /// most `max_segments` of them and `max_bytes` in all. A run of one needs no `UDP_SEGMENT`.
    pub fn runs(&self, max_segments: usize, max_bytes: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let rest = self.datagrams.get(start..).filter(|rest| !rest.is_empty())?;
            let run = start..start + run_length(rest, max_segments, max_bytes);
            start = run.end;
            Some(run)
        })
    }
}

/// How many datagrams at the start of `rest`, which has one at least, form a run.
fn run_length(rest: &[Datagram], max_segments: usize, max_bytes: usize) -> usize {
    let Some(first) = rest.first() else { return 0 };
    let (size, mut bytes) = (first.len(), first.len());
    for (count, next) in rest.iter().enumerate().skip(1) {
        bytes += next.len();
        if count >= max_segments || bytes > max_bytes || next.len() > size {
            return count;
        }
        if next.len() < size {
            return count + 1;
        }
    }
    rest.len()
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// Appends to `out` the datagrams that carry the frame of `slot`: one, or one per segment of a super-frame.
///
/// `mtu` is the network's, in bytes. [`Intake::Full`] leaves `out` as it was: send and clear it, then cut again.
///
/// # Errors
/// [`DropReason::TooBig`], [`DropReason::BadOffload`], [`DropReason::Runt`], [`DropReason::TruncatedTag`]; `out`
/// is then as before.
pub fn cut(arena: &[u8], slot: &Slot, vni: Vni, mtu: u16, out: &mut Outbox) -> Result<Intake, DropReason> {
    cut_as::<false>(arena, slot, vni, mtu, out)
}

/// The same for a frame that will be sealed: its own partial checksum stays partial, and the VXLAN header says so.
///
/// # Errors
/// As [`cut`].
pub fn cut_for_sealing(
    arena: &[u8],
    slot: &Slot,
    vni: Vni,
    mtu: u16,
    out: &mut Outbox,
) -> Result<Intake, DropReason> {
    cut_as::<true>(arena, slot, vni, mtu, out)
}

fn cut_as<const SEALED: bool>(
    arena: &[u8],
    slot: &Slot,
    vni: Vni,
    mtu: u16,
    out: &mut Outbox,
) -> Result<Intake, DropReason> {
    let frame = slot.frame(arena);
    let fits = frame.len() <= usize::from(mtu) + ether::LEN;
    if slot.vnet.is_super() || !fits {
        return cut_segments::<SEALED>(frame, slot, vni, mtu, out);
    }
    if frame.len() < ether::LEN {
        return Err(DropReason::Runt);
    }
    let stays_partial = SEALED && is_own_sum(frame, &slot.vnet);
    let completes = slot.vnet.needs_csum() && !stays_partial;
    let head = if completes { end_of_sum(&slot.vnet) } else { 0 };
    let headers =
        frame.get(..head).filter(|_| head <= MAX_HEAD - vxlan::LEN).ok_or(DropReason::BadOffload)?;
    if !out.has_room(1, vxlan::LEN + head) {
        return Ok(Intake::Full);
    }
    let vxlan = vxlan::header_within(vni, stays_partial);
    let copy = out.push(&vxlan, headers, slot.start + head as u32..slot.end);
    if completes {
        complete(copy, frame, &slot.vnet);
    }
    Ok(Intake::Taken)
}

/// Whether the partial checksum is that of the frame's own TCP or UDP header, and covers all behind it: no fragment, no
/// tunnel, no padding.
fn is_own_sum(frame: &[u8], vnet: &VnetHeader) -> bool {
    let own = |h: Headers| {
        (h.l4, h.checksum_offset()) == (vnet.csum_start, vnet.csum_offset) && h.end as usize == frame.len()
    };
    vnet.needs_csum() && matches!(Inner::parse(frame), Ok(Inner::Flow(headers)) if own(headers))
}

/// The first byte behind the checksum field.
pub(super) fn end_of_sum(vnet: &VnetHeader) -> usize {
    usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2
}

/// Puts the whole checksum into `headers`, a copy of the start of `frame` that ends with the checksum field.
///
/// The field holds the sum of the pseudo-header, so that it is right to sum it with the rest.
pub(super) fn complete(headers: &mut [u8], frame: &[u8], vnet: &VnetHeader) {
    let sum = Sum::default().bytes(frame.get(usize::from(vnet.csum_start)..).unwrap_or_default());
    if let Some(field) = headers.last_chunk_mut::<2>() {
        *field = checksum_at(usize::from(vnet.csum_offset), sum).to_be_bytes();
    }
}

/// The checksum for the field that stands `offset` bytes into a transport header: in UDP's alone zero means "none".
fn checksum_at(offset: usize, sum: Sum) -> u16 {
    if offset == udp::CHECKSUM_OFFSET { sum.nonzero_checksum() } else { sum.checksum() }
}

/// How a super-frame is cut.
pub(super) struct Plan {
    pub(super) headers: Headers,
    /// Bytes of payload in each segment but the last.
    pub(super) size: usize,
    pub(super) count: usize,
}

fn cut_segments<const SEALED: bool>(
    frame: &[u8],
    slot: &Slot,
    vni: Vni,
    mtu: u16,
    out: &mut Outbox,
) -> Result<Intake, DropReason> {
    let plan = Plan::new(frame, &slot.vnet, mtu)?;
    let head = usize::from(plan.headers.payload);
    if !out.has_room(plan.count, vxlan::LEN + head) {
        return Ok(Intake::Full);
    }
    let template = frame.get(..head).ok_or(DropReason::BadOffload)?;
    let vxlan = vxlan::header_within(vni, SEALED);
    for index in 0..plan.count {
        let start = head + index * plan.size;
        let end = (start + plan.size).min(plan.headers.end as usize);
        let body = slot.start + start as u32..slot.start + end as u32;
        let copy = out.push(&vxlan, template, body);
        plan.rewrite::<SEALED>(copy, frame.get(start..end).unwrap_or_default(), index);
    }
    Ok(Intake::Taken)
}

impl Plan {
    fn new(frame: &[u8], vnet: &VnetHeader, mtu: u16) -> Result<Plan, DropReason> {
        let refused = if vnet.is_super() { DropReason::BadOffload } else { DropReason::TooBig };
        let Inner::Flow(headers) = Inner::parse(frame)? else { return Err(refused) };
        let size = segment_size(frame, &headers, vnet, mtu)?;
        let count = headers.payload_len().div_ceil(size).max(1);
        let head = vxlan::LEN + usize::from(headers.payload);
        // What an empty outbox cannot hold will never fit.
        let bounded = head <= MAX_HEAD && count <= MAX_DATAGRAMS && count * head <= MAX_HEADS;
        if !bounded || (count > 1 && !headers.may_repeat(frame)) {
            return Err(refused);
        }
        Ok(Plan { headers, size, count })
    }

    /// Makes `headers`, a copy of the super-frame's, those of segment `index`, which carries `payload`.
    pub(super) fn rewrite<const SEALED: bool>(&self, headers: &mut [u8], payload: &[u8], index: usize) {
        let h = &self.headers;
        let packet_len = h.packet_headers_len() + payload.len();
        let Some((ip, transport)) = headers
            .get_mut(usize::from(h.l3)..)
            .and_then(|rest| rest.split_at_mut_checked(usize::from(h.l4 - h.l3)))
        else {
            return;
        };
        if h.v6 {
            ipv6::rewrite(ip, (packet_len - ipv6::LEN) as u16);
        } else {
            ipv4::rewrite(ip, packet_len as u16, index as u16);
        }
        if h.tcp {
            self.rewrite_tcp(transport, index)
        } else {
            rewrite_udp(transport, payload.len())
        }
        self.rewrite_checksum::<SEALED>(headers, payload);
    }

    fn rewrite_tcp(&self, header: &mut [u8], index: usize) {
        if let Some(seq) = header.get_mut(tcp::SEQ_OFFSET..).and_then(<[u8]>::first_chunk_mut::<4>) {
            let offset = (index * self.size) as u32;
            *seq = u32::from_be_bytes(*seq).wrapping_add(offset).to_be_bytes();
        }
        if let Some(flags) = header.get_mut(tcp::FLAGS_OFFSET) {
            if index > 0 {
                *flags &= !tcp::CWR;
            }
            if index + 1 < self.count {
                *flags &= !(tcp::FIN | tcp::PSH);
            }
        }
    }

    /// The checksum of a segment; of one that will be sealed only its partial one, which spares a walk over the payload.
    fn rewrite_checksum<const SEALED: bool>(&self, headers: &mut [u8], payload: &[u8]) {
        let (l4, offset) = (usize::from(self.headers.l4), usize::from(self.headers.checksum_offset()));
        let pseudo = self.headers.pseudo_sum(headers, headers.len() - l4 + payload.len());
        let Some(transport) = headers.get_mut(l4..) else { return };
        if SEALED {
            return put(transport, offset, pseudo.fold());
        }
        put(transport, offset, 0);
        let sum = pseudo.bytes(transport).bytes(payload);
        put(transport, offset, checksum_at(offset, sum));
    }
}

/// Bytes of payload in each segment of a frame that must be cut.
fn segment_size(frame: &[u8], headers: &Headers, vnet: &VnetHeader, mtu: u16) -> Result<usize, DropReason> {
    let headers_len = usize::from(headers.payload) - ether::LEN;
    let room =
        usize::from(mtu).checked_sub(headers_len).filter(|&room| room > 0).ok_or(DropReason::TooBig)?;
    let own_sum = vnet.csum_start == headers.l4 && vnet.csum_offset == headers.checksum_offset();
    if !vnet.is_super() {
        // A checksum that is not ours to complete must be right before it is replaced.
        let sound = if vnet.needs_csum() { own_sum } else { headers.is_intact(frame) };
        return if headers.tcp && sound { Ok(room) } else { Err(DropReason::TooBig) };
    }
    let size = usize::from(vnet.gso_size);
    match headers.tcp {
        _ if !own_sum || vnet.kind() != headers.gso_type() => Err(DropReason::BadOffload),
        true => Ok(size.min(room)),
        // The bounds of UDP datagrams are the application's.
        false if size <= room => Ok(size),
        false => Err(DropReason::TooBig),
    }
}

fn rewrite_udp(header: &mut [u8], payload_len: usize) {
    put(header, udp::LENGTH_OFFSET, (udp::LEN + payload_len) as u16);
}

fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(field) = header.get_mut(at..at + 2) {
        field.copy_from_slice(&word.to_be_bytes());
    }
}
