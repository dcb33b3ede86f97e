//! The control side of the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::moved::{Moved, Whereabouts};
use super::slots::Slots;
use super::{Clear, LocalPort, Opener, PortIndex, Remote, RemoteIndex, SessionTable, Sources, Tables};
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

impl PeerState {
    /// Whether both hosts trust the underlay at `ip`.
    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(ip))
    }
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

    /// Whether the peer takes frames in clear where its path is, also on sealed networks. Unknown peers are ignored.
    pub fn set_takes_clear(&mut self, peer: PeerId, takes_clear: bool) {
        let known = self.peers.get_mut(&peer);
        if let Some(state) = known.filter(|state| state.takes_clear != takes_clear) {
            state.takes_clear = takes_clear;
            self.dirty.remotes = true;
        }
    }

    /// The peers with which this host trusts anything in common.
    pub fn trusting_peers(&self) -> Vec<PeerId> {
        let trusting = self.peers.iter().filter(|(_, peer)| !peer.trusted.is_empty());
        trusting.map(|(&id, _)| id).collect()
    }

    /// The addresses of peers that both ends would trust, if datagrams to them leave from the right address.
    pub fn trusted_candidates(&self) -> BTreeSet<IpAddr> {
        let of_peer = |peer: &'_ PeerState| {
            let ips = peer.candidates.iter().map(SocketAddr::ip);
            ips.filter(|ip| peer.trusts(*ip)).collect::<Vec<_>>()
        };
        self.peers.values().flat_map(of_peer).collect()
    }

    /// From which address of this host datagrams to each of [`Registry::trusted_candidates`] leave; replaces what was said
    /// before. True when that changes the tables.
    pub fn set_sources(&mut self, sources: BTreeMap<IpAddr, IpAddr>) -> bool {
        let changed = self.sources != sources;
        self.sources = sources;
        self.dirty.remotes |= changed;
        self.dirty.sources |= changed;
        changed
    }

    /// What [`Registry::set_sources`] was told last.
    pub fn sources(&self) -> &BTreeMap<IpAddr, IpAddr> {
        &self.sources
    }

    /// The addresses from which frames in clear are taken, also on sealed networks: both hosts trust them and the address
    /// of this host that faces them. One that several hosts have must be trusted with all of them.
    pub fn clear_sources(&self) -> BTreeSet<IpAddr> {
        if self.sources.is_empty() {
            return BTreeSet::new();
        }
        let mut clear = BTreeMap::new();
        for peer in self.peers.values() {
            for ip in peer.candidates.iter().map(SocketAddr::ip) {
                *clear.entry(ip).or_insert(true) &= self.is_clear(peer, ip);
            }
        }
        clear.into_iter().filter(|&(_, clear)| clear).map(|(ip, _)| ip).collect()
    }

    /// The peers to which frames go in clear, also those of sealed networks.
    pub fn peers_in_clear(&self) -> BTreeSet<PeerId> {
        let in_clear = self.peers.iter().filter(|(_, peer)| self.sends_clear(peer));
        in_clear.map(|(&id, _)| id).collect()
    }

    /// This host would send in clear, and the peer says that it takes that.
    fn sends_clear(&self, peer: &PeerState) -> bool {
        peer.takes_clear && peer.path.is_some_and(|path| self.is_clear(peer, path.ip()))
    }

    /// Whether both hosts trust the way between this one and the address `ip` of the peer.
    fn is_clear(&self, peer: &PeerState, ip: IpAddr) -> bool {
        peer.trusts(ip) && self.sources.get(&ip).is_some_and(|own| peer.trusts(*own))
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

    fn build_networks(&mut self) -> super::Map<Vni, Arc<Network>> {
        self.build_pins();
        let built = |(&vni, state): (&Vni, &NetworkState)| {
            let build = |mtu| Arc::new(self.build_network(vni, state, mtu));
            Some((vni, state.built.clone().or_else(|| state.mtu.map(build))?))
        };
        let networks: super::Map<_, _> = self.networks.iter().filter_map(built).collect();
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

    /// For each of [`Registry::clear_sources`] what each peer with that address trusts in common with this host.
    fn build_clear(&self) -> Clear {
        let of = |ip: IpAddr| {
            let peers =
                self.peers.values().filter(move |peer| peer.candidates.iter().any(|at| at.ip() == ip));
            peers.map(|peer| peer.trusted.clone().into_boxed_slice()).collect()
        };
        self.clear_sources().into_iter().map(|ip| (ip, of(ip))).collect()
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
