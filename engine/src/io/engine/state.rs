//! What is changed under the lock: what the control plane said, what paths and sessions have decided, and the open ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::PortSnapshot;
use super::hops::Hops;
use crate::counters::{PortCounters, PortTotals};
use crate::io::capture::{self, Place};
use crate::io::netlink::Hop;
use crate::io::netns::NetnsId;
use crate::io::tap::Offloads;
use crate::path::Paths;
use crate::path::ways::Ways;
use crate::seam::{Event, Update};
use crate::session::keeper::{Identity, Keeper};
use crate::tables::{PortIndex, Registry};
use crate::types::{PeerId, PeerKeys, PortId, Vni};
use crate::wire::sealed;

/// What is changed under the lock.
pub(super) struct Control {
    pub(super) registry: Registry,
    pub(super) paths: Paths,
    pub(super) ways: Ways<Hop>,
    pub(super) hops: Hops,
    /// MTU of each network, and whether it is sealed.
    pub(super) networks: BTreeMap<Vni, (u16, bool)>,
    /// What is probed for: the largest packet, and what sealing adds to it.
    pub(super) probed: (u16, usize),
    /// None until this host has an identity.
    pub(super) keeper: Option<Keeper>,
    /// Of the peers that have told theirs.
    pub(super) keys: BTreeMap<PeerId, PeerKeys>,
    /// When it is looked next which sessions workers lack.
    pub(super) next_wants: Instant,
    /// The same of peers that were heard elsewhere.
    pub(super) next_found: Instant,
    /// When containers are asked next which multicast groups they want.
    pub(super) next_ask: Instant,
    /// When it is looked next to whom large datagrams flow.
    pub(super) next_bulk: Instant,
    pub(super) ports: BTreeMap<PortId, OpenPort>,
    pub(super) captures: BTreeMap<u64, Running>,
    pub(super) events: Sender<Event>,
    /// The destinations have changed since their ways were looked up.
    pub(super) ways_stale: bool,
    /// VTEPs have changed since it was looked up what reaches them.
    pub(super) rooms_stale: bool,
    /// The same of what both ends trust, and of the addresses that face it.
    pub(super) trust_stale: bool,
    /// The peers to which frames of sealed networks go in clear, as it was told last.
    pub(super) in_clear: BTreeSet<PeerId>,
    pub(super) stopping: bool,
}

/// A capture, and the port it ends with.
pub(super) struct Running {
    pub(super) place: Place,
    pub(super) shared: Arc<capture::Shared>,
}

pub(super) struct OpenPort {
    pub(super) index: PortIndex,
    pub(super) vni: Vni,
    pub(super) ifname: String,
    pub(super) offloads: Offloads,
    pub(super) counters: Vec<Arc<PortCounters>>,
    /// The namespace that the descriptors keep alive, if they were opened inside.
    pub(super) pinned: Option<NetnsId>,
    /// It was opened since the last sweep: its interface may not have sent yet what it was asked for.
    pub(super) is_new: bool,
}

impl OpenPort {
    pub(super) fn snapshot(&self, port: PortId) -> PortSnapshot {
        let mut totals = PortTotals::default();
        self.counters.iter().for_each(|counters| totals.merge(&counters.totals()));
        PortSnapshot {
            port,
            vni: self.vni,
            ifname: self.ifname.clone(),
            offloads: self.offloads.clone(),
            totals,
        }
    }
}

impl Control {
    /// Nothing said yet. `seed` is that of [`Paths::new`].
    pub(super) fn new(now: Instant, seed: [u8; 32], events: Sender<Event>) -> Self {
        Control {
            registry: Registry::new(now),
            paths: Paths::new(seed),
            ways: Ways::default(),
            hops: Hops::default(),
            networks: BTreeMap::new(),
            probed: (0, 0),
            keeper: None,
            keys: BTreeMap::new(),
            next_wants: now,
            next_bulk: now,
            next_found: now,
            next_ask: now,
            ports: BTreeMap::new(),
            captures: BTreeMap::new(),
            events,
            ways_stale: false,
            rooms_stale: false,
            trust_stale: false,
            in_clear: BTreeSet::new(),
            stopping: false,
        }
    }

    pub(super) fn apply(&mut self, now: Instant, update: Update) {
        match &update {
            Update::SetNetwork { vni, mtu, sealed, .. } => {
                self.networks.insert(*vni, (*mtu, *sealed));
                self.set_probe_sizes(now);
            }
            Update::RemoveNetwork { vni } => {
                self.networks.remove(vni);
            }
            Update::SetPeer { peer, candidates, keys, .. } => {
                self.trust_stale = true;
                self.paths.set_peer(now, *peer, candidates);
                self.set_keys(*peer, keys.clone());
                let (peer, path) = (*peer, self.paths.path(*peer));
                self.registry.apply(update);
                self.registry.set_room(peer, self.paths.room(peer));
                // It may be where nobody said that it is.
                return self.registry.set_path(peer, path);
            }
            Update::RemovePeer { peer } => {
                self.trust_stale = true;
                self.paths.remove_peer(*peer);
                self.ways.remove_peer(*peer);
                self.keys.remove(peer);
                self.keeper.iter_mut().for_each(|keeper| keeper.remove_peer(*peer));
            }
            Update::AddVtep { .. }
            | Update::RemoveVtep { .. }
            | Update::Pin { .. }
            | Update::Unpin { .. }
            | Update::SetNames { .. }
            | Update::RemoveNames { .. }
            | Update::SetAsker { .. }
            | Update::SetDns { .. }
            | Update::Answer { .. } => {}
        }
        let vtep = matches!(update, Update::AddVtep { .. });
        (self.ways_stale, self.rooms_stale) = (self.ways_stale | vtep, self.rooms_stale | vtep);
        self.registry.apply(update);
    }

    /// The largest datagram of any network decides what is probed for.
    fn set_probe_sizes(&mut self, now: Instant) {
        let size = |&(mtu, sealed): &(u16, bool)| (mtu, if sealed { sealed::OVERHEAD } else { 0 });
        let largest = self.networks.values().map(size).max_by_key(|(mtu, seal)| usize::from(*mtu) + seal);
        let (mtu, sealing) = largest.unwrap_or_default();
        if self.probed != (mtu, sealing) {
            self.probed = (mtu, sealing);
            self.paths.set_mtu(mtu, sealing);
            self.paths.ask_all(now);
        }
    }

    fn set_keys(&mut self, peer: PeerId, keys: Option<PeerKeys>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.set_peer(peer, keys.as_ref());
        }
        match keys {
            Some(keys) => self.keys.insert(peer, keys),
            None => self.keys.remove(&peer),
        };
    }

    /// Begins, with what is known of the peers.
    pub(super) fn set_identity(&mut self, now: Instant, own: Identity) {
        let mut keeper = Keeper::new(now, own);
        for (peer, keys) in &self.keys {
            keeper.set_peer(*peer, Some(keys));
            keeper.set_path(*peer, self.paths.path(*peer));
        }
        self.keeper = Some(keeper);
    }

    /// Takes over what the paths and the sessions have decided; true when that changes the tables.
    pub(super) fn drain(&mut self, now: Instant) -> bool {
        let paths = self.drain_path_events(now) | self.drain_wishes();
        let Some(keeper) = &mut self.keeper else { return paths };
        let sessions = keeper.drain(&mut self.registry);
        while let Some(event) = self.keeper.as_mut().and_then(Keeper::poll_event) {
            self.tell(event);
        }
        paths || sessions
    }

    fn drain_path_events(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(event) = self.paths.poll_event() {
            changed = true;
            self.ways_stale = true;
            match &event {
                Event::PathUp { peer, addr, .. } => {
                    self.ways.handle_path(now, *peer);
                    self.set_path(now, *peer, Some(*addr));
                }
                Event::PathDown { peer, .. } => {
                    self.ways.remove_peer(*peer);
                    self.set_path(now, *peer, None);
                }
                Event::PortGone { .. }
                | Event::InClear { .. }
                | Event::SessionUp { .. }
                | Event::SessionDown { .. }
                | Event::Question { .. }
                | Event::GatewayFault { .. }
                | Event::UnderlayChanged => {}
            }
            self.tell(event);
        }
        changed
    }

    /// Takes over which peers take frames in clear, and tells to whom they go so.
    pub(super) fn drain_wishes(&mut self) -> bool {
        if self.registry.sources().is_empty() && self.in_clear.is_empty() {
            return false;
        }
        let wishes = self.registry.trusting_peers().into_iter();
        let wishes: Vec<_> = wishes.map(|peer| (peer, self.paths.takes_clear(peer))).collect();
        for (peer, takes_clear) in wishes {
            self.registry.set_takes_clear(peer, takes_clear);
        }
        let in_clear = self.registry.peers_in_clear();
        let changed: Vec<PeerId> = self.in_clear.symmetric_difference(&in_clear).copied().collect();
        self.in_clear = in_clear;
        for &peer in &changed {
            self.tell(Event::InClear { peer, clear: self.in_clear.contains(&peer) });
        }
        !changed.is_empty()
    }

    fn set_path(&mut self, now: Instant, peer: PeerId, addr: Option<SocketAddr>) {
        self.registry.set_path(peer, addr);
        self.registry.set_room(peer, self.paths.room(peer));
        let seals = self.networks.values().any(|(_, sealed)| *sealed);
        if let Some(keeper) = &mut self.keeper {
            keeper.set_path(peer, addr);
            if seals && addr.is_some() {
                keeper.greet(now, peer);
            }
        }
    }

    /// Whether an open port keeps this namespace alive.
    pub(super) fn pins(&self, netns: NetnsId) -> bool {
        self.ports.values().any(|port| port.pinned == Some(netns))
    }

    pub(super) fn port_at(&self, index: PortIndex) -> Option<PortId> {
        self.ports.iter().find(|(_, port)| port.index == index).map(|(&id, _)| id)
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody listens any more when the daemon is stopping.
        let _ = self.events.send(event);
    }
}
