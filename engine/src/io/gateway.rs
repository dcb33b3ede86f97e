//! The thread of the gateway: what workers hand over is answered beside them.
//!
//! A worker copies frames for the gateway into its queue and goes on; what is to be written goes back to the same worker,
//! since only it writes to its queues. A fault in here ends no more than the gateway's own state: the thread begins anew,
//! counts, and says so.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

mod post;

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counters::gateway::{GatewayCounters, count};
use crate::counters::{Counters, DropReason};
use crate::gateway::names::Names;
use crate::gateway::{Gateway, Incoming};
use crate::seam::Event;
use crate::session::chance::Chance;
use crate::tables::Tables;
pub(in crate::io) use post::Label;
use post::Post;

/// Frames taken from one worker before the others get their turn.
const BATCH: usize = 64;
/// How often people are told of faults, at most.
const NOTICE: Duration = Duration::from_secs(10);

/// Both directions between a worker and the gateway.
#[derive(Debug)]
pub(super) struct Lane {
    /// To the gateway.
    pub(super) to: Post,
    /// And back.
    pub(super) back: Post,
}

/// The answer of somebody else: to which question, and the message.
type Told = (u64, Vec<u8>);

/// A worker's end of the gateway.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) lane: Arc<Lane>,
    /// Wakes the gateway.
    pub(super) wake: Arc<EventFd>,
}

/// The control side's end of the gateway.
pub(super) struct Desk {
    /// What is called how. Not needed to forward a frame, so no part of the tables.
    names: Mutex<Names>,
    answers: Mutex<Sender<Told>>,
    wake: Arc<EventFd>,
    /// What it does.
    pub(super) counters: Arc<GatewayCounters>,
    /// What it drops.
    pub(super) drops: Counters,
    stopping: AtomicBool,
}

impl Desk {
    /// The names, for whoever changes or looks at them.
    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        // Every change leaves them whole, and readers leave them as they are, also when another thread has failed.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on an answer to a question.
    pub(super) fn answer(&self, question: u64, message: Vec<u8>) {
        // A gateway that has ended answers nobody.
        let _ = self.answers.lock().unwrap_or_else(PoisonError::into_inner).send((question, message));
        let _ = self.wake.write(1);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.wake.write(1);
    }

    /// A way to the gateway and back, for one worker.
    pub(super) fn door(&self) -> Door {
        let lane = Arc::new(Lane { to: Post::new(), back: Post::new() });
        Door { lane, wake: Arc::clone(&self.wake) }
    }
}

/// Sets the gateway up: the control side's end, and where answers come out.
pub(super) fn open() -> io::Result<(Arc<Desk>, Receiver<Told>)> {
    let (sender, answers) = mpsc::channel();
    let desk = Desk {
        names: Mutex::default(),
        answers: Mutex::new(sender),
        wake: Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?),
        counters: Arc::default(),
        drops: Counters::new(),
        stopping: AtomicBool::new(false),
    };
    Ok((Arc::new(desk), answers))
}

/// What the thread of the gateway works with.
pub(super) struct Service {
    pub(super) desk: Arc<Desk>,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    /// The workers in order: the way to each, and what wakes it.
    pub(super) workers: Vec<(Arc<Lane>, Arc<EventFd>)>,
    pub(super) answers: Receiver<Told>,
    pub(super) events: Sender<Event>,
    /// From the system's generator.
    pub(super) seed: [u8; 32],
}

impl Service {
    /// Serves until the desk is told to stop.
    pub(super) fn run(&self) {
        let mut chance = Chance::new(self.seed);
        let mut noticed: Option<Instant> = None;
        supervise(
            || self.serve(&mut Gateway::new(chance.bytes(), Arc::clone(&self.desk.counters))),
            |reason| {
                count(&self.desk.counters.restarts);
                self.desk.drops.dropped(DropReason::GatewayFault, 1);
                let now = Instant::now();
                if noticed.is_none_or(|at| now.duration_since(at) >= NOTICE) {
                    noticed = Some(now);
                    self.tell(Event::GatewayFault { reason });
                }
            },
        );
    }

    fn serve(&self, gateway: &mut Gateway) {
        while !self.desk.stopping.load(Ordering::Relaxed) {
            if self.turn(gateway) {
                continue;
            }
            let now = Instant::now();
            let wait = gateway.poll_timeout(now).map(|due| due.saturating_duration_since(now));
            if let Err(error) = self.wait(wait) {
                return tracing::error!("the gateway cannot wait for frames: {error}");
            }
        }
    }

    /// Sleeps until it is woken, or for so long. Rounded up, else the last millisecond would be spent polling.
    fn wait(&self, wait: Option<Duration>) -> Result<(), Errno> {
        let round = |wait| PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut wake = [PollFd::new(self.desk.wake.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wake, wait.map_or(PollTimeout::NONE, round)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        // The counter is reset before the queues are read, so that no frame is left behind.
        let _ = self.desk.wake.read();
        Ok(())
    }

    /// One batch of each worker, what others have answered, and what is due. True when more waits.
    fn turn(&self, gateway: &mut Gateway) -> bool {
        let now = Instant::now();
        let names = self.desk.names();
        let mut more = false;
        for (number, (lane, _)) in (0..).zip(&self.workers) {
            let frames = (0..BATCH).take_while(|_| self.take(gateway, now, &names, (number, lane)));
            more |= frames.count() == BATCH;
        }
        while let Ok((question, message)) = self.answers.try_recv() {
            gateway.handle_answer(now, &names, question, message);
        }
        gateway.handle_timeout(now, &names);
        drop(names);
        self.send(gateway);
        more
    }

    /// Takes one frame of a worker; false when there is none.
    fn take(&self, gateway: &mut Gateway, now: Instant, names: &Names, (number, lane): (u8, &Lane)) -> bool {
        let Some(parcel) = lane.to.take() else { return false };
        let Label { index, port, vni, partial } = parcel.label;
        let mtu = self.tables.load().network(vni).map_or(0, |network| network.mtu());
        let incoming = Incoming { lane: number, index, port, vni, mtu, partial, frame: &parcel.frame };
        // The buffer goes back whatever becomes of the frame.
        let result = catch_unwind(AssertUnwindSafe(|| gateway.handle_frame(now, names, &incoming)));
        lane.to.give_back(parcel.frame);
        match result {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => self.desk.drops.dropped(reason, 1),
            Err(panic) => resume_unwind(panic),
        }
        true
    }

    /// Hands frames to their workers, each of which is woken once, and questions to who may know.
    fn send(&self, gateway: &mut Gateway) {
        let (tables, mut woken) = (self.tables.load(), 0_u64);
        while let Some(transmit) = gateway.poll_transmit() {
            let lane = self.workers.get(usize::from(transmit.lane)).map(|(lane, _)| lane);
            // The number may be another port's by now.
            let port = tables.port(transmit.index).filter(|port| port.id == transmit.port);
            let (Some(lane), Some(port)) = (lane, port) else {
                self.desk.drops.dropped(DropReason::PortGone, 1);
                continue;
            };
            let label = Label { index: transmit.index, port: port.id, vni: port.vni, partial: false };
            if lane.back.send(label, &transmit.frame) {
                woken |= 1 << transmit.lane;
            } else {
                self.desk.drops.dropped(DropReason::GatewayFull, 1);
            }
        }
        let woken = (0..).zip(&self.workers).filter(|(number, _): &(u32, _)| woken >> number & 1 != 0);
        for (_, (_, wake)) in woken {
            // A full counter means that a wake-up is pending.
            let _ = wake.write(1);
        }
        while let Some(event) = gateway.poll_event() {
            self.tell(event);
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the daemon is stopping.
        let _ = self.events.send(event);
    }
}

/// Serves until that ends by itself. A panic is told, and it begins anew.
fn supervise(mut serve: impl FnMut(), mut on_fault: impl FnMut(String)) {
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut serve)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        on_fault(text.unwrap_or("a panic without a word").to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_and_it_begins_anew() {
        let (mut runs, mut told) = (0, Vec::new());
        supervise(
            || {
                runs += 1;
                assert!(runs > 2, "run {runs}");
            },
            |reason| told.push(reason),
        );
        assert_eq!((runs, told), (3, vec!["run 1".to_owned(), "run 2".to_owned()]));
    }
}
