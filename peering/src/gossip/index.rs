//! Where to find records without walking through all of them.

use std::collections::{BTreeMap, BTreeSet};

use engine::types::{MacAddr, NetworkId, PeerId};

use super::record::{Class, Record, Slot};
use crate::records::Body;

const FIRST: Slot = Slot([0; 16]);
const LAST: Slot = Slot([0xff; 16]);

/// The slots of all records, tombstones included, in several orders.
#[derive(Default)]
pub(super) struct Index {
    kinds: BTreeSet<(u16, Slot)>,
    owned: BTreeSet<(PeerId, u16, Slot)>,
    /// Endpoints by their network.
    on_network: BTreeSet<(NetworkId, Slot)>,
    claims: BTreeMap<MacAddr, BTreeMap<Slot, u64>>,
}

impl Index {
    pub(super) fn add(&mut self, record: &Record) {
        let slot = record.slot();
        self.kinds.insert((record.kind(), slot));
        if record.class() == Class::Owner {
            self.owned.insert((record.signer(), record.kind(), slot));
        }
        if let Body::Endpoint(endpoint) = record.body() {
            self.on_network.insert((endpoint.network, slot));
            self.claims.entry(endpoint.mac).or_default().insert(slot, endpoint.claim_version);
        }
    }

    pub(super) fn remove(&mut self, record: &Record) {
        let slot = record.slot();
        self.kinds.remove(&(record.kind(), slot));
        self.owned.remove(&(record.signer(), record.kind(), slot));
        let Body::Endpoint(endpoint) = record.body() else { return };
        self.on_network.remove(&(endpoint.network, slot));
        if let Some(claims) = self.claims.get_mut(&endpoint.mac) {
            claims.remove(&slot);
            if claims.is_empty() {
                self.claims.remove(&endpoint.mac);
            }
        }
    }

    /// The slots of a kind.
    pub(super) fn of_kind(&self, kind: u16) -> impl Iterator<Item = Slot> {
        self.kinds.range((kind, FIRST)..=(kind, LAST)).map(|(_, slot)| *slot)
    }

    /// The slots of what a host owns.
    pub(super) fn of_owner(&self, owner: PeerId) -> impl Iterator<Item = Slot> {
        self.owned.range((owner, 0, FIRST)..=(owner, u16::MAX, LAST)).map(|(_, _, slot)| *slot)
    }

    /// The slots of one kind of what a host owns.
    pub(super) fn of_owner_and_kind(&self, owner: PeerId, kind: u16) -> impl Iterator<Item = Slot> {
        self.owned.range((owner, kind, FIRST)..=(owner, kind, LAST)).map(|(_, _, slot)| *slot)
    }

    /// The slots of the endpoints on a network.
    pub(super) fn endpoints_on(&self, network: NetworkId) -> impl Iterator<Item = Slot> {
        self.on_network.range((network, FIRST)..=(network, LAST)).map(|(_, slot)| *slot)
    }

    /// The highest claim on a MAC address.
    pub(super) fn highest_claim(&self, mac: MacAddr) -> u64 {
        let claims = self.claims.get(&mac).into_iter().flat_map(BTreeMap::values);
        claims.copied().max().unwrap_or(0)
    }
}
