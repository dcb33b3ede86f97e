//! The clock of one host: it began at another moment than the world's, and runs a little fast or slow.

use std::time::{Duration, Instant};

const MILLION: u128 = 1_000_000;

/// What a host sees of time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment of the world, and what this clock showed then.
    world: Instant,
    here: Instant,
    /// Millionths by which it runs, of the world's pace.
    pace: u128,
}

impl Clock {
    /// Shows the world's own time.
    pub fn exact(world: Instant) -> Self {
        Clock { world, here: world, pace: MILLION }
    }

    /// Ahead of the world by `skew`, and faster by `ppm` millionths.
    pub fn new(world: Instant, skew: Duration, ppm: i32) -> Self {
        let pace = MILLION.saturating_add_signed(i128::from(ppm));
        Clock { world, here: world + skew, pace }
    }

    /// What the clock shows at a moment of the world.
    pub fn here(&self, world: Instant) -> Instant {
        let passed = world.saturating_duration_since(self.world).as_nanos();
        self.here + nanos(passed * self.pace / MILLION)
    }

    /// The first moment of the world at which the clock shows `here` or more.
    pub fn world(&self, here: Instant) -> Instant {
        let shown = here.saturating_duration_since(self.here).as_nanos();
        self.world + nanos((shown * MILLION).div_ceil(self.pace))
    }
}

fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).expect("a simulation is no longer than centuries"))
}
