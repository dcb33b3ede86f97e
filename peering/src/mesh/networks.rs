//! The networks of the cluster: created, removed, shown, and used here or not.
//!
//! A network is a shared record and the facts about who owns its addresses. Whoever creates it owns all of them at first;
//! both are on disk before anybody hears of either. Creating one needs a cluster: before the founding it waits, and counts
//! as a need for an address.
//!
//! Everybody knows every network. A host *uses* `mesh`, those on which it has endpoints, and those that it was told to
//! use: only these are in its host record, and only their endpoints are told to its data plane.

mod choose;
mod conflict;
mod create;
mod resolve;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use engine::types::{NetworkId, PeerId, PortId, Vni};

use super::{Endpoint, MESH_NAME, MESH_NETWORK, Mesh, PeerState};
use crate::gossip::{Class, Slot, kind};
use crate::records::{Body, HostRecord, MAX_NETWORKS, NetworkRecord};
use create::Creations;
use resolve::{Resolution, resolve};

pub use spec::{NetworkError, NetworkSpec, NetworkView, SubnetSpec};

/// So many users of a network are named when it cannot be removed.
const NAMED: usize = 5;

/// What is known of networks besides their records.
#[derive(Default)]
pub(super) struct Networks {
    creations: Creations,
    /// What the records mean together, as it was looked at last.
    resolution: Resolution,
    /// Networks whose records, users or uses changed since.
    changed: BTreeSet<NetworkId>,
    /// Records changed since.
    unresolved: bool,
    /// Networks with another number than their records have.
    renumbered: BTreeSet<NetworkId>,
    /// What this host was told to use.
    told: BTreeSet<NetworkId>,
    /// The ports of this host on each network, by their records.
    ports: BTreeMap<NetworkId, BTreeSet<PortId>>,
    of_port: BTreeMap<PortId, NetworkId>,
    /// The number under which each network was shown, and whether this host used it.
    shown: BTreeMap<NetworkId, (Vni, bool)>,
    /// The hosts that use each network, and what each host says it uses.
    users: BTreeMap<NetworkId, BTreeSet<PeerId>>,
    listed: BTreeMap<PeerId, BTreeSet<NetworkId>>,
}

impl Networks {
    /// The record of a network is new, or gone.
    fn touch(&mut self, network: NetworkId) {
        self.changed.insert(network);
        self.unresolved = true;
    }

    /// The network whose endpoints those of this one are.
    pub(super) fn canonical(&self, network: NetworkId) -> NetworkId {
        self.resolution.merged.get(&network).copied().unwrap_or(network)
    }

    /// An endpoint of this host is on a network.
    pub(super) fn add_port(&mut self, network: NetworkId, port: PortId) {
        if self.of_port.get(&port) != Some(&network) {
            self.remove_port(port);
            self.of_port.insert(port, network);
            self.ports.entry(network).or_default().insert(port);
            self.changed.insert(network);
        }
    }

    /// An endpoint of this host is gone.
    pub(super) fn remove_port(&mut self, port: PortId) {
        let Some(network) = self.of_port.remove(&port) else { return };
        if let Some(ports) = self.ports.get_mut(&network) {
            ports.remove(&port);
        }
        self.ports.retain(|of, ports| *of != network || !ports.is_empty());
        self.changed.insert(network);
    }

    /// What a host says it uses.
    pub(super) fn set_listed(&mut self, peer: PeerId, host: Option<&HostRecord>) {
        let now: BTreeSet<NetworkId> =
            host.into_iter().flat_map(|host| &host.networks).map(|(network, _)| *network).collect();
        let before = self.listed.insert(peer, now.clone()).unwrap_or_default();
        for network in before.symmetric_difference(&now) {
            let users = self.users.entry(*network).or_default();
            if now.contains(network) {
                users.insert(peer)
            } else {
                users.remove(&peer)
            };
            self.changed.insert(*network);
        }
        if now.is_empty() {
            self.listed.remove(&peer);
        }
    }

    /// True when the daemon was told that this host uses the network.
    pub(super) fn is_told(&self, network: NetworkId) -> bool {
        self.shown.get(&network).is_some_and(|(_, used)| *used)
    }

    fn users_of(&self, network: NetworkId) -> Vec<PeerId> {
        self.users.get(&network).into_iter().flatten().copied().collect()
    }
}

/// What people ask.
impl Mesh {
    /// All networks, in the order of their names.
    pub fn networks(&self) -> Vec<NetworkView> {
        let mut all: Vec<NetworkView> = self.view.networks().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// This host uses a network from now on though it has no endpoint there, or only while it has some.
    ///
    /// # Errors
    /// There is no such network, or this host uses too many.
    pub fn use_network(
        &mut self,
        now: Instant,
        network: NetworkId,
        used: bool,
    ) -> Result<NetworkView, NetworkError> {
        if !self.begin(now) {
            return Err(NetworkError::Stopping);
        }
        let network = self.networks.canonical(network);
        if self.view.network(network).is_none() {
            return Err(NetworkError::Unknown);
        }
        if used && !self.is_used(network) && self.uses().len() >= MAX_NETWORKS {
            return Err(NetworkError::TooMany { limit: MAX_NETWORKS });
        }
        if used {
            self.networks.told.insert(network)
        } else {
            self.networks.told.remove(&network)
        };
        self.networks.changed.insert(network);
        self.settle();
        self.view.network(network).cloned().ok_or(NetworkError::Unknown)
    }

    /// Removes a network that nobody has an endpoint on. If somebody had one that is not known here, it comes back.
    ///
    /// # Errors
    /// There is no such network, or it cannot go.
    pub fn remove_network(&mut self, now: Instant, network: NetworkId) -> Result<(), NetworkError> {
        if !self.begin(now) {
            return Err(NetworkError::Stopping);
        }
        if let Some(other) = self.clones.oneself() {
            return Err(NetworkError::Clone { other: other.to_owned() });
        }
        let network = self.networks.canonical(network);
        let Some(view) = self.view.network(network) else { return Err(NetworkError::Unknown) };
        let name = view.name.clone();
        if network == MESH_NETWORK {
            return Err(NetworkError::Predefined { name });
        }
        if let Some(users) = self.endpoints_in_words(network) {
            return Err(NetworkError::InUse { name, users });
        }
        self.delete_network(network);
        self.settle();
        Ok(())
    }

    /// A network goes with everything that is the same as it, and with its external endpoints.
    fn delete_network(&mut self, network: NetworkId) {
        let merged = &self.networks.resolution.merged;
        let same = merged.iter().filter(|(_, into)| **into == network).map(|(id, _)| *id);
        let all: BTreeSet<NetworkId> = same.chain([network]).collect();
        let vteps: Vec<_> = self.store.vteps().filter(|vtep| all.contains(&vtep.network)).cloned().collect();
        let identity = &self.config.identity;
        let gone = all.iter().filter_map(|network| self.store.delete_network(identity, *network));
        let mut records: Vec<_> = gone.collect();
        records.extend(vteps.iter().filter_map(|vtep| self.store.delete_vtep(identity, vtep)));
        self.wrote(&records);
    }

    /// Who has endpoints on a network; none: nobody.
    fn endpoints_in_words(&self, network: NetworkId) -> Option<String> {
        let merged = self.networks.resolution.merged.iter();
        let same = merged.filter(|(_, into)| **into == network).map(|(id, _)| *id).chain([network]);
        let mut users: Vec<String> = Vec::new();
        let mut more = 0;
        for (peer, endpoint) in same.flat_map(|network| self.store.endpoints_on(network)) {
            if users.len() == NAMED {
                more += 1;
                continue;
            }
            let down = peer != self.me && self.membership.state(peer) == PeerState::Down;
            let down = if down { ", which is down" } else { "" };
            users.push(format!("{} on {}{down}", endpoint.name, self.nickname(peer)));
        }
        if more > 0 {
            users.push(format!("{more} more"));
        }
        (!users.is_empty()).then(|| users.join(", "))
    }
}

/// What this host uses.
impl Mesh {
    /// The networks that this host uses, with their numbers, in the order of ids.
    pub(super) fn uses(&self) -> Vec<(NetworkId, Vni)> {
        let ports = self.networks.ports.keys().map(|network| self.networks.canonical(*network));
        let all: BTreeSet<NetworkId> =
            ports.chain(self.networks.told.iter().copied()).chain([MESH_NETWORK]).collect();
        let all = all.into_iter().filter_map(|network| Some((network, self.vni(network)?)));
        all.take(MAX_NETWORKS).collect()
    }

    /// True when this host uses a network.
    pub(super) fn is_used(&self, network: NetworkId) -> bool {
        let ports = |network: &NetworkId| self.networks.ports.contains_key(network);
        let merged = self.networks.resolution.merged.iter();
        network == MESH_NETWORK
            || self.networks.told.contains(&network)
            || ports(&network)
            || merged.filter(|(_, into)| **into == network).any(|(id, _)| ports(id))
    }

    /// What of the networks of a host this one knows under the same numbers: frames of others are not for it.
    pub(super) fn common(&self, host: &HostRecord) -> Vec<(NetworkId, Vni)> {
        let same = |(network, vni): &&(NetworkId, Vni)| self.vni(*network) == Some(*vni);
        host.networks.iter().filter(same).copied().collect()
    }
}

/// What the records mean.
impl Mesh {
    /// The record of a network is new, or a tombstone.
    pub(super) fn note_network(&mut self, key: &[u8]) {
        if let Ok(network) = key.try_into().map(NetworkId) {
            self.networks.touch(network);
        }
    }

    /// Looks at what changed about networks; true if there was something.
    pub(super) fn settle_networks(&mut self) -> bool {
        if self.networks.changed.is_empty() {
            return false;
        }
        let mut changed = std::mem::take(&mut self.networks.changed);
        self.restore_used(&changed);
        changed.append(&mut self.networks.changed);
        if std::mem::take(&mut self.networks.unresolved) {
            let now = resolve(self.store.networks());
            let before = std::mem::replace(&mut self.networks.resolution, now);
            changed.append(&mut self.differing(&before));
            self.part_endpoints(&before);
            self.note_conflicts(&before);
        }
        for network in changed {
            self.show_network(network);
        }
        self.refresh_own_host();
        true
    }

    /// Networks that were the same as others, and are not: what is on them is there again.
    fn part_endpoints(&mut self, before: &Resolution) {
        let now = &self.networks.resolution.merged;
        let parted = before.merged.keys().filter(|network| !now.contains_key(network));
        for network in parted.copied().collect::<Vec<_>>() {
            let endpoints = self.store.endpoints_on(network);
            for (peer, endpoint) in endpoints.map(|(peer, e)| (peer, e.clone())).collect::<Vec<_>>() {
                self.apply_endpoint(peer, &endpoint);
            }
        }
    }

    /// The networks that mean something else now.
    fn differing(&self, before: &Resolution) -> BTreeSet<NetworkId> {
        let now = &self.networks.resolution;
        let known =
            before.shown.keys().chain(now.shown.keys()).chain(before.merged.keys()).chain(now.merged.keys());
        let differs = |network: &&NetworkId| {
            before.shown.get(network) != now.shown.get(network)
                || before.merged.get(network) != now.merged.get(network)
        };
        known.filter(differs).copied().collect()
    }

    /// A network was removed while this host has endpoints on it: the endpoints win, and it is written again.
    fn restore_used(&mut self, changed: &BTreeSet<NetworkId>) {
        let used = changed.iter().filter(|network| self.networks.ports.contains_key(network));
        for network in used.copied().collect::<Vec<_>>() {
            let Some((settings, true)) = self.network_record(network) else { continue };
            let settings = settings.clone();
            let name = settings.name.clone();
            let written = self.store.put_network(&self.config.identity, &settings);
            self.wrote(written.as_slice());
            let text = format!(
                "the network {name} was removed while endpoints of this host were on it: it is there again"
            );
            self.note("network_restored", text);
        }
    }
}

/// What is told of them.
impl Mesh {
    /// Tells the daemon what a network is now.
    fn show_network(&mut self, network: NetworkId) {
        let view = self.network_view(network);
        let used = view.is_some() && self.is_used(network);
        let now = view.as_ref().map(|view| (view.vni, used));
        let before = self.networks.shown.get(&network).copied();
        if let Some((vni, true)) = before.filter(|before| Some(*before) != now) {
            self.hide_contents(network, vni);
        }
        self.networks.renumbered.remove(&network);
        match view {
            Some(view) => {
                self.open_addresses(&view);
                if self.network_record(network).is_some_and(|(record, _)| record.vni != view.vni) {
                    self.networks.renumbered.insert(network);
                }
                self.networks.shown.insert(network, (view.vni, used));
                self.view.show_network(view);
            }
            None => self.forget_network(network),
        }
        if used && before != now {
            self.show_contents(network);
        }
        if before.map(|(vni, _)| vni) != now.map(|(vni, _)| vni) {
            self.networks.users_of(network).into_iter().for_each(|peer| self.show_host(peer));
        }
    }

    fn network_view(&self, network: NetworkId) -> Option<NetworkView> {
        let mut peers = self.networks.users_of(network);
        let at = peers.binary_search(&self.me);
        match (at, self.is_used(network)) {
            (Err(at), true) => peers.insert(at, self.me),
            (Ok(at), false) => drop(peers.remove(at)),
            _ => {}
        }
        let shown = self.networks.resolution.shown.get(&network);
        match (shown, self.network_record(network)) {
            (Some(shown), Some((record, false))) => {
                Some(NetworkView::new(record, shown.name.clone(), shown.vni, peers))
            }
            _ if network == MESH_NETWORK => Some(NetworkView {
                id: MESH_NETWORK,
                name: MESH_NAME.to_owned(),
                vni: Vni::MESH,
                subnets: Vec::new(),
                mtu: self.config.mtu,
                encrypted: self.config.sealing.seals(),
                internal: false,
                labels: Vec::new(),
                options: Vec::new(),
                created_s: 0,
                peers,
                founded: false,
            }),
            _ => None,
        }
    }

    /// The settings of a network, and whether they are those of one that was removed.
    fn network_record(&self, network: NetworkId) -> Option<(&NetworkRecord, bool)> {
        let record = self.store.get(Slot::of(Class::Shared, kind::NETWORK, self.me, &network.0))?;
        match record.body() {
            Body::Network(settings) => Some((settings, record.deleted())),
            _ => None,
        }
    }

    fn open_addresses(&mut self, view: &NetworkView) {
        if !view.founded {
            return;
        }
        if let Err(error) = self.ipam.add_network(view.id, &view.name, &view.subnets) {
            self.note("network_unusable", format!("network {}: {error}", view.name));
        }
    }

    /// A network is no more, or it is another one now.
    fn forget_network(&mut self, network: NetworkId) {
        self.networks.told.remove(&network);
        self.ipam.close_network(self.now, network);
        let into = self.networks.resolution.merged.get(&network).copied();
        if let Some(into) = into {
            self.move_endpoints(network, into);
        }
        if self.networks.shown.remove(&network).is_some() {
            self.view.hide_network(network);
        }
    }

    /// Two networks turned out to be the same: what is on the one is on the other.
    fn move_endpoints(&mut self, from: NetworkId, into: NetworkId) {
        let endpoints = self.store.endpoints_on(from).map(|(peer, endpoint)| (peer, endpoint.clone()));
        for (peer, endpoint) in endpoints.collect::<Vec<_>>() {
            if peer == self.me {
                let moved = Endpoint { network: into, ..endpoint.endpoint() };
                self.write_endpoint(moved);
            } else {
                self.apply_endpoint(peer, &endpoint);
            }
        }
    }

    /// The endpoints and external endpoints of a network that this host begins to use, or that has another number.
    fn show_contents(&mut self, network: NetworkId) {
        let merged = self.networks.resolution.merged.iter();
        let same = merged.filter(|(_, into)| **into == network).map(|(id, _)| *id).chain([network]);
        let endpoints = same.flat_map(|network| self.store.endpoints_on(network));
        let endpoints: Vec<_> = endpoints.map(|(peer, endpoint)| (peer, endpoint.clone())).collect();
        for (peer, endpoint) in endpoints {
            self.show_endpoint(peer, &endpoint);
        }
        self.show_names_on(network);
        self.set_vteps(network, self.vni(network), true);
        self.shut_vteps_out(network);
    }

    fn hide_contents(&mut self, network: NetworkId, vni: Vni) {
        self.view.hide_endpoints_on(vni);
        self.set_vteps(network, Some(vni), false);
    }

    fn set_vteps(&mut self, network: NetworkId, vni: Option<Vni>, declared: bool) {
        let Some(vni) = vni else { return };
        let vteps = self.store.vteps().filter(|vtep| vtep.network == network);
        for addr in vteps.map(|vtep| vtep.addr).collect::<Vec<_>>() {
            self.view.set_vtep(vni, addr, declared);
        }
    }
}
