//! Leaving for good: another host takes the units of this one, and writes its removal.
//!
//! The other host is told what this one owns, and that it leaves. It writes the removal (cause: reset) and takes the units, both
//! on disk at once; that removal, when it arrives here, is the confirmation. Asked twice, it sends the removal again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::seq::IteratorRandom;

use super::{Ipam, IpamOutput};
use crate::mesh::PeerState;
use crate::proto::Message;

/// How long the removal is awaited before it is asked for again, and how often it is.
const ANSWER: Duration = Duration::from_millis(500);
const TRIES: u8 = 4;

/// The search for a host that takes the units.
pub(super) struct Leaving {
    asked: Option<(PeerId, Instant, u8)>,
    silent: BTreeSet<PeerId>,
}

impl Leaving {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.asked.map(|(_, at, _)| at + ANSWER)
    }
}

impl Ipam {
    /// Gives every unit to another host that is alive, and leaves. The end is the removal of this host, or
    /// [`IpamOutput::CannotLeave`]. No address is given meanwhile.
    pub fn leave(&mut self, now: Instant) {
        self.leaving.get_or_insert(Leaving { asked: None, silent: BTreeSet::new() });
        self.progress(now);
    }

    /// True while a host is sought that takes the units.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(super) fn go_on_leaving(&mut self, now: Instant) {
        let Some(leaving) = self.leaving.as_mut() else { return };
        let (to, tries) = match leaving.asked {
            Some((_, at, _)) if now < at + ANSWER => return,
            Some((to, _, tries)) if tries < TRIES && self.states.get(&to) == Some(&PeerState::Alive) => {
                (Some(to), tries + 1)
            }
            silent => {
                leaving.silent.extend(silent.map(|(to, ..)| to));
                let alive = self.states.iter().filter(|(_, state)| **state == PeerState::Alive);
                let able = alive.map(|(peer, _)| *peer).filter(|peer| !leaving.silent.contains(peer));
                (able.choose(&mut self.rng), 1)
            }
        };
        let Some(to) = to else {
            self.leaving = None;
            return self.outputs.push_back(IpamOutput::CannotLeave);
        };
        leaving.asked = Some((to, now, tries));
        for table in self.unit_tables() {
            self.send(to, Message::Units(table));
        }
        self.send(to, Message::Leave);
    }

    /// Another host leaves, and asks this one to take its units.
    pub(super) fn handle_leave(&mut self, from: PeerId) {
        // Who leaves itself cannot take anything; the other asks somebody else.
        if !self.is_leaving() {
            self.outputs.push_back(IpamOutput::Leaves(from));
        }
    }
}
