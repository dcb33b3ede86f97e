//! What two hosts tell each other to find out what the other lacks.

use serde::{Deserialize, Serialize};

use super::ranges::Parts;
use super::record::{Slot, Stamp};

/// Of a range that differs and has at most so many records every line is told.
pub const FEW_LINES: usize = 64;
/// Most lines in one digest.
pub const MAX_DIGEST: usize = 8192;
/// Most slots asked for in one pull.
pub const MAX_PULL: usize = 16384;

/// One line of a digest: a slot, and which record stands in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The slot.
    pub slot: Slot,
    /// The record in it.
    pub stamp: Stamp,
}

/// All records in a range of slots, tombstones included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest {
    /// The first slot of the range.
    pub first: Slot,
    /// The last slot of the range, included.
    pub last: Slot,
    /// The records, in the order of their slots.
    pub lines: Vec<Line>,
}

/// What to tell a host that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Every record of the range.
    Lines(Digest),
    /// The hashes of the parts of the range.
    Parts(Box<Parts>),
}
