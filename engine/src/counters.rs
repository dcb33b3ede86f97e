//! What each worker counted, and every reason for which a frame is dropped.
//!
//! A worker owns its [`Counters`] and is their only writer; anybody may read them. A [`Snapshot`] sums them.
//!
//! # Frames and segments
//! A frame is what one read gave or one write took; a super-frame is one. A *segment* is what a wire would carry of
//! it: a super-frame counts as the segments it is cut into. Frames are joined and cut on their way, segments are
//! conserved ([`Conservation`]): what comes in, and what is made here, goes out or is dropped. So drops are counted in
//! segments.

mod conservation;
pub mod gateway;
mod port;
mod reason;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

pub use conservation::Conservation;
pub use port::{PortCounters, PortTotals};
pub use reason::DropReason;

/// Frames, bytes and batches that went one way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Frames (TAP) or datagrams (underlay). A super-frame counts as one frame.
    pub frames: u64,
    /// Their bytes, without virtio-net, UDP and IP headers of ours.
    pub bytes: u64,
    /// Wake-ups (in) or bursts (out) that carried them.
    pub batches: u64,
    /// What they are on a wire. A super-frame counts as its segments.
    pub segments: u64,
}

/// Four ways a frame can go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Way {
    /// Read from a TAP.
    TapIn,
    /// Written to a TAP.
    TapOut,
    /// Received from the underlay.
    UnderlayIn,
    /// Sent to the underlay.
    UnderlayOut,
}

/// The counters of one worker. One writer, any number of readers; relaxed, so totals may be a moment apart.
#[derive(Debug)]
pub struct Counters {
    cells: CachePadded<[AtomicU64; CELLS]>,
}

const WAYS: usize = 4;
/// Cells of one way.
const WIDTH: usize = 4;
const CUT: usize = WAYS * WIDTH;
const WHOLE: usize = CUT + 1;
const JOINED: usize = WHOLE + 1;
const COPIES: usize = JOINED + 1;
const RECUT: usize = COPIES + 1;
const ANSWERED: usize = RECUT + 1;
const TO_GATEWAY: usize = ANSWERED + 1;
const FROM_GATEWAY: usize = TO_GATEWAY + 1;
const DROPS: usize = FROM_GATEWAY + 1;
const CELLS: usize = DROPS + DropReason::COUNT;

impl Default for Counters {
    fn default() -> Self {
        Counters { cells: CachePadded::new([const { AtomicU64::new(0) }; CELLS]) }
    }
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one batch that went `way`. Its segments are counted on their own.
    pub fn batch(&self, way: Way, frames: u64, bytes: u64) {
        let at = way as usize * WIDTH;
        self.add(at, frames);
        self.add(at + 1, bytes);
        self.add(at + 2, 1);
    }

    /// Counts segments that went `way`.
    pub fn segments(&self, way: Way, segments: u64) {
        self.add(way as usize * WIDTH + 3, segments);
    }

    /// Counts segments that were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, segments: u64) {
        self.add(DROPS + reason as usize, segments);
    }

    /// Counts a segment that came `way` and was dropped before it became a frame.
    pub fn refused(&self, way: Way, reason: DropReason) {
        self.segments(way, 1);
        self.dropped(reason, 1);
    }

    /// Counts what a flood made of `segments`: it went to so many `destinations`, each of which took or dropped it.
    pub fn flooded(&self, segments: u64, destinations: u64) {
        match destinations {
            0 => self.dropped(DropReason::NoReceiver, segments),
            n => self.add(COPIES, segments.wrapping_mul(n - 1)),
        }
    }

    /// Counts a frame of `segments` that was cut into so many `datagrams` instead: the network's MTU leaves less room
    /// than the sender thought.
    pub fn recut(&self, segments: u64, datagrams: u64) {
        self.add(RECUT, datagrams.wrapping_sub(segments));
    }

    /// Counts questions that were answered: the answer goes out in place of what came in.
    pub fn answered(&self, questions: u64) {
        self.add(ANSWERED, questions);
    }

    /// Counts segments that the gateway was given.
    pub fn to_gateway(&self, segments: u64) {
        self.add(TO_GATEWAY, segments);
    }

    /// Counts frames that the gateway has made: each goes out or is dropped.
    pub fn from_gateway(&self, frames: u64) {
        self.add(FROM_GATEWAY, frames);
    }

    /// Counts super-frames that were cut into datagrams.
    pub fn super_frames_cut(&self, frames: u64) {
        self.add(CUT, frames);
    }

    /// Counts super-frames that left whole, for the device on the way to cut.
    pub fn super_frames_whole(&self, frames: u64) {
        self.add(WHOLE, frames);
    }

    /// Counts super-frames that were joined from datagrams.
    pub fn super_frames_joined(&self, frames: u64) {
        self.add(JOINED, frames);
    }

    /// The counters as they stand.
    pub fn snapshot(&self) -> Snapshot {
        let read = |at: usize| self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed));
        let traffic = |way: Way| {
            let at = way as usize * WIDTH;
            Traffic { frames: read(at), bytes: read(at + 1), batches: read(at + 2), segments: read(at + 3) }
        };
        Snapshot {
            tap_in: traffic(Way::TapIn),
            tap_out: traffic(Way::TapOut),
            underlay_in: traffic(Way::UnderlayIn),
            underlay_out: traffic(Way::UnderlayOut),
            super_frames_cut: read(CUT),
            super_frames_whole: read(WHOLE),
            super_frames_joined: read(JOINED),
            copies: read(COPIES),
            recut: read(RECUT),
            answered: read(ANSWERED),
            to_gateway: read(TO_GATEWAY),
            from_gateway: read(FROM_GATEWAY),
            drops: Drops(std::array::from_fn(|reason| read(DROPS + reason))),
        }
    }

    fn add(&self, at: usize, count: u64) {
        add(self.cells.get(at), count);
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(cell: Option<&AtomicU64>, count: u64) {
    if let Some(cell) = cell {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}

/// Counters read at one moment; snapshots of several workers add up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Read from TAPs.
    pub tap_in: Traffic,
    /// Written to TAPs.
    pub tap_out: Traffic,
    /// Received from the underlay.
    pub underlay_in: Traffic,
    /// Sent to the underlay.
    pub underlay_out: Traffic,
    /// Super-frames cut into datagrams.
    pub super_frames_cut: u64,
    /// Super-frames that left whole, for the device on the way to cut.
    pub super_frames_whole: u64,
    /// Super-frames joined from datagrams.
    pub super_frames_joined: u64,
    copies: u64,
    recut: u64,
    answered: u64,
    to_gateway: u64,
    from_gateway: u64,
    drops: Drops,
}

impl Default for Snapshot {
    fn default() -> Self {
        Counters::new().snapshot()
    }
}

impl Snapshot {
    /// How many segments were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.of(reason)
    }

    /// Reasons that were met at least once, with their counts, in the order of [`DropReason::ALL`].
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.drops.met()
    }

    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Snapshot) {
        self.tap_in.merge(other.tap_in);
        self.tap_out.merge(other.tap_out);
        self.underlay_in.merge(other.underlay_in);
        self.underlay_out.merge(other.underlay_out);
        for (sum, count) in [
            (&mut self.super_frames_cut, other.super_frames_cut),
            (&mut self.super_frames_whole, other.super_frames_whole),
            (&mut self.super_frames_joined, other.super_frames_joined),
            (&mut self.copies, other.copies),
            (&mut self.recut, other.recut),
            (&mut self.answered, other.answered),
            (&mut self.to_gateway, other.to_gateway),
            (&mut self.from_gateway, other.from_gateway),
        ] {
            *sum = sum.wrapping_add(count);
        }
        self.drops.merge(&other.drops);
    }
}

/// How many segments were dropped, by reason.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Drops([0; DropReason::COUNT])
    }
}

impl Drops {
    fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// Those that were met with.
    fn met(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let all = DropReason::ALL.iter().zip(&self.0).map(|(&reason, &count)| (reason, count));
        all.filter(|&(_, count)| count > 0)
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, &count| sum.wrapping_add(count))
    }

    fn merge(&mut self, other: &Drops) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum = sum.wrapping_add(*count));
    }
}

impl Traffic {
    /// Frames per batch; none before the first batch.
    pub fn mean_batch(&self) -> Option<f64> {
        (self.batches > 0).then(|| self.frames as f64 / self.batches as f64)
    }

    fn merge(&mut self, other: Traffic) {
        self.frames = self.frames.wrapping_add(other.frames);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.batches = self.batches.wrapping_add(other.batches);
        self.segments = self.segments.wrapping_add(other.segments);
    }
}
