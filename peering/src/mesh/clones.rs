//! Two hosts with one key: the one that was there first keeps the identity.
//!
//! A host that says hello under another boot nonce than one that is connected is that host after a restart, or a clone of
//! it. Whoever answers on the older connection lives, and the newcomer is refused; silence means a restart. A host that is
//! refused so, and has no connection that stood for a while, lets go of all others and gives no addresses, until somebody
//! takes it in: then the other one is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::{ConnId, Mesh, Output};
use crate::proto::{CloneSeen, Hello, Message};

/// The host of the older connection must answer within this; it is asked twice.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that stands so long was not refused by the other side.
const TAKEN_IN: Duration = Duration::from_secs(3);
/// How the reason for refusing a clone begins.
const CLONE: &str = "clone: ";
/// Clones that are remembered, so that each is told once.
const REMEMBERED: usize = 1024;

/// What is known of hosts that run twice.
#[derive(Default)]
pub(super) struct Clones {
    trials: BTreeMap<ConnId, Trial>,
    told: BTreeSet<(PeerId, SocketAddr)>,
    /// This host is the clone; why.
    oneself: Option<String>,
}

/// A newcomer of whom it is not known whether it is a clone.
struct Trial {
    peer: PeerId,
    older: ConnId,
    hello: Hello,
    since: Instant,
    asked_again: bool,
}

impl Clones {
    /// When [`Mesh::judge_newcomers`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |trial: &Trial| trial.since + if trial.asked_again { PATIENCE } else { PATIENCE / 2 };
        self.trials.values().map(due).min()
    }

    /// Why this host takes itself for a clone, if it does.
    pub(super) fn oneself(&self) -> Option<&str> {
        self.oneself.as_deref()
    }
}

/// True for the words with which a clone is refused.
pub(super) fn is_clone(reason: &str) -> bool {
    reason.starts_with(CLONE)
}

impl Mesh {
    /// A host said hello. False: it has to wait until an earlier start of it was asked whether it lives.
    pub(super) fn is_the_only_one(&mut self, conn: ConnId, peer: PeerId, hello: &Hello) -> bool {
        let Some(older) = self.topology.earlier_start(peer, hello.boot_nonce) else { return true };
        let (hello, since) = (hello.clone(), self.now);
        let known = self.clones.trials.get(&conn).map(|trial| (trial.since, trial.asked_again));
        let (since, asked_again) = known.unwrap_or((since, false));
        self.clones.trials.insert(conn, Trial { peer, older, hello, since, asked_again });
        if known.is_none() {
            self.membership.ask(peer);
        }
        false
    }

    /// An answer came on a connection: newcomers that would replace it are clones.
    pub(super) fn refuse_clones_of(&mut self, older: ConnId) {
        let refused: Vec<ConnId> = self
            .clones
            .trials
            .iter()
            .filter(|(_, trial)| trial.older == older)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in refused {
            self.clones.trials.remove(&conn);
            let ends = self.topology.far_end(conn).zip(self.topology.far_end(older));
            let Some(((peer, new, _), (_, old, _))) = ends else { continue };
            self.budgets.remove(&conn);
            self.topology.close(conn, &format!("{CLONE}this identity is in use by the host at {old}"));
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

    /// A peer saw another host with the key of this one, and refused it.
    pub(super) fn handle_clone_seen(&mut self, seen: CloneSeen) {
        if self.is_untold(self.me, seen.addr) {
            let text = format!("another host with the key of this one was refused: it runs at {}", seen.addr);
            self.note("clone_seen", text);
        }
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
                let peer = self.clones.trials.get_mut(&conn).map(|trial| {
                    trial.asked_again = true;
                    trial.peer
                });
                peer.into_iter().for_each(|peer| self.membership.ask(peer));
            }
        }
    }

    /// A connection ended: who was to be asked over it is gone.
    pub(super) fn forget_trials_of(&mut self, gone: ConnId) {
        self.clones.trials.remove(&gone);
        let free: Vec<ConnId> = self
            .clones
            .trials
            .iter()
            .filter(|(_, trial)| trial.older == gone)
            .map(|(conn, _)| *conn)
            .collect();
        free.into_iter().for_each(|conn| self.take_in(conn));
    }

    fn take_in(&mut self, conn: ConnId) {
        if let Some(Trial { peer, hello, .. }) = self.clones.trials.remove(&conn) {
            self.welcome(conn, peer, &hello);
        }
    }

    /// A peer refused this host because it knows another one with the same key. Who is established does not believe that.
    pub(super) fn become_clone(&mut self, reason: &str) {
        if self.clones.oneself.is_some() || self.topology.has_stood(self.now, TAKEN_IN) {
            return;
        }
        let other = reason.strip_prefix(CLONE).unwrap_or(reason);
        let text = format!(
            "this host is a clone: {other}; it writes nothing and gives no addresses while that one runs"
        );
        self.clones.oneself = Some(other.to_owned());
        self.note("clone_seen", text);
        let conns: Vec<ConnId> = self.budgets.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.topology.close(conn, "the host there is a clone"));
    }

    /// Somebody has taken this host in, so the other one with its key is gone.
    pub(super) fn cease_to_be_clone(&mut self) {
        if self.clones.oneself.is_none() || !self.topology.has_stood(self.now, TAKEN_IN) {
            return;
        }
        self.clones.oneself = None;
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
