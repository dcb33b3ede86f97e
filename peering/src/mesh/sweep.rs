//! How this host gets rid of its tombstones: it writes what lives again, asks every member whether it holds all of that,
//! and then raises its floor, under which the tombstones go everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::{ConnId, Mesh, Output, PeerState};
use crate::gossip::Version;
use crate::proto::{Confirm, Confirmed, Message};

/// With fewer tombstones it is not worth while.
const WORTH_WHILE: usize = 64;
/// A member that did not answer is asked again after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many connected members are asked at once.
const AT_ONCE: usize = 16;

/// A sweep that is going on.
pub(super) struct Sweep {
    /// Everything that lives was written again above this.
    floor: Version,
    /// The last version of what was written again.
    upto: Version,
    confirmed: BTreeSet<PeerId>,
    asked: BTreeMap<PeerId, Instant>,
}

impl Mesh {
    /// Begins a sweep when there is enough to sweep, and goes on with one.
    pub(super) fn go_on_sweeping(&mut self) {
        if self.sweep.is_none() && !self.begin_sweep() {
            return;
        }
        if self.end_sweep() {
            return;
        }
        let whom = self.whom_to_ask();
        for peer in whom {
            self.ask_to_confirm(peer);
        }
    }

    /// Writing again costs as much as lives, so there must be at least as many tombstones.
    fn begin_sweep(&mut self) -> bool {
        let (dead, live) = self.store.own_weight();
        if dead < WORTH_WHILE.max(live) {
            return false;
        }
        let floor = self.store.own_version();
        let records = self.store.rewrite(&self.config.identity);
        let upto = self.store.own_version();
        self.sweep = Some(Sweep { floor, upto, confirmed: BTreeSet::new(), asked: BTreeMap::new() });
        self.wrote(&records);
        true
    }

    /// Raises the floor once every member has confirmed. A host that was removed is none.
    fn end_sweep(&mut self) -> bool {
        let Some(sweep) = &self.sweep else { return true };
        if self.store.members().any(|peer| peer != self.me && !sweep.confirmed.contains(&peer)) {
            return false;
        }
        let record = self.store.put_floor(&self.config.identity, sweep.floor);
        self.sweep = None;
        self.wrote(record.as_slice());
        true
    }

    /// Several of those that are connected, and at most one for which a connection must be made.
    fn whom_to_ask(&self) -> Vec<PeerId> {
        let Some(sweep) = &self.sweep else { return Vec::new() };
        let recently = |peer: &PeerId| {
            sweep.asked.get(peer).is_some_and(|at| self.now.saturating_duration_since(*at) < PATIENCE)
        };
        let missing = self.store.members().filter(|peer| *peer != self.me && !sweep.confirmed.contains(peer));
        let missing = missing.filter(|peer| !recently(peer));
        let (connected, others): (Vec<_>, Vec<_>) =
            missing.partition(|peer| self.topology.best(*peer).is_some());
        let alive = others.into_iter().filter(|peer| self.membership.state(*peer) == PeerState::Alive);
        connected.into_iter().take(AT_ONCE).chain(alive.take(1)).collect()
    }

    fn ask_to_confirm(&mut self, peer: PeerId) {
        let Some(sweep) = &mut self.sweep else { return };
        sweep.asked.insert(peer, self.now);
        let upto = sweep.upto;
        let holding = self.store.holding(self.me, upto);
        self.send(peer, &Message::Confirm(Confirm { upto, holding }));
    }

    /// A peer asks whether its records are all here.
    pub(super) fn handle_confirm(&mut self, conn: ConnId, peer: PeerId, confirm: Confirm) {
        if !self.pay_walk(conn) {
            return;
        }
        let same = self.store.holding(peer, confirm.upto) == confirm.holding;
        let answer = Message::Confirmed(Confirmed { upto: confirm.upto, same });
        self.outbox.push(Output::Transmit { conn, bytes: answer.encode() });
    }

    /// A member answered. One that lacks something is told at once.
    pub(super) fn handle_confirmed(&mut self, conn: ConnId, peer: PeerId, answer: Confirmed) {
        let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.upto == answer.upto) else { return };
        if answer.same {
            sweep.confirmed.insert(peer);
            self.end_sweep();
        } else {
            sweep.asked.remove(&peer);
            self.summarise(conn);
        }
    }
}
