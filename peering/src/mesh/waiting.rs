//! Messages for peers to which a connection is being opened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::types::PeerId;

/// A message waits so long; whoever sent it sends it again.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many for one peer, and so many peers.
const MESSAGES: usize = 8;
const PEERS: usize = 256;

/// What waits, by peer.
#[derive(Default)]
pub(super) struct Waiting {
    messages: BTreeMap<PeerId, Vec<(Instant, Vec<u8>)>>,
}

impl Waiting {
    /// Keeps a message, unless too many wait.
    pub(super) fn keep(&mut self, now: Instant, peer: PeerId, bytes: Vec<u8>) {
        if self.messages.len() >= PEERS && !self.messages.contains_key(&peer) {
            return;
        }
        let queue = self.messages.entry(peer).or_default();
        if queue.len() < MESSAGES {
            queue.push((now, bytes));
        }
    }

    /// Takes what waits for a peer.
    pub(super) fn take(&mut self, peer: PeerId) -> Vec<Vec<u8>> {
        let queue = self.messages.remove(&peer).unwrap_or_default();
        queue.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Drops what waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.messages.retain(|_, queue| {
            queue.retain(|(since, _)| now.saturating_duration_since(*since) < PATIENCE);
            !queue.is_empty()
        });
    }
}
