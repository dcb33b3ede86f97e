//! The writing half of a worker: frames to local ports, datagrams to other hosts.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::held::Held;
use super::whole::Whole;
use super::{SessionSide, Sides, burst, slice};
use crate::capture::Direction;
use crate::counters::{Counters, DropReason, PortCounters, Traffic, Way};
use crate::io::capture::Lenses;
use crate::io::gateway::Door;
use crate::io::socket::{DataSocket, MAX_SEGMENTS, MAX_SEND_BYTES};
use crate::io::tap::Tap;
use crate::network::Network;
use crate::offload::cut::{Outbox, cut, cut_for_sealing};
use crate::offload::fragment::fragment;
use crate::offload::join::{Joined, Joiner};
use crate::offload::source_port::SourcePort;
use crate::offload::too_big::{self, Limit as AnswerLimit};
use crate::offload::{self, Intake};
use crate::packet::{Batch, Slot};
use crate::rate::{self, Limit};
use crate::session::epoch::Epoch;
use crate::session::sealed::Sealed;
use crate::switch::neighbours::announcement;
use crate::switch::{Classes, Flooded, Port, Switch};
use crate::tables::{Moved, PortIndex, Remote, RemoteIndex, Tables};
use crate::types::{MacAddr, Vni};
use crate::wire::group;
use crate::wire::virtio::{self, VnetHeader};
use crate::wire::vxlan;

/// Datagrams of so many bytes are worth a look at whether they still pass.
const LARGE: usize = 1000;

/// Pieces of one vectored write: the virtio-net header, the head, and a body for each segment.
const WRITE_PIECES: usize = 2 + 128;

/// To which host, and from which port.
pub(super) type Route = (RemoteIndex, SourcePort);

/// A network, whether its frames go sealed, and the largest packet that passes: its own, or that of the way ahead.
type Lane<'a> = (&'a Network, bool, u16);

/// Where a worker writes to.
pub(super) struct Output {
    pub(super) ports: Ports,
    pub(super) socket: DataSocket,
    /// Send only, one for each source port.
    pub(super) pool: Vec<DataSocket>,
    whole: Whole,
    /// Who gets copies of what passes.
    pub(super) lenses: Lenses,
    outbox: Outbox,
    /// How many containers are told that their packets are too big.
    answers: AnswerLimit,
    /// What is sealed is brought together here.
    sealed: Sealed,
    pub(super) sessions: SessionSide,
    /// To the gateway and back.
    pub(super) door: Door,
    /// What waits for a session.
    pub(super) held: Held,
    pub(super) counters: Arc<Counters>,
    /// When this wake-up began.
    pub(super) now: Instant,
    /// Written since the last [`Output::finish`]: to ports, to other hosts.
    delivered: Traffic,
    pub(super) sent: Traffic,
    /// How often there was a [`Output::finish`].
    burst: u64,
}

/// One worker's queues, by port index.
pub(super) struct Ports(Vec<Option<PortQueue>>);

/// One worker's queue of one port.
pub(super) struct PortQueue {
    pub(super) index: PortIndex,
    pub(super) vni: Vni,
    pub(super) tap: Tap,
    pub(super) counters: Arc<PortCounters>,
    pub(super) limit: Option<Arc<Limit>>,
    /// The burst in which it was written to last.
    burst: Cell<u64>,
}

impl Output {
    pub(super) fn new(
        mut sides: Sides,
        counters: Arc<Counters>,
        (sessions, door): (SessionSide, Door),
        held: Held,
    ) -> Self {
        let whole = Whole::new(&mut sides);
        Output {
            ports: Ports(Vec::new()),
            socket: sides.socket,
            pool: sides.pool,
            whole,
            lenses: Lenses::default(),
            outbox: Outbox::new().of_worker(sessions.lane),
            answers: AnswerLimit::default(),
            sealed: Sealed::new(MAX_SEGMENTS, MAX_SEND_BYTES),
            sessions,
            door,
            held,
            counters,
            delivered: Traffic::default(),
            sent: Traffic::default(),
            now: Instant::now(),
            burst: 1,
        }
    }

    /// Does what the switch has decided about a batch from the port `from`.
    pub(super) fn carry_out(
        &mut self,
        switch: &Switch,
        from: Port,
        vni: Vni,
        batch: &Batch,
        classes: &Classes,
    ) {
        let frames = batch.frames();
        for flooded in classes.floods() {
            let Some(slot) = frames.get(usize::from(flooded.slot)) else { continue };
            self.flood(switch, (from, flooded), vni, batch, slot);
        }
        for (to, source, group) in classes.unicast() {
            let slots = group.iter().filter_map(|routed| frames.get(usize::from(routed.slot)));
            match to {
                Port::Tap(port) => slots.for_each(|slot| self.deliver(port, batch, slot)),
                Port::Remote(remote) => {
                    self.send(switch.tables(), (from, (remote, source)), vni, batch, slots)
                }
            }
        }
        if let Port::Tap(port) = from {
            classes.replies().iter().for_each(|reply| self.answer(port, reply));
        }
        self.counters.answered(classes.replies().len() as u64);
        if !classes.gateway().is_empty() {
            self.give_gateway(switch, from, batch, classes.gateway());
        }
        for &(slot, reason) in classes.drops() {
            let segments = frames.get(usize::from(slot)).map_or(1, |slot| segments(batch, slot));
            self.drop_from(from, reason, segments);
        }
        self.finish();
    }

    /// Counts what was written since the last call as one batch each way.
    pub(super) fn finish(&mut self) {
        for (way, written) in [(Way::TapOut, &mut self.delivered), (Way::UnderlayOut, &mut self.sent)] {
            if written.frames > 0 {
                self.counters.batch(way, written.frames, written.bytes);
                self.counters.segments(way, written.segments);
            }
            *written = Traffic::default();
        }
        self.burst += 1;
        if !self.lenses.is_empty() {
            self.lenses.flush();
        }
    }

    /// Copies what a container sent for those who look at its port.
    #[cold]
    pub(super) fn show_batch(&mut self, port: PortIndex, batch: &Batch) {
        for slot in batch.frames() {
            self.lenses.frame(port, Direction::In, &[IoSlice::new(slot.frame(batch.arena()))]);
        }
    }

    /// Copies a received datagram for those who look at the underlay.
    #[cold]
    pub(super) fn show_datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        if self.lenses.see_underlay() {
            self.lenses.datagram((from, port_of(&self.socket)), Direction::In, &[IoSlice::new(datagram)]);
        }
    }

    /// Copies a frame to every other port and every host of its network that is in reach.
    fn flood(
        &mut self,
        switch: &Switch,
        (from, flooded): (Port, &Flooded),
        vni: Vni,
        batch: &Batch,
        slot: &Slot,
    ) {
        let (ports, _) = switch.flood(from, vni, flooded.reach);
        let (mut destinations, segments) = (0, segments(batch, slot));
        for port in ports {
            self.deliver(port, batch, slot);
            destinations += 1;
        }
        if let Some(network) = switch.tables().network(vni) {
            let flood = (network, (from, flooded));
            destinations += self.flood_remotes(switch, flood, false, batch, slot);
            if network.is_sealed() {
                destinations += self.flood_remotes(switch, flood, true, batch, slot);
            }
        }
        self.counters.flooded(segments, destinations);
    }

    /// Copies a frame to every host of its network that gets it sealed, or to every one that gets it in clear; gives how many
    /// these are.
    fn flood_remotes(
        &mut self,
        switch: &Switch,
        (network, (from, flooded)): (&Network, (Port, &Flooded)),
        sealed: bool,
        batch: &Batch,
        slot: &Slot,
    ) -> u64 {
        let tables = switch.tables();
        let alike = || {
            let remotes = switch.flood(from, network.vni(), flooded.reach).1;
            remotes.filter(|&remote| tables.seals(network, remote) == sealed)
        };
        // All that take full packets get the same datagrams, each of the others its own.
        let mut full = alike().filter(|&to| mtu_to(tables, network, to, sealed) == network.mtu()).peekable();
        let mut destinations = 0;
        if full.peek().is_some() {
            let lane = (network, sealed, network.mtu());
            destinations += self.flood_alike(tables, (from, flooded.source), lane, full, batch, slot);
        }
        for remote in alike() {
            let lane = (network, sealed, mtu_to(tables, network, remote, sealed));
            if lane.2 < network.mtu() {
                let remote = std::iter::once(remote);
                destinations += self.flood_alike(tables, (from, flooded.source), lane, remote, batch, slot);
            }
        }
        destinations
    }

    /// Copies a frame to remotes that take the same datagrams; gives how many these are.
    fn flood_alike(
        &mut self,
        tables: &Tables,
        (from, source): (Port, SourcePort),
        lane: Lane<'_>,
        remotes: impl Iterator<Item = RemoteIndex>,
        batch: &Batch,
        slot: &Slot,
    ) -> u64 {
        self.outbox.clear();
        match self.divide(tables, None, lane, batch, slot) {
            Ok(datagrams) => {
                let mut destinations = 0;
                for remote in remotes {
                    self.counters.recut(segments(batch, slot), datagrams);
                    self.flush(tables, (remote, source), lane.1, batch);
                    destinations += 1;
                }
                destinations
            }
            Err(reason) => {
                // One drop stands for all of them.
                self.drop_from(from, reason, segments(batch, slot));
                1
            }
        }
    }

    /// Encapsulates frames for one host and sends them, in as few sends as their sizes allow.
    fn send<'a>(
        &mut self,
        tables: &Tables,
        (from, to): (Port, Route),
        vni: Vni,
        batch: &Batch,
        slots: impl Iterator<Item = &'a Slot>,
    ) {
        self.outbox.clear();
        let Some(network) = tables.network(vni) else {
            return slots
                .for_each(|slot| self.drop_from(from, DropReason::UnknownVni, segments(batch, slot)));
        };
        let sealed = tables.seals(network, to.0);
        let lane = (network, sealed, mtu_to(tables, network, to.0, sealed));
        for slot in slots {
            if !sealed && self.send_whole(tables, to, lane, batch, slot) {
                continue;
            }
            match self.divide(tables, Some(to), lane, batch, slot) {
                Ok(datagrams) => self.counters.recut(segments(batch, slot), datagrams),
                Err(reason) => {
                    self.drop_from(from, reason, segments(batch, slot));
                    if reason == DropReason::TooBig {
                        self.tell_too_big(from, lane, slot.frame(batch.arena()));
                    }
                }
            }
        }
        self.flush(tables, to, sealed, batch);
    }

    /// Tells a container that its packet is too big for the way ahead, unless many have been told just now.
    #[cold]
    fn tell_too_big(&mut self, from: Port, (network, _, mtu): Lane<'_>, frame: &[u8]) {
        let Port::Tap(port) = from else { return };
        if !self.answers.admits(self.now) {
            return;
        }
        let mut reply = [0; too_big::MAX_LEN];
        let gateway = |sender| network.gateway_for(sender);
        let mac = MacAddr::gateway(network.vni());
        if let Some(len) = too_big::answer(frame, mtu, mac, gateway, &mut reply) {
            self.answer(port, reply.get(..len).unwrap_or_default());
            // A frame that nobody sent.
            self.counters.flooded(1, 2);
        }
    }

    /// Sends a super-frame uncut, behind what is in the outbox; false when it must be cut.
    fn send_whole(
        &mut self,
        tables: &Tables,
        to: Route,
        (network, _, mtu): Lane<'_>,
        batch: &Batch,
        slot: &Slot,
    ) -> bool {
        let through = tables.remote(to.0).filter(|remote| remote.through.is_some());
        let Some(remote) = through.filter(|_| slot.vnet.is_super()) else { return false };
        if !self.outbox.datagrams().is_empty() {
            self.flush(tables, to, false, batch);
            self.outbox.clear();
        }
        let vni = network.vni();
        let Some(result) = self.whole.send((remote, to.1), (vni, mtu), batch, slot) else {
            return false;
        };
        let segments = segments(batch, slot);
        match result {
            Ok(bytes) => {
                self.counters.super_frames_whole(1);
                self.sessions.flow(to.0);
                self.sent.frames += segments;
                self.sent.segments += segments;
                self.sent.bytes += bytes as u64;
                if self.lenses.see_underlay() {
                    let (header, frame) = (vxlan::header(vni), slot.frame(batch.arena()));
                    let pieces = [IoSlice::new(&header), IoSlice::new(frame)];
                    self.lenses.datagram((remote.addr, port_of(&self.socket)), Direction::Out, &pieces);
                }
            }
            Err(error) => self.counters.dropped(send_failure(&error), segments),
        }
        true
    }

    /// Puts one frame into the outbox, as so many datagrams: whole, in segments, or where it is too big and may be, in
    /// fragments.
    fn divide(
        &mut self,
        tables: &Tables,
        to: Option<Route>,
        lane: Lane<'_>,
        batch: &Batch,
        slot: &Slot,
    ) -> Result<u64, DropReason> {
        let cut = if lane.1 { cut_for_sealing } else { cut };
        let datagrams = match self
            .take_in(tables, to, lane, batch, |vni, mtu, outbox| cut(batch.arena(), slot, vni, mtu, outbox))
        {
            Err(DropReason::TooBig) => self.take_in(tables, to, lane, batch, |vni, mtu, outbox| {
                fragment(batch.arena(), slot, vni, mtu, outbox)
            }),
            cut => cut,
        }?;
        self.counters.super_frames_cut(u64::from(slot.vnet.is_super()));
        Ok(datagrams)
    }

    /// Has `fill` put datagrams into the outbox, and counts them. A full one is sent to `to` first; a single frame always has
    /// room.
    fn take_in(
        &mut self,
        tables: &Tables,
        to: Option<Route>,
        (network, sealed, mtu): Lane<'_>,
        batch: &Batch,
        fill: impl Fn(Vni, u16, &mut Outbox) -> Result<Intake, DropReason>,
    ) -> Result<u64, DropReason> {
        let mut before = self.outbox.datagrams().len();
        let mut taken = fill(network.vni(), mtu, &mut self.outbox)?;
        if let (Intake::Full, Some(to)) = (taken, to) {
            self.flush(tables, to, sealed, batch);
            self.outbox.clear();
            before = 0;
            taken = fill(network.vni(), mtu, &mut self.outbox)?;
        }
        match taken {
            Intake::Full => Err(DropReason::SocketFull),
            Intake::Taken => Ok((self.outbox.datagrams().len() - before) as u64),
        }
    }

    /// Sends the outbox to one host and leaves it as it is, for the next host of a flood.
    fn flush(&mut self, tables: &Tables, (to, source): Route, sealed: bool, batch: &Batch) {
        let count = self.outbox.datagrams().len() as u64;
        let Some(remote) = tables.remote(to) else { return self.counters.dropped(DropReason::NoPath, count) };
        if self.outbox.datagrams().first().is_some_and(|first| first.len() >= LARGE) {
            self.sessions.flow(to);
        }
        if sealed {
            return match tables.epoch(to) {
                Some(epoch) => self.flush_sealed(epoch, remote, (to, source), batch),
                None if count == 0 => {}
                None => {
                    self.sessions.miss(to);
                    let all = self.outbox.datagrams().iter();
                    let pieces = all.map(|datagram| self.outbox.pieces(datagram, batch.arena()));
                    let held = self.held.keep(self.now, (to, source), pieces);
                    self.counters.dropped(DropReason::NoSession, count - held);
                }
            };
        }
        let socket = socket_for(&self.socket, &self.pool, remote, source);
        let (addr, counters, sent, lenses) = (remote.addr, &self.counters, &mut self.sent, &mut self.lenses);
        let sessions = &self.sessions;
        burst::send_all(socket, addr, &self.outbox, batch.arena(), |pieces, result| {
            let datagrams = pieces.len() as u64 / 2;
            match result {
                Ok(()) => {
                    if lenses.see_underlay() {
                        let end = (addr, port_of(socket));
                        pieces.chunks_exact(2).for_each(|pair| lenses.datagram(end, Direction::Out, pair));
                    }
                    sent.frames += datagrams;
                    sent.segments += datagrams;
                    sent.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
                }
                Err(error) => {
                    let reason = send_failure(&error);
                    if reason == DropReason::TooBig {
                        sessions.refuse(to);
                    }
                    counters.dropped(reason, datagrams);
                }
            }
        });
    }

    /// The same in a session: sealed in this worker's lane, one buffer after the other.
    fn flush_sealed(&mut self, epoch: &Epoch, remote: &Remote, (to, source): Route, batch: &Batch) {
        let socket = socket_for(&self.socket, &self.pool, remote, source);
        let (addr, counters, sent, lenses) = (remote.addr, &self.counters, &mut self.sent, &mut self.lenses);
        let sessions = &self.sessions;
        let (mut next, count) = (0, self.outbox.datagrams().len());
        while next < count {
            let seal = (epoch, self.sessions.lane);
            next = match self.sealed.fill(seal, (&self.outbox, batch.arena()), next) {
                Ok(next) => next,
                Err(reason) => return counters.dropped(reason, (count - next) as u64),
            };
            let bytes = self.sealed.bytes();
            burst::send_sealed(socket, addr, &self.sealed, |run, result| match result {
                Ok(()) => {
                    if lenses.see_underlay() {
                        let end = (addr, port_of(socket));
                        let datagrams = bytes.get(run.bytes.clone()).unwrap_or_default().chunks(run.size);
                        datagrams.for_each(|d| lenses.datagram(end, Direction::Out, &[IoSlice::new(d)]));
                    }
                    sent.frames += run.count as u64;
                    sent.segments += run.count as u64;
                    sent.bytes += run.bytes.len() as u64;
                }
                Err(error) => {
                    let reason = send_failure(&error);
                    if reason == DropReason::TooBig {
                        sessions.refuse(to);
                    }
                    counters.dropped(reason, run.count as u64);
                }
            });
        }
    }

    /// Passes a frame of the batch to another container of this host, whole, with its virtio-net header.
    fn deliver(&mut self, to: PortIndex, batch: &Batch, slot: &Slot) {
        let vnet = slot.vnet.emit();
        let pieces = [IoSlice::new(&vnet), IoSlice::new(slot.frame(batch.arena()))];
        self.write(to, &pieces, segments(batch, slot));
    }

    /// Writes a frame of the switch itself to a port.
    pub(super) fn answer(&mut self, to: PortIndex, reply: &[u8]) {
        let vnet = VnetHeader::default().emit();
        self.write(to, &[IoSlice::new(&vnet), IoSlice::new(reply)], 1);
    }

    /// Tells the ports of a network where an address is now, except the one where it is.
    pub(super) fn announce(&mut self, tables: &Tables, moved: Moved) {
        let Some(network) = tables.network(moved.vni) else { return };
        let frame = announcement(moved.addr, moved.mac);
        let holder = network.pins().get(moved.mac).flatten();
        let others = network.ports().iter().filter(|&&port| Some(Port::Tap(port)) != holder);
        let told = others.map(|&port| self.answer(port, &frame)).count();
        // Copies of a frame that nobody sent.
        self.counters.flooded(1, told as u64 + 1);
        self.finish();
    }

    /// Asks containers which multicast groups they want.
    pub(super) fn ask(&mut self, tables: &Tables, vni: Vni, ports: &[PortIndex]) {
        let Some(network) = tables.network(vni) else { return };
        let (mac, source) = (MacAddr::gateway(vni), network.gateway_v4().unwrap_or(Ipv4Addr::UNSPECIFIED));
        let (igmp, mld) = (group::igmp_query(mac, source), group::mld_query(mac));
        for &port in ports {
            self.answer(port, &igmp);
            self.answer(port, &mld);
        }
        // Copies of a frame that nobody sent.
        self.counters.flooded(1, 2 * ports.len() as u64 + 1);
        self.finish();
    }

    /// Passes a frame from the underlay, joined or not, to a container.
    pub(super) fn deliver_joined(&mut self, to: PortIndex, joiner: &Joiner, joined: &Joined, arena: &[u8]) {
        let vnet = joined.vnet.emit();
        let mut pieces = [IoSlice::new(&[]); WRITE_PIECES];
        let bodies: &[Range<u32>] = joiner.bodies(joined);
        pieces[0] = IoSlice::new(&vnet);
        pieces[1] = IoSlice::new(joiner.head(joined));
        for (piece, body) in pieces[2..].iter_mut().zip(bodies) {
            *piece = IoSlice::new(slice(arena, body));
        }
        let count = (2 + bodies.len()).min(WRITE_PIECES);
        self.write(to, &pieces[..count], joined.wire_segments());
    }

    /// Writes one frame, which stands for `segments` frames of the wire, to a port.
    fn write(&mut self, to: PortIndex, pieces: &[IoSlice<'_>], segments: u64) {
        let Some(queue) = self.ports.at(to.get() as u64) else {
            return self.counters.dropped(DropReason::PortGone, segments);
        };
        if let Some(limit) = &queue.limit {
            let frame: usize = pieces.iter().skip(1).map(|piece| piece.len()).sum();
            if !limit.to.admits(self.now, rate::wire_bytes(frame, segments)) {
                queue.counters.dropped(DropReason::RateLimit, segments);
                return self.counters.dropped(DropReason::RateLimit, segments);
            }
        }
        match queue.tap.write_vectored(pieces) {
            Ok(written) => {
                let bytes = written.saturating_sub(virtio::LEN) as u64;
                if let ([_vnet, frame @ ..], false) = (pieces, self.lenses.is_empty()) {
                    self.lenses.frame(to, Direction::Out, frame);
                }
                // Frames of one burst are one batch of the port.
                let batches = u64::from(queue.burst.replace(self.burst) != self.burst);
                queue
                    .counters
                    .given(Traffic { frames: 1, bytes, batches, segments }, u64::from(segments > 1));
                self.delivered.frames += 1;
                self.delivered.bytes += bytes;
                self.delivered.segments += segments;
            }
            Err(error) => {
                let reason = write_failure(&error);
                queue.counters.dropped(reason, segments);
                self.counters.dropped(reason, segments);
            }
        }
    }

    /// Counts segments that came from a port and go nowhere.
    pub(super) fn drop_from(&self, from: Port, reason: DropReason, segments: u64) {
        self.counters.dropped(reason, segments);
        if let Port::Tap(port) = from
            && let Some(queue) = self.ports.at(port.get() as u64)
        {
            queue.counters.dropped(reason, segments);
        }
    }
}

/// From where a flow leaves: a socket of its own where the remote can be reached so.
pub(super) fn socket_for<'a>(
    data: &'a DataSocket,
    pool: &'a [DataSocket],
    remote: &Remote,
    source: SourcePort,
) -> &'a DataSocket {
    let pooled = source.pooled().filter(|_| remote.spread);
    pooled.and_then(|at| pool.get(at)).unwrap_or(data)
}

/// The largest packet of a network that passes on the way to a host.
fn mtu_to(tables: &Tables, network: &Network, to: RemoteIndex, sealed: bool) -> u16 {
    tables.remote(to).map_or(network.mtu(), |remote| remote.mtu(network.mtu(), sealed))
}

/// What a frame of the batch counts for.
pub(super) fn segments(batch: &Batch, slot: &Slot) -> u64 {
    offload::segments(slot.frame(batch.arena()), &slot.vnet)
}

/// The UDP port of a socket; one system call, which nobody pays who is not watched.
pub(super) fn port_of(socket: &DataSocket) -> u16 {
    socket.local_addr().map_or(0, |addr| addr.port())
}

fn write_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::TapFull,
        _ => DropReason::WriteFailed,
    }
}

pub(super) fn send_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => DropReason::TooBig,
        io::ErrorKind::WouldBlock => DropReason::SocketFull,
        _ => DropReason::SendFailed,
    }
}

impl PortQueue {
    pub(super) fn new(
        index: PortIndex,
        vni: Vni,
        tap: Tap,
        counters: Arc<PortCounters>,
        limit: Option<Arc<Limit>>,
    ) -> Self {
        PortQueue { index, vni, tap, counters, limit, burst: Cell::new(0) }
    }
}

impl Ports {
    /// The queue with the index that an epoll event or a verdict names.
    pub(super) fn at(&self, index: u64) -> Option<&PortQueue> {
        self.0.get(usize::try_from(index).ok()?)?.as_ref()
    }

    pub(super) fn insert(&mut self, index: PortIndex, queue: PortQueue) {
        if self.0.len() <= index.get() {
            self.0.resize_with(index.get() + 1, || None);
        }
        self.0[index.get()] = Some(queue);
    }

    pub(super) fn remove(&mut self, index: PortIndex) -> Option<PortQueue> {
        self.0.get_mut(index.get()).and_then(Option::take)
    }
}
