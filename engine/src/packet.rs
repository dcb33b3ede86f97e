//! A batch: the frames of one wake-up in one arena, each known by its range.
//!
//! The arena is allocated once. A read goes straight into [`Batch::room`], [`Batch::commit`] checks what came,
//! and nothing is moved afterwards: cutting and local delivery take ranges of the arena.

use std::ops::Range;

use crate::counters::DropReason;
use crate::wire::virtio::{self, VnetHeader};

/// The largest read from a TAP in bytes: virtio-net header, Ethernet header, two tags, 65,535 bytes of IP,
/// rounded up to whole cache lines.
pub const MAX_READ: usize = 65_600;

/// How many super-frames fit: 8 reads of 64 KiB stay within the second-level cache of current processors.
const LARGE_FRAMES: usize = 8;

/// How many frames a batch holds at most.
pub const MAX_FRAMES: usize = 64;

/// Reads start at multiples of this, in bytes: a cache line.
const ALIGN: usize = 64;

/// A frame of a batch, without its virtio-net header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// What the kernel said of it; checked against the length of the frame.
    pub vnet: VnetHeader,
    /// Where the frame starts in the arena.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
}

impl Slot {
    /// The frame's place in the arena.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The frame, given the arena it lies in.
    pub fn frame<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        arena.get(self.range()).unwrap_or_default()
    }
}

/// The frames of one wake-up.
#[derive(Debug)]
pub struct Batch {
    arena: Box<[u8]>,
    slots: Vec<Slot>,
    next: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch. Allocates the arena; nothing else here allocates.
    pub fn new() -> Self {
        let arena = vec![0; LARGE_FRAMES * MAX_READ].into_boxed_slice();
        Batch { arena, slots: Vec::with_capacity(MAX_FRAMES), next: 0 }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.next = 0;
    }

    /// True when another read of the largest size has no room: forward what is here first.
    pub fn is_full(&self) -> bool {
        self.slots.len() == MAX_FRAMES || self.arena.len() - self.next < MAX_READ
    }

    /// Where the next read goes: [`MAX_READ`] bytes, none when the batch is full.
    pub fn room(&mut self) -> &mut [u8] {
        if self.is_full() {
            return &mut [];
        }
        self.arena.get_mut(self.next..self.next + MAX_READ).unwrap_or_default()
    }

    /// Takes the `len` bytes that were read into [`Batch::room`]: a virtio-net header and a frame.
    ///
    /// # Errors
    /// As [`VnetHeader::parse`]; [`DropReason::TruncatedReceive`] when `len` is more than the room there was.
    /// The batch is then as before, and the room is used again.
    pub fn commit(&mut self, len: usize) -> Result<(), DropReason> {
        if self.is_full() || len > MAX_READ {
            return Err(DropReason::TruncatedReceive);
        }
        let read = self.arena.get(self.next..self.next + len).unwrap_or_default();
        let vnet = VnetHeader::parse(read)?;
        let end = self.next + len;
        self.slots.push(Slot { vnet, start: (self.next + virtio::LEN) as u32, end: end as u32 });
        self.next = end.next_multiple_of(ALIGN).min(self.arena.len());
        Ok(())
    }

    /// The frames, in the order they were read.
    pub fn frames(&self) -> &[Slot] {
        &self.slots
    }

    /// The bytes the frames' ranges point into.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(batch: &mut Batch, len: usize, fill: u8) -> Result<(), DropReason> {
        let room = batch.room();
        room[..virtio::LEN].fill(0);
        room[virtio::LEN..len].fill(fill);
        batch.commit(len)
    }

    #[test]
    fn small_frames_are_bounded_by_their_number() {
        let mut batch = Batch::new();
        for i in 0..MAX_FRAMES {
            assert!(!batch.is_full());
            read(&mut batch, 70, i as u8).unwrap();
        }
        assert!(batch.is_full() && batch.room().is_empty());
        assert_eq!(batch.commit(70), Err(DropReason::TruncatedReceive));
        let slot = batch.frames()[5];
        assert_eq!(slot.frame(batch.arena()), [5; 60]);
        batch.clear();
        assert!(batch.frames().is_empty() && !batch.is_full());
    }

    #[test]
    fn large_frames_are_bounded_by_the_arena() {
        let mut batch = Batch::new();
        while !batch.is_full() {
            read(&mut batch, MAX_READ, 1).unwrap();
        }
        assert_eq!(batch.frames().len(), LARGE_FRAMES);
    }

    #[test]
    fn a_refused_read_leaves_no_trace() {
        let mut batch = Batch::new();
        assert_eq!(read(&mut batch, 23, 1), Err(DropReason::Runt));
        assert!(batch.frames().is_empty());
        read(&mut batch, 24, 7).unwrap();
        assert_eq!(batch.frames()[0].frame(batch.arena()), [7; 14]);
    }
}
