//! Removed hosts: everything that one wrote up to an incarnation is dead, whether it arrives before its removal or after.
//!
//! The removal of the highest incarnation stays in its slot, so the dead of two removals are those of one of them, and
//! the order in which records and removals arrive does not matter. A removal is never taken back: the host comes back
//! under a higher incarnation. A removal up to [`REVOKED`] has none above it.

use std::sync::Arc;

use engine::types::PeerId;

use super::record::{Class, REVOKED, Record, Slot, kind};
use super::store::RecordStore;
use crate::identity::Identity;

impl RecordStore {
    /// True for a host that was removed and did not come back.
    pub fn removed(&self, peer: PeerId) -> bool {
        self.removals.contains_key(&peer) && self.host(peer).is_none()
    }

    /// True for a host that was cut off for good.
    pub fn revoked(&self, peer: PeerId) -> bool {
        self.removals.get(&peer) == Some(&REVOKED)
    }

    /// The hosts that belong to the cluster, this one included: those with a live host record.
    pub fn members(&self) -> impl Iterator<Item = PeerId> {
        self.hosts().map(|(peer, _)| peer)
    }

    /// The last removal of a host, whether it came back or not.
    pub fn removal(&self, peer: PeerId) -> Option<&Arc<Record>> {
        self.get(Slot::of(Class::Shared, kind::REMOVAL, peer, &peer.0))
    }

    /// The hosts that were ever removed.
    pub fn removals(&self) -> impl Iterator<Item = PeerId> {
        self.removals.keys().copied()
    }

    /// The highest incarnation under which records of a host are here; 0 without any.
    pub fn highest_incarnation(&self, peer: PeerId) -> u64 {
        self.owned_by(peer).map(|record| record.stamp().major).max().unwrap_or(0)
    }

    /// True when this host was removed and did not come back yet: see [`Self::come_back`].
    pub fn is_removed_itself(&self) -> bool {
        let Some(&last) = self.removals.get(&self.own).filter(|last| **last != REVOKED) else { return false };
        self.incarnation <= last || self.own_records().any(|record| record.stamp().major <= last)
    }

    /// This host was removed. Gives up every record that it does not own, goes on above the removal, and says again
    /// what is true of itself. Returns what must be pushed.
    pub fn come_back(&mut self, identity: &Identity) -> Vec<Arc<Record>> {
        let Some(&last) = self.removals.get(&self.own) else { return Vec::new() };
        if self.incarnation <= last {
            self.incarnation = last.saturating_add(1);
            self.sequence = 0;
        }
        let foreign = self.all().filter(|record| record.kind() != kind::REMOVAL);
        let foreign = foreign.filter(|record| record.class() == Class::Shared || record.signer() != self.own);
        let foreign: Vec<Slot> = foreign.map(|record| record.slot()).collect();
        self.drop_all(&foreign);
        let (gone, live): (Vec<_>, Vec<_>) = self
            .own_records()
            .filter(|record| record.stamp().major <= last)
            .cloned()
            .partition(|record| record.deleted());
        for record in gone {
            self.take(record.slot());
        }
        live.iter().filter_map(|record| self.write_again(identity, record)).collect()
    }

    /// What removals and floors took away since the last call.
    pub fn take_dropped(&mut self) -> Vec<Arc<Record>> {
        std::mem::take(&mut self.dropped)
    }

    /// The removal under which a record is dead, if it is.
    pub(super) fn removal_over(&self, record: &Record) -> Option<Arc<Record>> {
        let last = self.removals.get(&record.signer()).filter(|_| record.class() == Class::Owner)?;
        if record.stamp().major <= *last { self.removal(record.signer()).cloned() } else { None }
    }

    /// A removal is the newest of its slot. This host's own records wait for [`Self::come_back`].
    pub(super) fn bury(&mut self, peer: PeerId, incarnation: u64) {
        self.removals.insert(peer, incarnation);
        if peer == self.own {
            return;
        }
        let dead = self.owned_by(peer).filter(|record| record.stamp().major <= incarnation);
        let dead: Vec<Slot> = dead.map(|record| record.slot()).collect();
        self.drop_all(&dead);
    }

    pub(super) fn drop_all(&mut self, slots: &[Slot]) {
        for slot in slots {
            let record = self.take(*slot);
            self.dropped.extend(record);
        }
    }
}
