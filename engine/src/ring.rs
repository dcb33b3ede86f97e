//! How many frames may wait in the ring of a port, by the size of what passes.
//!
//! The kernel counts frames, and a super-frame counts as much as a datagram of 64 bytes. So the ring follows the mean
//! size: about [`BYTES`] may wait, whatever they come in (docs/decisions/0014-ring-length.md).

use std::time::{Duration, Instant};

/// The fewest frames: with fewer a reader that is late by a millisecond leaves a stream without work.
pub const SHORTEST: u32 = 32;
/// The most frames, and how many before anything has passed.
pub const LONGEST: u32 = 512;
/// Bytes that may wait: at 1 GB/s two milliseconds of delay for whoever comes behind them.
const BYTES: u64 = 2 << 20;
/// A mean is taken over at least so long and so many frames.
const WINDOW: Duration = Duration::from_millis(100);
const FRAMES: u64 = 32;
/// A ring is lengthened at most so often, and for no fewer frames a second: to shorten it again loses what waits.
const GROW_AFTER: Duration = Duration::from_secs(1);
const GROW_FOR: u64 = 10_000;

/// Watches what one worker reads from a port.
#[derive(Clone, Copy, Debug)]
pub struct RingGauge {
    length: u32,
    changed: Instant,
    began: Instant,
    frames: u64,
    bytes: u64,
}

impl RingGauge {
    /// A gauge for a ring of [`LONGEST`] frames.
    pub fn new(now: Instant) -> Self {
        RingGauge { length: LONGEST, changed: now, began: now, frames: 0, bytes: 0 }
    }

    /// Counts a batch. Some: the length that the ring should have from now on.
    pub fn count(&mut self, now: Instant, frames: u64, bytes: u64) -> Option<u32> {
        self.frames += frames;
        self.bytes += bytes;
        let window = now.saturating_duration_since(self.began);
        if self.frames < FRAMES || window < WINDOW {
            return None;
        }
        let wanted = length_for(self.bytes / self.frames);
        let busy = u128::from(self.frames) * 1_000_000 >= u128::from(GROW_FOR) * window.as_micros();
        let may_grow = busy && now.saturating_duration_since(self.changed) >= GROW_AFTER;
        (self.began, self.frames, self.bytes) = (now, 0, 0);
        if wanted == self.length || (wanted > self.length && !may_grow) {
            return None;
        }
        (self.length, self.changed) = (wanted, now);
        Some(wanted)
    }
}

/// A power of two, so that a mean that wavers a little changes nothing.
fn length_for(mean_bytes: u64) -> u32 {
    let frames = u32::try_from(BYTES / mean_bytes.max(1)).unwrap_or(LONGEST);
    let rounded = 1 << frames.max(1).ilog2();
    rounded.clamp(SHORTEST, LONGEST)
}

/// The lengths that the workers of one port want; the shortest holds, for its frames are the largest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingPlan {
    wanted: Vec<u32>,
    length: u32,
    given_up: bool,
}

impl RingPlan {
    /// A port that so many workers read, its ring as long as [`LONGEST`].
    pub fn new(workers: usize) -> Self {
        RingPlan { wanted: vec![LONGEST; workers], length: LONGEST, given_up: false }
    }

    /// A worker wants another length. Some: from what to what the ring should be changed.
    pub fn want(&mut self, worker: usize, length: u32) -> Option<(u32, u32)> {
        *self.wanted.get_mut(worker)? = length;
        let shortest = self.wanted.iter().copied().min()?;
        if self.given_up || shortest == self.length {
            return None;
        }
        Some((std::mem::replace(&mut self.length, shortest), shortest))
    }

    /// The ring had another length than it was left with: somebody chose one, and keeps it.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths told while so many equal frames pass every millisecond.
    fn told(gauge: &mut RingGauge, now: &mut Instant, millis: u64, frames: u64, size: u64) -> Vec<u32> {
        let mut told = Vec::new();
        for _ in 0..millis {
            *now += Duration::from_millis(1);
            told.extend(gauge.count(*now, frames, frames * size));
        }
        told
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> (RingGauge, Instant) {
        let now = Instant::now();
        (RingGauge::new(now), now)
    }

    #[test]
    fn super_frames_shorten_the_ring_and_datagrams_lengthen_it() {
        let (mut gauge, mut now) = start();
        assert_eq!(told(&mut gauge, &mut now, 500, 20, 61_900), [SHORTEST]);
        assert_eq!(told(&mut gauge, &mut now, 2_000, 300, 64), [LONGEST]);
        assert_eq!(told(&mut gauge, &mut now, 500, 20, 9_000), [128]);
    }

    #[test]
    fn chatter_between_streams_changes_nothing() {
        let (mut gauge, mut now) = start();
        assert_eq!(told(&mut gauge, &mut now, 500, 20, 61_900), [SHORTEST]);
        assert_eq!(told(&mut gauge, &mut now, 60_000, 9, 100), []);
        assert_eq!(told(&mut gauge, &mut now, 500, 20, 61_900), []);
    }

    #[test]
    fn a_few_frames_decide_nothing() {
        let (mut gauge, mut now) = start();
        assert_eq!(told(&mut gauge, &mut now, 20, 1, 61_900), []);
    }

    #[test]
    fn a_ring_grows_at_most_once_a_second() {
        let (mut gauge, mut now) = start();
        let changes = (0..50).flat_map(|_| {
            let mut both = told(&mut gauge, &mut now, 100, 20, 61_900);
            both.extend(told(&mut gauge, &mut now, 100, 300, 64));
            both
        });
        let grown = changes.filter(|length| *length == LONGEST).count();
        assert!((8..=10).contains(&grown), "{grown} in ten seconds");
    }

    #[test]
    fn the_shortest_wish_of_all_workers_holds() {
        let mut plan = RingPlan::new(2);
        assert_eq!(plan.want(0, 32), Some((LONGEST, 32)));
        assert_eq!(plan.want(1, 256), None);
        assert_eq!(plan.want(0, LONGEST), Some((32, 256)));
        assert_eq!(plan.want(7, 64), None);
        plan.give_up();
        assert_eq!(plan.want(1, 32), None);
    }
}
