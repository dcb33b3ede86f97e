//! Frames on their way to other hosts: cut, sealed where they are to be, and sent.

use std::io::{self, IoSlice};

use super::super::burst;
use super::{Output, port_of, segments};
use crate::capture::Direction;
use crate::counters::DropReason;
use crate::io::socket::DataSocket;
use crate::network::Network;
use crate::offload::Intake;
use crate::offload::cut::{Outbox, cut, cut_for_sealing};
use crate::offload::fragment::fragment;
use crate::offload::source_port::SourcePort;
use crate::offload::too_big;
use crate::packet::{Batch, Slot};
use crate::session::epoch::Epoch;
use crate::switch::Port;
use crate::tables::{Remote, RemoteIndex, Tables};
use crate::types::{MacAddr, Vni};
use crate::wire::vxlan;

/// Datagrams of so many bytes are worth a look at whether they still pass.
const LARGE: usize = 1000;

/// To which host, and from which port.
pub(in crate::io::worker) type Route = (RemoteIndex, SourcePort);

/// A network, whether its frames go sealed, and the largest packet that passes: its own, or that of the way ahead.
pub(super) type Lane<'a> = (&'a Network, bool, u16);

impl Output {
    /// Encapsulates frames for one host and sends them, in as few sends as their sizes allow.
    pub(super) fn send<'a>(
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
    pub(super) fn divide(
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
    pub(super) fn flush(&mut self, tables: &Tables, (to, source): Route, sealed: bool, batch: &Batch) {
        let count = self.outbox.datagrams().len() as u64;
        let Some(remote) = tables.remote(to) else { return self.counters.dropped(DropReason::NoPath, count) };
        if self.outbox.datagrams().first().is_some_and(|first| first.len() >= LARGE) {
            self.sessions.flow(to);
        }
        if sealed {
            return match tables.epoch(to) {
                Some(epoch) => self.flush_sealed(epoch, remote, (to, source), batch),
                None if count == 0 => {}
                None => self.hold((to, source), batch),
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

    /// Keeps the outbox for as long as a session may take to come, as far as there is room.
    fn hold(&mut self, (to, source): Route, batch: &Batch) {
        self.sessions.miss(to);
        let all = self.outbox.datagrams().iter();
        let count = all.len() as u64;
        let pieces = all.map(|datagram| self.outbox.pieces(datagram, batch.arena()));
        let held = self.held.keep(self.now, (to, source), pieces);
        self.counters.dropped(DropReason::NoSession, count - held);
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
}

/// From where a flow leaves: a socket of its own where the remote can be reached so.
pub(in crate::io::worker) fn socket_for<'a>(
    data: &'a DataSocket,
    pool: &'a [DataSocket],
    remote: &Remote,
    source: SourcePort,
) -> &'a DataSocket {
    let pooled = source.pooled().filter(|_| remote.spread);
    pooled.and_then(|at| pool.get(at)).unwrap_or(data)
}

/// The largest packet of a network that passes on the way to a host.
pub(super) fn mtu_to(tables: &Tables, network: &Network, to: RemoteIndex, sealed: bool) -> u16 {
    tables.remote(to).map_or(network.mtu(), |remote| remote.mtu(network.mtu(), sealed))
}

pub(in crate::io::worker) fn send_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => DropReason::TooBig,
        io::ErrorKind::WouldBlock => DropReason::SocketFull,
        _ => DropReason::SendFailed,
    }
}
