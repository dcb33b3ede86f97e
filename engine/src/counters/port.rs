//! What one port carried.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::{DropReason, Drops, Traffic, add};

/// Cells of one direction: frames, bytes, batches, segments, super-frames.
const WIDTH: usize = 5;
const OUT: usize = WIDTH;
const DROPS: usize = 2 * WIDTH;
const CELLS: usize = DROPS + DropReason::COUNT;

/// What one worker carried for one port. One writer, any number of readers.
#[derive(Debug)]
pub struct PortCounters {
    cells: CachePadded<[AtomicU64; CELLS]>,
}

/// Frames and drops of one port, seen from its container.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PortTotals {
    /// What the container sent.
    pub sent: Traffic,
    /// Super-frames in it.
    pub super_frames_sent: u64,
    /// What the container was given.
    pub given: Traffic,
    /// Super-frames in it.
    pub super_frames_given: u64,
    drops: Drops,
}

impl Default for PortCounters {
    fn default() -> Self {
        PortCounters { cells: CachePadded::new([const { AtomicU64::new(0) }; CELLS]) }
    }
}

impl PortCounters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a batch that the container sent, with so many super-frames in it.
    pub fn sent(&self, batch: Traffic, super_frames: u64) {
        self.count(0, batch, super_frames);
    }

    /// Counts frames that the container was given, with so many super-frames among them.
    pub fn given(&self, frames: Traffic, super_frames: u64) {
        self.count(OUT, frames, super_frames);
    }

    /// Counts segments that were dropped because of this port: sent by its container, or not taken by its device.
    pub fn dropped(&self, reason: DropReason, segments: u64) {
        add(self.cells.get(DROPS + reason as usize), segments);
    }

    /// Counts a segment that the container sent and that was dropped before it became a frame.
    pub fn refused(&self, reason: DropReason) {
        self.sent(Traffic { segments: 1, ..Traffic::default() }, 0);
        self.dropped(reason, 1);
    }

    /// The counters as they stand.
    pub fn totals(&self) -> PortTotals {
        let read = |at: usize| self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed));
        let traffic = |at: usize| Traffic {
            frames: read(at),
            bytes: read(at + 1),
            batches: read(at + 2),
            segments: read(at + 3),
        };
        PortTotals {
            sent: traffic(0),
            super_frames_sent: read(WIDTH - 1),
            given: traffic(OUT),
            super_frames_given: read(OUT + WIDTH - 1),
            drops: Drops(std::array::from_fn(|reason| read(DROPS + reason))),
        }
    }

    fn count(&self, at: usize, Traffic { frames, bytes, batches, segments }: Traffic, super_frames: u64) {
        let counts = [frames, bytes, batches, segments, super_frames];
        for (cell, count) in self.cells.iter().skip(at).zip(counts) {
            add(Some(cell), count);
        }
    }
}

impl PortTotals {
    /// How many segments were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.of(reason)
    }

    /// Reasons that were met at least once, with their counts, in the order of [`DropReason::ALL`].
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.drops.met()
    }

    /// Adds what another worker carried.
    pub fn merge(&mut self, other: &PortTotals) {
        self.sent.merge(other.sent);
        self.super_frames_sent = self.super_frames_sent.wrapping_add(other.super_frames_sent);
        self.given.merge(other.given);
        self.super_frames_given = self.super_frames_given.wrapping_add(other.super_frames_given);
        self.drops.merge(&other.drops);
    }
}
