//! The control side of a running data plane: what is changed under the lock, and the control thread.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::PortSnapshot;
use super::doors::{Door, doors};
use super::hops::Hops;
use crate::counters::{Counters, DropReason, PortCounters, PortTotals};
use crate::io::capture::{self, Place};
use crate::io::gateway::Desk;
use crate::io::netlink::{Changes, Hop, Netlink};
use crate::io::netns::NetnsId;
use crate::io::socket::{DataSocket, Gauge, RecvBatch};
use crate::io::tap::Offloads;
use crate::io::tunnel::Underlay;
use crate::io::worker::{Command, PortGone};
use crate::path::Paths;
use crate::path::ways::{Look, Ways};
use crate::seam::{Event, Update};
use crate::session::keeper::{Identity, Keeper};
use crate::session::signals::Signals;
use crate::tables::{PortIndex, Registry, RemoteIndex, Tables};
use crate::types::{PeerId, PeerKeys, PortId, Vni};
use crate::wire::{group, probe, sealed};

/// How often learned addresses are aged.
const SWEEP: Duration = Duration::from_secs(10);
/// How often containers are asked again which multicast groups they want.
const ASK: Duration = Duration::from_secs(group::QUERY_INTERVAL_S as u64);
/// How often workers are asked for which hosts they lack sessions, and which were heard elsewhere. Each costs a wake-up then,
/// and no more while frames for the one, or keepalives of the other, keep coming.
const WANTS: Duration = Duration::from_millis(100);
/// How often workers are asked for the hosts to which large datagrams flow.
const BULK: Duration = Duration::from_millis(200);
/// IP and UDP headers of a datagram: of IPv4, of IPv6.
const HEADERS: [u32; 2] = [28, 48];
/// Receives of a control socket at a time.
const RECEIVES: usize = 32;

pub(super) struct Inner {
    pub(super) control: Mutex<Control>,
    /// What answers at the gateways' addresses, and what is called how.
    pub(super) desk: Arc<Desk>,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) workers: Vec<WorkerEnd>,
    /// Counts what the control socket drops.
    pub(super) counters: Arc<Counters>,
    pub(super) socket: DataSocket,
    /// The address that everything is sent from, if it must be a certain one.
    pub(super) listen: Option<IpAddr>,
    /// Where initiations come in, and nothing else.
    pub(super) initiations: DataSocket,
    /// Of both.
    pub(super) gauges: [Gauge; 2],
    /// Wakes the control thread: a port is gone, a session is wanted, a deadline has moved, or it shall stop.
    pub(super) wake: Arc<EventFd>,
    pub(super) signals: Arc<Signals>,
    pub(super) offloads: Offloads,
}

/// The control side's end of a worker.
pub(super) struct WorkerEnd {
    pub(super) commands: Mutex<Sender<Command>>,
    pub(super) wake: Arc<EventFd>,
    /// It waits for a session, and wants to hear of tables.
    pub(super) waits: Arc<AtomicBool>,
    pub(super) counters: Arc<Counters>,
    pub(super) gauge: Gauge,
}

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

impl WorkerEnd {
    pub(super) fn tell(&self, command: Command) {
        // A worker that is gone has nothing left to be told.
        let _ = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command);
        let _ = self.wake.write(1);
    }
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
    fn drain(&mut self, now: Instant) -> bool {
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
    fn drain_wishes(&mut self) -> bool {
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

    /// Looks up how peers are reached that may be reached another way now, and shows those concerned where this host is.
    fn follow_routes(&mut self, now: Instant, netlink: &Netlink, look: Option<Look>) {
        if let Some(look) = look {
            let paths: Vec<_> = match &look {
                Look::All => self.paths.paths().collect(),
                Look::Peers(peers) => {
                    peers.iter().filter_map(|&id| Some((id, self.paths.path(id)?))).collect()
                }
            };
            let hops = &mut self.hops;
            let ways = paths.into_iter().map(|(peer, addr)| (peer, addr, hops.to(netlink, addr.ip())));
            let moved = self.ways.handle_ways(now, &look, ways);
            moved.into_iter().for_each(|peer| self.paths.doubt(now, peer));
            if look == Look::All {
                self.tell(Event::UnderlayChanged);
            }
        }
        while let Some(peer) = self.ways.poll_show(now) {
            self.keeper.iter_mut().for_each(|keeper| keeper.show(peer));
        }
    }

    /// Does what the workers ask for, and what is due. `anyhow` also looks for sessions that have sealed much.
    fn run_sessions(&mut self, now: Instant, signals: &Signals, anyhow: bool) {
        let Some(keeper) = &mut self.keeper else { return };
        let peer = |remote: RemoteIndex| self.registry.peer(remote);
        signals.heard.take().into_iter().filter_map(peer).for_each(|peer| keeper.handle_heard(now, peer));
        if now >= self.next_found && signals.found.any() {
            self.next_found = now + WANTS;
            for (remote, from) in signals.found.take() {
                let Some(peer) = peer(remote) else { continue };
                tracing::debug!(%peer, %from, "heard elsewhere than its frames go");
                self.paths.handle_heard(now, peer, from);
            }
        }
        if now >= self.next_wants && (signals.missing.any() || signals.lost.any()) {
            self.next_wants = now + WANTS;
            signals.missing.take().into_iter().filter_map(peer).for_each(|peer| keeper.want(now, peer));
            signals.lost.take().into_iter().filter_map(peer).for_each(|peer| keeper.want_anew(now, peer));
        }
        if anyhow || keeper.poll_timeout().is_some_and(|due| due <= now) {
            keeper.handle_timeout(now);
        }
    }

    /// Has the paths watched on which large datagrams flow, and those tried anew that have become too small.
    fn watch_paths(&mut self, now: Instant, signals: &Signals) {
        for peer in signals.too_long.take().into_iter().filter_map(|remote| self.registry.peer(remote)) {
            self.paths.handle_too_long(now, peer);
        }
        if now >= self.next_bulk && signals.bulk.any() {
            self.next_bulk = now + BULK;
            for peer in signals.bulk.take().into_iter().filter_map(|remote| self.registry.peer(remote)) {
                self.paths.handle_bulk(now, peer);
            }
        }
    }

    /// Takes a datagram of a control socket, `first` of that for initiations. A packet of many datagrams goes where its first
    /// one belongs, so initiations may come by the other one; there they would take the time of probes.
    fn handle_datagram(
        &mut self,
        now: Instant,
        (from, first): (SocketAddr, bool),
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        match (bytes.first(), &mut self.keeper) {
            (Some(&sealed::INITIATION), _) if !first => Err(DropReason::HandshakeLimit),
            (Some(&(sealed::INITIATION | sealed::RESPONSE | sealed::COOKIE)), Some(keeper)) => {
                keeper.handle_datagram(now, from, bytes)
            }
            (Some(&probe::TYPE), _) => self.paths.handle_datagram(now, from, bytes),
            _ => Err(DropReason::NotOurs),
        }
    }

    /// When there is something to do next, on its own.
    fn poll_timeout(&mut self, signals: &Signals) -> Option<Instant> {
        let bulk = signals.bulk.any().then_some(self.next_bulk);
        let wants = (signals.missing.any() || signals.lost.any()).then_some(self.next_wants);
        let wants = wants.into_iter().chain(signals.found.any().then_some(self.next_found));
        let sessions =
            self.keeper.as_mut().and_then(|keeper| keeper.poll_timeout().into_iter().chain(wants).min());
        self.paths
            .poll_timeout()
            .into_iter()
            .chain(sessions)
            .chain(self.ways.poll_timeout())
            .chain(bulk)
            .min()
    }

    /// Whether an open port keeps this namespace alive.
    pub(super) fn pins(&self, netns: NetnsId) -> bool {
        self.ports.values().any(|port| port.pinned == Some(netns))
    }

    fn port_at(&self, index: PortIndex) -> Option<PortId> {
        self.ports.iter().find(|(_, port)| port.index == index).map(|(&id, _)| id)
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the daemon is stopping.
        let _ = self.events.send(event);
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Control> {
        // Every change leaves the tables whole, also when another thread has panicked between two of them.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the new tables visible to the workers, wakes those that wait for a session, and has ports told what is new.
    fn store(&self, registry: &mut Registry) {
        self.tables.store(registry.tables());
        // Either the flag is seen here, or these tables by the worker that has just set it.
        fence(Ordering::SeqCst);
        for worker in self.workers.iter().filter(|worker| worker.waits.load(Ordering::Relaxed)) {
            let _ = worker.wake.write(1);
        }
        self.announce(registry);
        // Whoever comes to a network hears from the reports of others what is joined here.
        for vni in registry.take_widened() {
            self.ask(vni, registry.joined_ports(vni));
        }
    }

    /// Makes the new tables visible, and has the control thread send what paths and sessions want sent.
    pub(super) fn publish(&self, control: &mut Control) {
        control.drain(Instant::now());
        self.store(&mut control.registry);
        self.wake_control();
    }

    /// Asks the containers behind ports which multicast groups they want.
    pub(super) fn ask(&self, vni: Vni, ports: Vec<PortIndex>) {
        if let Some(worker) = self.workers.first()
            && !ports.is_empty()
        {
            worker.tell(Command::Ask(vni, ports));
        }
    }

    /// Asks those that were opened since the last time, and now and then all that have joined a group.
    fn ask_again(&self, control: &mut Control, now: Instant) {
        let is_due = now >= control.next_ask;
        if is_due {
            control.next_ask = now + ASK;
        }
        for vni in control.registry.vnis() {
            let on_it = control.ports.values_mut().filter(|port| port.vni == vni);
            let new = on_it.filter_map(|port| std::mem::take(&mut port.is_new).then_some(port.index));
            let mut ports: BTreeSet<PortIndex> = new.collect();
            if is_due {
                ports.extend(control.registry.joined_ports(vni));
            }
            self.ask(vni, ports.into_iter().collect());
        }
    }

    /// Each worker has all ports, so one of them can tell them all.
    fn announce(&self, registry: &mut Registry) {
        let Some(worker) = self.workers.first() else { return };
        registry.take_moved().into_iter().for_each(|moved| worker.tell(Command::Announce(moved)));
    }

    pub(super) fn wake_control(&self) {
        // The counter can only be full when a wake-up is pending anyway.
        let _ = self.wake.write(1);
    }

    /// Takes a port from the workers and the tables.
    pub(super) fn close_port(&self, control: &mut Control, port: PortId) -> Option<OpenPort> {
        let open = control.ports.remove(&port)?;
        for worker in &self.workers {
            worker.tell(Command::RemovePort(open.index));
        }
        for running in control.captures.values().filter(|r| r.place == Place::Port(open.index)) {
            running.shared.finish();
        }
        control.registry.remove_port(port);
        self.desk.names().remove_port(port);
        self.store(&mut control.registry);
        Some(open)
    }

    pub(super) fn nudge_lenses(&self) {
        self.workers.iter().for_each(|worker| worker.tell(Command::FlushLenses));
    }

    pub(super) fn end_capture(&self, number: u64) {
        // Under the lock, so that the next capture of this number begins behind the end of this one.
        let mut control = self.lock();
        control.captures.remove(&number);
        self.workers.iter().for_each(|worker| worker.tell(Command::RemoveLens(number)));
    }

    fn port_gone(&self, port: PortId, reason: &str) {
        let mut control = self.lock();
        if self.close_port(&mut control, port).is_some() {
            control.tell(Event::PortGone { port, reason: reason.to_owned() });
        }
    }

    /// Lets go of a namespace that only our own descriptors keep alive.
    pub(super) fn namespace_died(&self, netns: NetnsId) {
        let in_it = |(&id, port): (&PortId, &OpenPort)| (port.pinned == Some(netns)).then_some(id);
        let ports: Vec<PortId> = self.lock().ports.iter().filter_map(in_it).collect();
        ports.into_iter().for_each(|port| self.port_gone(port, "its namespace has no other holder"));
    }

    pub(super) fn run_control(
        &self,
        gone: &Receiver<PortGone>,
        (changes, netlink): (&Changes, &Netlink),
        underlay: Option<&Underlay>,
    ) {
        let mut received = RecvBatch::new(RECEIVES);
        let mut next_sweep = Instant::now() + SWEEP;
        let mut doors = doors(&self.socket, &self.initiations);
        loop {
            let rested = doors.iter().filter_map(Door::rests_until).min();
            let timeout = self.control_timeout(rested.map_or(next_sweep, |end| end.min(next_sweep)));
            // The wake-up is looked at in the place of a socket that rests.
            let [first, second] = doors.each_ref().map(|door| match door.rests_until() {
                None => door.socket.as_fd(),
                Some(_) => self.wake.as_fd(),
            });
            let mut ready = [self.wake.as_fd(), changes.as_fd(), first, second]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if let Err(error) = poll(&mut ready, timeout)
                && error != nix::errno::Errno::EINTR
            {
                return tracing::error!("the control thread cannot wait: {error}");
            }
            let _ = self.wake.read();
            while let Ok(PortGone { index, reason }) = gone.try_recv() {
                let port = self.lock().port_at(index);
                port.into_iter().for_each(|port| self.port_gone(port, &reason));
            }
            let now = Instant::now();
            let mut control = self.lock();
            if control.stopping {
                return;
            }
            for door in &mut doors {
                door.read(now, |socket, end| {
                    self.take_batch((socket, end), &mut control, now, &mut received)
                });
            }
            let sweep = now >= next_sweep;
            if changes.take() {
                control.ways.handle_change(now);
            }
            // Not everything that changes routes is told.
            let look = control.ways.poll_look(now);
            let anew = sweep || look == Some(Look::All);
            if anew {
                control.hops.forget();
            }
            self.find_sources(&mut control, now, netlink, anew);
            control.run_sessions(now, &self.signals, sweep);
            control.watch_paths(now, &self.signals);
            control.follow_routes(now, netlink, look);
            self.find_rooms(&mut control, netlink, anew);
            control.paths.handle_timeout(now);
            self.send_all(&mut control, now);
            doors.iter_mut().for_each(|door| door.rest(now));
            if sweep {
                control.registry.sweep(now);
                self.ask_again(&mut control, now);
                next_sweep = now + SWEEP;
            }
            // A device's features change without a word, so its ways are looked up now and then.
            if let Some(underlay) = underlay {
                self.find_ways(&mut control, (underlay, netlink), anew);
            }
        }
    }

    /// Looks up through which devices super-frames leave whole, when anything of it may have changed.
    fn find_ways(&self, control: &mut Control, (underlay, netlink): (&Underlay, &Netlink), anyhow: bool) {
        if !std::mem::take(&mut control.ways_stale) && !anyhow {
            return;
        }
        let (destinations, hops) = (control.registry.destinations(), &mut control.hops);
        let ways = underlay.ways(netlink, destinations.into_iter().map(|ip| (ip, hops.to(netlink, ip))));
        if control.registry.set_ways(ways) {
            self.store(&mut control.registry);
        }
    }

    /// Looks up what reaches the VTEPs, which are not probed, when anything of it may have changed.
    fn find_rooms(&self, control: &mut Control, netlink: &Netlink, anyhow: bool) {
        if !std::mem::take(&mut control.rooms_stale) && !anyhow {
            return;
        }
        let room = |ip: IpAddr| {
            let mtu = netlink.mtu_to(ip).ok().flatten()?;
            u16::try_from(mtu.saturating_sub(HEADERS[usize::from(ip.is_ipv6())])).ok()
        };
        let vteps = control.registry.vtep_addresses().into_iter();
        let rooms = vteps.filter_map(|ip| Some((ip, room(ip)?))).collect();
        if control.registry.set_vtep_rooms(rooms) {
            self.store(&mut control.registry);
        }
    }

    /// Looks up which addresses of this host face those that both ends trust, when anything of it may have changed.
    fn find_sources(&self, control: &mut Control, now: Instant, netlink: &Netlink, anyhow: bool) {
        if !std::mem::take(&mut control.trust_stale) && !anyhow {
            return;
        }
        let (candidates, hops) = (control.registry.trusted_candidates().into_iter(), &mut control.hops);
        let sources =
            candidates.filter_map(|ip| Some((ip, hops.source(netlink, self.listen, ip)?))).collect();
        if control.registry.set_sources(sources) {
            control.drain_wishes();
            self.store(&mut control.registry);
        }
        control.paths.set_clear(now, control.registry.clear_sources());
    }

    /// Until when there is nothing to do, `latest` at most.
    fn control_timeout(&self, latest: Instant) -> PollTimeout {
        let next = self.lock().poll_timeout(&self.signals).map_or(latest, |next| next.min(latest));
        let wait = next.saturating_duration_since(Instant::now());
        // Rounded up, else the last millisecond would be spent polling.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    /// Takes one batch of datagrams that are for no worker; false when there was none. After the `end` only the first of each
    /// packet is read: more than one is what a single sender has put together.
    fn take_batch(
        &self,
        (socket, end): (&DataSocket, Instant),
        control: &mut Control,
        now: Instant,
        received: &mut RecvBatch,
    ) -> bool {
        if socket.recv_batch(received).is_err() {
            return false;
        }
        let first = std::ptr::eq(socket, &raw const self.initiations);
        for burst in received.received() {
            for (at, range) in burst.datagrams().enumerate() {
                let bytes =
                    received.arena().get(range.start as usize..range.end as usize).unwrap_or_default();
                let taken = match at == 0 || Instant::now() < end {
                    true => control.handle_datagram(now, (burst.from, first), bytes),
                    false => Err(late(bytes)),
                };
                if let Err(reason) = taken {
                    self.counters.dropped(reason, 1);
                }
            }
        }
        true
    }

    /// Publishes what has changed, then sends what paths and sessions want sent: an answer may come at once.
    fn send_all(&self, control: &mut Control, now: Instant) {
        if control.drain(now) {
            self.store(&mut control.registry);
        }
        let of_keeper = |keeper: &mut Option<Keeper>| keeper.as_mut().and_then(Keeper::poll_transmit);
        while let Some(transmit) = of_keeper(&mut control.keeper).or_else(|| control.paths.poll_transmit()) {
            // What does not leave is not answered: neither a probe nor a handshake needs another report.
            let _ = self.socket.send(transmit.to, &[io::IoSlice::new(&transmit.contents)], None);
        }
    }
}

/// Why a datagram is dropped for which there was no time.
fn late(bytes: &[u8]) -> DropReason {
    match bytes.first() {
        Some(&(sealed::INITIATION | sealed::RESPONSE | sealed::COOKIE)) => DropReason::HandshakeLimit,
        Some(&probe::TYPE) => DropReason::ProbeLimit,
        _ => DropReason::NotOurs,
    }
}
