//! How much a peer may ask of this host.

use std::time::{Duration, Instant};

/// What may come at once.
const BURST: u64 = 64 << 20;
/// What may come per second in the long run.
const RATE: u64 = 16 << 20;
/// A message costs its bytes and at least this.
const MESSAGE: u64 = 4096;
/// A message that makes this host hash or walk through a range of its store costs this.
const WALK: u64 = 16 << 10;

/// A bucket of bytes, or what costs as much: an honest peer never empties it.
pub(super) struct Budget {
    left: u64,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Budget { left: BURST, filled: now }
    }

    /// Pays for a message of `len` bytes. False: the peer asks too much.
    pub(super) fn pay(&mut self, now: Instant, len: usize) -> bool {
        self.refill(now);
        self.take(MESSAGE.max(u64::try_from(len).unwrap_or(u64::MAX)))
    }

    /// Pays for `len` bytes that a peer asked for. False: they are not sent; the peer may ask again.
    pub(super) fn pay_out(&mut self, len: usize) -> bool {
        self.take(u64::try_from(len).unwrap_or(u64::MAX))
    }

    /// Pays for a walk through a range. False: the walk is not made; the peer may ask again.
    pub(super) fn pay_walk(&mut self) -> bool {
        self.take(WALK)
    }

    fn take(&mut self, price: u64) -> bool {
        let left = self.left.checked_sub(price);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(60));
        let gained = u64::try_from(passed.as_millis()).unwrap_or(0) * RATE / 1000;
        if gained > 0 {
            self.left = (self.left + gained).min(BURST);
            self.filled = now;
        }
    }
}

/// Comparisons per second that this host takes part in at most, and so many at once: a host that a thousand others
/// connect to at the same time leaves most of them to each other.
const REPAIRS: u32 = 40;

/// A bucket of comparisons for all peers together.
pub(super) struct Repairs {
    left: u32,
    filled: Instant,
}

impl Repairs {
    pub(super) fn new(now: Instant) -> Self {
        Repairs { left: REPAIRS, filled: now }
    }

    /// False: not now; the peer tries elsewhere.
    pub(super) fn pay(&mut self, now: Instant) -> bool {
        let period = Duration::from_secs(1) / REPAIRS;
        while self.left < REPAIRS && self.filled + period <= now {
            self.left += 1;
            self.filled += period;
        }
        if self.left == REPAIRS {
            self.filled = now;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}
