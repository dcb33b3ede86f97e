//! What two hosts tell each other to find out what the other lacks.

use serde::{Deserialize, Serialize};

use super::record::{Slot, Stamp};

/// Most lines in one digest; a bigger store is told in several, each for a range of slots.
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
