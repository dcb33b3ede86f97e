//! What is held of one peer: the handshake under way, and up to three sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::epoch::Epoch;
use crate::session::handshake::{Pending, Stamp};
use crate::session::mac::{COOKIE_LIFE, Cookie, MAC_LEN, MacKeys};
use crate::session::noise::KEY_LEN;
use crate::session::psk::PskId;
use crate::session::suite::Suite;

/// A host with which there may be sessions.
pub(super) struct Peer {
    pub(super) key: [u8; KEY_LEN],
    pub(super) macs: MacKeys,
    pub(super) suite: Option<Suite>,
    pub(super) addr: Option<SocketAddr>,
    /// The largest that came from it.
    pub(super) stamp: Option<Stamp>,
    pub(super) begun: Option<Begun>,
    pub(super) cookie: Option<(Instant, Cookie)>,
    pub(super) next: Option<Held>,
    pub(super) current: Option<Held>,
    pub(super) previous: Option<Held>,
    pub(super) lower: bool,
}

/// An initiation under way.
pub(super) struct Begun {
    pub(super) pending: Pending,
    pub(super) mac1: [u8; MAC_LEN],
    pub(super) since: Instant,
    pub(super) again: Instant,
    pub(super) gap: Duration,
}

/// A session with it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) epoch: Arc<Epoch>,
    pub(super) since: Instant,
    pub(super) initiator: bool,
    pub(super) psk: PskId,
    /// The start count of the peer.
    pub(super) life: u64,
    /// When a new one is to be begun in its place.
    pub(super) renew_at: Instant,
    /// When it ends.
    pub(super) until: Instant,
}

impl Peer {
    /// Without a session. `lower`: its key is lower than ours.
    pub(super) fn new(key: [u8; KEY_LEN], suite: Option<Suite>, lower: bool) -> Self {
        Peer {
            key,
            macs: MacKeys::of(&key),
            suite,
            addr: None,
            stamp: None,
            begun: None,
            cookie: None,
            next: None,
            current: None,
            previous: None,
            lower,
        }
    }

    /// The cookie that it has given us, while it is good.
    pub(super) fn cookie(&self, now: Instant) -> Option<&Cookie> {
        let (since, cookie) = self.cookie.as_ref()?;
        (now.saturating_duration_since(*since) < COOKIE_LIFE).then_some(cookie)
    }

    /// When there is something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let held = [&self.next, &self.current, &self.previous].into_iter().flatten();
        let ends = held.map(|held| held.until);
        let may_begin = self.begun.is_none() && self.addr.is_some();
        let renews = self.current.iter().filter(|_| may_begin).map(|held| held.renew_at);
        ends.chain(renews).chain(self.begun.iter().map(|begun| begun.again)).min()
    }
}

impl Held {
    /// Whether a new one is to be begun in its place.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.renew_at || self.epoch.is_worn()
    }
}
