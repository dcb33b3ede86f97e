//! Reading the records, and comparing them with those of another host.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2s256, Digest as _};
use engine::types::{MacAddr, PeerId};

use super::digest::{Digest, Line, MAX_DIGEST, MAX_PULL};
use super::hash::StateHash;
use super::record::{Class, Record, Slot, kind};
use super::store::{Counters, Difference, RecordStore};
use crate::records::{Body, EndpointRecord, HostRecord, NetworkRecord, VtepRecord};

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
