//! What workers tell the control side of sessions and paths, without a lock for frames and without a word twice.
//!
//! One bit for each remote and kind. A worker that sets a bit which was clear wakes the control side; while it stays set, to
//! set it again costs one load. Only where a remote was heard, which keepalives tell, is behind a lock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tables::RemoteIndex;

/// Remotes that have a bit of their own; those beyond share one.
const REMOTES: usize = 1 << 14;
const WORD: usize = u64::BITS as usize;

/// All that is told.
#[derive(Default, Debug)]
pub struct Signals {
    /// There is no session to seal a frame for this remote in.
    pub missing: Bits,
    /// A sealed frame of no session came from the address of this remote.
    pub lost: Bits,
    /// The first frame of a session with this remote was opened.
    pub heard: Bits,
    /// Large datagrams flow to this remote.
    pub bulk: Bits,
    /// The kernel did not take a datagram for this remote, for its length.
    pub too_long: Bits,
    /// The newest keepalive of this remote came from elsewhere than its frames go.
    pub found: Found,
}

/// Where remotes were heard last.
#[derive(Default, Debug)]
pub struct Found(Mutex<BTreeMap<RemoteIndex, SocketAddr>>);

/// A set of remotes.
#[derive(Debug)]
pub struct Bits {
    words: Box<[AtomicU64]>,
    /// Not 0: some bit may be set.
    any: AtomicU64,
}

impl Default for Bits {
    fn default() -> Self {
        Bits { words: (0..REMOTES / WORD).map(|_| AtomicU64::new(0)).collect(), any: AtomicU64::new(0) }
    }
}

impl Bits {
    /// Adds a remote. True: it was not in the set, so whoever takes it must be woken.
    pub fn set(&self, remote: RemoteIndex) -> bool {
        let (word, bit) = (remote.get() % REMOTES / WORD, 1 << (remote.get() % WORD));
        let Some(word) = self.words.get(word) else { return false };
        if word.load(Ordering::Relaxed) & bit != 0 {
            return false;
        }
        let news = word.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        self.any.store(1, Ordering::Release);
        news
    }

    /// True when there may be something to take.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire) != 0
    }

    /// Takes all remotes out.
    pub fn take(&self) -> Vec<RemoteIndex> {
        if self.any.swap(0, Ordering::AcqRel) == 0 {
            return Vec::new();
        }
        let words = self.words.iter().zip((0_u32..).step_by(WORD));
        let taken = words.map(|(word, first)| (word.swap(0, Ordering::AcqRel), first));
        let bits = |(word, first): (u64, u32)| {
            (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| RemoteIndex(first + bit))
        };
        taken.flat_map(bits).collect()
    }
}

impl Found {
    /// Notes where a remote was heard. True: there was no news of it, so whoever takes it must be woken.
    pub fn set(&self, remote: RemoteIndex, from: SocketAddr) -> bool {
        self.lock().insert(remote, from).is_none()
    }

    /// True when there is something to take.
    pub fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Takes all.
    pub fn take(&self) -> BTreeMap<RemoteIndex, SocketAddr> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RemoteIndex, SocketAddr>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_of_a_remote_counts() {
        let (found, addr) = (Found::default(), |last: u8| SocketAddr::from(([192, 0, 2, last], 4789)));
        assert!(!found.any() && found.set(RemoteIndex(3), addr(1)) && found.any());
        assert!(!found.set(RemoteIndex(3), addr(2)));
        assert_eq!(found.take(), BTreeMap::from([(RemoteIndex(3), addr(2))]));
        assert!(found.take().is_empty() && found.set(RemoteIndex(3), addr(2)));
    }

    #[test]
    fn each_is_told_once_until_it_is_taken() {
        let bits = Bits::default();
        assert!(!bits.any() && bits.take().is_empty());
        let remotes = [0, 63, 64, 16_383].map(RemoteIndex);
        for remote in remotes {
            assert!(bits.set(remote) && !bits.set(remote));
        }
        assert!(bits.any() && !bits.set(RemoteIndex(16_384)), "it shares the bit of the first");
        assert_eq!(bits.take(), remotes);
        assert!(!bits.any() && bits.take().is_empty() && bits.set(RemoteIndex(63)));
    }
}
