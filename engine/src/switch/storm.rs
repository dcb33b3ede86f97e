//! The limit on floods: a token bucket for each port frames come from.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::Port;

/// Floods per second that one port may start: far above any protocol's need, far below what fills a wire.
pub(super) const FLOODS_PER_SECOND: u32 = 10_000;

/// Floods that may come at once.
pub(super) const BURST: u32 = 2_000;

/// The time that one flooded segment costs.
const COST: Duration = Duration::from_nanos(1_000_000_000 / FLOODS_PER_SECOND as u64);

/// How many ports' buckets are kept; beyond it full buckets are thrown away.
const MAX_BUCKETS: usize = 4096;

/// For each port the moment at which its bucket will be full again.
///
/// A bucket as one instant: each flood moves it by [`COST`], and it may be ahead of `now` by `BURST` floods.
#[derive(Default, Debug)]
pub(super) struct Storm {
    full_at: HashMap<Port, Instant, RandomState>,
}

impl Storm {
    /// Takes a token of `from`'s bucket for each of the segments of a frame; false when there are too few.
    pub(super) fn admits(&mut self, now: Instant, from: Port, segments: u32) -> bool {
        if self.full_at.len() >= MAX_BUCKETS {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let full_at = self.full_at.entry(from).or_insert(now);
        let next = (*full_at).max(now) + COST * segments;
        let admitted = next.saturating_duration_since(now) <= COST * BURST;
        if admitted {
            *full_at = next;
        }
        admitted
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use super::*;
    use crate::tables::PortIndex;

    #[test]
    fn a_burst_then_the_rate_each_port_for_itself() {
        let start = Instant::now();
        let (one, two) = (Port::Tap(PortIndex(1)), Port::Tap(PortIndex(2)));
        let mut storm = Storm::default();
        let passed = (0..3 * BURST).filter(|_| storm.admits(start, one, 1)).count();
        assert_eq!(passed, BURST as usize);
        assert!(storm.admits(start, two, 45) && !storm.admits(start, two, BURST - 44));
        let later = start + Duration::from_millis(10);
        let passed = (0..BURST).filter(|_| storm.admits(later, one, 1)).count();
        assert_eq!(passed, FLOODS_PER_SECOND as usize / 100);
    }
}
