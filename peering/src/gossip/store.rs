//! All records of one host, and the clock under which it writes its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use engine::types::{MacAddr, PeerId};
use serde::{Deserialize, Serialize};

use super::digest::{Digest, Line, MAX_DIGEST, MAX_PULL};
use super::hash::StateHash;
use super::record::{Class, Draft, Record, RecordError, Slot, kind};
use crate::identity::Identity;
use crate::records::{Body, EndpointRecord, HostRecord, NetworkRecord, VtepRecord};

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
    /// It is refused, alone; the reason was counted.
    Invalid(RecordError),
}

/// What was refused or not understood since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
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
    own: PeerId,
    incarnation: u64,
    sequence: u64,
    records: BTreeMap<Slot, Arc<Record>>,
    weights: BTreeMap<PeerId, Weight>,
    overtaken: BTreeMap<Slot, Arc<Record>>,
    rewrite: bool,
    counters: Counters,
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
            weights: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            rewrite: false,
            counters: Counters::default(),
        }
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
            store.keep(Arc::new(record));
        }
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
        let held = self.records.get(&record.slot()).cloned();
        match held {
            Some(held) if held.stamp() == record.stamp() => return Merge::Equal,
            Some(held) if held.stamp() > record.stamp() => return Merge::Older(held),
            _ => {}
        }
        if !record.verify() {
            return self.refuse(RecordError::Signature);
        }
        if record.class() == Class::Owner && record.signer() == self.own {
            return self.remember_own(record, held);
        }
        if self.too_many(&record, held.as_deref()) {
            return self.refuse(RecordError::TooMany);
        }
        self.counters.unreadable += u64::from(record.unreadable());
        let record = Arc::new(record);
        let previous = self.keep(record.clone());
        Merge::Accepted { record, previous }
    }

    /// A record of this host that it does not know, or knows in an older version.
    fn remember_own(&mut self, record: Record, held: Option<Arc<Record>>) -> Merge {
        let seen = record.stamp();
        if (seen.major, seen.minor) > (self.incarnation, self.sequence) {
            self.incarnation = seen.major.saturating_add(1);
            self.sequence = 0;
            self.rewrite = true;
        }
        let record = Arc::new(record);
        if record.deleted() && held.is_none() {
            self.keep(record.clone());
            return Merge::Accepted { record, previous: None };
        }
        self.overtaken.insert(record.slot(), record);
        Merge::Overtaken
    }

    /// Writes this host's records again, above everything that was seen of it: what it has stays, what it
    /// does not have becomes a tombstone. Returns what must be pushed; nothing unless [`Merge::Overtaken`].
    pub fn reassert(&mut self, identity: &Identity) -> Vec<Arc<Record>> {
        let overtaken = std::mem::take(&mut self.overtaken);
        let mut slots: Vec<Arc<Record>> = match std::mem::take(&mut self.rewrite) {
            true => self.own_records().cloned().collect(),
            false => overtaken.keys().filter_map(|slot| self.records.get(slot)).cloned().collect(),
        };
        let strangers = overtaken.into_values().filter(|seen| !self.records.contains_key(&seen.slot()));
        slots.extend(strangers.collect::<Vec<_>>());
        slots.iter().filter_map(|record| self.write_again(identity, record)).collect()
    }

    fn write_again(&mut self, identity: &Identity, record: &Record) -> Option<Arc<Record>> {
        let known = self.records.contains_key(&record.slot());
        let deleted = record.deleted() || !known;
        let gone = match record.body() {
            Body::Endpoint(endpoint) if deleted => encode(&endpoint.gone()),
            _ if deleted => Vec::new(),
            _ => record.payload().to_vec(),
        };
        let (kind, version) = (record.kind(), record.version());
        self.write(identity, Writing { kind, version, class: Class::Owner, deleted }, record.key(), &gone)
    }

    /// Says what this host is. None: nothing changed.
    pub fn put_host(&mut self, identity: &Identity, host: &HostRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::HOST, Class::Owner, &[], &encode(host))
    }

    /// Says what an endpoint of this host is. None: nothing changed.
    pub fn put_endpoint(&mut self, identity: &Identity, endpoint: &EndpointRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::ENDPOINT, Class::Owner, &endpoint.port.0, &encode(endpoint))
    }

    /// Says that an endpoint of this host is gone. None: there was none.
    pub fn delete_endpoint(
        &mut self,
        identity: &Identity,
        port: engine::types::PortId,
    ) -> Option<Arc<Record>> {
        let slot = Slot::of(Class::Owner, kind::ENDPOINT, self.own, &port.0);
        let gone = match self.records.get(&slot)?.body() {
            Body::Endpoint(endpoint) => encode(&endpoint.gone()),
            _ => Vec::new(),
        };
        self.delete(identity, kind::ENDPOINT, Class::Owner, &port.0, &gone)
    }

    /// Declares an external VXLAN endpoint. None: it is declared.
    pub fn put_vtep(&mut self, identity: &Identity, vtep: &VtepRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::VTEP, Class::Shared, &vtep.key(), &encode(vtep))
    }

    /// Removes an external VXLAN endpoint. None: it was not declared.
    pub fn delete_vtep(&mut self, identity: &Identity, vtep: &VtepRecord) -> Option<Arc<Record>> {
        self.delete(identity, kind::VTEP, Class::Shared, &vtep.key(), &[])
    }

    /// Says what a network is. None: nothing changed.
    pub fn put_network(&mut self, identity: &Identity, network: &NetworkRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::NETWORK, Class::Shared, &network.network.0, &encode(network))
    }

    /// Drops a record without a tombstone, as if it had never been: for the settings of a cluster that
    /// this host founded and gives up before anybody used it.
    pub fn drop_slot(&mut self, slot: Slot) -> Option<Arc<Record>> {
        let record = self.records.remove(&slot)?;
        self.weigh(&record, false);
        Some(record)
    }

    fn put(
        &mut self,
        identity: &Identity,
        kind: u16,
        class: Class,
        key: &[u8],
        payload: &[u8],
    ) -> Option<Arc<Record>> {
        let held = self.records.get(&Slot::of(class, kind, self.own, key));
        if held.is_some_and(|held| !held.deleted() && held.payload() == payload) {
            return None;
        }
        self.write(identity, Writing { kind, version: kind::VERSION, class, deleted: false }, key, payload)
    }

    fn delete(
        &mut self,
        identity: &Identity,
        kind: u16,
        class: Class,
        key: &[u8],
        payload: &[u8],
    ) -> Option<Arc<Record>> {
        let held = self.records.get(&Slot::of(class, kind, self.own, key));
        held.filter(|held| !held.deleted())?;
        self.write(identity, Writing { kind, version: kind::VERSION, class, deleted: true }, key, payload)
    }

    fn write(
        &mut self,
        identity: &Identity,
        what: Writing,
        key: &[u8],
        payload: &[u8],
    ) -> Option<Arc<Record>> {
        let Writing { kind, version, class, deleted } = what;
        let (major, minor) = match class {
            Class::Owner => (self.incarnation, self.sequence.saturating_add(1)),
            Class::Shared => (self.next_counter(kind, key), 0),
        };
        let draft = Draft { kind, version, class, deleted, major, minor, key, payload };
        let record = draft.sign(identity).ok()?;
        if class == Class::Owner {
            self.sequence = minor;
        }
        self.keep(record.clone());
        Some(record)
    }

    fn next_counter(&self, kind: u16, key: &[u8]) -> u64 {
        let held = self.records.get(&Slot::of(Class::Shared, kind, self.own, key));
        held.map_or(1, |held| held.stamp().major.saturating_add(1))
    }

    fn keep(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        self.weigh(&record, true);
        let previous = self.records.insert(record.slot(), record);
        if let Some(previous) = &previous {
            self.weigh(previous, false);
        }
        previous
    }

    fn weigh(&mut self, record: &Record, on: bool) {
        let weight = self.weights.entry(record.signer()).or_default();
        let size = record.bytes().len();
        if on {
            *weight = Weight { records: weight.records + 1, bytes: weight.bytes + size };
        } else {
            let (records, bytes) = (weight.records.saturating_sub(1), weight.bytes.saturating_sub(size));
            *weight = Weight { records, bytes };
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

struct Writing {
    kind: u16,
    version: u16,
    class: Class,
    deleted: bool,
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}

/// Reading and comparing.
impl RecordStore {
    /// The host whose store this is.
    pub fn own(&self) -> PeerId {
        self.own
    }

    /// The incarnation under which this host writes.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What was refused or not understood since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many records are held, tombstones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True without any record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record in a slot, tombstones included.
    pub fn get(&self, slot: Slot) -> Option<&Arc<Record>> {
        self.records.get(&slot)
    }

    /// All records, tombstones included, in the order of their slots.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    /// The records that are not deleted.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.all().filter(|record| !record.deleted())
    }

    fn own_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.all().filter(|record| record.class() == Class::Owner && record.signer() == self.own)
    }

    /// What a host says of itself.
    pub fn host(&self, peer: PeerId) -> Option<&HostRecord> {
        let record = self.get(Slot::of(Class::Owner, kind::HOST, peer, &[]))?;
        match record.body() {
            Body::Host(host) if !record.deleted() => Some(host),
            _ => None,
        }
    }

    /// The live host records.
    pub fn hosts(&self) -> impl Iterator<Item = (PeerId, &HostRecord)> {
        self.live().filter_map(|record| match record.body() {
            Body::Host(host) => Some((record.signer(), host)),
            _ => None,
        })
    }

    /// The live endpoint records, with their hosts.
    pub fn endpoints(&self) -> impl Iterator<Item = (PeerId, &EndpointRecord)> {
        self.live().filter_map(|record| match record.body() {
            Body::Endpoint(endpoint) => Some((record.signer(), endpoint)),
            _ => None,
        })
    }

    /// The live VTEP records.
    pub fn vteps(&self) -> impl Iterator<Item = &VtepRecord> {
        self.live().filter_map(|record| match record.body() {
            Body::Vtep(vtep) => Some(vtep),
            _ => None,
        })
    }

    /// The live network records.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkRecord> {
        self.live().filter_map(|record| match record.body() {
            Body::Network(network) => Some(network),
            _ => None,
        })
    }

    /// The claim version for a new claim on a MAC: one above the highest seen, tombstones included.
    pub fn next_claim(&self, mac: MacAddr) -> u64 {
        let seen = self.all().filter_map(|record| match record.body() {
            Body::Endpoint(endpoint) if endpoint.mac == mac => Some(endpoint.claim_version),
            _ => None,
        });
        seen.max().unwrap_or(0).saturating_add(1)
    }

    /// A hash of everything that digests compare: all records, tombstones included.
    pub fn full_hash(&self) -> StateHash {
        let mut hash = Blake2s256::new_with_prefix(b"meshnet records 1");
        for (slot, record) in &self.records {
            hash.update(slot.0);
            hash.update(record.stamp().tie);
        }
        StateHash(hash.finalize().into())
    }

    /// Everything in this store, told in ranges of at most [`MAX_DIGEST`] lines that cover all slots.
    pub fn digests(&self) -> Vec<Digest> {
        let lines: Vec<Line> =
            self.records.iter().map(|(&slot, record)| Line { slot, stamp: record.stamp() }).collect();
        let mut digests: Vec<Digest> = lines
            .chunks(MAX_DIGEST)
            .map(|lines| Digest { first: lines[0].slot, last: Slot([0xff; 16]), lines: lines.to_vec() })
            .collect();
        if digests.is_empty() {
            digests.push(Digest { first: Slot([0; 16]), last: Slot([0xff; 16]), lines });
        }
        digests[0].first = Slot([0; 16]);
        for at in 1..digests.len() {
            digests[at - 1].last = before(digests[at].first);
        }
        digests
    }

    /// Compares a digest of another host with this store, within the digest's range.
    pub fn compare(&self, digest: &Digest) -> Difference {
        let theirs: BTreeMap<Slot, _> = digest.lines.iter().map(|line| (line.slot, line.stamp)).collect();
        let mut difference = Difference::default();
        if digest.first <= digest.last {
            let ours = self.records.range(digest.first..=digest.last);
            let newer = ours.filter(|(slot, record)| theirs.get(slot).is_none_or(|s| *s < record.stamp()));
            difference.send = newer.map(|(_, record)| record.clone()).collect();
        }
        let newer =
            theirs.iter().filter(|(slot, stamp)| self.get(**slot).is_none_or(|r| r.stamp() < **stamp));
        difference.want = newer.map(|(&slot, _)| slot).take(MAX_PULL).collect();
        difference
    }

    /// The records of these slots, as far as they are here.
    pub fn pull(&self, slots: &[Slot]) -> Vec<Arc<Record>> {
        slots.iter().take(MAX_PULL).filter_map(|slot| self.get(*slot)).cloned().collect()
    }
}

/// The slot just below another.
fn before(slot: Slot) -> Slot {
    Slot(u128::from_be_bytes(slot.0).saturating_sub(1).to_be_bytes())
}
