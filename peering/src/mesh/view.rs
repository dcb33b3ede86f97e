//! What the daemon was told of hosts, endpoints, names, networks and VTEPs, so that it is told changes only.
//!
//! A host that is down is not shown and neither are its endpoints and names: their records stay, suspended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use engine::types::{NetworkId, PeerId, PortId, Vni};

use super::{EndpointView, HostView, MeshEvent, NameView, NetworkView};
use crate::sealing::{Agreement, Trust};

/// What was told, and what is still to be told.
#[derive(Default)]
pub(super) struct View {
    hosts: BTreeMap<PeerId, HostView>,
    /// Hosts that are to be told of once more, changed or not.
    again: BTreeSet<PeerId>,
    endpoints: BTreeMap<(PeerId, PortId), EndpointView>,
    names: BTreeMap<(PeerId, [u8; 8]), NameView>,
    networks: BTreeMap<NetworkId, NetworkView>,
    vteps: BTreeSet<(Vni, SocketAddr)>,
    /// External endpoints of sealed networks, as it was told.
    shut_out: BTreeSet<(NetworkId, SocketAddr)>,
    events: VecDeque<MeshEvent>,
}

impl View {
    /// The next thing to tell.
    pub(super) fn poll_event(&mut self) -> Option<MeshEvent> {
        self.events.pop_front()
    }

    /// Something happened that is no change of the view.
    pub(super) fn tell(&mut self, event: MeshEvent) {
        self.events.push_back(event);
    }

    /// A host is up and says this of itself.
    pub(super) fn show_host(&mut self, host: HostView) {
        let again = self.again.remove(&host.peer);
        if again || self.hosts.get(&host.peer) != Some(&host) {
            self.hosts.insert(host.peer, host.clone());
            self.events.push_back(MeshEvent::HostUp(host));
        }
    }

    /// The host will be told of again, as it then is, if it was told of.
    pub(super) fn tell_again(&mut self, peer: PeerId) {
        if self.hosts.contains_key(&peer) {
            self.again.insert(peer);
        }
    }

    /// A host is down: its names and endpoints go first.
    pub(super) fn hide_host(&mut self, peer: PeerId) {
        for id in self.names_of(peer) {
            self.hide_name(peer, id);
        }
        let range = (peer, PortId([0; 8]))..=(peer, PortId([0xff; 8]));
        let ports: Vec<PortId> = self.endpoints.range(range).map(|((_, port), _)| *port).collect();
        for port in ports {
            self.hide_endpoint(peer, port);
        }
        self.again.remove(&peer);
        if self.hosts.remove(&peer).is_some() {
            self.events.push_back(MeshEvent::HostDown { peer });
        }
    }

    /// What two hosts do with what their containers send, as it was told of the other one.
    pub(super) fn agreement(&self, peer: PeerId) -> Option<Agreement> {
        self.hosts.get(&peer).map(|host| host.agreement)
    }

    /// Whether two hosts trust the underlay between them, as it was told of the other one.
    pub(super) fn trust(&self, peer: PeerId) -> Option<Trust> {
        self.hosts.get(&peer).map(|host| host.trust)
    }

    /// The external endpoints that a network shuts out are `addrs` now; gives those for which that is news.
    pub(super) fn shut_out(&mut self, network: NetworkId, addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let now: BTreeSet<_> = addrs.into_iter().map(|addr| (network, addr)).collect();
        let news = now.difference(&self.shut_out).map(|&(_, addr)| addr).collect();
        self.shut_out.retain(|(of, _)| *of != network);
        self.shut_out.extend(now);
        news
    }

    /// True when the daemon knows the host as up.
    pub(super) fn shows_host(&self, peer: PeerId) -> bool {
        self.hosts.contains_key(&peer)
    }

    /// An endpoint runs and is as it is said here. What pins it is taken down first when that changed.
    pub(super) fn show_endpoint(&mut self, endpoint: EndpointView) {
        let key = (endpoint.peer, endpoint.endpoint.port);
        match self.endpoints.get(&key) {
            Some(told) if *told == endpoint => return,
            Some(told) if (told.vni, told.endpoint.mac) != (endpoint.vni, endpoint.endpoint.mac) => {
                self.hide_endpoint(key.0, key.1);
            }
            Some(_) | None => {}
        }
        self.endpoints.insert(key, endpoint.clone());
        self.events.push_back(MeshEvent::EndpointUp(endpoint));
    }

    /// An endpoint does not run, or is gone.
    pub(super) fn hide_endpoint(&mut self, peer: PeerId, port: PortId) {
        if let Some(told) = self.endpoints.remove(&(peer, port)) {
            let (vni, mac) = (told.vni, told.endpoint.mac);
            self.events.push_back(MeshEvent::EndpointDown { peer, port, vni, mac });
        }
    }

    /// Names are as it is said here. They are taken down first when they were on another network.
    pub(super) fn show_name(&mut self, name: NameView) {
        let key = (name.peer, name.id);
        match self.names.get(&key) {
            Some(told) if *told == name => return,
            Some(told) if told.vni != name.vni => self.hide_name(key.0, key.1),
            Some(_) | None => {}
        }
        self.names.insert(key, name.clone());
        self.events.push_back(MeshEvent::NameUp(name));
    }

    /// Names are not answered any more.
    pub(super) fn hide_name(&mut self, peer: PeerId, id: [u8; 8]) {
        if let Some(NameView { vni, .. }) = self.names.remove(&(peer, id)) {
            self.events.push_back(MeshEvent::NameDown { peer, id, vni });
        }
    }

    /// A host is suspected, or is not any more.
    pub(super) fn suspect_names(&mut self, peer: PeerId, suspected: bool) {
        for id in self.names_of(peer) {
            if let Some(told) = self.names.get(&(peer, id)).cloned() {
                self.show_name(NameView { suspected, ..told });
            }
        }
    }

    /// The holders of names on a host.
    fn names_of(&self, peer: PeerId) -> Vec<[u8; 8]> {
        self.names.range((peer, [0; 8])..=(peer, [0xff; 8])).map(|((_, id), _)| *id).collect()
    }

    /// No name and no endpoint of a network is of interest any more.
    pub(super) fn hide_endpoints_on(&mut self, vni: Vni) {
        let names = self.names.iter().filter(|(_, name)| name.vni == vni);
        for (peer, id) in names.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.hide_name(peer, id);
        }
        let on_it = self.endpoints.iter().filter(|(_, endpoint)| endpoint.vni == vni);
        for (peer, port) in on_it.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.hide_endpoint(peer, port);
        }
    }

    /// A network is as it is said here.
    pub(super) fn show_network(&mut self, view: NetworkView) {
        let before = self.networks.get(&view.id);
        if before != Some(&view) {
            if let Some(vni) = before.map(|before| before.vni).filter(|vni| *vni != view.vni) {
                self.events.push_back(MeshEvent::NetworkGone { network: view.id, vni });
            }
            self.networks.insert(view.id, view.clone());
            self.events.push_back(MeshEvent::NetworkChanged(Box::new(view)));
        }
    }

    /// A network is gone.
    pub(super) fn hide_network(&mut self, network: NetworkId) {
        if let Some(view) = self.networks.remove(&network) {
            self.events.push_back(MeshEvent::NetworkGone { network, vni: view.vni });
        }
    }

    /// All networks, in the order of ids.
    pub(super) fn networks(&self) -> impl Iterator<Item = &NetworkView> {
        self.networks.values()
    }

    /// What is known of a network.
    pub(super) fn network(&self, network: NetworkId) -> Option<&NetworkView> {
        self.networks.get(&network)
    }

    /// An external VXLAN endpoint is declared, or not.
    pub(super) fn set_vtep(&mut self, vni: Vni, addr: SocketAddr, declared: bool) {
        if declared && self.vteps.insert((vni, addr)) {
            self.events.push_back(MeshEvent::VtepUp { vni, addr });
        } else if !declared && self.vteps.remove(&(vni, addr)) {
            self.events.push_back(MeshEvent::VtepDown { vni, addr });
        }
    }
}
