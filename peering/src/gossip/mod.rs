//! Replicated records: signed by their writers, merged the same everywhere, repaired by comparing digests.
//!
//! ```text
//! bytes -> Record::parse -> RecordStore::insert -> Merge        (relay what was Accepted)
//! summary differs -> hashes of ranges -> lines of those that differ -> records to send, slots to pull
//! ```
//!
//! Of all records in a slot the one with the highest [`Stamp`] stays; stamps are totally ordered and equal
//! only for equal bytes, so the merge is commutative, associative and idempotent, and it cannot fail. What a removed host
//! wrote, and what lies below a host's floor, is dead, whichever of the two arrives first.

mod digest;
mod floor;
mod hash;
mod index;
mod ranges;
mod read;
mod record;
mod removal;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub use digest::{Digest, FEW_LINES, Line, MAX_DIGEST, MAX_PULL, Step};
pub use floor::Version;
pub use hash::{StateHash, state_hash};
pub use ranges::{MAX_DEPTH, MAX_RANGES, PARTS, Parts, Range, RangeHash};
pub use record::{Class, MAX_KEY, MAX_RECORD, REVOKED, Record, RecordError, Slot, Stamp, kind};
pub use store::{
    Counters, Difference, MAX_BYTES_PER_WRITER, MAX_RECORDS_PER_WRITER, Merge, RecordStore, StoreError,
};
