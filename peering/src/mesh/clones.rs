//! Two hosts with one key: the one that was there first keeps the identity.
//!
//! A host that says hello under another boot nonce than one that is connected is that host after a restart, or a clone of
//! it. At the same address it is a restart. Else whoever answers the question whether it lives does, and the newcomer is
//! refused; silence means a restart. A host that is refused so, and has no connection that stood for a while, waits: it lets
//! go of all connections, says nothing but hello, and gives no addresses, until somebody takes it in because the other one is
//! gone.
//!
//! Two that went on apart, each with peers of its own, settle it between themselves, since only who has the key can prove
//! that there is another: the one that has heard of the other connects to it, and who has had the identity for longer keeps
//! it. So no peer can silence a host that is established.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;
use rand::RngExt;

use super::{AllocError, ConnId, Mesh, Output, PeerState};
use crate::proto::{CloneSeen, Hello, Message};
use crate::topology::ONESELF;

/// The host of the older connection must answer within this; it is asked twice.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that stands so long was not refused by the other side.
const TAKEN_IN: Duration = Duration::from_secs(3);
/// A host that waits is not wanted as long as it was refused within this: whoever refuses it is asked again sooner.
const REFUSED_LATELY: Duration = Duration::from_secs(35);
/// The other host is looked for at most so often, and a host that waits asks one that dialled it at most so often.
const SEEK: Duration = Duration::from_secs(5);
/// How the reason for refusing a clone begins.
const CLONE: &str = "clone: ";
/// Why a host that waits lets go of a connection.
const GIVES_WAY: &str = "the host there is a clone";
/// Clones that are remembered, so that each is told once.
const REMEMBERED: usize = 1024;

/// What is known of hosts that run twice.
pub(super) struct Clones {
    trials: BTreeMap<ConnId, Trial>,
    told: BTreeSet<(PeerId, SocketAddr)>,
    /// Since when this host has its identity.
    since: Instant,
    /// This host waits: why, and when it was last refused.
    oneself: Option<(String, Instant)>,
    /// For how long this host had its identity when it said hello to another with its key.
    pub(super) greeted: BTreeMap<ConnId, u64>,
    seek_at: Instant,
    ask_at: Instant,
}

/// A newcomer of whom it is not known whether it is a clone.
struct Trial {
    peer: PeerId,
    older: ConnId,
    /// What the other one is asked: an answer to anything else may have been on its way before this host began.
    question: u8,
    hello: Hello,
    since: Instant,
    asked_again: bool,
}

impl Clones {
    pub(super) fn new(now: Instant) -> Self {
        Clones {
            trials: BTreeMap::new(),
            told: BTreeSet::new(),
            since: now,
            oneself: None,
            greeted: BTreeMap::new(),
            seek_at: now,
            ask_at: now,
        }
    }

    /// When [`Mesh::judge_newcomers`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |trial: &Trial| trial.since + if trial.asked_again { PATIENCE } else { PATIENCE / 2 };
        self.trials.values().map(due).min()
    }

    /// Why this host takes itself for a clone, if it does.
    pub(super) fn oneself(&self) -> Option<&str> {
        self.oneself.as_ref().map(|(why, _)| why.as_str())
    }

    /// A connection is over; of those that this side ends nobody tells.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.greeted.remove(&conn);
    }

    /// For how many milliseconds this host has had its identity; 0 while it waits.
    fn standing(&self, now: Instant) -> u64 {
        let standing = now.saturating_duration_since(self.since).as_millis();
        if self.oneself.is_some() { 0 } else { u64::try_from(standing).unwrap_or(u64::MAX).max(1) }
    }
}

/// True when `at` has come; the next time is [`SEEK`] later.
fn is_due(at: &mut Instant, now: Instant) -> bool {
    let due = *at <= now;
    if due {
        *at = now + SEEK;
    }
    due
}

/// True for the words with which a clone is refused.
pub(super) fn is_clone(reason: &str) -> bool {
    reason.starts_with(CLONE)
}

fn in_use(at: Option<SocketAddr>) -> String {
    let at = at.map_or_else(|| "that is alive".to_owned(), |addr| format!("at {addr}"));
    format!("{CLONE}this identity is in use by the host {at}")
}

impl Mesh {
    /// A host said hello. False: it has to wait until an earlier start of it was asked whether it lives.
    pub(super) fn is_the_only_one(&mut self, conn: ConnId, peer: PeerId, hello: &Hello) -> bool {
        let Some(older) = self.topology.earlier_start(peer, hello.boot_nonce) else { return true };
        if self.topology.is_where_it_was(conn, peer, hello.boot_nonce) {
            return true;
        }
        if let Some(trial) = self.clones.trials.get_mut(&conn) {
            trial.hello = hello.clone();
            return false;
        }
        let (hello, since, question) = (hello.clone(), self.now, self.rng.random_range(1..=u8::MAX));
        self.clones.trials.insert(conn, Trial { peer, older, question, hello, since, asked_again: false });
        self.membership.ask(peer, question);
        false
    }

    /// A host answered a question on a connection that stands: a newcomer for whose sake it was asked is a clone.
    pub(super) fn refuse_clones_of(&mut self, older: ConnId, peer: PeerId, question: u8) {
        let trials = self.clones.trials.iter();
        let asked = trials.filter(|(_, trial)| (trial.peer, trial.question) == (peer, question));
        let refused: Vec<ConnId> = asked.map(|(conn, _)| *conn).collect();
        for conn in refused {
            self.clones.trials.remove(&conn);
            let ends = self.topology.far_end(conn).zip(self.topology.far_end(older));
            let Some(((peer, new, _), (_, old, _))) = ends else { continue };
            self.budgets.remove(&conn);
            self.topology.close(conn, &in_use(Some(old)));
            let message = Message::CloneSeen(CloneSeen { addr: new });
            self.outbox.push(Output::Transmit { conn: older, bytes: message.encode() });
            if self.is_untold(peer, new) {
                let name = self.nickname(peer);
                let text = format!(
                    "host {name} ({peer}) runs twice: the one at {new} is refused, the one at {old} stays"
                );
                self.note("clone_seen", text);
            }
        }
    }

    /// A clone that waits asks whether the other one is gone. As long as that lives, wherever it is connected, it is not.
    pub(super) fn is_in_the_way(&self, peer: PeerId, hello: &Hello) -> Option<String> {
        let alive = self.membership.state(peer) != PeerState::Down;
        (hello.standing_ms == 0 && alive).then(|| {
            let older = self.topology.best(peer).and_then(|conn| self.topology.far_end(conn));
            let told = || self.store.host(peer).and_then(|host| host.control_addrs.first().copied());
            in_use(older.map(|(_, remote, _)| remote).or_else(told))
        })
    }

    /// A peer saw another host with the key of this one, and refused it.
    pub(super) fn handle_clone_seen(&mut self, seen: CloneSeen) {
        if self.is_untold(self.me, seen.addr) {
            let text = format!("another host with the key of this one was refused: it runs at {}", seen.addr);
            self.note("clone_seen", text);
        }
        self.seek_the_other(seen.addr);
    }

    /// Another host may have the key of this one, and be at an address.
    pub(super) fn seek_the_other(&mut self, addr: SocketAddr) {
        if !self.config.advertise.contains(&addr) && is_due(&mut self.clones.seek_at, self.now) {
            self.topology.seek_oneself(addr);
        }
    }

    /// What a hello says of the time for which this host has had its identity.
    pub(super) fn standing_for(&mut self, conn: ConnId) -> u64 {
        let standing = self.clones.standing(self.now);
        if self.topology.far_end(conn).is_some_and(|(peer, ..)| peer == self.me) {
            self.clones.greeted.entry(conn).or_insert(standing);
        }
        standing
    }

    /// The far end has the key of this host. Both sides compare the same two hellos, so one of them gives way.
    pub(super) fn meet_oneself(&mut self, conn: ConnId, hello: &Hello) {
        let Some(standing) = self.clones.greeted.get(&conn).copied() else { return };
        if hello.boot_nonce == self.config.boot_nonce {
            return self.topology.met_oneself(conn);
        }
        if (standing, self.config.boot_nonce) > (hello.standing_ms, hello.boot_nonce) {
            self.outlast(conn);
            self.topology.close(conn, &in_use(self.config.advertise.first().copied()));
        } else {
            self.give_way(conn);
        }
    }

    /// A connection to a host with the key of this one ended, and the reason may tell what its hello would have.
    pub(super) fn handle_own_closed(&mut self, conn: ConnId, reason: &str) {
        if reason == ONESELF {
            self.topology.met_oneself(conn);
        } else if is_clone(reason) {
            self.give_way(conn);
        } else if reason == GIVES_WAY {
            self.outlast(conn);
        }
        self.clones.forget(conn);
        self.topology.handle_closed(self.now, conn, reason);
    }

    /// Another host with the key of this one gives way: whoever refused this one because of it will not do so any more.
    fn outlast(&mut self, conn: ConnId) {
        let Some((_, other, _)) = self.topology.far_end(conn) else { return };
        if self.is_untold(self.me, other) {
            let text = format!("another host with the key of this one gives way: it runs at {other}");
            self.note("clone_seen", text);
        }
        self.topology.met_another(self.now, conn, GIVES_WAY);
        if self.clones.oneself.is_none() {
            self.topology.try_refused_again(self.now, is_clone);
        }
    }

    fn give_way(&mut self, conn: ConnId) {
        let Some((_, other, _)) = self.topology.far_end(conn) else { return };
        let reason = in_use(Some(other));
        self.topology.met_another(self.now, conn, &reason);
        self.wait_for_the_other(&reason);
    }

    /// Newcomers whose earlier start did not answer in time take its place.
    pub(super) fn judge_newcomers(&mut self) {
        let waiting: Vec<(ConnId, Duration, bool)> = self
            .clones
            .trials
            .iter()
            .map(|(conn, trial)| (*conn, self.now.saturating_duration_since(trial.since), trial.asked_again))
            .collect();
        for (conn, waited, asked_again) in waiting {
            if waited >= PATIENCE {
                self.take_in(conn);
            } else if waited >= PATIENCE / 2 && !asked_again {
                let asked = self.clones.trials.get_mut(&conn).map(|trial| {
                    trial.asked_again = true;
                    (trial.peer, trial.question)
                });
                asked.into_iter().for_each(|(peer, question)| self.membership.ask(peer, question));
            }
        }
    }

    /// A connection ended: who was to be asked over it is gone, unless there is another one to the same start.
    pub(super) fn forget_trials_of(&mut self, gone: ConnId) {
        self.clones.trials.remove(&gone);
        let mut free = Vec::new();
        for (conn, trial) in self.clones.trials.iter_mut().filter(|(_, trial)| trial.older == gone) {
            match self.topology.earlier_start(trial.peer, trial.hello.boot_nonce) {
                Some(other) => trial.older = other,
                None => free.push(*conn),
            }
        }
        free.into_iter().for_each(|conn| self.take_in(conn));
    }

    fn take_in(&mut self, conn: ConnId) {
        if let Some(Trial { peer, hello, .. }) = self.clones.trials.remove(&conn) {
            self.welcome(conn, peer, &hello);
        }
    }

    /// A peer refused this host because it knows another one with the same key. Who is established does not believe that.
    pub(super) fn become_clone(&mut self, reason: &str) {
        if self.clones.oneself.is_some() || !self.topology.has_stood(self.now, TAKEN_IN) {
            self.wait_for_the_other(reason);
        }
    }

    fn wait_for_the_other(&mut self, reason: &str) {
        let other = reason.strip_prefix(CLONE).unwrap_or(reason);
        if self.clones.oneself.replace((other.to_owned(), self.now)).is_some() {
            return;
        }
        let text = format!(
            "this host is a clone: {other}; it tells nobody anything and gives no addresses while that one runs"
        );
        self.note("clone_seen", text);
        // The far end of a connection to its own key sees by itself what it is.
        let others = |conn: &ConnId| self.topology.far_end(*conn).is_some_and(|(peer, ..)| peer != self.me);
        let conns: Vec<ConnId> = self.budgets.keys().copied().filter(others).collect();
        conns.into_iter().for_each(|conn| self.topology.close(conn, GIVES_WAY));
        self.topology.set_waiting(true);
        self.outbox.set_mute(true);
        self.ipam.refuse_all(self.now, &AllocError::Clone { other: other.to_owned() });
    }

    /// A connection to a peer ended. If that one gives way to another host with its key, the address where it was seen is not
    /// where the peer is.
    pub(super) fn forget_where_it_was(&mut self, peer: PeerId, reason: &str) {
        if reason == GIVES_WAY && self.seen.remove(&peer).is_some() {
            let host = self.store.host(peer).cloned();
            host.into_iter().for_each(|host| self.apply_host(peer, &host));
        }
    }

    /// A host that waits lets nobody in: it asks by itself whether it is wanted, also whoever dialled it, who may be the
    /// only one that it can reach.
    pub(super) fn turns_away(&mut self, conn: ConnId, peer: PeerId, dialled: bool) -> bool {
        let waits = self.clones.oneself.is_some() && peer != self.me && !dialled;
        if waits {
            let far_end = self.topology.far_end(conn);
            self.topology.close(conn, GIVES_WAY);
            if let Some((_, remote, _)) = far_end.filter(|_| is_due(&mut self.clones.ask_at, self.now)) {
                self.topology.ask_back(peer, remote);
            }
        }
        waits
    }

    /// Somebody has taken this host in and nobody refuses it, so the other one with its key is gone.
    pub(super) fn cease_to_be_clone(&mut self) {
        let Some((_, refused)) = &self.clones.oneself else { return };
        let lately = self.now.saturating_duration_since(*refused) < REFUSED_LATELY;
        if lately || !self.topology.has_stood(self.now, TAKEN_IN) {
            return;
        }
        (self.clones.oneself, self.clones.since) = (None, self.now);
        self.topology.set_waiting(false);
        self.outbox.set_mute(false);
        self.note(
            "clone_gone",
            "the other host with the key of this one is gone: this one goes on".to_owned(),
        );
        for peer in self.topology.connected() {
            if let Some(conn) = self.topology.best(peer) {
                self.begin_exchange(conn, peer);
            }
        }
    }

    fn is_untold(&mut self, peer: PeerId, addr: SocketAddr) -> bool {
        if self.clones.told.len() >= REMEMBERED {
            self.clones.told.clear();
        }
        self.clones.told.insert((peer, addr))
    }
}
