//! Releases that are not on disk. One that the disk refused is undone with everything else, and made again later: else
//! an address would stay with a port that is gone, and space with a host that was removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use engine::types::PortId;

use super::Ipam;

/// How soon what the disk refused is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// The ports that gave up their addresses since the state was last written.
#[derive(Default)]
pub(super) struct Unwritten {
    ports: BTreeSet<PortId>,
    again: Option<Instant>,
}

impl Unwritten {
    /// A port gives up its addresses.
    pub(super) fn add(&mut self, port: PortId) {
        self.ports.insert(port);
    }

    /// The port is there again.
    pub(super) fn forget(&mut self, port: PortId) {
        self.ports.remove(&port);
    }

    /// The disk holds all of it, unless it was undone and not made again since.
    pub(super) fn written(&mut self) {
        if self.again.is_none() {
            self.ports.clear();
        }
    }

    /// The disk refused; `removed`: there are hosts that were removed.
    pub(super) fn refused(&mut self, now: Instant, removed: bool) {
        self.again = Some(now + AGAIN).filter(|_| removed || !self.ports.is_empty());
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.again
    }
}

impl Ipam {
    /// Makes the releases again that the disk refused, and takes again what removed hosts had.
    pub(super) fn release_again(&mut self, now: Instant) {
        if self.unwritten.again.take_if(|at| *at <= now).is_some() {
            for port in self.unwritten.ports.clone() {
                self.give_up(port);
            }
            self.bury_removed();
        }
    }
}
