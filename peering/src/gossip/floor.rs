//! Floors: how tombstones go without ever letting a deletion come back.
//!
//! A host's floor is a record of its own that says: everything that I wrote up to this version is dead. What lives it has
//! written again above before. So a floor stands for all tombstones below it, for ever and in any order of arrival: what is
//! at or below it is dropped and refused, whoever brings it, however old his disk.

use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use engine::types::PeerId;
use serde::{Deserialize, Serialize};

use super::hash::StateHash;
use super::record::{Class, Record, Slot, kind};
use super::store::RecordStore;
use super::write::Writing;
use crate::identity::Identity;

/// The version of an owner-written record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Version {
    /// The owner's incarnation.
    pub incarnation: u64,
    /// Its count of records in that.
    pub sequence: u64,
}

/// Bytes of a floor at the front of the payload of its record.
pub(super) const FLOOR_LEN: usize = 16;

impl Version {
    /// The floor in a payload; none if it is too short.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (incarnation, rest) = payload.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Version {
            incarnation: u64::from_le_bytes(*incarnation),
            sequence: u64::from_le_bytes(*sequence),
        })
    }

    fn write(self) -> [u8; FLOOR_LEN] {
        let mut bytes = [0; FLOOR_LEN];
        let (incarnation, sequence) = bytes.split_at_mut(FLOOR_LEN / 2);
        incarnation.copy_from_slice(&self.incarnation.to_le_bytes());
        sequence.copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }
}

impl RecordStore {
    /// How many tombstones and how many live records of its own this host keeps; its floor is neither.
    pub fn own_weight(&self) -> (usize, usize) {
        let own = self.own_records().filter(|record| record.kind() != kind::FLOOR);
        own.fold((0, 0), |(dead, live), record| match record.deleted() {
            true => (dead + 1, live),
            false => (dead, live + 1),
        })
    }

    /// The version of the last record that this host wrote.
    pub fn own_version(&self) -> Version {
        Version { incarnation: self.incarnation, sequence: self.sequence }
    }

    /// Writes all live records of this host again, so that its floor can rise to where they were. Returns what must be
    /// pushed.
    pub fn rewrite(&mut self, identity: &Identity) -> Vec<Arc<Record>> {
        let live = self.own_records().filter(|record| !record.deleted() && record.kind() != kind::FLOOR);
        let live: Vec<Arc<Record>> = live.cloned().collect();
        live.iter().filter_map(|record| self.write_again(identity, record)).collect()
    }

    /// A hash of what is held of a host up to a version, tombstones included: equal on hosts that hold the same.
    pub fn holding(&self, owner: PeerId, upto: Version) -> StateHash {
        let mut hash = Blake2s256::new_with_prefix(b"meshnet holding 1");
        for record in self.owned_by(owner).filter(|record| record.version_of_owner() <= upto) {
            hash.update(record.slot().0);
            hash.update(record.stamp().tie);
        }
        StateHash(hash.finalize().into())
    }

    /// Raises this host's floor, and drops the tombstones at or below it. None: something that lives is there.
    pub fn put_floor(&mut self, identity: &Identity, floor: Version) -> Option<Arc<Record>> {
        let lives = |record: &Record| !record.deleted() && record.kind() != kind::FLOOR;
        let below = self.own_records().any(|record| lives(record) && record.version_of_owner() <= floor);
        if below || self.own_version() < floor {
            return None;
        }
        self.write(identity, Writing::new(kind::FLOOR, Class::Owner, false), &[], &floor.write())
    }

    /// The record under which another one is dead, if it is: the removal of its owner, or its owner's floor.
    pub(super) fn dead_under(&self, record: &Record) -> Option<Arc<Record>> {
        self.removal_over(record).or_else(|| self.floor_over(record))
    }

    fn floor_over(&self, record: &Record) -> Option<Arc<Record>> {
        if record.class() != Class::Owner {
            return None;
        }
        let floor = self.get(Slot::of(Class::Owner, kind::FLOOR, record.signer(), &[]))?;
        let dead = floor.slot() != record.slot() && Some(record.version_of_owner()) <= floor.floor();
        dead.then(|| floor.clone())
    }

    /// A floor is the newest of its slot. This host's own live records below it wait for [`Self::reassert`].
    pub(super) fn sweep(&mut self, owner: PeerId) {
        let dead = self.owned_by(owner).filter(|record| self.floor_over(record).is_some());
        let dead = dead.filter(|record| owner != self.own || record.deleted());
        let dead: Vec<Slot> = dead.map(|record| record.slot()).collect();
        self.drop_all(&dead);
    }
}
