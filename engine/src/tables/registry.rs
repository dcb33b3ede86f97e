//! The control side of the tables.

mod build;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::moved::{Moved, Whereabouts};
use super::slots::Slots;
use super::{Clear, PortIndex, Remote, RemoteIndex, SessionTable, Sources, Tables};
use crate::fdb::{Claims, Learned, Pins};
use crate::fence::Fence;
use crate::groups::Groups;
use crate::network::Network;
use crate::offload::tunnel::Through;
use crate::seam::Update;
use crate::session::epoch::Epoch;
use crate::switch::Port;
use crate::types::{IpPrefix, Location, PeerId, PortId, Vni, canonical};

/// Everything the control plane said, and the snapshot last built from it.
///
/// One thread owns it. The order of updates does not matter, except that a network's or a peer's removal ends
/// what was said of it before; saying a thing twice changes nothing.
#[derive(Debug)]
pub struct Registry {
    networks: BTreeMap<Vni, NetworkState>,
    peers: BTreeMap<PeerId, PeerState>,
    ports: Slots<PortId>,
    opened: BTreeMap<PortId, Opened>,
    /// What pins say of the ports of this host.
    stations: BTreeMap<PortId, Station>,
    remotes: Slots<RemoteKey>,
    /// By the addresses of remotes.
    ways: BTreeMap<IpAddr, Through>,
    /// By the addresses of peers: from where datagrams to them leave.
    sources: BTreeMap<IpAddr, IpAddr>,
    /// The longest datagrams that reach a VTEP, where that is less than any, by its address.
    vtep_rooms: BTreeMap<IpAddr, u16>,
    /// Sessions that are opened, by our number for them.
    opens: BTreeMap<u32, (PeerId, Arc<Epoch>)>,
    /// Sessions that are sealed in.
    seals: BTreeMap<PeerId, Arc<Epoch>>,
    /// Not yet asked for by [`Registry::take_moved`].
    moved: Vec<Moved>,
    /// Not yet asked for by [`Registry::take_widened`].
    widened: BTreeSet<Vni>,
    current: Arc<Tables>,
    dirty: Dirty,
}

/// What the snapshot lacks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Dirty {
    networks: bool,
    ports: bool,
    remotes: bool,
    sources: bool,
    sessions: bool,
}

#[derive(Default, Debug)]
struct NetworkState {
    /// None until the network itself was told: pins and VTEPs may come first.
    mtu: Option<u16>,
    sealed: bool,
    gateways: Vec<IpPrefix>,
    claims: Claims,
    vteps: BTreeSet<SocketAddr>,
    learned: Arc<Learned>,
    groups: Arc<Groups>,
    /// None when claims or ports changed since.
    pins: Option<Arc<Pins>>,
    whereabouts: Whereabouts,
    /// None when anything changed since.
    built: Option<Arc<Network>>,
    /// Where floods went as it was built last.
    before: BTreeSet<RemoteIndex>,
}

/// A port as it was opened.
#[derive(PartialEq, Eq, Debug)]
struct Opened {
    vni: Vni,
    /// What its interface was made with; none when its container may send anything.
    fence: Option<Arc<Fence>>,
}

/// What a pin says of a port.
#[derive(PartialEq, Eq, Debug)]
struct Station {
    vni: Vni,
    peer: PeerId,
    fence: Arc<Fence>,
}

#[derive(PartialEq, Eq, Default, Debug)]
struct PeerState {
    candidates: Vec<SocketAddr>,
    unadvertised: Option<SocketAddr>,
    networks: BTreeSet<Vni>,
    /// Where both hosts trust the underlay.
    trusted: Vec<IpPrefix>,
    path: Option<SocketAddr>,
    /// The peer takes frames in clear where its path is.
    takes_clear: bool,
    /// How much less than any datagram passes there.
    shortage: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum RemoteKey {
    Peer(PeerId),
    Vtep(SocketAddr),
}

impl Registry {
    /// Nothing known yet. Ages of learned entries count from `now`.
    pub fn new(now: Instant) -> Self {
        let current = Arc::new(Tables {
            networks: super::Map::default(),
            sources: Arc::new(Sources::default()),
            clear: Arc::new(Clear::default()),
            remotes: Arc::new([]),
            ports: Arc::new([]),
            sessions: Arc::new(SessionTable::default()),
            epoch: now,
        });
        Registry {
            networks: BTreeMap::new(),
            peers: BTreeMap::new(),
            ports: Slots::new(),
            opened: BTreeMap::new(),
            stations: BTreeMap::new(),
            remotes: Slots::new(),
            ways: BTreeMap::new(),
            sources: BTreeMap::new(),
            vtep_rooms: BTreeMap::new(),
            opens: BTreeMap::new(),
            seals: BTreeMap::new(),
            moved: Vec::new(),
            widened: BTreeSet::new(),
            current,
            dirty: Dirty::default(),
        }
    }

    /// Takes one update in. [`Registry::tables`] then has it.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::SetNetwork { vni, name: _, mtu, sealed, gateways } => {
                self.set_network(vni, mtu, sealed, gateways)
            }
            Update::RemoveNetwork { vni } => self.remove_network(vni),
            Update::SetPeer { peer, candidates, unadvertised, networks, trusted, keys: _ } => {
                self.set_peer(peer, (candidates, unadvertised), networks, trusted)
            }
            Update::RemovePeer { peer } => self.remove_peer(peer),
            Update::AddVtep { vni, addr } => self.add_vtep(vni, canonical(addr)),
            Update::RemoveVtep { vni, addr } => self.remove_vtep(vni, canonical(addr)),
            Update::Pin { vni, mac, claim, location, addrs } => {
                if let Location::Port(port) = location {
                    let fence = Arc::new(Fence::new(mac, &addrs));
                    let station = Station { vni, peer: claim.peer, fence };
                    self.dirty.ports |= self.stations.get(&port) != Some(&station);
                    self.stations.insert(port, station);
                }
                let network = self.networks.entry(vni).or_default();
                if network.claims.insert(mac, claim, location, addrs) {
                    self.pins_changed(vni);
                }
            }
            Update::Unpin { vni, mac, peer } => {
                let ends = |s: &Station| (s.vni, s.fence.mac(), s.peer) == (vni, mac, peer);
                let before = self.stations.len();
                self.stations.retain(|_, station| !ends(station));
                self.dirty.ports |= self.stations.len() != before;
                if self.networks.get_mut(&vni).is_some_and(|network| network.claims.remove(mac, peer)) {
                    self.pins_changed(vni);
                }
            }
            // Frames are forwarded without names.
            Update::SetNames { .. }
            | Update::RemoveNames { .. }
            | Update::SetAsker { .. }
            | Update::SetDns { .. }
            | Update::Answer { .. } => {}
        }
    }

    fn set_network(&mut self, vni: Vni, mtu: u16, sealed: bool, gateways: Vec<IpPrefix>) {
        let network = self.networks.entry(vni).or_default();
        // Who may send depends on the networks there are.
        self.dirty.sources |= network.mtu.is_none();
        let same = (network.mtu, network.sealed, &network.gateways) == (Some(mtu), sealed, &gateways);
        (network.mtu, network.sealed, network.gateways) = (Some(mtu), sealed, gateways);
        if !same {
            self.network_changed(vni);
        }
    }

    fn remove_network(&mut self, vni: Vni) {
        let Some(network) = self.networks.remove(&vni) else { return };
        network.vteps.iter().for_each(|addr| self.release_vtep(addr));
        self.stations.retain(|_, station| station.vni != vni);
        self.dirty = Dirty { networks: true, ports: true, remotes: true, sources: true, ..self.dirty };
    }

    fn set_peer(
        &mut self,
        peer: PeerId,
        (candidates, unadvertised): (Vec<SocketAddr>, Option<SocketAddr>),
        networks: Vec<Vni>,
        trusted: Vec<IpPrefix>,
    ) {
        let candidates: Vec<_> = candidates.into_iter().map(canonical).collect();
        let held = self.peers.get(&peer);
        let path = held.and_then(|held| held.path).filter(|path| candidates.contains(path));
        let takes_clear = path.is_some() && held.is_some_and(|held| held.takes_clear);
        let unadvertised = unadvertised.map(canonical);
        let networks = networks.into_iter().collect();
        let shortage = held.filter(|_| path.is_some()).map_or(0, |held| held.shortage);
        let state = PeerState { candidates, unadvertised, networks, trusted, path, takes_clear, shortage };
        if held != Some(&state) {
            self.remove_peer(peer);
            self.remotes.intern(RemoteKey::Peer(peer));
            self.peers.insert(peer, state);
            self.peer_changed(peer);
            self.dirty.sources = true;
        }
    }

    fn remove_peer(&mut self, peer: PeerId) {
        self.peer_changed(peer);
        self.dirty.sources |= self.peers.remove(&peer).is_some();
    }

    /// Frames of this session with a peer are opened from now on.
    pub fn open_session(&mut self, peer: PeerId, epoch: Arc<Epoch>) {
        self.opens.insert(epoch.local, (peer, epoch));
        self.dirty.sessions = true;
    }

    /// No frame of the session that this host named so is opened any more.
    pub fn end_session(&mut self, number: u32) {
        self.dirty.sessions |= self.opens.remove(&number).is_some();
    }

    /// In which session frames for a peer are sealed; none: there is none.
    pub fn seal_in(&mut self, peer: PeerId, epoch: Option<Arc<Epoch>>) {
        match epoch {
            Some(epoch) => self.seals.insert(peer, epoch),
            None => self.seals.remove(&peer),
        };
        self.dirty.sessions = true;
    }

    fn add_vtep(&mut self, vni: Vni, addr: SocketAddr) {
        if self.networks.entry(vni).or_default().vteps.insert(addr) {
            self.remotes.intern(RemoteKey::Vtep(addr));
            self.network_changed(vni);
            self.dirty = Dirty { remotes: true, sources: true, ..self.dirty };
        }
    }

    fn remove_vtep(&mut self, vni: Vni, addr: SocketAddr) {
        if self.networks.get_mut(&vni).is_some_and(|network| network.vteps.remove(&addr)) {
            self.release_vtep(&addr);
            self.network_changed(vni);
            self.dirty = Dirty { remotes: true, sources: true, ..self.dirty };
        }
    }

    /// Gives up a VTEP's number when no network has the VTEP any more.
    fn release_vtep(&mut self, addr: &SocketAddr) {
        if !self.networks.values().any(|network| network.vteps.contains(addr)) {
            self.remotes.release(&RemoteKey::Vtep(*addr));
        }
    }

    /// A port is open on the network `vni`. A port that is known keeps its number, also when it changed networks.
    ///
    /// Its container may send what `fence` lets through, or what is pinned to the port once anything is; anything when there is
    /// no fence.
    pub fn add_port(&mut self, port: PortId, vni: Vni, fence: Option<Fence>) -> PortIndex {
        let opened = Opened { vni, fence: fence.map(Arc::new) };
        if self.opened.get(&port) != Some(&opened) {
            let before = self.opened.insert(port, opened).map(|before| before.vni);
            self.ports_changed(before.into_iter().chain([vni]));
        }
        PortIndex(self.ports.intern(port))
    }

    /// A port is closed. Pins to it drop what they get until it is back.
    pub fn remove_port(&mut self, port: PortId) {
        if self.ports.release(&port) {
            let before = self.opened.remove(&port);
            self.ports_changed(before.into_iter().map(|opened| opened.vni));
        }
    }

    /// Which address of a peer carries its frames; none when no candidate answers. Unknown peers are ignored.
    pub fn set_path(&mut self, peer: PeerId, path: Option<SocketAddr>) {
        let path = path.map(canonical);
        let Some(state) = self.peers.get_mut(&peer).filter(|state| state.path != path) else { return };
        let before = std::mem::replace(&mut state.path, path);
        state.takes_clear = false;
        // Whose an address is depends on paths only where several peers name it, or none does.
        let moved = before.into_iter().chain(path);
        let unclear = moved.into_iter().any(|addr| self.claimants_of(addr.ip()) != 1);
        self.dirty.sources |= unclear;
        self.peer_changed(peer);
    }

    /// The longest datagram that passes on the path of a peer, in bytes of UDP payload. Unknown peers are ignored.
    pub fn set_room(&mut self, peer: PeerId, room: u16) {
        let shortage = Remote::ANY_ROOM - room;
        if let Some(state) = self.peers.get_mut(&peer).filter(|state| state.shortage != shortage) {
            state.shortage = shortage;
            self.dirty.remotes = true;
        }
    }

    /// The longest datagrams that reach VTEPs, by their addresses; replaces what was said before. True when that changes the
    /// tables.
    pub fn set_vtep_rooms(&mut self, rooms: BTreeMap<IpAddr, u16>) -> bool {
        let changed = self.vtep_rooms != rooms;
        self.vtep_rooms = rooms;
        self.dirty.remotes |= changed;
        changed
    }

    /// The addresses of all VTEPs.
    pub fn vtep_addresses(&self) -> BTreeSet<IpAddr> {
        self.networks.values().flat_map(|network| network.vteps.iter().map(|addr| addr.ip())).collect()
    }

    /// Which peer has this number, whether or not it has a path.
    pub fn peer(&self, remote: RemoteIndex) -> Option<PeerId> {
        match self.remotes.keys().get(remote.get()) {
            Some(Some(RemoteKey::Peer(peer))) => Some(*peer),
            Some(Some(RemoteKey::Vtep(_)) | None) | None => None,
        }
    }

    /// The addresses that frames are sent to.
    pub fn destinations(&self) -> BTreeSet<IpAddr> {
        let paths = self.peers.values().filter_map(|peer| peer.path);
        let vteps = self.networks.values().flat_map(|network| network.vteps.iter().copied());
        paths.chain(vteps).map(|addr| addr.ip().to_canonical()).collect()
    }

    /// Through which devices super-frames may leave whole, for some of [`Registry::destinations`]; replaces what
    /// was said before. True when that changes the tables.
    pub fn set_ways(&mut self, ways: BTreeMap<IpAddr, Through>) -> bool {
        let changed = self.ways != ways;
        self.ways = ways;
        self.dirty.remotes |= changed;
        changed
    }

    /// How many peers have `ip` among their candidates.
    fn claimants_of(&self, ip: IpAddr) -> usize {
        self.peers.values().filter(|peer| peer.candidates.iter().any(|addr| addr.ip() == ip)).count()
    }

    fn peer_changed(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(&peer) else { return };
        for vni in &state.networks {
            if let Some(network) = self.networks.get_mut(vni) {
                network.built = None;
            }
        }
        self.dirty = Dirty { networks: true, remotes: true, ..self.dirty };
    }

    fn network_changed(&mut self, vni: Vni) {
        if let Some(network) = self.networks.get_mut(&vni) {
            network.built = None;
            self.dirty.networks = true;
        }
    }

    fn pins_changed(&mut self, vni: Vni) {
        if let Some(network) = self.networks.get_mut(&vni) {
            network.pins = None;
        }
        self.network_changed(vni);
    }

    fn ports_changed(&mut self, networks: impl Iterator<Item = Vni>) {
        self.dirty.ports = true;
        networks.for_each(|vni| self.pins_changed(vni));
    }

    /// The addresses that have got another MAC address in the tables since the last call: the ports of their network are
    /// told once.
    pub fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    /// The networks that other hosts, or VTEPs, have come to since the last call: they know nothing of the groups joined here.
    pub fn take_widened(&mut self) -> BTreeSet<Vni> {
        std::mem::take(&mut self.widened)
    }

    /// The local ports of a network behind which a group was joined.
    pub fn joined_ports(&self, vni: Vni) -> Vec<PortIndex> {
        let ports = self.networks.get(&vni).map(|network| network.groups.ports()).unwrap_or_default();
        let local = |port| match port {
            Port::Tap(index) => Some(index),
            Port::Remote(_) => None,
        };
        ports.into_iter().filter_map(local).collect()
    }

    /// The networks of this host.
    pub fn vnis(&self) -> Vec<Vni> {
        self.networks.keys().copied().collect()
    }

    /// Ages learned entries and memberships, and forgets those behind ports and remotes that are gone. Call it every few
    /// seconds: numbers of closed ports are given out again after the second call.
    pub fn sweep(&mut self, now: Instant) {
        let tables = self.tables();
        let now_s = tables.seconds(now);
        for (&vni, network) in &self.networks {
            network.learned.sweep(now_s, |port| tables.reaches(port, vni));
            network.groups.sweep(now_s, |port| tables.reaches(port, vni));
        }
        self.ports.rest();
        self.remotes.rest();
    }
}
