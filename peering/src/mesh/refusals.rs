//! Hosts that are not let in: counted, shown for a while, and never listened to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::types::PeerId;

use super::{DialId, Mesh, TargetState, TargetStatus};
use crate::secret::Refusal;

/// So many of those that dialled this host are shown; anybody may come with ever new keys.
const SHOWN: usize = 16;
/// How long one is shown after it was last refused.
const FOR: Duration = Duration::from_secs(60);

/// The hosts that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: BTreeMap<&'static str, u64>,
    shown: BTreeMap<PeerId, Visitor>,
}

#[derive(Debug)]
struct Visitor {
    remote: SocketAddr,
    reason: String,
    last: Instant,
}

impl Refusals {
    pub(super) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// True for one that is worth a word: not shown yet, and there is room.
    fn show(&mut self, now: Instant, peer: PeerId, remote: SocketAddr, reason: String) -> bool {
        self.shown.retain(|_, visitor| visitor.last + FOR > now);
        let known = self.shown.contains_key(&peer);
        if known || self.shown.len() < SHOWN {
            self.shown.insert(peer, Visitor { remote, reason, last: now });
        }
        !known && self.shown.contains_key(&peer)
    }

    /// It was let in.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.shown.remove(&peer);
    }

    /// How often hosts were refused, by reason.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// For `status`: they try again, this host does not.
    pub(super) fn status(&self, now: Instant) -> impl Iterator<Item = (PeerId, TargetStatus)> {
        let recent = self.shown.iter().filter(move |(_, visitor)| visitor.last + FOR > now);
        recent.map(|(peer, visitor)| {
            let status = TargetStatus {
                target: visitor.remote.to_string(),
                peer_id: Some(peer.to_string()),
                state: TargetState::Refused,
                reason: Some(visitor.reason.clone()),
                next_try_s: None,
            };
            (*peer, status)
        })
    }
}

impl Mesh {
    /// The far end of a connection was not let in, or did not let this host in; `dial` is the attempt, if it was ours.
    pub fn handle_refused(
        &mut self,
        now: Instant,
        peer: PeerId,
        dial: Option<DialId>,
        remote: SocketAddr,
        refusal: Refusal,
    ) {
        if !self.begin(now) {
            return;
        }
        let reason = refusal.to_string();
        self.refusals.count(refusal.name());
        if refusal == Refusal::RetiredHere {
            self.note_left_behind();
        }
        match dial {
            Some(dial) => {
                self.topology.handle_dial_refused(now, dial, peer, &reason);
                self.note_refusal(peer, &reason);
            }
            None => self.note_visitor(peer, remote, &reason),
        }
        self.settle();
    }

    /// A host came and was refused; it is shown, and told of once for as long.
    pub(super) fn note_visitor(&mut self, peer: PeerId, remote: SocketAddr, reason: &str) {
        if self.refusals.show(self.now, peer, remote, reason.to_owned()) {
            self.note("peer_refused", format!("no peering with {peer}, which came from {remote}: {reason}"));
        }
    }
}
