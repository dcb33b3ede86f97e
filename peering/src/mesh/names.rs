//! Names: those of endpoints, and those that people gave to addresses on one host, which die with it.

use std::time::Instant;

use engine::types::{NetworkId, PeerId};

use super::{EndpointView, Mesh, NameError, NameView, PeerState};
use crate::records::NameRecord;

impl Mesh {
    /// Gives addresses a name on a network, told by this host to all. Asked for again it changes nothing.
    ///
    /// # Errors
    /// There is no such network, or something else of this host has the name there; see [`NameError`].
    pub fn put_name(&mut self, now: Instant, name: NameRecord) -> Result<(), NameError> {
        self.begin_naming(now)?;
        let network = self.networks.canonical(name.network);
        let name = NameRecord { network, ..name };
        if self.vni(network).is_none() {
            return Err(NameError::UnknownNetwork);
        }
        if !name.within_limits() {
            return Err(NameError::TooLong(name.name));
        }
        if let Some(holder) = self.holder_here(&name) {
            return Err(NameError::Taken { name: name.name, holder });
        }
        let record = self.store.put_name(&self.config.identity, &name);
        self.wrote(record.as_slice());
        self.settle();
        Ok(())
    }

    /// Takes a name back that was given on this host. False: there was none.
    ///
    /// # Errors
    /// Nothing is written any more; see [`NameError`].
    pub fn remove_name(&mut self, now: Instant, network: NetworkId, name: &str) -> Result<bool, NameError> {
        self.begin_naming(now)?;
        let key = NameRecord::key_of(self.networks.canonical(network), name);
        let record = self.store.delete_name(&self.config.identity, key);
        self.wrote(record.as_slice());
        self.settle();
        Ok(record.is_some())
    }

    /// The names that people gave on all hosts, down ones included, in the order of (network, name, peer).
    pub fn names(&self) -> Vec<NameView> {
        let mut all: Vec<NameView> =
            self.store.names().filter_map(|(peer, name)| self.name_view(peer, name)).collect();
        all.sort_by(|a, b| (a.network, &a.names, a.peer).cmp(&(b.network, &b.names, b.peer)));
        all
    }

    fn begin_naming(&mut self, now: Instant) -> Result<(), NameError> {
        if let Some(other) = self.clones.oneself() {
            return Err(NameError::Clone(other.to_owned()));
        }
        if self.begin(now) { Ok(()) } else { Err(NameError::Stopping) }
    }

    /// What of this host has the name for something else.
    fn holder_here(&self, name: &NameRecord) -> Option<String> {
        let mut endpoints = self.store.endpoints_of(self.me).filter(|e| e.network == name.network);
        let endpoint = endpoints.find(|e| e.name.eq_ignore_ascii_case(&name.name));
        let given = || self.store.names_of(self.me).find(|other| other.key() == name.key());
        let given = || given().filter(|other| *other != name);
        endpoint.map(|e| e.container.clone()).or_else(|| given().map(|_| "an entry of this host".to_owned()))
    }

    /// Shows names that people gave, unless their host is down.
    pub(super) fn show_name(&mut self, peer: PeerId, name: &NameRecord) {
        let suspended = peer != self.me && !self.view.shows_host(peer);
        let used = self.networks.is_told(self.networks.canonical(name.network));
        match self.name_view(peer, name) {
            Some(view) if !suspended && used => self.view.show_name(view),
            Some(_) | None => self.view.hide_name(peer, name.key()),
        }
    }

    pub(super) fn apply_no_name(&mut self, peer: PeerId, key: &[u8]) {
        if let Ok(id) = key.try_into() {
            self.view.hide_name(peer, id);
        }
    }

    /// This host begins to use a network, or that has another number.
    pub(super) fn show_names_on(&mut self, network: NetworkId) {
        let names = self.store.names().filter(|(_, name)| name.network == network);
        let names: Vec<_> = names.map(|(peer, name)| (peer, name.clone())).collect();
        names.iter().for_each(|(peer, name)| self.show_name(*peer, name));
    }

    /// A host is up.
    pub(super) fn show_names_of(&mut self, peer: PeerId) {
        let names: Vec<NameRecord> = self.store.names_of(peer).cloned().collect();
        names.iter().for_each(|name| self.show_name(peer, name));
    }

    /// The names of an endpoint, as they are answered.
    pub(super) fn name_of_endpoint(&self, view: &EndpointView) -> NameView {
        let endpoint = &view.endpoint;
        let names = std::iter::once(&endpoint.name).chain(&endpoint.aliases);
        NameView {
            peer: view.peer,
            id: endpoint.port.0,
            network: endpoint.network,
            vni: view.vni,
            names: names.map(|name| name.to_ascii_lowercase()).collect(),
            addresses: endpoint.addresses.iter().map(|prefix| prefix.addr).collect(),
            services: Vec::new(),
            suspected: self.suspects(view.peer),
        }
    }

    fn name_view(&self, peer: PeerId, name: &NameRecord) -> Option<NameView> {
        let network = self.networks.canonical(name.network);
        Some(NameView {
            peer,
            id: name.key(),
            network,
            vni: self.vni(network)?,
            names: vec![name.name.to_ascii_lowercase()],
            addresses: name.addresses.clone(),
            services: name.services.clone(),
            suspected: self.suspects(peer),
        })
    }

    fn suspects(&self, peer: PeerId) -> bool {
        self.states.get(&peer) == Some(&PeerState::Suspect)
    }
}
