//! The one number that tells whether two hosts agree.

use std::fmt;

use blake2::{Blake2s256, Digest as _};
use serde::{Deserialize, Serialize};

use super::store::RecordStore;
use crate::ipam::Ipam;

/// A BLAKE2s hash of replicated state, shown as hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct StateHash(pub [u8; 32]);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes the live records, range by range, then the units in the order of their networks. Equal on all hosts with equal
/// state, in whatever order it came; tombstones do not count.
pub fn state_hash(records: &RecordStore, ipam: &Ipam) -> StateHash {
    let mut hash = Blake2s256::new_with_prefix(b"meshnet state 2");
    hash.update(records.live_hash().0);
    hash.update(ipam.units_hash().0);
    StateHash(hash.finalize().into())
}
