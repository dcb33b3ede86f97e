//! Reading the records, and comparing them with those of another host.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use engine::types::{MacAddr, NetworkId, PeerId, PortId};

use super::digest::{Digest, FEW_LINES, Line, MAX_DIGEST, MAX_PULL, Step};
use super::hash::StateHash;
use super::ranges::{MAX_DEPTH, PARTS, Parts, Range, RangeHash};
use super::record::{Class, Record, Slot, kind};
use super::store::{Counters, Difference, RecordStore};
use crate::records::{
    Body, EndpointRecord, HostRecord, NameRecord, NetworkRecord, RotationRecord, VtepRecord,
};

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

    pub(super) fn own_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.owned_by(self.own)
    }

    /// What a host owns, tombstones included.
    pub(super) fn owned_by(&self, owner: PeerId) -> impl Iterator<Item = &Arc<Record>> {
        self.index.of_owner(owner).filter_map(|slot| self.records.get(&slot))
    }

    fn live_of_kind(&self, kind: u16) -> impl Iterator<Item = &Arc<Record>> {
        let all = self.index.of_kind(kind).filter_map(|slot| self.records.get(&slot));
        all.filter(|record| !record.deleted())
    }

    /// What a host says of itself.
    pub fn host(&self, peer: PeerId) -> Option<&HostRecord> {
        let record = self.get(Slot::of(Class::Owner, kind::HOST, peer, &[]))?;
        match record.body() {
            Body::Host(host) if !record.deleted() => Some(host),
            _ => None,
        }
    }

    /// How far the cluster is on its way to another secret, and who wrote so.
    pub fn rotation(&self) -> Option<(&RotationRecord, PeerId)> {
        let record = self.get(Slot::of(Class::Shared, kind::ROTATION, self.own, &[]))?;
        match record.body() {
            Body::Rotation(rotation) if !record.deleted() => Some((rotation, record.signer())),
            _ => None,
        }
    }

    /// The live host records.
    pub fn hosts(&self) -> impl Iterator<Item = (PeerId, &HostRecord)> {
        self.live_of_kind(kind::HOST).filter_map(|record| match record.body() {
            Body::Host(host) => Some((record.signer(), host)),
            _ => None,
        })
    }

    /// The live endpoint records, with their hosts.
    pub fn endpoints(&self) -> impl Iterator<Item = (PeerId, &EndpointRecord)> {
        self.live_of_kind(kind::ENDPOINT).filter_map(|record| match record.body() {
            Body::Endpoint(endpoint) => Some((record.signer(), endpoint)),
            _ => None,
        })
    }

    /// The live endpoint records of one network, with their hosts.
    pub fn endpoints_on(&self, network: NetworkId) -> impl Iterator<Item = (PeerId, &EndpointRecord)> {
        let all = self.index.endpoints_on(network).filter_map(|slot| self.records.get(&slot));
        all.filter_map(|record| Some((record.signer(), endpoint(record)?)))
    }

    /// The live endpoint records of one host.
    pub fn endpoints_of(&self, peer: PeerId) -> impl Iterator<Item = &EndpointRecord> {
        let all =
            self.index.of_owner_and_kind(peer, kind::ENDPOINT).filter_map(|slot| self.records.get(&slot));
        all.filter_map(|record| endpoint(record))
    }

    /// A live endpoint record.
    pub fn endpoint(&self, peer: PeerId, port: PortId) -> Option<&EndpointRecord> {
        self.get(Slot::of(Class::Owner, kind::ENDPOINT, peer, &port.0)).and_then(|record| endpoint(record))
    }

    /// The live names that people gave, with the hosts where they did.
    pub fn names(&self) -> impl Iterator<Item = (PeerId, &NameRecord)> {
        self.live_of_kind(kind::NAME).filter_map(|record| match record.body() {
            Body::Name(name) => Some((record.signer(), name)),
            _ => None,
        })
    }

    /// The live names that people gave on one host.
    pub fn names_of(&self, peer: PeerId) -> impl Iterator<Item = &NameRecord> {
        let all = self.index.of_owner_and_kind(peer, kind::NAME).filter_map(|slot| self.records.get(&slot));
        all.filter_map(|record| match record.body() {
            Body::Name(name) if !record.deleted() => Some(name),
            _ => None,
        })
    }

    /// The live VTEP records.
    pub fn vteps(&self) -> impl Iterator<Item = &VtepRecord> {
        self.live_of_kind(kind::VTEP).filter_map(|record| match record.body() {
            Body::Vtep(vtep) => Some(vtep),
            _ => None,
        })
    }

    /// The live network records.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkRecord> {
        self.live_of_kind(kind::NETWORK).filter_map(|record| match record.body() {
            Body::Network(network) => Some(network),
            _ => None,
        })
    }

    /// The claim version for a new claim on a MAC: one above the highest seen, tombstones included.
    pub fn next_claim(&self, mac: MacAddr) -> u64 {
        self.index.highest_claim(mac).saturating_add(1)
    }

    /// A hash of everything that is compared in a round of repair: all records, tombstones included.
    pub fn full_hash(&self) -> StateHash {
        self.ranges.root(b"meshnet records 2", &self.records, feed_stamp)
    }

    /// A hash of the records that are not deleted.
    pub(super) fn live_hash(&self) -> StateHash {
        self.live_ranges.root(b"meshnet live 2", &self.records, feed_live)
    }

    /// The hash of a range of slots.
    pub fn range_hash(&self, range: Range) -> RangeHash {
        self.ranges.hash(range, &self.records, feed_stamp)
    }

    /// The hashes of the parts of a range.
    pub fn parts(&self, range: Range) -> Parts {
        let mut hashes = [RangeHash::default(); PARTS];
        for (hash, part) in hashes.iter_mut().zip(range.parts()) {
            *hash = self.range_hash(part);
        }
        Parts { range, hashes }
    }

    /// Where the parts of a range that another host has differ from those here: what to tell it next.
    pub fn compare_parts(&self, theirs: &Parts) -> Vec<Step> {
        let parts = theirs.range.parts().zip(theirs.hashes);
        let differing = parts.filter(|(part, hash)| self.range_hash(*part) != *hash);
        differing.map(|(part, _)| self.step(part)).collect()
    }

    /// What to tell another host about a range that differs: its lines if they are few, else its parts.
    pub fn step(&self, range: Range) -> Step {
        let (first, last) = range.bounds();
        let few = self.records.range(first..=last).nth(FEW_LINES).is_none();
        if few || range.depth == MAX_DEPTH {
            Step::Lines(self.digest(range))
        } else {
            Step::Parts(Box::new(self.parts(range)))
        }
    }

    /// The lines of a range; of a part of it from the front, if they are more than [`MAX_DIGEST`].
    pub fn digest(&self, range: Range) -> Digest {
        let (first, mut last) = range.bounds();
        let mut lines: Vec<Line> = Vec::new();
        for (&slot, record) in self.records.range(first..=last) {
            if lines.len() == MAX_DIGEST {
                last = lines.last().map_or(last, |line| line.slot);
                break;
            }
            lines.push(Line { slot, stamp: record.stamp() });
        }
        Digest { first, last, lines }
    }

    /// How many records may be expected in a range: slots are hashes, and spread evenly.
    pub fn expected_len(&self, first: Slot, last: Slot) -> usize {
        let width = u128::from_be_bytes(last.0).saturating_sub(u128::from_be_bytes(first.0)) >> 96;
        let share = width.saturating_mul(self.len() as u128) >> 32;
        usize::try_from(share).unwrap_or(usize::MAX).saturating_add(1)
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

fn endpoint(record: &Record) -> Option<&EndpointRecord> {
    match record.body() {
        Body::Endpoint(endpoint) if !record.deleted() => Some(endpoint),
        _ => None,
    }
}

/// The stamp ends in a hash of the whole record.
fn feed_stamp(record: &Record, hash: &mut Blake2s256) -> bool {
    hash.update(record.slot().0);
    hash.update(record.stamp().tie);
    true
}

fn feed_live(record: &Record, hash: &mut Blake2s256) -> bool {
    if !record.deleted() {
        hash.update(record.slot().0);
        hash.update(record.hash());
    }
    !record.deleted()
}
