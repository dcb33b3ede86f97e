//! What records and membership mean together: who is shown as up, and with which endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::types::{Claim, NetworkId, PeerId, PortId, Vni};
use ipnet::IpNet;

use super::{
    DEFAULT_DATA_PORT, DEFAULT_RECLAIM_AFTER, Endpoint, EndpointView, HostView, MESH_NETWORK, Mesh, PeerState,
};
use crate::gossip::{Class, Record, Slot, kind};
use crate::membership::MemberEvent;
use crate::records::{Body, EndpointRecord, HostRecord, NetworkRecord, SubnetRecord, TargetRecord};
use crate::sealing::{Agreement, Trust};

/// A host that others tell of is met within this, or is down. The death of a member is known as soon.
pub(super) const STRANGER: Duration = Duration::from_secs(5);

impl Mesh {
    /// A record is the newest of its slot from now on.
    pub(super) fn apply(&mut self, record: &Arc<Record>) {
        let signer = record.signer();
        match (record.kind(), record.body()) {
            (kind::HOST, Body::Host(host)) if signer == self.me => self.ipam.set_host(self.now, signer, host),
            (kind::HOST, Body::Host(host)) => self.apply_host(signer, host),
            (kind::ENDPOINT, _) if record.deleted() => self.apply_no_endpoint(signer, record.key()),
            (kind::ENDPOINT, Body::Endpoint(endpoint)) => self.apply_endpoint(signer, endpoint),
            (kind::NAME, _) if record.deleted() => self.apply_no_name(signer, record.key()),
            (kind::NAME, Body::Name(name)) => self.show_name(signer, name),
            (kind::VTEP, _) => self.apply_vtep(record.key(), !record.deleted()),
            (kind::REMOVAL, _) => self.apply_removal(record),
            (kind::ROTATION, Body::Rotation(rotation)) => self.apply_rotation(rotation, signer),
            (kind::NETWORK, body) => {
                if let (Body::Network(network), false) = (body, record.deleted()) {
                    self.compare_network(signer, network);
                }
                self.note_network(record.key());
            }
            _ => {}
        }
    }

    pub(super) fn apply_host(&mut self, peer: PeerId, host: &HostRecord) {
        let mut addrs = host.control_addrs.clone();
        if let Some(seen) = self.seen.get(&peer) {
            addrs.retain(|addr| addr != seen);
            addrs.insert(0, *seen);
        }
        if self.barred(peer).is_none() {
            self.topology.set_peer(self.now, peer, addrs);
        }
        self.ipam.set_host(self.now, peer, host);
        self.networks.set_listed(peer, Some(host));
        self.show_host(peer);
    }

    pub(super) fn apply_endpoint(&mut self, peer: PeerId, endpoint: &EndpointRecord) {
        if peer == self.me {
            self.networks.add_port(endpoint.network, endpoint.port);
        }
        let network = self.networks.canonical(endpoint.network);
        let others = self.ipam.set_endpoint(self.now, peer, network, endpoint);
        self.show_endpoint(peer, endpoint);
        self.show_again(&others);
    }

    pub(super) fn apply_no_endpoint(&mut self, peer: PeerId, key: &[u8]) {
        if let Ok(port) = key.try_into().map(PortId) {
            if peer == self.me {
                self.networks.remove_port(port);
            }
            let others = self.ipam.remove_endpoint(self.now, peer, port);
            self.hide_endpoint(peer, port);
            self.show_again(&others);
        }
    }

    /// The record of an endpoint died with its host.
    pub(super) fn bury_endpoint(&mut self, peer: PeerId, key: &[u8]) {
        if let Ok(port) = key.try_into().map(PortId) {
            let others = self.ipam.bury_endpoint(self.now, peer, port);
            self.hide_endpoint(peer, port);
            self.show_again(&others);
        }
    }

    /// These endpoints share an address with one that changed: whose it is may have changed too.
    fn show_again(&mut self, endpoints: &[(PeerId, PortId)]) {
        for &(peer, port) in endpoints {
            let slot = Slot::of(Class::Owner, kind::ENDPOINT, peer, &port.0);
            let Some(record) = self.store.get(slot).cloned() else { continue };
            if let (Body::Endpoint(endpoint), false) = (record.body(), record.deleted()) {
                self.show_endpoint(peer, endpoint);
            }
        }
    }

    fn apply_vtep(&mut self, key: &[u8], declared: bool) {
        let Some((network, addr)) = vtep_of_key(key) else { return };
        if let Some(vni) = self.vni(network).filter(|_| self.networks.is_told(network)) {
            self.view.set_vtep(vni, addr, declared);
            self.shut_vteps_out(network);
        }
    }

    /// What is told people when the settings of a network are others than before, or than this host's.
    fn compare_network(&mut self, signer: PeerId, network: &NetworkRecord) {
        if network.network == MESH_NETWORK {
            let changed = self.ipam.set_reclaim_after(self.now, network.reclaim_after);
            self.compare_reclaim_after(network, changed && signer != self.me);
            self.compare_settings(signer, network);
        }
        self.compare_mtu(network);
        self.compare_encryption(network);
    }

    /// A host that was started with other settings than its cluster's is told that they do not count.
    fn compare_settings(&mut self, signer: PeerId, network: &NetworkRecord) {
        let first = |subnets: &[SubnetRecord]| subnets.first().map(|subnet| subnet.subnet);
        let known = self.view.network(network.network).and_then(|view| first(&view.subnets));
        let own = IpNet::V4(self.config.range.trunc());
        let ours = self.config.range_given && signer != self.me;
        if let Some(range) = first(&network.subnets)
            && ours
            && range != own
            && known != Some(range)
        {
            self.note("range_ignored", format!("the cluster uses the range {range}; {own} is not used"));
        }
    }

    fn compare_reclaim_after(&mut self, network: &NetworkRecord, news: bool) {
        let (own, theirs) = (self.config.reclaim_after, network.reclaim_after);
        if news && own != theirs && own != DEFAULT_RECLAIM_AFTER {
            let text = format!("the cluster reclaims after {theirs:?}; {own:?} is not used");
            self.note("reclaim_after_ignored", text);
        }
    }

    /// The MTU changes only when the settings of another cluster count from now on.
    fn compare_mtu(&mut self, network: &NetworkRecord) {
        let known = self.view.network(network.network).filter(|view| view.founded);
        let before = known.map(|view| view.mtu).filter(|mtu| *mtu != network.mtu);
        if let Some(before) = before {
            let text = format!(
                "the largest packet of the network {} has {} bytes now; interfaces that were made before keep {before}",
                network.name, network.mtu
            );
            self.note("mtu_changed", text);
        }
    }

    /// A host that does not seal has no part in a network that is sealed.
    fn compare_encryption(&mut self, network: &NetworkRecord) {
        let known = self.view.network(network.network).filter(|view| view.founded);
        let news = known.is_none_or(|view| !view.encrypted) && self.is_used(network.network);
        if news && network.encrypted && !self.config.sealing.seals() {
            let text = format!(
                "the network {} is to be sealed, and this host does not seal: launch it with the others' --encryption",
                network.name
            );
            self.note("encryption_differs", text);
        }
    }

    /// Two hosts that do not agree on sealing are told.
    fn compare_sealing(&mut self, host: &HostView) {
        if self.view.agreement(host.peer) == Some(host.agreement) {
            return;
        }
        let text = match host.agreement {
            Agreement::Plain | Agreement::Sealed => return,
            Agreement::Differ if self.config.sealing.seals() => {
                format!("host {} does not seal what containers send, this host does", host.nickname)
            }
            Agreement::Differ => {
                format!("host {} seals what containers send, this host does not", host.nickname)
            }
            Agreement::NoSuite => format!("host {} and this one have no --cipher in common", host.nickname),
        };
        self.note("encryption_differs", text + ": launch both with the same options");
    }

    /// Two hosts that do not trust the same underlay are told.
    fn compare_trust(&mut self, host: &HostView) {
        if host.trust == Trust::Differ && self.view.trust(host.peer) != Some(Trust::Differ) {
            let text = format!(
                "host {} and this one do not both trust the underlay between them: frames stay sealed; launch both with the same --trusted-subnets",
                host.nickname
            );
            self.note("trust_differs", text);
        }
    }

    /// External endpoints know nothing of seals: those of a sealed network get nothing, and people are told.
    pub(super) fn shut_vteps_out(&mut self, network: NetworkId) {
        let sealed = self.is_sealed(network);
        let vteps = self.store.vteps().filter(|vtep| vtep.network == network);
        let vteps: Vec<SocketAddr> = vteps.map(|vtep| vtep.addr).filter(|_| sealed).collect();
        let name = self.view.network(network).map(|view| view.name.clone()).unwrap_or_default();
        for addr in self.view.shut_out(network, vteps) {
            let text =
                format!("the external endpoint {addr} is shut out: frames of the network {name} are sealed");
            self.note("vtep_shut_out", text);
        }
    }

    /// Whether this host seals the frames of a network.
    pub(super) fn is_sealed(&self, network: NetworkId) -> bool {
        self.config.sealing.seals() || self.view.network(network).is_some_and(|view| view.encrypted)
    }

    /// Shows a host, with its endpoints, if it is up and has introduced itself.
    pub(super) fn show_host(&mut self, peer: PeerId) {
        let down = self.membership.state(peer) == PeerState::Down && !self.presumed.contains(&peer);
        if down || self.barred(peer).is_some() {
            return;
        }
        let Some(view) = self.store.host(peer).map(|host| self.host_view(peer, host)) else { return };
        let known = self.view.shows_host(peer);
        self.compare_sealing(&view);
        self.compare_trust(&view);
        self.view.show_host(view);
        if !known {
            let endpoints: Vec<EndpointRecord> = self.store.endpoints_of(peer).cloned().collect();
            endpoints.iter().for_each(|endpoint| self.show_endpoint(peer, endpoint));
            self.show_names_of(peer);
        }
    }

    pub(super) fn show_endpoint(&mut self, peer: PeerId, endpoint: &EndpointRecord) {
        let suspended = peer != self.me && !self.view.shows_host(peer);
        let used = self.networks.is_told(self.networks.canonical(endpoint.network));
        match self.endpoint_view(peer, endpoint) {
            Some(view) if endpoint.running && !suspended && used => {
                let view = self.without_lost_addresses(view);
                self.view.show_name(self.name_of_endpoint(&view));
                self.view.show_endpoint(view);
            }
            Some(_) | None => self.hide_endpoint(peer, endpoint.port),
        }
    }

    /// An endpoint does not run, or is gone: its names go first.
    fn hide_endpoint(&mut self, peer: PeerId, port: PortId) {
        self.view.hide_name(peer, port.0);
        self.view.hide_endpoint(peer, port);
    }

    /// Frames for an address that two endpoints have go to the one that keeps it.
    fn without_lost_addresses(&self, mut view: EndpointView) -> EndpointView {
        let (peer, port, network) = (view.peer, view.endpoint.port, view.endpoint.network);
        view.endpoint.addresses.retain(|prefix| self.ipam.keeps(network, peer, port, prefix.addr));
        view
    }

    pub(super) fn endpoint_view(&self, peer: PeerId, endpoint: &EndpointRecord) -> Option<EndpointView> {
        let network = self.networks.canonical(endpoint.network);
        let vni = self.vni(network)?;
        let claim = Claim { version: endpoint.claim_version, peer };
        Some(EndpointView { peer, endpoint: Endpoint { network, ..endpoint.endpoint() }, vni, claim })
    }

    /// The number of a network on the wire.
    pub(super) fn vni(&self, network: NetworkId) -> Option<Vni> {
        self.view.network(network).map(|view| view.vni)
    }

    fn host_view(&self, peer: PeerId, host: &HostRecord) -> HostView {
        let mut candidates = host.data_addrs.clone();
        let port = candidates.first().map_or(DEFAULT_DATA_PORT, SocketAddr::port);
        let seen = self.seen.get(&peer).map(|seen| SocketAddr::new(seen.ip(), port));
        seen.into_iter().for_each(|seen| prefer(&mut candidates, seen));
        HostView {
            peer,
            nickname: host.nickname.clone(),
            candidates,
            unadvertised: seen.filter(|seen| !host.data_addrs.contains(seen)),
            networks: self.common(host),
            noise_key: host.noise_key,
            suites: host.suites.clone(),
            agreement: self.config.sealing.with(host),
            trust: self.config.sealing.trust(&self.config.data_addrs, host),
            trusted: self.config.sealing.trusted_with(host),
        }
    }

    /// Membership changed its mind.
    pub(super) fn handle_member(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Up(peer) => {
                self.set_state(peer, PeerState::Alive);
                if self.presumed.remove(&peer) {
                    self.view.tell_again(peer);
                }
                self.show_host(peer);
            }
            MemberEvent::Down(peer) => {
                self.set_state(peer, PeerState::Down);
                if self.view.shows_host(peer) {
                    let name = self.nickname(peer);
                    self.note("host_down", format!("host {name} is down"));
                }
                self.view.hide_host(peer);
            }
            MemberEvent::Rejoined(_) => self.announce_to_all(),
        }
    }

    fn set_state(&mut self, peer: PeerId, state: PeerState) {
        self.topology.set_down(self.now, peer, state == PeerState::Down);
        if state == PeerState::Down && self.presumed.remove(&peer) {
            self.view.hide_host(peer);
        }
        let before = self.states.insert(peer, state);
        if before != Some(state) {
            self.ipam.set_state(self.now, peer, state);
            self.view.suspect_names(peer, state == PeerState::Suspect);
            self.note_doubt(peer, before, state);
        }
    }

    /// A host that is known does not answer, or does so again. Its death is told with its endpoints.
    fn note_doubt(&mut self, peer: PeerId, before: Option<PeerState>, state: PeerState) {
        let Some(name) = self.store.host(peer).map(|host| host.nickname.clone()) else { return };
        match (before, state) {
            (Some(PeerState::Alive), PeerState::Suspect) => {
                self.note("host_suspect", format!("host {name} does not answer"));
            }
            (Some(PeerState::Suspect | PeerState::Down), PeerState::Alive) => {
                self.note("host_up", format!("host {name} is alive"));
            }
            _ => {}
        }
    }

    /// Suspicion makes no event: it is looked up once a second. Whoever can be reached and is not taken for alive is
    /// knocked at.
    pub(super) fn look_at_members(&mut self) {
        self.look_for_strangers();
        let states = self.membership.states().into_iter();
        let changed: Vec<(PeerId, PeerState)> = states
            .filter(|(peer, state)| !self.store.removed(*peer) && self.states.get(peer) != Some(state))
            .collect();
        if changed.iter().any(|(_, state)| *state == PeerState::Suspect) {
            self.membership.hurry(self.now);
        }
        changed.into_iter().for_each(|(peer, state)| self.set_state(peer, state));
        for peer in self.topology.connected() {
            match self.membership.state(peer) {
                _ if self.store.removed(peer) => {}
                PeerState::Alive => {}
                PeerState::Suspect => self.membership.confront(peer),
                PeerState::Down => self.membership.announce(self.now, peer),
            }
        }
    }

    /// A host that is known by what others tell of it, and is not met in time, is down: else whoever needs an address of
    /// it would wait for ever. While this host does not know what any other one knows of members, it is itself late.
    fn look_for_strangers(&mut self) {
        let now = self.now;
        let alone = self.topology.partners().is_empty();
        self.strangers.retain(|peer, _| !self.states.contains_key(peer) && self.store.host(*peer).is_some());
        let known = self.store.members().filter(|peer| *peer != self.me);
        let unmet: Vec<PeerId> = known.filter(|peer| !self.states.contains_key(peer)).collect();
        for peer in unmet {
            let since = *self.strangers.entry(peer).or_insert(now);
            if since + STRANGER <= now && (alone || self.rest.has_agreed(since)) {
                self.set_state(peer, PeerState::Down);
            }
        }
    }

    fn announce_to_all(&mut self) {
        for peer in self.topology.connected() {
            self.membership.announce(self.now, peer);
        }
    }

    /// Says of this host what is true now, if anything changed.
    pub(super) fn refresh_own_host(&mut self) {
        let targets: Vec<TargetRecord> = self
            .topology
            .targets()
            .map(|(target, peer)| TargetRecord { name: target.to_string(), peer })
            .take(crate::records::MAX_TARGETS)
            .collect();
        let told = (targets, self.secrets.durable(), self.uses());
        if self.told.as_ref() == Some(&told) {
            return;
        }
        self.told = Some(told.clone());
        let (targets, secrets, networks) = told;
        self.ipam.set_targets(self.now, targets.clone());
        let host = HostRecord {
            noise_key: *self.config.identity.noise_public_key(),
            nickname: self.config.nickname.clone(),
            version: self.config.version.clone(),
            data_addrs: self.config.data_addrs.clone(),
            control_addrs: self.config.advertise.clone(),
            suites: self.config.sealing.suites.clone(),
            encryption: self.config.sealing.encryption,
            trusted: self.config.sealing.trusted.clone(),
            networks,
            targets,
            secrets,
        };
        self.ipam.set_host(self.now, self.me, &host);
        self.networks.set_listed(self.me, Some(&host));
        let record = self.store.put_host(&self.config.identity, &host);
        self.wrote(record.as_slice());
    }

    /// The name of a host for people; its id while it has not introduced itself.
    pub(super) fn nickname(&self, peer: PeerId) -> String {
        self.store.host(peer).map_or_else(|| peer.to_string(), |host| host.nickname.clone())
    }
}

/// The address that peering uses shows that it works, so it goes first, unless the host named others only: then
/// the first of those is what its people configured.
fn prefer(candidates: &mut Vec<SocketAddr>, seen: SocketAddr) {
    match candidates.iter().position(|addr| *addr == seen) {
        Some(at) => candidates[..=at].rotate_right(1),
        None => candidates.insert(candidates.len().min(1), seen),
    }
}

/// The reverse of the key of a VTEP's record.
fn vtep_of_key(key: &[u8]) -> Option<(NetworkId, SocketAddr)> {
    let (network, rest) = key.split_first_chunk::<32>()?;
    let (addr, port) = rest.split_first_chunk::<16>()?;
    let port = u16::from_le_bytes(port.try_into().ok()?);
    let ip = std::net::Ipv6Addr::from(*addr).to_canonical();
    Some((NetworkId(*network), SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::VtepRecord;

    #[test]
    fn the_key_of_a_vtep_names_it() {
        for addr in ["10.0.0.1:4789", "[fd00::1]:8472"] {
            let vtep = VtepRecord { network: MESH_NETWORK, addr: addr.parse().unwrap() };
            assert_eq!(vtep_of_key(&vtep.key()), Some((vtep.network, vtep.addr)));
        }
        assert_eq!(vtep_of_key(&[0; 49]), None);
    }

    #[test]
    fn the_address_that_works_is_preferred_to_unproven_ones() {
        let addrs =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mut candidates = addrs(&["172.17.0.1:4789", "10.0.0.1:4789", "10.1.0.1:4789"]);
        prefer(&mut candidates, "10.0.0.1:4789".parse().unwrap());
        assert_eq!(candidates, addrs(&["10.0.0.1:4789", "172.17.0.1:4789", "10.1.0.1:4789"]));
        let mut configured = addrs(&["192.0.2.1:4789"]);
        prefer(&mut configured, "10.0.0.1:4789".parse().unwrap());
        assert_eq!(configured, addrs(&["192.0.2.1:4789", "10.0.0.1:4789"]));
    }
}
