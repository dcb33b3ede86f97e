//! From a container's frame to VXLAN datagrams.

use std::ops::Range;

use super::Intake;
use crate::counters::DropReason;
use crate::packet::Slot;
use crate::types::Vni;
use crate::wire::{ether, vxlan};

/// How many datagrams an [`Outbox`] holds.
pub const MAX_DATAGRAMS: usize = 2048;

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
        }
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
/// # Errors
/// [`DropReason::TooBig`], [`DropReason::BadOffload`], [`DropReason::Runt`]; `out` is then as before.
pub fn cut(arena: &[u8], slot: &Slot, vni: Vni, mtu: u16, out: &mut Outbox) -> Result<Intake, DropReason> {
    if out.datagrams.len() == MAX_DATAGRAMS {
        return Ok(Intake::Full);
    }
    if slot.frame(arena).len() > usize::from(mtu) + ether::LEN {
        return Err(DropReason::TooBig);
    }
    let start = out.heads.len() as u32;
    out.heads.extend_from_slice(&vxlan::header(vni));
    out.datagrams.push(Datagram { head: start..out.heads.len() as u32, body: slot.start..slot.end });
    Ok(Intake::Taken)
}
