//! All records of one host, and the clock under which it writes its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::types::PeerId;
use serde::{Deserialize, Serialize};

use super::index::Index;
use super::ranges::RangeHashes;
use super::record::{Class, Record, RecordError, Slot, kind};

/// Most records of one writer.
pub const MAX_RECORDS_PER_WRITER: usize = 16_384;
/// Most bytes in the records of one writer.
pub const MAX_BYTES_PER_WRITER: usize = 16 << 20;
const STORE_VERSION: u8 = 1;

/// What became of a record that was offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merge {
    /// It is the newest of its slot: relay it.
    Accepted {
        /// The record.
        record: Arc<Record>,
        /// What stood in the slot before.
        previous: Option<Arc<Record>>,
    },
    /// It is here already.
    Equal,
    /// A newer one is here: the sender lacks this.
    Older(Arc<Record>),
    /// It was written by this host in a life that this life does not remember. It is not stored; the
    /// clock stands above it now, and [`RecordStore::reassert`] writes what is true.
    Overtaken,
    /// Its owner was removed after it wrote this, or has its floor above it: the sender lacks this removal, or this floor.
    Dead(Arc<Record>),
    /// It is refused, alone; the reason was counted.
    Invalid(RecordError),
}

/// What was refused or not understood since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Signatures looked at: what a record costs most.
    pub checked: u64,
    /// Records refused for their form.
    pub malformed: u64,
    /// Records refused for their signature.
    pub forged: u64,
    /// Records refused because their writer has too many.
    pub over_limit: u64,
    /// Records of a known kind, kept but not understood.
    pub unreadable: u64,
}

/// What two hosts lack of each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// Records that the other side lacks.
    pub send: Vec<Arc<Record>>,
    /// Slots of which the other side has newer records.
    pub want: Vec<Slot>,
}

/// The stored bytes are no record store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a newer release.
    #[error("records of version {0} cannot be read by this release")]
    Version(u8),
    /// Not readable.
    #[error("the records cannot be read")]
    Malformed,
}

/// All records of one host, in the order of their slots.
pub struct RecordStore {
    pub(super) own: PeerId,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) records: BTreeMap<Slot, Arc<Record>>,
    pub(super) index: Index,
    /// Over all records.
    pub(super) ranges: RangeHashes,
    /// Over those that are not deleted.
    pub(super) live_ranges: RangeHashes,
    weights: BTreeMap<PeerId, Weight>,
    /// The last dead incarnation of each host that was ever removed.
    pub(super) removals: BTreeMap<PeerId, u64>,
    /// What a removal or a floor took away since somebody asked.
    pub(super) dropped: Vec<Arc<Record>>,
    pub(super) overtaken: BTreeMap<Slot, Arc<Record>>,
    pub(super) rewrite: bool,
    /// A floor of this host came from elsewhere.
    pub(super) refloor: bool,
    pub(super) counters: Counters,
}

#[derive(Clone, Copy, Default)]
struct Weight {
    records: usize,
    bytes: usize,
}

/// How the store is written to disk, after its version byte.
#[derive(Serialize, Deserialize)]
struct Stored {
    incarnation: u64,
    records: Vec<Vec<u8>>,
}

impl RecordStore {
    /// An empty store, in the first incarnation of its host.
    pub fn new(own: PeerId) -> Self {
        RecordStore {
            own,
            incarnation: 1,
            sequence: 0,
            records: BTreeMap::new(),
            index: Index::default(),
            ranges: RangeHashes::default(),
            live_ranges: RangeHashes::default(),
            weights: BTreeMap::new(),
            removals: BTreeMap::new(),
            dropped: Vec::new(),
            overtaken: BTreeMap::new(),
            rewrite: false,
            refloor: false,
            counters: Counters::default(),
        }
    }

    /// An empty store of a host that wrote before, and does not know what: it writes below everything, so that others
    /// contradict ([`Merge::Overtaken`]) before they believe.
    pub fn forgetful(own: PeerId) -> Self {
        RecordStore { incarnation: 0, ..RecordStore::new(own) }
    }

    /// The store that [`Self::save`] wrote, one incarnation later. Signatures are not checked again.
    ///
    /// # Errors
    /// The bytes are not those of a store, or of a newer release.
    pub fn restore(own: PeerId, bytes: &[u8]) -> Result<Self, StoreError> {
        let stored: Stored = match bytes.split_first() {
            Some((&STORE_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| StoreError::Malformed)?,
            Some((&version, _)) => return Err(StoreError::Version(version)),
            None => return Err(StoreError::Malformed),
        };
        let mut store = RecordStore::new(own);
        for bytes in &stored.records {
            let record = Record::parse(bytes).map_err(|_| StoreError::Malformed)?;
            if record.signer() == own || store.dead_under(&record).is_none() {
                store.keep(Arc::new(record));
            }
        }
        store.dropped.clear();
        store.incarnation = stored.incarnation.saturating_add(1);
        Ok(store)
    }

    /// Everything that must be on disk, tombstones and the incarnation included.
    ///
    /// # Errors
    /// The serialiser refuses, which no store that was built here makes it do.
    pub fn save(&self) -> Result<Vec<u8>, StoreError> {
        let records = self.records.values().map(|record| record.bytes().to_vec()).collect();
        let stored = Stored { incarnation: self.incarnation, records };
        postcard::to_extend(&stored, vec![STORE_VERSION]).map_err(|_| StoreError::Malformed)
    }

    /// Offers one record from outside. Never fails, and never ends more than this one record.
    ///
    /// The signature is checked only if the record would change something.
    pub fn insert(&mut self, bytes: &[u8]) -> Merge {
        let record = match Record::parse(bytes) {
            Ok(record) => record,
            Err(error) => return self.refuse(error),
        };
        if let Some(over) = self.dead_under(&record) {
            return Merge::Dead(over);
        }
        let held = self.records.get(&record.slot()).cloned();
        match held {
            Some(held) if held.stamp() == record.stamp() => return Merge::Equal,
            Some(held) if held.stamp() > record.stamp() => return Merge::Older(held),
            _ => {}
        }
        self.counters.checked += 1;
        if !record.verify() {
            return self.refuse(RecordError::Signature);
        }
        if record.class() == Class::Owner && record.signer() == self.own {
            return self.remember_own(record, held.is_some());
        }
        if self.too_many(&record, held.as_deref()) {
            return self.refuse(RecordError::TooMany);
        }
        self.counters.unreadable += u64::from(record.unreadable());
        let record = Arc::new(record);
        let previous = self.keep(record.clone());
        Merge::Accepted { record, previous }
    }

    /// How many bytes are held in records, tombstones included.
    pub fn bytes(&self) -> usize {
        self.weights.values().map(|weight| weight.bytes).sum()
    }

    /// Drops a record without a tombstone, as if it had never been: for the settings of a cluster that
    /// this host founded and gives up before anybody used it.
    pub fn drop_slot(&mut self, slot: Slot) -> Option<Arc<Record>> {
        self.take(slot)
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<Arc<Record>> {
        let record = self.records.remove(&slot)?;
        self.note_change(&record, false);
        Some(record)
    }

    pub(super) fn keep(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let (removes, owner) = (record.removes(), record.signer());
        let raised = record.kind() == kind::FLOOR;
        let previous = self.take(record.slot());
        self.note_change(&record, true);
        self.records.insert(record.slot(), record);
        if let Some((peer, incarnation)) = removes {
            self.bury(peer, incarnation);
        }
        if raised {
            self.sweep(owner);
        }
        previous
    }

    /// A record came, or went.
    fn note_change(&mut self, record: &Record, came: bool) {
        if came {
            self.index.add(record);
        } else {
            self.index.remove(record);
        }
        self.weigh(record, came);
        self.ranges.forget(record.slot());
        self.live_ranges.forget(record.slot());
    }

    fn weigh(&mut self, record: &Record, on: bool) {
        let weight = self.weights.entry(record.signer()).or_default();
        let size = record.bytes().len();
        if on {
            *weight = Weight { records: weight.records + 1, bytes: weight.bytes + size };
        } else {
            let (records, bytes) = (weight.records.saturating_sub(1), weight.bytes.saturating_sub(size));
            *weight = Weight { records, bytes };
            if records == 0 {
                self.weights.remove(&record.signer());
            }
        }
    }

    fn too_many(&self, record: &Record, held: Option<&Record>) -> bool {
        let weight = self.weights.get(&record.signer()).copied().unwrap_or_default();
        let replaced = held.filter(|held| held.signer() == record.signer());
        let freed = replaced.map_or(Weight::default(), |r| Weight { records: 1, bytes: r.bytes().len() });
        weight.records + 1 > MAX_RECORDS_PER_WRITER + freed.records
            || weight.bytes + record.bytes().len() > MAX_BYTES_PER_WRITER + freed.bytes
    }

    fn refuse(&mut self, error: RecordError) -> Merge {
        match error {
            RecordError::Signature => self.counters.forged += 1,
            RecordError::TooMany => self.counters.over_limit += 1,
            _ => self.counters.malformed += 1,
        }
        Merge::Invalid(error)
    }
}
