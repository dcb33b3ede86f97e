//! Nothing appears and nothing is lost: the books of a data plane, in segments.

use super::Snapshot;

/// What became of the segments that workers took in.
///
/// Each segment that comes in, from a container or another host, and each one made here, goes out, to a container or
/// another host, or is dropped for a reason:
///
/// > `taken + copies + recut = given + drops`
///
/// - A flood to n receivers makes n - 1 copies of each segment; one to nobody is dropped
///   ([`NoReceiver`](super::DropReason::NoReceiver)).
/// - A frame that its sender cut too large for the network is cut smaller, which makes some more (`recut`).
/// - A question that the switch answers ends here, and its answer goes out in its place: `answered` is a part of
///   `given`, or of the drops when the port does not take it.
///
/// - What the switch tells its ports by itself, that an address has moved, counts as so many copies.
///
/// The books are balanced while workers rest: a segment in hand is in, and not yet out. What the control socket takes
/// in, probes, are no frames and not in the books.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Conservation {
    /// Segments read from containers and received from other hosts.
    pub taken: u64,
    /// Segments added by floods.
    pub copies: u64,
    /// Segments added by cutting smaller than the sender asked.
    pub recut: u64,
    /// Segments written to containers and sent to other hosts.
    pub given: u64,
    /// Segments dropped, for all reasons.
    pub drops: u64,
    /// Questions answered here.
    pub answered: u64,
}

impl Conservation {
    /// How many segments appeared from nowhere (below zero) or were lost without a reason. 0 at rest.
    pub fn difference(&self) -> i64 {
        let born = self.taken.wrapping_add(self.copies).wrapping_add(self.recut);
        born.wrapping_sub(self.given).wrapping_sub(self.drops).cast_signed()
    }
}

impl Snapshot {
    /// The books of the worker, or of the workers together.
    pub fn conservation(&self) -> Conservation {
        Conservation {
            taken: self.tap_in.segments.wrapping_add(self.underlay_in.segments),
            copies: self.copies,
            recut: self.recut,
            given: self.tap_out.segments.wrapping_add(self.underlay_out.segments),
            drops: self.drops.sum(),
            answered: self.answered,
        }
    }
}
