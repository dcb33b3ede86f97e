//! One data-plane thread: an epoll loop that runs every frame to completion.
//!
//! A wake-up reads a batch from each TAP queue and from the socket that has something, decides about all of
//! it, and writes all of it, with no queue between the steps. Work per wake-up is bounded by one batch per
//! descriptor. A worker writes to a port only through its own queue of that port, and to the underlay only
//! through its own socket, so workers share nothing but the tables and the learned addresses.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

mod burst;
mod gateway;
mod held;
mod input;
mod output;
mod rests;
mod whole;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;

use super::capture::Lens;
use super::gateway::Door;
use super::socket::{DataSocket, RecvBatch};
use super::tap::Tap;
use super::tunnel::Tunnel;
use crate::counters::{Counters, PortCounters, Traffic, Way};
use crate::offload;
use crate::offload::join::{Coalesce, Joiner};
use crate::packet::Batch;
use crate::rate::{self, Limit};
use crate::session::signals::Signals;
use crate::switch::{Classes, Port, Switch};
use crate::tables::{Moved, PortIndex, RemoteIndex, Tables};
use crate::types::Vni;
use held::Held;
use output::{Output, PortQueue};
use rests::Rests;

/// Epoll token of the wake-up descriptor; ports use their index.
const WAKE: u64 = u64::MAX;
/// Epoll token of the data socket.
const SOCKET: u64 = u64::MAX - 1;
/// Events taken in one wake-up; more descriptors than that are served by the next one.
const EVENTS: usize = 64;
/// Receives taken in one wake-up at most.
const RECEIVES: usize = 64;

/// What the control side asks of a worker, in order.
pub(super) enum Command {
    /// Serve a port.
    AddPort(NewPort),
    /// Close the queue of a port.
    RemovePort(PortIndex),
    /// Tell the ports of its network where an address is now.
    Announce(Moved),
    /// Ask the containers behind these ports which multicast groups they want.
    Ask(Vni, Vec<PortIndex>),
    /// Copy what passes for a reader.
    AddLens(Lens),
    /// Its reader is gone.
    RemoveLens(u64),
    /// Hand over what was held back because a reader was slow.
    FlushLenses,
    /// End the thread.
    Stop,
}

/// A port as a worker is given it.
pub(super) struct NewPort {
    pub(super) index: PortIndex,
    pub(super) vni: Vni,
    pub(super) queue: Tap,
    /// Whether this worker reads the queue, or only writes to it: a device may have fewer queues than
    /// there are workers.
    pub(super) reads: bool,
    pub(super) counters: Arc<PortCounters>,
    /// The rate limit, shared by all workers of the port.
    pub(super) limit: Option<Arc<Limit>>,
}

/// A worker saw that the device behind a port is gone.
pub(super) struct PortGone {
    pub(super) index: PortIndex,
    pub(super) reason: String,
}

/// Everything a worker shares with the control side.
pub(super) struct Shared {
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) counters: Arc<Counters>,
    pub(super) wake: Arc<EventFd>,
    pub(super) commands: Receiver<Command>,
    pub(super) gone: Sender<PortGone>,
    /// Wakes the control side.
    pub(super) control_wake: Arc<EventFd>,
    /// What the control side is told of sessions.
    pub(super) signals: Arc<Signals>,
    /// Whether this worker waits for a session, and so for tables.
    pub(super) waits: Arc<AtomicBool>,
    /// The lane in which this worker seals; no other has it.
    pub(super) lane: u8,
    /// To the gateway and back.
    pub(super) door: Door,
}

/// A worker's part in the sessions.
pub(super) struct SessionSide {
    pub(super) lane: u8,
    signals: Arc<Signals>,
    wake: Arc<EventFd>,
}

impl SessionSide {
    /// There is no session to seal in.
    fn miss(&self, to: RemoteIndex) {
        self.wake_if(self.signals.missing.set(to));
    }

    /// What came is sealed in no session.
    fn lose(&self, from: RemoteIndex) {
        self.wake_if(self.signals.lost.set(from));
    }

    /// Large datagrams go there.
    fn flow(&self, to: RemoteIndex) {
        self.wake_if(self.signals.bulk.set(to));
    }

    /// A datagram was too long for the host itself.
    fn refuse(&self, to: RemoteIndex) {
        self.wake_if(self.signals.too_long.set(to));
    }

    /// The first frame of a session was opened.
    fn hear(&self, from: RemoteIndex) {
        self.wake_if(self.signals.heard.set(from));
    }

    /// The newest keepalive came from elsewhere than frames for its sender go.
    fn find(&self, remote: RemoteIndex, from: SocketAddr) {
        self.wake_if(self.signals.found.set(remote, from));
    }

    fn wake_if(&self, news: bool) {
        if news {
            // A full counter means that a wake-up is pending.
            let _ = self.wake.write(1);
        }
    }
}

/// A worker's own ends of the underlay.
pub(super) struct Sides {
    /// Receives, and sends what has no source port of its own.
    pub(super) socket: DataSocket,
    /// Send only, one for each source port.
    pub(super) pool: Vec<DataSocket>,
    /// Takes super-frames whole.
    pub(super) tunnel: Option<Tunnel>,
}

/// The state of one data-plane thread.
pub(super) struct Worker {
    shared: Shared,
    epoll: Epoll,
    switch: Switch,
    batch: Batch,
    classes: Classes,
    received: RecvBatch,
    joiner: Joiner,
    output: Output,
    rests: Rests,
}

impl Worker {
    /// `pool` has a socket for each source port.
    pub(super) fn new(shared: Shared, sides: Sides, coalesce: Coalesce) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*shared.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        epoll.add(sides.socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        let switch = Switch::new(shared.tables.load_full()).with_source_ports(sides.pool.len());
        let (signals, wake) = (Arc::clone(&shared.signals), Arc::clone(&shared.control_wake));
        let sessions = SessionSide { lane: shared.lane, signals, wake };
        let held = Held::telling(Arc::clone(&shared.waits));
        let door = shared.door.clone();
        let output = Output::new(sides, Arc::clone(&shared.counters), (sessions, door), held);
        Ok(Worker {
            shared,
            epoll,
            switch,
            batch: Batch::new(),
            classes: Classes::new(),
            received: RecvBatch::new(RECEIVES),
            joiner: Joiner::new(coalesce),
            output,
            rests: Rests::default(),
        })
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let most = self.wait_for_tables();
            let ready = match self.epoll.wait(&mut events, self.rests.timeout(most)) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return tracing::error!("a worker cannot wait for frames: {error}"),
            };
            let news = self.refresh_tables();
            let now = Instant::now();
            self.output.now = now;
            self.output.release(self.switch.tables(), news);
            self.wake_rested(now);
            for event in events.iter().take(ready) {
                match event.data() {
                    WAKE if self.obey() == Flow::Stop => return,
                    WAKE => {}
                    SOCKET => self.serve_socket(now),
                    port => self.serve_port(now, port),
                }
            }
        }
    }

    /// How long to sleep at most for what waits for a session: not at all when there are tables that it was not looked for in.
    fn wait_for_tables(&self) -> Option<Duration> {
        if !self.output.held.tell() {
            return None;
        }
        let current = Arc::ptr_eq(&self.shared.tables.load(), self.switch.tables());
        if current { self.output.held.patience(self.output.now) } else { Some(Duration::ZERO) }
    }

    /// Takes the newest tables; a pointer compare when nothing changed. True: something did.
    fn refresh_tables(&mut self) -> bool {
        let tables = self.shared.tables.load();
        let news = !Arc::ptr_eq(&tables, self.switch.tables());
        if news {
            self.switch.set_tables(Arc::clone(&tables));
        }
        news
    }

    fn obey(&mut self) -> Flow {
        // The counter is reset before the queue is read, so that no command is left behind.
        let _ = self.shared.wake.read();
        while let Ok(command) = self.shared.commands.try_recv() {
            match command {
                Command::AddPort(port) => self.add_port(port),
                Command::RemovePort(index) => self.close(index),
                Command::Announce(moved) => self.output.announce(self.switch.tables(), moved),
                Command::Ask(vni, ports) => self.output.ask(self.switch.tables(), vni, &ports),
                Command::AddLens(lens) => self.output.lenses.add(lens),
                Command::RemoveLens(number) => self.output.lenses.remove(number),
                Command::FlushLenses => self.output.lenses.flush(),
                Command::Stop => return Flow::Stop,
            }
        }
        self.output.deliver_gateway();
        Flow::Continue
    }

    fn add_port(&mut self, port: NewPort) {
        let NewPort { index, vni, queue, reads, counters, limit } = port;
        if reads {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index.get() as u64);
            if let Err(error) = self.epoll.add(queue.as_fd(), event) {
                return self.report_gone(index, format!("its frames cannot be waited for: {error}"));
            }
        }
        self.output.ports.insert(index, PortQueue::new(index, vni, queue, counters, limit));
    }

    fn close(&mut self, index: PortIndex) {
        self.rests.forget(index);
        if let Some(queue) = self.output.ports.remove(index) {
            // A queue that is only written to is not in the set.
            let _ = self.epoll.delete(queue.tap.as_fd());
        }
        self.output.lenses.close(index);
    }

    fn report_gone(&mut self, index: PortIndex, reason: String) {
        self.close(index);
        // A closed channel or a full counter means that the engine is stopping.
        let _ = self.shared.gone.send(PortGone { index, reason });
        let _ = self.shared.control_wake.write(1);
    }

    /// One batch from a container: read, decide about each frame, write group by group.
    fn serve_port(&mut self, now: Instant, token: u64) {
        let Some(queue) = self.output.ports.at(token) else { return };
        let (index, vni) = (queue.index, queue.vni);
        if let Err(error) = read_batch(queue, &mut self.batch, &self.shared.counters, now) {
            return self.report_gone(index, format!("its device is gone: {error}"));
        }
        let (sent, super_frames) = content(&self.batch);
        self.shared.counters.batch(Way::TapIn, sent.frames, sent.bytes);
        self.shared.counters.segments(Way::TapIn, sent.segments);
        queue.counters.sent(sent, super_frames);
        let debt = queue.limit.as_ref().map_or(Duration::ZERO, |limit| limit.from.debt(now));
        if !self.output.lenses.is_empty() {
            self.output.show_batch(index, &self.batch);
        }

        self.switch.classify(now, Port::Tap(index), vni, &self.batch, &mut self.classes);
        self.output.carry_out(&self.switch, Port::Tap(index), vni, &self.batch, &self.classes);
        if !debt.is_zero() {
            self.rest(index, now + debt);
        }
    }
}

/// Fills the batch from a queue; from a limited one until its bucket is in debt.
fn read_batch(queue: &PortQueue, batch: &mut Batch, counters: &Counters, now: Instant) -> io::Result<()> {
    let limit = queue.limit.as_ref().map(|limit| &limit.from);
    batch.clear();
    while !batch.is_full() && limit.is_none_or(|limit| limit.debt(now).is_zero()) {
        match queue.tap.read(batch.room()) {
            Ok(len) => {
                if let Err(reason) = batch.commit(len) {
                    counters.refused(Way::TapIn, reason);
                    queue.counters.refused(reason);
                } else if let (Some(limit), Some(slot)) = (limit, batch.frames().last()) {
                    let frame = slot.frame(batch.arena());
                    limit.spend(now, rate::wire_bytes(frame.len(), offload::segments(frame, &slot.vnet)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a batch holds, and how many super-frames are in it.
fn content(batch: &Batch) -> (Traffic, u64) {
    let mut content = Traffic { batches: 1, ..Traffic::default() };
    let mut super_frames = 0;
    for slot in batch.frames() {
        let frame = slot.frame(batch.arena());
        content.frames += 1;
        content.bytes += frame.len() as u64;
        content.segments += offload::segments(frame, &slot.vnet);
        super_frames += u64::from(slot.vnet.is_super());
    }
    (content, super_frames)
}

fn slice<'a>(arena: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    arena.get(range.start as usize..range.end as usize).unwrap_or_default()
}

#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}
