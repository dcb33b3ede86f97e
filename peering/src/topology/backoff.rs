//! How long to wait before the next attempt.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The first retry comes within this.
pub(super) const FIRST: Duration = Duration::from_millis(100);

/// No retry waits longer, so that the sides of a healed partition meet within ten seconds.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// A host that is connected to nobody waits no longer: when everybody is told the same host and starts at once, that one
/// has no room for most at first, and whoever tried in vain for a while would sit out the longest wait when there is.
pub(super) const ALONE: Duration = Duration::from_secs(1);

/// A peer that refused to talk, or was refused, will hardly change its mind soon.
pub(super) const REFUSED: Duration = Duration::from_secs(30);

/// Doubles from [`FIRST`] to [`LONGEST`], each time shortened by up to a half at random.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        self.next_within(LONGEST, rng)
    }

    /// The same, but at most `longest`.
    pub(super) fn next_within(&mut self, longest: Duration, rng: &mut impl Rng) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Nothing failed since it last worked.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        assert!(backoff.next(&mut rng) <= FIRST);
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next(&mut rng)).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[39] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}
