//! Ports that are not read for a while, because their rate limit has been reached: their container waits.

use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::Worker;
use crate::tables::PortIndex;

/// The ports that rest, and until when. Few: only limited ones, each once.
#[derive(Default, Debug)]
pub(super) struct Rests(Vec<(Instant, PortIndex)>);

impl Rests {
    /// How long the worker may sleep, at most for `most`, rounded up to what epoll can count.
    pub(super) fn timeout(&self, most: Option<Duration>) -> EpollTimeout {
        let until = self.0.iter().map(|(until, _)| *until).min();
        let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(wait) = rest.into_iter().chain(most).min() else { return EpollTimeout::NONE };
        u16::try_from(wait.as_nanos().div_ceil(1_000_000)).map_or(EpollTimeout::MAX, EpollTimeout::from)
    }

    /// Takes out a port whose time has come.
    fn due(&mut self, now: Instant) -> Option<PortIndex> {
        let at = self.0.iter().position(|(until, _)| *until <= now)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(super) fn forget(&mut self, port: PortIndex) {
        self.0.retain(|(_, resting)| *resting != port);
    }
}

impl Worker {
    /// Leaves a port unread until then.
    pub(super) fn rest(&mut self, port: PortIndex, until: Instant) {
        if self.listen_to(port, EpollFlags::empty()) {
            self.rests.forget(port);
            self.rests.0.push((until, port));
        }
    }

    /// Reads those again that have rested enough.
    pub(super) fn wake_rested(&mut self, now: Instant) {
        while let Some(port) = self.rests.due(now) {
            self.listen_to(port, EpollFlags::EPOLLIN);
        }
    }

    /// Chooses what of a port wakes the worker; false when the port is not open or not read here.
    fn listen_to(&self, port: PortIndex, flags: EpollFlags) -> bool {
        let index = port.get() as u64;
        let Some(queue) = self.output.ports.at(index) else { return false };
        self.epoll.modify(&queue.tap, &mut EpollEvent::new(flags, index)).is_ok()
    }
}
