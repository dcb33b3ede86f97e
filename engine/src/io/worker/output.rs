//! The writing half of a worker: frames to local ports, datagrams to other hosts.

mod deliver;
mod flood;
mod ports;
mod send;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::held::Held;
use super::whole::Whole;
use super::{SessionSide, Sides};
use crate::capture::Direction;
use crate::counters::{Counters, DropReason, Traffic, Way};
use crate::io::capture::Lenses;
use crate::io::gateway::Door;
use crate::io::socket::{DataSocket, MAX_SEGMENTS, MAX_SEND_BYTES};
use crate::offload;
use crate::offload::cut::Outbox;
use crate::offload::too_big::Limit as AnswerLimit;
use crate::packet::{Batch, Slot};
use crate::session::sealed::Sealed;
use crate::switch::{Classes, Port, Switch};
use crate::tables::PortIndex;
use crate::types::Vni;

pub(super) use ports::{PortQueue, Ports};
pub(super) use send::{Route, send_failure, socket_for};

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

impl Output {
    pub(super) fn new(
        mut sides: Sides,
        counters: Arc<Counters>,
        (sessions, door): (SessionSide, Door),
        held: Held,
    ) -> Self {
        let whole = Whole::new(&mut sides);
        Output {
            ports: Ports::new(),
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

/// What a frame of the batch counts for.
pub(super) fn segments(batch: &Batch, slot: &Slot) -> u64 {
    offload::segments(slot.frame(batch.arena()), &slot.vnet)
}

/// The UDP port of a socket; one system call, which nobody pays who is not watched.
pub(super) fn port_of(socket: &DataSocket) -> u16 {
    socket.local_addr().map_or(0, |addr| addr.port())
}
