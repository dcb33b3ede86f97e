//! Hashes over ranges of slots, so that two hosts find what differs between them without telling each other everything.
//!
//! A range is cut into 16 by the next four bits of the slot, three times: 4096 smallest ranges. The hash of a smallest range
//! is taken over its records, of any other over the hashes of its 16 parts; an empty range has the hash zero. Hashes are kept
//! until a record in their range changes, so a change costs three of them, and a comparison goes only where they differ.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use serde::{Deserialize, Serialize};

use super::hash::StateHash;
use super::record::{Record, Slot};

/// How often a range is cut: ranges of this depth are not cut further.
pub const MAX_DEPTH: u8 = 3;
/// Parts of a range.
pub const PARTS: usize = 16;
/// Most ranges in one message.
pub const MAX_RANGES: usize = 256;

/// The hash of one range, the first 16 bytes of BLAKE2s.
pub type RangeHash = [u8; 16];

/// A range of slots: those that begin with `4 * depth` certain bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Range {
    /// How often all slots were cut for it, at most [`MAX_DEPTH`].
    pub depth: u8,
    /// The bits, as a number below 16 to the power of `depth`.
    pub prefix: u16,
}

/// A range and the hashes of its parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parts {
    /// The range, which can be cut.
    pub range: Range,
    /// In the order of their slots.
    pub hashes: [RangeHash; PARTS],
}

impl Range {
    /// All slots.
    pub const ALL: Range = Range { depth: 0, prefix: 0 };

    /// True if there is such a range.
    pub fn exists(self) -> bool {
        self.depth <= MAX_DEPTH && u32::from(self.prefix) < 1 << (4 * u32::from(self.depth))
    }

    /// The parts of a range that can be cut, in order; else nothing.
    pub fn parts(self) -> impl Iterator<Item = Range> {
        let cut = if self.depth < MAX_DEPTH { 0..16_u16 } else { 0..0 };
        cut.map(move |part| Range { depth: self.depth + 1, prefix: self.prefix << 4 | part })
    }

    /// The first and the last slot of it.
    pub fn bounds(self) -> (Slot, Slot) {
        if self.depth == 0 {
            return (Slot([0; 16]), Slot([0xff; 16]));
        }
        let shift = 128 - 4 * u32::from(self.depth.min(MAX_DEPTH));
        let first = u128::from(self.prefix) << shift;
        (Slot(first.to_be_bytes()), Slot((first | ((1 << shift) - 1)).to_be_bytes()))
    }

    /// The range of this depth that a slot lies in.
    fn of(slot: Slot, depth: u8) -> Self {
        let [a, b, ..] = slot.0;
        let bits = u16::from_be_bytes([a, b]);
        let prefix = if depth == 0 { 0 } else { bits >> (16 - 4 * u16::from(depth.min(MAX_DEPTH))) };
        Range { depth, prefix }
    }
}

/// The hashes of ranges that were asked for and still hold.
#[derive(Default)]
pub(super) struct RangeHashes {
    known: RefCell<BTreeMap<Range, RangeHash>>,
}

/// Adds a record to the hash of its range. False: it does not count.
pub(super) type Feed = fn(&Record, &mut Blake2s256) -> bool;

impl RangeHashes {
    /// A record in this slot came, changed or went.
    pub(super) fn forget(&mut self, slot: Slot) {
        let known = self.known.get_mut();
        for depth in 0..=MAX_DEPTH {
            known.remove(&Range::of(slot, depth));
        }
    }

    /// The hash of a range.
    pub(super) fn hash(&self, range: Range, records: &BTreeMap<Slot, Arc<Record>>, feed: Feed) -> RangeHash {
        if let Some(hash) = self.known.borrow().get(&range) {
            return *hash;
        }
        let (first, last) = range.bounds();
        if records.range(first..=last).next().is_none() {
            return RangeHash::default();
        }
        let hash = if range.depth < MAX_DEPTH {
            joined(range.parts().map(|part| self.hash(part, records, feed)))
        } else {
            let mut hash = Blake2s256::new_with_prefix([0]);
            let counted = records.range(first..=last).filter(|(_, record)| feed(record, &mut hash)).count();
            if counted == 0 { RangeHash::default() } else { front(&hash.finalize().into()) }
        };
        self.known.borrow_mut().insert(range, hash);
        hash
    }

    /// The hash of everything, whole, under a name for what it is a hash of.
    pub(super) fn root(&self, name: &[u8], records: &BTreeMap<Slot, Arc<Record>>, feed: Feed) -> StateHash {
        let mut hash = Blake2s256::new_with_prefix(name);
        Range::ALL.parts().for_each(|part| hash.update(self.hash(part, records, feed)));
        StateHash(hash.finalize().into())
    }
}

/// Ranges in which no record counts have the hash of the empty range, so that what does not count changes nothing.
fn joined(parts: impl Iterator<Item = RangeHash>) -> RangeHash {
    let parts: Vec<RangeHash> = parts.collect();
    if parts.iter().all(|part| *part == RangeHash::default()) {
        return RangeHash::default();
    }
    let mut hash = Blake2s256::new_with_prefix([1]);
    parts.iter().for_each(|part| hash.update(part));
    front(&hash.finalize().into())
}

fn front(hash: &[u8; 32]) -> RangeHash {
    hash.first_chunk().copied().unwrap_or_default()
}
