//! What workers, the control thread and the callers of the engine share, and what each of them has the others do.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::sys::eventfd::EventFd;

use super::state::{Control, OpenPort};
use crate::counters::Counters;
use crate::io::capture::Place;
use crate::io::gateway::Desk;
use crate::io::netns::NetnsId;
use crate::io::socket::{DataSocket, Gauge};
use crate::io::tap::Offloads;
use crate::io::worker::Command;
use crate::seam::Event;
use crate::session::signals::Signals;
use crate::tables::{PortIndex, Registry, Tables};
use crate::types::{PortId, Vni};

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

impl WorkerEnd {
    pub(super) fn tell(&self, command: Command) {
        // A worker that is gone has nothing left to be told.
        let _ = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command);
        let _ = self.wake.write(1);
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Control> {
        // Every change leaves the tables whole, also when another thread has panicked between two of them.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the new tables visible to the workers, wakes those that wait for a session, and has ports told what is new.
    pub(super) fn store(&self, registry: &mut Registry) {
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

    pub(super) fn port_gone(&self, port: PortId, reason: &str) {
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
}
