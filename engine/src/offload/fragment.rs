//! Packets that are too big for the way ahead and may be fragmented: IPv4 without "don't fragment" (RFC 791 section 3.2),
//! and IPv6 up to the size that every link has to carry (RFC 8200 section 5).
//!
//! Only what [`super::cut`] has refused as too big comes here, so nothing of this is paid for on a path that carries full
//! packets. As there, only headers are written: payloads stay where they were read.

use std::ops::Range;

use super::Intake;
use super::cut::{MAX_HEAD, Outbox, Plan, complete, end_of_sum};
use super::headers::{Headers, Inner};
use crate::counters::DropReason;
use crate::packet::Slot;
use crate::types::Vni;
use crate::wire::ether::{self, Ether};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::vxlan;

/// What every link under IPv6 carries, by fragments of its own if need be (RFC 8200 section 5).
pub const IPV6_MIN_MTU: u16 = 1280;

/// Fragments begin at multiples of this, in bytes.
const UNIT: usize = 8;

/// Appends to `out` the fragments that carry the frame of `slot`, none larger than `mtu` and an untagged Ethernet header.
/// Of a super-frame of UDP each datagram is fragmented for itself.
///
/// [`Intake::Full`] leaves `out` as it was: send and clear it, then try again.
///
/// # Errors
/// [`DropReason::TooBig`]: it may not be fragmented. [`DropReason::BadOffload`], [`DropReason::Runt`],
/// [`DropReason::TruncatedTag`]. `out` is then as before.
pub fn fragment(
    arena: &[u8],
    slot: &Slot,
    vni: Vni,
    mtu: u16,
    out: &mut Outbox,
) -> Result<Intake, DropReason> {
    let frame = slot.frame(arena);
    let layout = Layout::of(frame)?;
    if slot.vnet.is_super() {
        return fragment_each(frame, slot, &layout, vni, mtu, out);
    }
    let mut scratch = [0; MAX_HEAD];
    let completed = slot.vnet.needs_csum().then(|| end_of_sum(&slot.vnet));
    if completed.is_some() && usize::from(slot.vnet.csum_start) < layout.behind {
        return Err(DropReason::BadOffload);
    }
    let copied = completed.unwrap_or(layout.behind);
    let head = scratch.get_mut(..copied).ok_or(DropReason::BadOffload)?;
    head.copy_from_slice(frame.get(..copied).ok_or(DropReason::BadOffload)?);
    if completed.is_some() {
        complete(head, frame, &slot.vnet);
    }
    let body = slot.start + copied as u32..slot.start + layout.end as u32;
    let whole = Whole { head, body, layout: &layout };
    let plan = whole.plan(mtu)?;
    if !out.has_room(plan.count, vxlan::LEN + copied + FRAGMENT_LEN) {
        return full(out);
    }
    whole.put(&plan, vni, out);
    Ok(Intake::Taken)
}

/// The same for each datagram of a super-frame of UDP.
fn fragment_each(
    frame: &[u8],
    slot: &Slot,
    layout: &Layout,
    vni: Vni,
    mtu: u16,
    out: &mut Outbox,
) -> Result<Intake, DropReason> {
    let Inner::Flow(headers) = Inner::parse(frame)? else { return Err(DropReason::BadOffload) };
    let size = datagram_size(slot, &headers)?;
    let head = usize::from(headers.payload);
    let count = headers.payload_len().div_ceil(size).max(1);
    let segments = Plan { headers, size, count };
    let template = frame.get(..head).filter(|_| head <= MAX_HEAD).ok_or(DropReason::BadOffload)?;
    let mut scratch = [0; MAX_HEAD];
    let scratch = scratch.get_mut(..head).ok_or(DropReason::BadOffload)?;
    let datagram = |index: usize| {
        let start = head + index * size;
        start..(start + size).min(segments.headers.end as usize)
    };
    let span = |range: Range<usize>| slot.start + range.start as u32..slot.start + range.end as u32;
    let first = Whole { head: template, body: span(datagram(0)), layout }.plan(mtu)?;
    if !out.has_room(first.count * count, vxlan::LEN + head + FRAGMENT_LEN) {
        return full(out);
    }
    for index in 0..count {
        scratch.copy_from_slice(template);
        segments.rewrite::<false>(scratch, frame.get(datagram(index)).unwrap_or_default(), index);
        let whole = Whole { head: scratch, body: span(datagram(index)), layout };
        // None is longer than the first.
        whole.put(&whole.plan(mtu)?, vni, out);
    }
    Ok(Intake::Taken)
}

/// What an empty outbox cannot hold will never fit.
fn full(out: &Outbox) -> Result<Intake, DropReason> {
    if out.datagrams().is_empty() { Err(DropReason::TooBig) } else { Ok(Intake::Full) }
}

fn datagram_size(slot: &Slot, headers: &Headers) -> Result<usize, DropReason> {
    let vnet = &slot.vnet;
    let own_sum = vnet.csum_start == headers.l4 && vnet.csum_offset == headers.checksum_offset();
    let sound = own_sum && !headers.tcp && vnet.kind() == headers.gso_type() && vnet.gso_size > 0;
    if sound { Ok(vnet.gso_size.into()) } else { Err(DropReason::BadOffload) }
}

/// Where the parts of a packet are, from the start of its frame.
struct Layout {
    l3: usize,
    /// Behind the headers that every fragment repeats.
    repeated: usize,
    /// Behind those and a fragment header, if it has one already: what is divided.
    behind: usize,
    end: usize,
    v6: bool,
}

impl Layout {
    fn of(frame: &[u8]) -> Result<Layout, DropReason> {
        let ether = Ether::parse(frame)?;
        let l3 = ether.payload_offset();
        let layout = match ether.ethertype() {
            ether::IPV4 => Self::of_ipv4(l3, ether.payload()),
            ether::IPV6 => Self::of_ipv6(l3, ether.payload()),
            _ => None,
        };
        layout.ok_or(DropReason::TooBig)
    }

    fn of_ipv4(l3: usize, packet: &[u8]) -> Option<Layout> {
        let ip = Ipv4::parse(packet).filter(|ip| !ip.dont_fragment())?;
        let behind = l3 + ip.header_len();
        Some(Layout { l3, repeated: behind, behind, end: l3 + ip.total_len(), v6: false })
    }

    fn of_ipv6(l3: usize, packet: &[u8]) -> Option<Layout> {
        let ip = Ipv6::parse(packet)?;
        let repeated = l3 + if ip.is_fragment() { ip.header_len() } else { ipv6::LEN };
        // Extension headers go with the first fragment; only a header for every hop on the way would have to be repeated.
        let per_hop = packet.get(NEXT_HEADER) == Some(&HOP_BY_HOP);
        let behind = repeated + if ip.is_fragment() { FRAGMENT_LEN } else { 0 };
        let layout = Layout { l3, repeated, behind, end: l3 + ip.total_len(), v6: true };
        (ip.is_fragment() || !per_hop).then_some(layout)
    }
}

/// Where the fixed header of IPv6 names what follows it.
const NEXT_HEADER: usize = 6;
const HOP_BY_HOP: u8 = 0;
/// The fragment header's own number, and its length (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;
const FRAGMENT_LEN: usize = 8;

/// A packet in two pieces: `head` has all headers, and what had to be rewritten behind them; `body` is the rest.
struct Whole<'a> {
    head: &'a [u8],
    body: Range<u32>,
    layout: &'a Layout,
}

/// How it is divided.
struct Division {
    /// Bytes of what is divided in each fragment but the last.
    chunk: usize,
    count: usize,
}

impl Whole<'_> {
    /// Bytes of `head` that belong to what is divided.
    fn prefix(&self) -> usize {
        self.head.len() - self.layout.behind
    }

    fn plan(&self, mtu: u16) -> Result<Division, DropReason> {
        let added = if self.layout.v6 { FRAGMENT_LEN } else { 0 };
        let around = self.layout.repeated - ether::LEN + added;
        let chunk = usize::from(mtu).saturating_sub(around) / UNIT * UNIT;
        let packet = self.head.len() - self.layout.l3 + self.body.len();
        let sender_can = self.layout.v6 && packet > usize::from(IPV6_MIN_MTU);
        // The first fragment has at least what was rewritten.
        if sender_can || chunk < self.prefix().max(UNIT) {
            return Err(DropReason::TooBig);
        }
        let count = (self.prefix() + self.body.len()).div_ceil(chunk).max(1);
        Ok(Division { chunk, count })
    }

    fn put(&self, division: &Division, vni: Vni, out: &mut Outbox) {
        let (header, prefix) = (vxlan::header(vni), self.prefix());
        let id = out.next_identification();
        let total = prefix + self.body.len();
        let at = |offset: usize| self.body.start + (offset.max(prefix) - prefix) as u32;
        for index in 0..division.count {
            let start = index * division.chunk;
            let end = (start + division.chunk).min(total);
            let piece = Piece { start, len: end - start, last: index + 1 == division.count };
            let mut scratch = [0; MAX_HEAD];
            let written = self.write_head(&piece, id, &mut scratch);
            out.push(&header, scratch.get(..written).unwrap_or_default(), at(start)..at(end));
        }
    }

    /// Writes the headers of a fragment, and behind them in the first one what was rewritten; gives their length.
    fn write_head(&self, piece: &Piece, id: u32, scratch: &mut [u8; MAX_HEAD]) -> usize {
        let Layout { l3, repeated, behind, .. } = *self.layout;
        let added = if self.layout.v6 { FRAGMENT_LEN } else { 0 };
        let rewritten = self.head.get(behind..).filter(|_| piece.start == 0).unwrap_or_default();
        let end = repeated + added + rewritten.len();
        copy(scratch, 0, self.head.get(..repeated).unwrap_or_default());
        copy(scratch, repeated + added, rewritten);
        let packet_len = repeated - l3 + added + piece.len;
        let Some(headers) = scratch.get_mut(l3..repeated + added) else { return 0 };
        match self.layout.v6 {
            false => piece.write_ipv4(headers, packet_len),
            true => {
                let former = self.head.get(repeated..behind).unwrap_or_default();
                piece.write_ipv6(headers, packet_len, id, former);
            }
        }
        end.min(MAX_HEAD)
    }
}

fn copy(to: &mut [u8; MAX_HEAD], at: usize, from: &[u8]) {
    if let Some(to) = to.get_mut(at..at + from.len()) {
        to.copy_from_slice(from);
    }
}

/// One fragment: a part of what is divided.
struct Piece {
    start: usize,
    len: usize,
    last: bool,
}

impl Piece {
    /// Where it lies in the packet that the first sender had, in units, and whether more follows: what is divided may be a
    /// fragment itself.
    fn place(&self, offset: u16, more: bool) -> (u16, bool) {
        (offset + (self.start / UNIT) as u16, more || !self.last)
    }

    fn write_ipv4(&self, header: &mut [u8], packet_len: usize) {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        if self.start > 0 {
            blank_options(header.get_mut(ipv4::LEN..).unwrap_or_default());
        }
        let Some(field) = header.get_mut(6..8).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
        let before = u16::from_be_bytes(*field);
        let (offset, more) = self.place(before & OFFSET, before & MORE != 0);
        *field = (before & !(MORE | OFFSET) | offset & OFFSET | if more { MORE } else { 0 }).to_be_bytes();
        ipv4::rewrite(header, packet_len as u16, 0);
    }

    /// The fixed header, then the fragment header: `former` with its identification if the packet had one.
    fn write_ipv6(&self, headers: &mut [u8], packet_len: usize, id: u32, former: &[u8]) {
        const MORE: u16 = 1;
        let at = headers.len() - FRAGMENT_LEN;
        let (mut next, mut before, mut id) = (0, 0, id.to_be_bytes());
        match *former {
            [following, _, high, low, ref rest @ ..] => {
                (next, before) = (following, u16::from_be_bytes([high, low]));
                id = rest.first_chunk().copied().unwrap_or(id);
            }
            _ => {
                if let Some(field) = headers.get_mut(NEXT_HEADER) {
                    next = std::mem::replace(field, FRAGMENT);
                }
            }
        }
        let (offset, more) = self.place(before >> 3, before & MORE != 0);
        let word = (offset << 3 | if more { MORE } else { 0 }).to_be_bytes();
        if let Some(header) = headers.get_mut(at..) {
            header.copy_from_slice(&[next, 0, word[0], word[1], id[0], id[1], id[2], id[3]]);
        }
        ipv6::rewrite(headers, (packet_len - ipv6::LEN) as u16);
    }
}

/// Options that are not to be repeated become "no operation" (RFC 791 section 3.1): the header keeps its length.
fn blank_options(mut options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest.first()) {
            (END, _) | (_, None) => return,
            (NO_OPERATION, _) => 1,
            (_, Some(len)) => usize::from(*len).max(2),
        };
        let (kind, copied) = (*kind, *kind & COPIED != 0);
        let Some((option, following)) = options.split_at_mut_checked(len) else { return };
        if kind != NO_OPERATION && !copied {
            option.fill(NO_OPERATION);
        }
        options = following;
    }
}
