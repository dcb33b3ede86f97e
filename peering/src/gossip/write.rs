//! What this host writes: its own records under its clock, and shared ones above what it has seen.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::types::{NetworkId, PortId};
use serde::Serialize;

use super::record::{Class, Draft, Record, Slot, kind};
use super::store::{Merge, RecordStore};
use crate::identity::Identity;
use crate::records::{
    Body, EndpointRecord, HostRecord, NameRecord, NetworkRecord, RemovalRecord, RotationRecord, VtepRecord,
};

impl RecordStore {
    /// Says what this host is. None: nothing changed.
    pub fn put_host(&mut self, identity: &Identity, host: &HostRecord) -> Option<Arc<Record>> {
        debug_assert!(host.within_limits(), "nobody would know of this host");
        self.put(identity, kind::HOST, Class::Owner, &[], &encode(host))
    }

    /// Says what an endpoint of this host is. None: nothing changed.
    pub fn put_endpoint(&mut self, identity: &Identity, endpoint: &EndpointRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::ENDPOINT, Class::Owner, &endpoint.port.0, &encode(endpoint))
    }

    /// Says that an endpoint of this host is gone. None: there was none.
    pub fn delete_endpoint(&mut self, identity: &Identity, port: PortId) -> Option<Arc<Record>> {
        let slot = Slot::of(Class::Owner, kind::ENDPOINT, self.own, &port.0);
        let gone = match self.records.get(&slot)?.body() {
            Body::Endpoint(endpoint) => encode(&endpoint.gone()),
            _ => Vec::new(),
        };
        self.delete(identity, kind::ENDPOINT, Class::Owner, &port.0, &gone)
    }

    /// Gives addresses a name. None: they have it.
    pub fn put_name(&mut self, identity: &Identity, name: &NameRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::NAME, Class::Owner, &name.key(), &encode(name))
    }

    /// Takes a name of this host back. None: there was none.
    pub fn delete_name(&mut self, identity: &Identity, key: [u8; 8]) -> Option<Arc<Record>> {
        self.delete(identity, kind::NAME, Class::Owner, &key, &[])
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

    /// Removes a network; the tombstone keeps its settings. None: there is none.
    pub fn delete_network(&mut self, identity: &Identity, network: NetworkId) -> Option<Arc<Record>> {
        let slot = Slot::of(Class::Shared, kind::NETWORK, self.own, &network.0);
        let settings = self.records.get(&slot)?.payload().to_vec();
        self.delete(identity, kind::NETWORK, Class::Shared, &network.0, &settings)
    }

    /// Says how far the cluster is on its way to another secret. None: nothing changed.
    pub fn put_rotation(&mut self, identity: &Identity, rotation: &RotationRecord) -> Option<Arc<Record>> {
        self.put(identity, kind::ROTATION, Class::Shared, &[], &encode(rotation))
    }

    /// Removes a host up to an incarnation. None: it is removed up to there, or farther.
    pub fn put_removal(&mut self, identity: &Identity, removal: &RemovalRecord) -> Option<Arc<Record>> {
        let done = self.removals.get(&removal.peer).is_some_and(|last| *last >= removal.incarnation);
        if done {
            return None;
        }
        let counter = Some(removal.incarnation);
        let what = Writing { counter, ..Writing::new(kind::REMOVAL, Class::Shared, false) };
        self.write(identity, what, &removal.peer.0, &encode(removal))
    }

    /// A record of this host that it does not know, or knows in an older version.
    pub(super) fn remember_own(&mut self, record: Record, known: bool) -> Merge {
        let seen = record.stamp();
        if (seen.major, seen.minor) > (self.incarnation, self.sequence) {
            // A host that forgot wants to hear of each slot before it writes there.
            self.rewrite |= self.incarnation > 0;
            self.incarnation = seen.major.saturating_add(1);
            self.sequence = 0;
        }
        let record = Arc::new(record);
        // A floor only rises: it holds for this life too, and what lives below it is written again.
        self.refloor |= record.kind() == kind::FLOOR;
        if (record.deleted() && !known) || record.kind() == kind::FLOOR {
            let previous = self.keep(record.clone());
            return Merge::Accepted { record, previous };
        }
        self.overtaken.insert(record.slot(), record);
        Merge::Overtaken
    }

    /// Live endpoints of this host out of lives that it does not remember, as others told since [`Self::reassert`].
    pub fn recalled(&self) -> impl Iterator<Item = &EndpointRecord> {
        self.overtaken.values().filter(|record| !record.deleted()).filter_map(|record| match record.body() {
            Body::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        })
    }

    /// Where a start of this host that it does not remember said it is.
    pub fn recalled_at(&self) -> Option<SocketAddr> {
        let mut addrs = self.overtaken.values().filter_map(|record| match record.body() {
            Body::Host(host) => host.control_addrs.first().copied(),
            _ => None,
        });
        addrs.next()
    }

    /// Writes this host's records again, above everything that was seen of it: what it has stays, what it
    /// does not have becomes a tombstone. Returns what must be pushed; nothing unless [`Merge::Overtaken`].
    pub fn reassert(&mut self, identity: &Identity) -> Vec<Arc<Record>> {
        let overtaken = std::mem::take(&mut self.overtaken);
        let (rewrite, refloor) = (std::mem::take(&mut self.rewrite), std::mem::take(&mut self.refloor));
        let again = |record: &&Arc<Record>| {
            rewrite
                || overtaken.contains_key(&record.slot())
                || (refloor && self.dead_under(record).is_some())
        };
        let mut slots: Vec<Arc<Record>> = match rewrite || refloor || !overtaken.is_empty() {
            true => self.own_records().filter(again).cloned().collect(),
            false => Vec::new(),
        };
        let strangers = overtaken.into_values().filter(|seen| !self.records.contains_key(&seen.slot()));
        slots.extend(strangers.collect::<Vec<_>>());
        slots.iter().filter_map(|record| self.write_again(identity, record)).collect()
    }

    pub(super) fn write_again(&mut self, identity: &Identity, record: &Record) -> Option<Arc<Record>> {
        let known = self.records.contains_key(&record.slot());
        let deleted = record.deleted() || !known;
        let gone = match record.body() {
            Body::Endpoint(endpoint) if deleted => encode(&endpoint.gone()),
            _ if deleted => Vec::new(),
            _ => record.payload().to_vec(),
        };
        let what =
            Writing { version: record.version(), ..Writing::new(record.kind(), Class::Owner, deleted) };
        self.write(identity, what, record.key(), &gone)
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
        // The host record tells of each start: nothing of this host is under a higher incarnation than it.
        let stale = |held: &Record| kind == kind::HOST && held.stamp().major < self.incarnation;
        if held.is_some_and(|held| !held.deleted() && held.payload() == payload && !stale(held)) {
            return None;
        }
        self.write(identity, Writing::new(kind, class, false), key, payload)
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
        self.write(identity, Writing::new(kind, class, true), key, payload)
    }

    pub(super) fn write(
        &mut self,
        identity: &Identity,
        what: Writing,
        key: &[u8],
        payload: &[u8],
    ) -> Option<Arc<Record>> {
        let Writing { kind, version, class, deleted, counter } = what;
        let (major, minor) = match class {
            Class::Owner => (self.incarnation, self.sequence.saturating_add(1)),
            // Of two removals the one that reaches farther must stay, so the incarnation is the counter.
            Class::Shared => (counter.unwrap_or_else(|| self.next_counter(kind, key)), 0),
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
}

#[derive(Clone, Copy)]
pub(super) struct Writing {
    kind: u16,
    version: u16,
    class: Class,
    deleted: bool,
    /// Of a shared record, if it is not one above the highest seen.
    counter: Option<u64>,
}

impl Writing {
    pub(super) fn new(kind: u16, class: Class, deleted: bool) -> Self {
        Writing { kind, version: kind::VERSION, class, deleted, counter: None }
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}
