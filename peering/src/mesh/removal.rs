//! Removed hosts: taken out of everything here, and back in when they come back; this host itself too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use engine::types::PeerId;

use super::{LeaveError, Mesh, Output, PeerState};
use crate::gossip::{REVOKED, Record, kind};
use crate::proto::Message;
use crate::records::{Body, Cause, RemovalRecord};

/// The shortest part of a peer id that names a host, in digits.
const MIN_PREFIX: usize = 4;

/// A removal that was asked for, and stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The host.
    pub peer: PeerId,
    /// The name it had for people.
    pub nickname: String,
    /// False when it was removed already.
    pub newly: bool,
}

/// Why a host is not removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// Nobody is called so.
    #[error("no host is called {0}")]
    Unknown(String),
    /// Several are.
    #[error("{name} may be any of {}", ids(.peers))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Whom it may mean, in order.
        peers: Vec<PeerId>,
    },
    /// A host cannot remove itself.
    #[error("{0} is this host itself")]
    Oneself(String),
    /// Only a host that is down goes without force.
    #[error("{0} is alive")]
    Alive(String),
    /// Another host with the key of this one was there before.
    #[error("this host is a clone: {0}")]
    Clone(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl RemoveError {
    /// One word for programs, listed in `docs/cli.md`.
    pub fn code(&self) -> &'static str {
        match self {
            RemoveError::Unknown(_) => "unknown_peer",
            RemoveError::Ambiguous { .. } => "ambiguous_peer",
            RemoveError::Oneself(_) => "peer_is_self",
            RemoveError::Alive(_) => "peer_alive",
            RemoveError::Clone(_) => "clone",
            RemoveError::Stopping => "stopping",
        }
    }
}

impl Mesh {
    /// Removes a host, named by its nickname, its peer id or a part of that from the front. Once removed, it may be
    /// removed again, here or anywhere, without harm. A live host goes only with `force`, and comes back by itself.
    ///
    /// # Errors
    /// Nobody or several are meant, or the host may not be removed; see [`RemoveError`].
    pub fn remove_peer(&mut self, now: Instant, name: &str, force: bool) -> Result<Removed, RemoveError> {
        if !self.begin(now) {
            return Err(RemoveError::Stopping);
        }
        self.refuse_when_clone()?;
        let peer = self.peer_named(name)?;
        let alive = self.membership.state(peer) != PeerState::Down && !self.store.removed(peer);
        if alive && !force {
            return Err(RemoveError::Alive(self.nickname(peer)));
        }
        let nickname = self.removed_name(peer).map_or_else(|| self.nickname(peer), str::to_owned);
        let newly = self.remove(peer, if alive { Cause::Forced } else { Cause::Command });
        self.settle();
        Ok(Removed { peer, nickname, newly })
    }

    /// A clone that waits says nothing, so nobody would hear of it.
    pub(super) fn refuse_when_clone(&self) -> Result<(), RemoveError> {
        self.clones.oneself().map_or(Ok(()), |other| Err(RemoveError::Clone(other.to_owned())))
    }

    /// Writes the removal of a host up to the highest incarnation under which it is known here. False: it stands already.
    pub(super) fn remove(&mut self, peer: PeerId, cause: Cause) -> bool {
        let incarnation = self.store.highest_incarnation(peer);
        let removal = RemovalRecord { peer, incarnation, cause, nickname: self.nickname(peer) };
        let record = self.store.put_removal(&self.config.identity, &removal);
        self.wrote(record.as_slice());
        self.tell_removals();
        record.is_some()
    }

    /// Leaves the cluster for good: a live host takes the address space and tells everybody. With `force` also when nobody can.
    /// The answer is [`Output::Left`](super::Output::Left); afterwards only outputs follow, as after `stop`.
    pub fn reset(&mut self, now: Instant, force: bool) {
        if !self.begin(now) {
            return self.outbox.push(Output::Left { result: Err(LeaveError::Stopping) });
        }
        // What a clone has belongs to the other host with its key.
        let others = self.clones.oneself().is_none() && self.store.members().any(|peer| peer != self.me);
        self.leaving = Some(force);
        if others && self.ipam.cluster().is_some() {
            self.ipam.leave(now);
        } else {
            self.finish_leaving();
        }
        self.settle();
    }

    fn finish_leaving(&mut self) {
        if self.leaving.take().is_some() {
            self.stop(self.now);
            self.outbox.push(Output::Left { result: Ok(()) });
        }
    }

    /// Nobody takes the address space of this host.
    pub(super) fn cannot_leave(&mut self) {
        if self.leaving == Some(true) {
            return self.finish_leaving();
        }
        self.leaving = None;
        self.outbox.push(Output::Left { result: Err(LeaveError::NobodyTakes) });
    }

    /// A host leaves and asks this one to take its address space; it waits for its removal.
    pub(super) fn let_leave(&mut self, peer: PeerId) {
        let conn = self.topology.best(peer);
        if !self.store.removed(peer) {
            self.remove(peer, Cause::Reset);
        }
        if let (Some(conn), Some(removal)) = (conn, self.store.removal(peer).cloned()) {
            self.transmit_all(conn, Message::records(&[removal]));
        }
    }

    pub(super) fn peer_named(&self, name: &str) -> Result<PeerId, RemoveError> {
        let found = self.peers_named(name);
        match Vec::from_iter(found).as_slice() {
            [] => Err(RemoveError::Unknown(name.to_owned())),
            [peer] if *peer == self.me => Err(RemoveError::Oneself(name.to_owned())),
            [peer] => Ok(*peer),
            several => Err(RemoveError::Ambiguous { name: name.to_owned(), peers: several.to_vec() }),
        }
    }

    /// Members go before removed hosts, and nicknames before parts of ids.
    fn peers_named(&self, name: &str) -> BTreeSet<PeerId> {
        let members = self.store.hosts().filter(|(_, host)| host.nickname == name).map(|(peer, _)| peer);
        let removed = || self.store.removals().filter(|peer| self.removed_name(*peer) == Some(name));
        let known =
            || self.store.members().chain(self.store.removals()).chain(self.membership.states().into_keys());
        let is_part = |id: String| name.len() >= MIN_PREFIX && id.starts_with(&name.to_ascii_lowercase());
        let by_id = || known().filter(|peer| is_part(peer.to_string()));
        [members.collect(), removed().collect(), by_id().collect()]
            .into_iter()
            .find(|found: &BTreeSet<PeerId>| !found.is_empty())
            .unwrap_or_default()
    }

    pub(super) fn removed_name(&self, peer: PeerId) -> Option<&str> {
        match self.store.removal(peer)?.body() {
            Body::Removal(removal) => Some(&removal.nickname),
            _ => None,
        }
    }

    /// Takes what died by a removal or a floor out of the view and the addresses.
    pub(super) fn bury(&mut self) {
        for record in self.store.take_dropped() {
            let peer = record.signer();
            if record.deleted() || self.store.get(record.slot()).is_some() {
                continue;
            }
            match record.kind() {
                kind::ENDPOINT if self.store.removed(peer) => self.bury_endpoint(peer, record.key()),
                kind::ENDPOINT => self.apply_no_endpoint(peer, record.key()),
                kind::NAME => self.apply_no_name(peer, record.key()),
                kind::HOST => {
                    self.networks.set_listed(peer, None);
                    self.view.hide_host(peer);
                }
                kind::NETWORK => self.note_network(record.key()),
                _ => {}
            }
            if record.kind() == kind::HOST && self.store.removed(peer) {
                self.note_removal(peer, &record);
            }
        }
    }

    fn note_removal(&mut self, peer: PeerId, host: &Record) {
        let (Some(removal), Body::Host(host)) = (self.store.removal(peer).cloned(), host.body()) else {
            return;
        };
        let cause = if let Body::Removal(removal) = removal.body() { removal.cause.words() } else { "" };
        let by = self.nickname(removal.signer());
        self.note("host_removed", format!("host {} ({peer}) was removed by {by}, {cause}", host.nickname));
    }

    /// A removal is the newest of its host.
    pub(super) fn apply_removal(&mut self, record: &Arc<Record>) {
        let Some((peer, upto)) = record.removes() else { return };
        if upto == REVOKED {
            self.apply_revocation(peer, record.signer());
        }
        if peer == self.me || !self.store.removed(peer) {
            return;
        }
        self.view.hide_host(peer);
        self.topology.forget_peer(peer);
        self.membership.forget(self.now, peer);
        self.seen.remove(&peer);
        self.states.remove(&peer);
        // Whom this one was to take the units of may need another to do it now.
        self.buried.extend(self.store.removals());
    }

    /// True for the first host record of a host after its removal.
    pub(super) fn is_return(&self, record: &Record, previous: Option<&Record>) -> bool {
        record.kind() == kind::HOST && previous.is_none() && self.store.removal(record.signer()).is_some()
    }

    /// Tells the addresses who was removed. Not at once: records come in no order, and a removal of long ago must not
    /// count against the host that came back since.
    pub(super) fn tell_removals(&mut self) {
        for peer in std::mem::take(&mut self.buried) {
            if let Some(taker) = self.taker(peer).filter(|_| self.store.removed(peer)) {
                self.ipam.set_removed(self.now, peer, taker);
            }
        }
    }

    /// Who takes the units of a removed host: the writer of its removal, or if that one was removed too whoever takes its
    /// units; the lowest member when that leads to nobody.
    fn taker(&self, peer: PeerId) -> Option<PeerId> {
        let mut seen = BTreeSet::from([peer]);
        let mut taker = self.store.removal(peer)?.signer();
        while self.store.removed(taker) && seen.insert(taker) {
            taker = self.store.removal(taker)?.signer();
        }
        if self.store.removed(taker) { self.store.members().min() } else { Some(taker) }
    }

    /// If this host was removed while it was away, it starts over: only what it owns stays, above the removal, and
    /// everything else is pulled again.
    pub(super) fn come_back(&mut self) {
        if !self.store.is_removed_itself() {
            return;
        }
        if self.leaving.is_some() {
            // That was the wish: whoever wrote it has taken the address space.
            return self.finish_leaving();
        }
        let Some(by) = self.store.removal(self.me).map(|removal| removal.signer()) else { return };
        let by_name = self.nickname(by);
        let records = self.store.come_back(&self.config.identity);
        self.bury();
        let incarnation = self.store.incarnation();
        let text =
            format!("this host was removed by {by_name}; it comes back under incarnation {incarnation}");
        self.note("removed_itself", text);
        self.membership.raise(self.now, super::bump(incarnation));
        self.ipam.set_removed(self.now, self.me, by);
        self.wrote(&records);
        for peer in self.topology.connected() {
            if let Some(conn) = self.topology.best(peer) {
                self.summarise(conn);
            }
        }
    }
}

fn ids(peers: &[PeerId]) -> String {
    peers.iter().map(PeerId::to_string).collect::<Vec<_>>().join(", ")
}
