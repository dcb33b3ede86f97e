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
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_is_taken_once_and_within_the_window() {
        let window = Window::default();
        for counter in [0, 5, 3, 100_000, 100_000 - WINDOW, 99_999] {
            assert!(window.test(counter) && window.commit(counter), "{counter}");
            assert!(!window.test(counter) && !window.commit(counter), "{counter} again");
        }
        let news = 100_001..120_000;
        assert!(news.clone().all(|counter| window.commit(counter)));
        assert!(!window.test(100_001) && !window.test(7), "too old");
        assert!(window.commit(119_999 + WINDOW) && !window.test(120_000 - WINDOW / 2 - BLOCK));
        assert!(!window.test(MAX_COUNTER) && !window.commit(u64::MAX));
        assert!(window.commit(MAX_COUNTER - 1));
    }

    #[test]
    fn of_several_threads_one_commits_each_counter() {
        let window = Window::default();
        let committed = || (0..20_000).filter(|counter| window.commit(*counter)).count();
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(committed)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(total <= 20_000, "{total}");
        assert!((20_000 - WINDOW..20_000).all(|counter| !window.test(counter)));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice_and_what_is_new_enough_is_taken(
            steps in prop::collection::vec((0_u64..3 * WINDOW, prop::bool::weighted(0.2)), 1..600),
        ) {
            let window = Window::default();
            let (mut seen, mut base, mut highest) = (BTreeSet::new(), 0, 0);
            for (offset, jump) in steps {
                base += if jump { offset } else { 1 };
                let counter = base.saturating_sub(if jump { 0 } else { offset });
                let fresh = !seen.contains(&counter);
                let near = counter + WINDOW > highest;
                let taken = window.commit(counter);
                prop_assert!(!taken || fresh, "{} twice", counter);
                prop_assert!(taken || !fresh || !near, "{} refused, the highest is {}", counter, highest);
                seen.insert(counter);
                highest = highest.max(counter);
            }
        }
    }
}
