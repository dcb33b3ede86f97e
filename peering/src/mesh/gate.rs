//! Hosts that are not talked to, whatever they proved: revoked ones, those that people did not allow, and those that were left
//! behind with a secret of before.

use std::net::SocketAddr;
use std::time::Instant;

use engine::types::PeerId;

use super::removal::{RemoveError, Removed};
use super::{ConnId, DialId, Mesh};
use crate::gossip::REVOKED;
use crate::records::{Cause, RemovalRecord};

/// How the reasons begin, and the word of each for programs.
const BARS: [(&str, &str); 3] =
    [("revoked: ", "revoked"), ("not allowed: ", "not_allowed"), ("retired secret: ", "retired_secret")];

/// The word for a reason with which a host is kept out, if it is one.
pub(super) fn bar_of(reason: &str) -> Option<&'static str> {
    BARS.iter().find(|(start, _)| reason.starts_with(start)).map(|(_, word)| *word)
}

impl Mesh {
    /// Cuts a host off for good, named as for [`Self::remove_peer`], or by a whole peer id that nobody has met yet. Nobody talks
    /// to it again, and everything that it owns is dead, whatever it wrote or writes.
    ///
    /// # Errors
    /// Nobody or several are meant, or this host itself is.
    pub fn revoke_peer(&mut self, now: Instant, name: &str) -> Result<Removed, RemoveError> {
        if !self.begin(now) {
            return Err(RemoveError::Stopping);
        }
        self.refuse_when_clone()?;
        let peer = match (self.peer_named(name), name.parse()) {
            (Err(RemoveError::Unknown(_)), Ok(peer)) => peer,
            (named, _) => named?,
        };
        let nickname = self.removed_name(peer).map_or_else(|| self.nickname(peer), str::to_owned);
        let removal =
            RemovalRecord { peer, incarnation: REVOKED, cause: Cause::Revoked, nickname: nickname.clone() };
        let record = self.store.put_removal(&self.config.identity, &removal);
        self.wrote(record.as_slice());
        self.tell_removals();
        self.settle();
        Ok(Removed { peer, nickname, newly: record.is_some() })
    }

    /// Why a host is not talked to, if it is not.
    pub(super) fn barred(&self, peer: PeerId) -> Option<String> {
        if peer == self.me {
            return None;
        }
        if self.store.revoked(peer) {
            return Some(format!("revoked: host {peer} was cut off for good"));
        }
        let allowed = self.config.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer));
        (!allowed).then(|| format!("not allowed: host {} does not have {peer} in --allow-peers", self.me))
    }

    /// Ends a new connection before anything was said on it.
    pub(super) fn turn_away(
        &mut self,
        conn: ConnId,
        (peer, remote): (PeerId, SocketAddr),
        dial: Option<DialId>,
        reason: &str,
    ) {
        self.topology.refuse(self.now, conn, reason);
        self.count_bar(reason);
        if dial.is_some() {
            self.note_refusal(peer, reason);
        } else {
            self.note_visitor(peer, remote, reason);
        }
    }

    /// A host was kept out, here or there.
    pub(super) fn count_bar(&mut self, reason: &str) {
        if let Some(word) = bar_of(reason) {
            self.refusals.count(word);
        }
    }

    /// A host was revoked: its connections end, and if it is this one, people are told.
    pub(super) fn apply_revocation(&mut self, peer: PeerId, by: PeerId) {
        if peer == self.me {
            let by = self.nickname(by);
            let text = format!(
                "this host was revoked by {by}: no host talks to it any more; `meshnet reset --force` makes it a new one"
            );
            return self.note("revoked_itself", text);
        }
        if let Some(reason) = self.barred(peer) {
            self.cut(peer, &reason);
        }
    }

    /// Ends all connections with a peer.
    pub(super) fn cut(&mut self, peer: PeerId, reason: &str) {
        for conn in self.topology.connections_to(peer) {
            self.budgets.remove(&conn);
            self.topology.refuse(self.now, conn, reason);
        }
    }
}
