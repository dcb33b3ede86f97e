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
const REPAIRS: u64 = 40;

/// Bytes per second that this host sends in repair to all peers together, and so many at once: a quarter of a card of
/// 100 Mbit/s. What everybody wants from the one host that everybody was told would else fill its card for many
/// seconds, and nobody would hear in time that it lives.
const REPAIR_BYTES: u64 = 3 << 20;

/// What repair may cost with all peers together: comparisons, and the bytes they lead to.
pub(super) struct Repairs {
    comparisons: Bucket,
    bytes: Bucket,
}

impl Repairs {
    pub(super) fn new(now: Instant) -> Self {
        Repairs { comparisons: Bucket::new(now, REPAIRS), bytes: Bucket::new(now, REPAIR_BYTES) }
    }

    /// Pays for a comparison. False: not now; the peer tries elsewhere. Half of the bytes are kept for those that are under way.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.bytes.refill(now);
        self.comparisons.refill(now);
        self.bytes.left >= REPAIR_BYTES / 2 && self.comparisons.take(1)
    }

    /// Pays for `len` bytes to be sent. False: they are not; the next comparison finds them missing.
    pub(super) fn pay_out(&mut self, now: Instant, len: usize) -> bool {
        self.bytes.refill(now);
        self.bytes.take(u64::try_from(len).unwrap_or(u64::MAX))
    }
}

/// Fills within a second, and holds what a second brings.
struct Bucket {
    left: u64,
    rate: u64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant, rate: u64) -> Self {
        Bucket { left: rate, rate, filled: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let gained = self.rate * u64::try_from(passed.as_micros()).unwrap_or(0) / 1_000_000;
        // Less than one is left to grow.
        if gained > 0 {
            self.left = (self.left + gained).min(self.rate);
            self.filled = now;
        }
    }

    fn take(&mut self, price: u64) -> bool {
        let left = self.left.checked_sub(price);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_costs_no_more_than_its_rate_and_starts_nothing_it_could_not_finish() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let begin = Instant::now();
        let mut repairs = Repairs::new(begin);
        let (mut now, mut sent, mut comparisons) = (begin, 0, 0);
        while now < begin + Duration::from_secs(10) {
            while repairs.begin(now) {
                comparisons += 1;
            }
            while repairs.pay_out(now, 10_000) {
                sent += 10_000;
            }
            now += Duration::from_millis(7);
        }
        assert!((10 * REPAIR_BYTES..=11 * REPAIR_BYTES).contains(&sent), "{sent}");
        assert_eq!(comparisons, REPAIRS, "all is sent, so nothing more begins");
        now += Duration::from_secs(1);
        assert!(repairs.begin(now));
        assert!((1..).take_while(|_| repairs.begin(now)).count() < 40);
    }
}
