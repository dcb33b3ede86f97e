//! Frames on their way between a worker and the gateway: a bounded queue each way, in memory that is there from the start.
//!
//! Buffers go round: who sends takes an empty one, who receives gives it back. So nobody waits for the other, and
//! nothing is allocated for a frame. Most frames for the gateway are small; a few large ones are held, for pings of
//! networks with a large MTU and for TCP super-frames.

use crossbeam_queue::ArrayQueue;

use crate::packet::MAX_READ;
use crate::tables::PortIndex;
use crate::types::{PortId, Vni};

/// Frames that wait in one direction: what comes at 50,000 a second while the other side does not run for 10 ms.
const SMALL: usize = 512;
/// Bytes of a small frame: one of an MTU up to 2000.
const SMALL_LEN: usize = 2018;
/// Large frames that wait in one direction.
const LARGE: usize = 4;

/// A frame under way.
#[derive(Debug)]
pub(in crate::io) struct Parcel {
    pub(in crate::io) label: Label,
    pub(in crate::io) frame: Vec<u8>,
}

/// What is said of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct Label {
    /// The port it comes from, or is for.
    pub(in crate::io) index: PortIndex,
    /// The port as everybody knows it.
    pub(in crate::io) port: PortId,
    /// The network of the port.
    pub(in crate::io) vni: Vni,
    /// Its transport checksum is not complete.
    pub(in crate::io) partial: bool,
}

/// One direction. Any thread may use any end.
#[derive(Debug)]
pub(in crate::io) struct Post {
    under_way: ArrayQueue<Parcel>,
    small: ArrayQueue<Vec<u8>>,
    large: ArrayQueue<Vec<u8>>,
}

impl Post {
    /// Allocates once for all it will ever hold.
    pub(in crate::io) fn new() -> Self {
        let post = Post {
            under_way: ArrayQueue::new(SMALL + LARGE),
            small: ArrayQueue::new(SMALL),
            large: ArrayQueue::new(LARGE),
        };
        for _ in 0..SMALL {
            post.give_back(Vec::with_capacity(SMALL_LEN));
        }
        for _ in 0..LARGE {
            post.give_back(Vec::with_capacity(MAX_READ));
        }
        post
    }

    /// Copies a frame; false when there is no room for it.
    pub(in crate::io) fn send(&self, label: Label, frame: &[u8]) -> bool {
        let free = if frame.len() <= SMALL_LEN { &self.small } else { &self.large };
        let Some(mut buffer) = free.pop() else { return false };
        if frame.len() > buffer.capacity() {
            self.give_back(buffer);
            return false;
        }
        buffer.clear();
        buffer.extend_from_slice(frame);
        // There is room for every buffer.
        self.under_way.push(Parcel { label, frame: buffer }).is_ok()
    }

    /// The next frame. Its buffer is to be [given back](Post::give_back).
    pub(in crate::io) fn take(&self) -> Option<Parcel> {
        self.under_way.pop()
    }

    /// The buffer of a frame can be used again.
    pub(in crate::io) fn give_back(&self, buffer: Vec<u8>) {
        let free = if buffer.capacity() >= MAX_READ { &self.large } else { &self.small };
        // There is room: buffers are made in `new` alone.
        let _ = free.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { index: PortIndex(3), port: PortId([3; 8]), vni: Vni::MESH, partial: true }
    }

    #[test]
    fn buffers_go_round_and_what_is_too_much_is_refused() {
        let post = Post::new();
        for round in 0..3_u8 {
            (0..SMALL).for_each(|_| assert!(post.send(label(), &[round; 60])));
            assert!(!post.send(label(), &[round; 60]));
            (0..LARGE).for_each(|_| assert!(post.send(label(), &[round; 9000])));
            assert!(!post.send(label(), &[round; 9000]));
            let mut taken = 0;
            while let Some(parcel) = post.take() {
                assert!(parcel.frame.iter().all(|&byte| byte == round) && parcel.label.partial);
                taken += 1;
                post.give_back(parcel.frame);
            }
            assert_eq!(taken, SMALL + LARGE);
        }
        assert!(!post.send(label(), &[0; MAX_READ + 1]));
        assert!(post.send(label(), &[0; MAX_READ]), "and its buffer is not lost");
    }
}
