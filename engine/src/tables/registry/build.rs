//! The snapshot: what is built anew of it, and from what.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Dirty, NetworkState, Opened, Registry, RemoteKey};
use crate::network::Network;
use crate::session::epoch::Epoch;
use crate::switch::Port;
use crate::tables::{LocalPort, Map, Opener, PortIndex, Remote, RemoteIndex, SessionTable, Sources, Tables};
use crate::types::{Location, PeerId, PortId, Vni};

impl Registry {
    /// The tables as they now are. What did not change is shared with the last ones; nothing is built when nothing
    /// changed. Call it once for a burst of changes, not for each.
    pub fn tables(&mut self) -> Arc<Tables> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty != Dirty::default() {
            let mut next = Tables::clone(&self.current);
            // Pins may give numbers to peers that nothing else was said of, so networks come first.
            if dirty.networks {
                next.networks = self.build_networks();
            }
            if dirty.ports {
                next.ports = self.build_ports();
            }
            if dirty.remotes || next.remotes.len() != self.remotes.keys().len() {
                next.remotes = self.build_remotes();
            }
            if dirty.sources {
                next.sources = Arc::new(self.build_sources());
                next.clear = Arc::new(self.build_clear());
            }
            // Who may send what depends on who is on which network.
            if dirty.sessions || (dirty.sources && !self.opens.is_empty()) {
                next.sessions = Arc::new(self.build_sessions());
            }
            self.current = Arc::new(next);
        }
        Arc::clone(&self.current)
    }

    fn build_networks(&mut self) -> Map<Vni, Arc<Network>> {
        self.build_pins();
        let built = |(&vni, state): (&Vni, &NetworkState)| {
            let build = |mtu| Arc::new(self.build_network(vni, state, mtu));
            Some((vni, state.built.clone().or_else(|| state.mtu.map(build))?))
        };
        let networks: Map<_, _> = self.networks.iter().filter_map(built).collect();
        for (vni, state) in &mut self.networks {
            let built = networks.get(vni).cloned();
            let known = |remote| state.before.contains(remote);
            if built.iter().any(|network| !network.remotes.iter().all(known)) {
                self.widened.insert(*vni);
            }
            state.before = built.iter().flat_map(|network| network.remotes.iter().copied()).collect();
            state.built = built;
        }
        networks
    }

    fn build_pins(&mut self) {
        let (ports, remotes) = (&self.ports, &mut self.remotes);
        for (&vni, network) in self.networks.iter_mut().filter(|(_, network)| network.pins.is_none()) {
            let resolve = |location| match location {
                Location::Port(port) => ports.get(&port).map(|index| Port::Tap(PortIndex(index))),
                Location::Peer(peer) => {
                    Some(Port::Remote(RemoteIndex(remotes.intern(RemoteKey::Peer(peer)))))
                }
            };
            let pins = network.claims.winners(resolve);
            network.whereabouts.follow(vni, &pins, &mut self.moved);
            network.pins = Some(Arc::new(pins));
        }
    }

    fn build_network(&self, vni: Vni, state: &NetworkState, mtu: u16) -> Network {
        let on_it = self.opened.iter().filter(|(_, opened)| opened.vni == vni);
        Network {
            vni,
            mtu,
            sealed: state.sealed,
            gateways: state.gateways.clone().into(),
            pins: state.pins.clone().unwrap_or_default(),
            learned: Arc::clone(&state.learned),
            groups: Arc::clone(&state.groups),
            ports: on_it.filter_map(|(port, _)| self.ports.get(port).map(PortIndex)).collect(),
            remotes: self.flood_remotes(vni, state),
        }
    }

    /// Peers that have the network and a path, then VTEPs, which know nothing of seals; each address once.
    fn flood_remotes(&self, vni: Vni, state: &NetworkState) -> Box<[RemoteIndex]> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.networks.contains(&vni));
        let peers = peers.filter_map(|(&id, peer)| Some((peer.path?, RemoteKey::Peer(id))));
        let vteps = state.vteps.iter().filter(|_| !state.sealed);
        let vteps = vteps.map(|&addr| (addr, RemoteKey::Vtep(addr)));
        let mut seen = BTreeSet::new();
        let each_once = peers.chain(vteps).filter(|(addr, _)| seen.insert(*addr));
        each_once.filter_map(|(_, key)| self.remotes.get(&key).map(RemoteIndex)).collect()
    }

    fn build_ports(&self) -> Arc<[Option<LocalPort>]> {
        let port = |id: &PortId| {
            let Opened { vni, fence } = self.opened.get(id)?;
            let pinned = self.stations.get(id).filter(|station| station.vni == *vni);
            let fence = fence.as_ref().map(|made| Arc::clone(pinned.map_or(made, |station| &station.fence)));
            Some(LocalPort { id: *id, vni: *vni, fence })
        };
        self.ports.keys().iter().map(|id| id.as_ref().and_then(port)).collect()
    }

    fn build_remotes(&self) -> Arc<[Option<Remote>]> {
        let remote = |key: &RemoteKey| match *key {
            RemoteKey::Vtep(addr) => {
                let room = self.vtep_rooms.get(&addr.ip()).copied().unwrap_or(Remote::ANY_ROOM);
                Some(Remote { room, ..self.remote(addr, None, (true, false)) })
            }
            RemoteKey::Peer(id) => {
                let peer = self.peers.get(&id)?;
                let addr = peer.path?;
                let advertised = peer.unadvertised != Some(addr) && peer.candidates.contains(&addr);
                let room = Remote::ANY_ROOM - peer.shortage;
                Some(Remote { room, ..self.remote(addr, Some(id), (advertised, self.sends_clear(peer))) })
            }
        };
        self.remotes.keys().iter().map(|key| key.as_ref().and_then(remote)).collect()
    }

    fn build_sessions(&self) -> SessionTable {
        let opener = |(&number, (peer, epoch)): (&u32, &(PeerId, Arc<Epoch>))| {
            let networks = self.peers.get(peer)?.networks.iter().copied().collect();
            let from = RemoteIndex(self.remotes.get(&RemoteKey::Peer(*peer))?);
            Some((number, Opener { epoch: Arc::clone(epoch), from, networks }))
        };
        let seal = |key: &Option<RemoteKey>| match key {
            Some(RemoteKey::Peer(peer)) => self.seals.get(peer).cloned(),
            Some(RemoteKey::Vtep(_)) | None => None,
        };
        SessionTable {
            openers: self.opens.iter().filter_map(opener).collect(),
            seals: self.remotes.keys().iter().map(seal).collect(),
        }
    }

    fn remote(&self, addr: SocketAddr, peer: Option<PeerId>, (spread, clear): (bool, bool)) -> Remote {
        let through = self.ways.get(&addr.ip()).copied();
        Remote { addr, peer, spread, clear, through, room: Remote::ANY_ROOM }
    }

    /// Of several senders with one address and network the one whose path it is counts, then any peer, then a VTEP.
    fn build_sources(&self) -> Sources {
        let mut sources = Sources::default();
        let in_use = self.peers.iter().filter_map(|(&id, peer)| Some((peer.path?, id, peer)));
        let candidates =
            self.peers.iter().flat_map(|(&id, peer)| peer.candidates.iter().map(move |&at| (at, id, peer)));
        for (addr, id, peer) in in_use.chain(candidates) {
            let members = sources.entry(addr.ip()).or_default();
            let present = peer.networks.iter().filter(|vni| self.is_present(**vni));
            self.admit(members, RemoteKey::Peer(id), present.copied());
        }
        for (&vni, network) in &self.networks {
            for &addr in &network.vteps {
                let members = sources.entry(addr.ip()).or_default();
                self.admit(members, RemoteKey::Vtep(addr), self.is_present(vni).then_some(vni).into_iter());
            }
        }
        sources
    }

    /// Adds the networks of a remote where nobody stands yet, in order.
    fn admit(
        &self,
        members: &mut Vec<(Vni, RemoteIndex)>,
        key: RemoteKey,
        networks: impl Iterator<Item = Vni>,
    ) {
        let Some(index) = self.remotes.get(&key) else { return };
        for vni in networks {
            if let Err(at) = members.binary_search_by_key(&vni, |&(held, _)| held) {
                members.insert(at, (vni, RemoteIndex(index)));
            }
        }
    }

    fn is_present(&self, vni: Vni) -> bool {
        self.networks.get(&vni).is_some_and(|network| network.mtu.is_some())
    }
}
