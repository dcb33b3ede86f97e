//! Small numbers for things that come and go.

use std::collections::BTreeMap;

/// Gives each key a number, as low as possible. The number of a released key rests for two [`Slots::rest`] calls
/// before another key may get it, so that nothing learned in between can point at the wrong thing.
#[derive(Debug)]
pub(super) struct Slots<K> {
    keys: Vec<Option<K>>,
    by_key: BTreeMap<K, u32>,
    free: Vec<u32>,
    resting: Vec<u32>,
    released: Vec<u32>,
}

impl<K: Ord + Copy> Slots<K> {
    pub(super) fn new() -> Self {
        Slots { keys: vec![], by_key: BTreeMap::new(), free: vec![], resting: vec![], released: vec![] }
    }

    /// The number of `key`, a new one if it has none.
    pub(super) fn intern(&mut self, key: K) -> u32 {
        if let Some(&index) = self.by_key.get(&key) {
            return index;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.keys.push(None);
            (self.keys.len() - 1) as u32
        });
        if let Some(slot) = self.keys.get_mut(index as usize) {
            *slot = Some(key);
        }
        self.by_key.insert(key, index);
        index
    }

    /// The number of `key`, if it has one.
    pub(super) fn get(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Ends the use of `key`. True when it was used.
    pub(super) fn release(&mut self, key: &K) -> bool {
        let Some(index) = self.by_key.remove(key) else { return false };
        if let Some(slot) = self.keys.get_mut(index as usize) {
            *slot = None;
        }
        self.released.push(index);
        true
    }

    /// One rest is over: numbers released before the last call are free again.
    pub(super) fn rest(&mut self) {
        self.free.append(&mut self.resting);
        self.resting.append(&mut self.released);
    }

    /// The keys by number.
    pub(super) fn keys(&self) -> &[Option<K>] {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_rests_before_it_is_used_again() {
        let mut slots = Slots::new();
        assert_eq!((slots.intern('a'), slots.intern('b'), slots.intern('a')), (0, 1, 0));
        assert!(slots.release(&'a') && !slots.release(&'a'));
        assert_eq!(slots.intern('c'), 2);
        slots.rest();
        assert_eq!(slots.intern('d'), 3);
        slots.rest();
        assert_eq!(slots.intern('e'), 0);
        assert_eq!(slots.keys(), [Some('e'), Some('b'), Some('c'), Some('d')]);
        assert_eq!(slots.get(&'a'), None);
    }
}
