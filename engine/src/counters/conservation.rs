//! Nothing appears and nothing is lost: the books of a data plane, in segments.

use super::Snapshot;

/// What became of the segments that workers took in.
///
/// Each segment that comes in, from a container or another host, and each one made here, goes out, to a container or
/// another host, or is dropped for a reason:
///
/// > `taken + copies + recut + from_gateway = given + drops + to_gateway`
///
/// - A flood to n receivers makes n - 1 copies of each segment; one to nobody is dropped
///   ([`NoReceiver`](super::DropReason::NoReceiver)).
/// - A frame that its sender cut too large for the network is cut smaller, which makes some more (`recut`).
/// - A question that the switch answers ends here, and its answer goes out in its place: `answered` is a part of
///   `given`, or of the drops when the port does not take it.
/// - What the gateway is given ends there (`to_gateway`), and what it makes begins there (`from_gateway`): it answers in
///   its own time, with as many frames as it takes.
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
    /// Segments given to the gateway, where they end.
    pub to_gateway: u64,
    /// Frames that the gateway has made.
    pub from_gateway: u64,
}

impl Conservation {
    /// How many segments appeared from nowhere (below zero) or were lost without a reason. 0 at rest.
    pub fn difference(&self) -> i64 {
        let born = [self.taken, self.copies, self.recut, self.from_gateway];
        let ended = [self.given, self.drops, self.to_gateway];
        let sum = |terms: &[u64]| terms.iter().fold(0_u64, |sum, &term| sum.wrapping_add(term));
        sum(&born).wrapping_sub(sum(&ended)).cast_signed()
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
            to_gateway: self.to_gateway,
            from_gateway: self.from_gateway,
        }
    }
}
