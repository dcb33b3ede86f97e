//! Random bytes from one good seed, for pure code: BLAKE2s, run forward so that what was given cannot be found again.

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

/// A generator. Its seed comes from the system.
pub struct Chance(Zeroizing<[u8; 32]>);

impl Chance {
    /// `seed` is from the system's generator, and used for nothing else.
    pub fn new(seed: [u8; 32]) -> Self {
        Chance(Zeroizing::new(seed))
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let step = |label: &[u8], state: &[u8; 32]| -> [u8; 32] {
            Blake2s256::new_with_prefix(label).chain_update(state).finalize().into()
        };
        let given = step(b"meshnet give", &self.0);
        *self.0 = step(b"meshnet next", &self.0);
        given
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.bytes().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// A number that is not 0.
    pub fn number(&mut self) -> u32 {
        loop {
            let [a, b, c, d, ..] = self.bytes();
            let number = u32::from_le_bytes([a, b, c, d]);
            if number != 0 {
                return number;
            }
        }
    }
}
