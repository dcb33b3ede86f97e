//! Which counters of a lane were seen.
//!
//! A lane's datagrams may reach any worker, so all of them share its window and none waits: the window is a ring of words,
//! each with the number of a block of 32 counters and a bit for each of them. A newer block takes the place of an older one
//! and never the other way round, so a counter that was committed is refused for ever: by its bit, or as too old. (The sliding
//! window of RFC 6479 needs its clearing and its test to be one step.)

use std::sync::atomic::{AtomicU64, Ordering};

/// So far behind the newest counter a frame may come, in frames.
pub const WINDOW: u64 = 8192;
/// Counters from here on are refused. Blocks are numbered with 32 bits; in the three minutes that a session lives, more would
/// take 700 million frames a second.
pub const MAX_COUNTER: u64 = BLOCK << 32;
/// Counters of one word.
const BLOCK: u64 = 32;
/// One block more than the window: the newest may have just begun.
const BLOCKS: usize = (WINDOW / BLOCK) as usize + 1;

/// The window of one lane. A counter is tested before its frame is opened, and committed after.
#[derive(Debug)]
pub struct Window {
    blocks: Box<[AtomicU64; BLOCKS]>,
}

impl Default for Window {
    fn default() -> Self {
        Window { blocks: Box::new([const { AtomicU64::new(0) }; BLOCKS]) }
    }
}

impl Window {
    /// False: the counter was committed, or is too old or too high, and the frame need not be opened.
    pub fn test(&self, counter: u64) -> bool {
        self.place(counter).is_some_and(|(word, mark)| mark.on(word.load(Ordering::Relaxed)).is_some())
    }

    /// Remembers the counter of a frame that was opened. False: another worker has just opened the same one.
    pub fn commit(&self, counter: u64) -> bool {
        let Some((word, mark)) = self.place(counter) else { return false };
        word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| mark.on(held)).is_ok()
    }

    fn place(&self, counter: u64) -> Option<(&AtomicU64, Mark)> {
        let block = counter / BLOCK;
        let word = self.blocks.get((block % BLOCKS as u64) as usize)?;
        (counter < MAX_COUNTER).then_some((word, Mark { block, bit: 1 << (counter % BLOCK) }))
    }
}

/// A counter, as it stands in its word.
#[derive(Clone, Copy)]
struct Mark {
    block: u64,
    bit: u64,
}

impl Mark {
    /// The word with the mark; none if it has it, or holds a newer block.
    fn on(self, held: u64) -> Option<u64> {
        let (block, bits) = (held >> 32, held & u64::from(u32::MAX));
        match self.block.cmp(&block) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal if bits & self.bit != 0 => None,
            std::cmp::Ordering::Equal => Some(held | self.bit),
            std::cmp::Ordering::Greater => Some(self.block << 32 | self.bit),
        }
    }
}

#[cfg(test)]
mod tests;
