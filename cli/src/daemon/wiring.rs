//! What the control plane says becomes tables of the data plane; what the data plane sees becomes status.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use engine::types::{Location, PeerId, PeerKeys};
use engine::{Event, Update};
use peering::mesh::MeshEvent;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Daemon, lock_of, names};

/// Whether and how frames reach another host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PathState {
    /// They do.
    Up {
        /// Where to.
        addr: SocketAddr,
        /// Largest overlay packet, in bytes.
        mtu: u16,
    },
    /// They do not.
    Down {
        /// For people.
        reason: String,
    },
}

/// Paths by host, as last reported.
pub(super) type Paths = BTreeMap<PeerId, PathState>;

/// Carries events between the planes until both have ended.
pub(super) async fn run(
    daemon: Arc<Daemon>,
    mut mesh: UnboundedReceiver<MeshEvent>,
    engine: Receiver<Event>,
) {
    let mut engine = into_async(engine);
    loop {
        tokio::select! {
            Some(event) = mesh.recv() => {
                // What arrived together is published together.
                let mut events = vec![event];
                while let Ok(event) = mesh.try_recv() {
                    events.push(event);
                }
                daemon.handle_mesh(&events);
            }
            Some(event) = engine.recv() => daemon.handle_engine(event),
            else => return,
        }
    }
}

/// The engine's threads know nothing of tokio: one thread hands their events over.
fn into_async(events: Receiver<Event>) -> UnboundedReceiver<Event> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || events.iter().try_for_each(|event| sender.send(event)));
    receiver
}

impl Daemon {
    fn handle_mesh(self: &Arc<Self>, events: &[MeshEvent]) {
        let (own, seals) = (self.peering.peer_id(), self.seals());
        let tables = |event| self.updates(own, seals, event);
        let updates: Vec<Update> = events.iter().flat_map(tables).collect();
        self.engine.apply(updates);
        // Who comes may know of a later life of this host, and this host then goes on under a higher incarnation.
        if seals && events.iter().any(|event| matches!(event, MeshEvent::HostUp(_))) {
            let daemon = Arc::clone(self);
            tokio::spawn(async move { daemon.engine.raise(daemon.peering.incarnation().await) });
        }
        for event in events {
            self.note_mesh(event);
        }
        let here =
            |event: &MeshEvent| matches!(event, MeshEvent::NetworkChanged(view) if view.is_used_by(own));
        // At the launch it is looked at anyway.
        if self.is_ready() && events.iter().any(here) {
            let daemon = Arc::clone(self);
            tokio::spawn(async move { daemon.check_range().await });
        }
    }

    /// What the tables must say after `event`.
    fn updates(&self, own: PeerId, seals: bool, event: &MeshEvent) -> Vec<Update> {
        let mut updates = Vec::new();
        match event {
            MeshEvent::NetworkChanged(view) => {
                self.networks.send_modify(|networks| updates = networks.change(view, own, seals));
            }
            MeshEvent::NetworkGone { network, .. } => {
                self.networks.send_modify(|networks| updates = networks.remove(*network));
            }
            event => updates.extend(update(own, seals, event)),
        }
        updates
    }

    fn note_mesh(self: &Arc<Self>, event: &MeshEvent) {
        match event {
            MeshEvent::NetworkChanged(view) => {
                tracing::debug!(network = view.name, id = %view.id, vni = %view.vni, "network is there");
                if self.ports().all().any(|intent| intent.is_behind(view)) {
                    tokio::spawn(Arc::clone(self).follow_network(view.id, view.id));
                }
                if self.ports().all().any(|intent| intent.network == view.id) {
                    let (daemon, network) = (Arc::clone(self), view.id);
                    tokio::spawn(async move { daemon.point_network(network).await });
                }
            }
            MeshEvent::NetworkMerged { network, into } => {
                tokio::spawn(Arc::clone(self).follow_network(*network, *into));
            }
            MeshEvent::NetworkGone { network, vni } => tracing::debug!(%network, %vni, "network is gone"),
            MeshEvent::HostUp(host) => {
                lock_of(&self.agreements).insert(host.peer, (host.agreement, host.trust));
                tracing::info!(peer = %host.peer, nickname = host.nickname, sealing = %host.agreement, "host is taken for alive");
            }
            MeshEvent::HostDown { peer } => {
                self.paths().remove(peer);
                lock_of(&self.session_faults).remove(peer);
                lock_of(&self.agreements).remove(peer);
                tracing::info!(%peer, "host is down");
            }
            MeshEvent::Readdress { port, addresses } => {
                let (daemon, port, addresses) = (Arc::clone(self), *port, addresses.clone());
                tokio::spawn(async move { daemon.readdress(port, addresses).await });
            }
            MeshEvent::SecretsChanged => self.secrets_changed(),
            MeshEvent::Notice { kind, message } => tracing::warn!(kind, "{message}"),
            MeshEvent::EndpointUp(view) => {
                tracing::debug!(peer = %view.peer, port = %view.endpoint.port, name = view.endpoint.name, "endpoint is up");
            }
            MeshEvent::EndpointRecalled(endpoint) => {
                let (daemon, endpoint) = (Arc::clone(self), endpoint.clone());
                tokio::spawn(async move { daemon.recall(&endpoint).await });
            }
            MeshEvent::EndpointDown { peer, port, .. } => tracing::debug!(%peer, %port, "endpoint is down"),
            MeshEvent::NameUp(_) | MeshEvent::NameDown { .. } => self.note_name(event),
            MeshEvent::VtepUp { vni, addr } => tracing::debug!(%vni, %addr, "VTEP is declared"),
            MeshEvent::VtepDown { vni, addr } => tracing::debug!(%vni, %addr, "VTEP is removed"),
        }
    }

    fn handle_engine(self: &Arc<Self>, event: Event) {
        match event {
            Event::PathUp { peer, addr, mtu } => {
                tracing::info!(%peer, %addr, mtu, "data path is up");
                self.paths().insert(peer, PathState::Up { addr, mtu });
            }
            Event::PathDown { peer, reason } => {
                tracing::warn!(%peer, "no data path: {reason}");
                self.paths().insert(peer, PathState::Down { reason });
            }
            Event::InClear { peer, clear: true } => {
                tracing::info!(%peer, "frames go in clear: both hosts trust the way");
                lock_of(&self.in_clear).insert(peer);
            }
            Event::InClear { peer, clear: false } => {
                tracing::info!(%peer, "frames go sealed again");
                lock_of(&self.in_clear).remove(&peer);
            }
            Event::SessionUp { peer, suite } => {
                tracing::info!(%peer, suite = suite.name(), "frames are sealed");
                lock_of(&self.session_faults).remove(&peer);
            }
            Event::SessionDown { peer, reason } => {
                tracing::warn!(%peer, "no session: {reason}");
                lock_of(&self.session_faults).insert(peer, reason);
            }
            Event::UnderlayChanged => {
                let daemon = Arc::clone(self);
                tokio::spawn(async move {
                    daemon.peering.follow_addresses().await;
                    // At the launch it is looked at anyway.
                    if daemon.is_ready() {
                        daemon.check_range().await;
                    }
                });
            }
            Event::GatewayFault { reason } => {
                self.tell("gateway_fault", format!("the gateway failed and has begun anew: {reason}"));
            }
            Event::Question { question, port, message, tcp } => {
                tokio::spawn(Arc::clone(self).forward(question, port, message, tcp));
            }
            Event::PortGone { port, reason } => {
                tracing::debug!(%port, "port is gone: {reason}");
                self.opened().remove(&port);
                self.tell_askers();
                let daemon = Arc::clone(self);
                tokio::spawn(async move { daemon.port_gone(port, &reason).await });
            }
        }
    }
}

/// What the tables of the host `own`, which seals or does not, must say after `event` that is not about a network itself.
fn update(own: PeerId, seals: bool, event: &MeshEvent) -> Option<Update> {
    Some(match event {
        MeshEvent::HostUp(host) => Update::SetPeer {
            peer: host.peer,
            candidates: host.candidates.clone(),
            unadvertised: host.unadvertised,
            networks: host.networks.iter().map(|(_, vni)| *vni).collect(),
            keys: seals.then(|| PeerKeys { noise: host.noise_key, suites: host.suites.clone() }),
            trusted: host.trusted.clone(),
        },
        MeshEvent::HostDown { peer } => Update::RemovePeer { peer: *peer },
        MeshEvent::EndpointUp(view) => Update::Pin {
            vni: view.vni,
            mac: view.endpoint.mac,
            claim: view.claim,
            location: if view.peer == own {
                Location::Port(view.endpoint.port)
            } else {
                Location::Peer(view.peer)
            },
            addrs: view.endpoint.addresses.iter().map(|a| a.addr).collect(),
        },
        MeshEvent::EndpointDown { peer, vni, mac, .. } => Update::Unpin { vni: *vni, mac: *mac, peer: *peer },
        MeshEvent::VtepUp { vni, addr } => Update::AddVtep { vni: *vni, addr: *addr },
        MeshEvent::VtepDown { vni, addr } => Update::RemoveVtep { vni: *vni, addr: *addr },
        MeshEvent::NameUp(_) | MeshEvent::NameDown { .. } => return names::update(event),
        MeshEvent::Notice { .. }
        | MeshEvent::NetworkChanged(_)
        | MeshEvent::NetworkMerged { .. }
        | MeshEvent::NetworkGone { .. }
        | MeshEvent::Readdress { .. }
        | MeshEvent::EndpointRecalled(_)
        | MeshEvent::SecretsChanged => return None,
    })
}

#[cfg(test)]
mod tests {
    use engine::types::{Claim, IpPrefix, Vni};
    use peering::mesh::{EndpointView, HostView};
    use peering::sealing::{Agreement, Trust};

    use super::super::devices::endpoint;
    use super::super::ports::tests::intent;
    use super::*;

    const OWN: PeerId = PeerId([1; 16]);
    const OTHER: PeerId = PeerId([2; 16]);

    fn view(peer: PeerId) -> EndpointView {
        let claim = Claim { version: 3, peer };
        EndpointView { peer, endpoint: endpoint(&intent(1)), vni: Vni::MESH, claim }
    }

    #[test]
    fn an_endpoint_is_pinned_where_it_lives() {
        let location = |peer| match update(OWN, false, &MeshEvent::EndpointUp(view(peer))) {
            Some(Update::Pin { location, claim, addrs, .. }) => {
                assert_eq!((claim.peer, addrs.len()), (peer, 1));
                location
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(location(OWN), Location::Port(intent(1).port));
        assert_eq!(location(OTHER), Location::Peer(OTHER));
    }

    #[test]
    fn a_host_brings_its_addresses_and_networks() {
        let host = HostView {
            peer: OTHER,
            nickname: "node02".into(),
            candidates: vec!["192.0.2.2:4789".parse().unwrap()],
            unadvertised: None,
            networks: vec![(intent(1).network, Vni::MESH)],
            noise_key: [3; 32],
            suites: vec![1, 2],
            agreement: Agreement::Plain,
            trust: Trust::Both,
            trusted: vec![IpPrefix { addr: [192, 0, 2, 0].into(), len: 24 }],
        };
        let candidates = host.candidates.clone();
        let expected = Update::SetPeer {
            peer: OTHER,
            candidates,
            unadvertised: None,
            networks: vec![Vni::MESH],
            keys: None,
            trusted: host.trusted.clone(),
        };
        assert_eq!(update(OWN, false, &MeshEvent::HostUp(host.clone())), Some(expected));
        let keys = PeerKeys { noise: [3; 32], suites: vec![1, 2] };
        match update(OWN, true, &MeshEvent::HostUp(host)) {
            Some(Update::SetPeer { keys: told, .. }) => assert_eq!(told, Some(keys)),
            other => panic!("{other:?}"),
        }
        let down = MeshEvent::HostDown { peer: OTHER };
        assert_eq!(update(OWN, false, &down), Some(Update::RemovePeer { peer: OTHER }));
    }

    #[test]
    fn a_notice_is_for_people_only() {
        assert_eq!(update(OWN, false, &MeshEvent::Notice { kind: "x", message: String::new() }), None);
    }
}
