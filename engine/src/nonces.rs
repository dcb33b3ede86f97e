//! Numbers without a pattern from a seed, for what is to be spread evenly. What must not be guessed takes
//! [`Chance`](crate::session::chance::Chance).

/// SplitMix64 (Steele et al., 2014).
#[derive(Debug)]
pub struct Nonces(u64);

impl Nonces {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Nonces(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
