//! The Internet checksum (RFC 1071): the one's complement sum of 16-bit words.
//!
//! The sum does not care for byte order as long as all words share one (RFC 1071 section 2 (B)), so words are
//! summed as they lie in memory and brought into network order once, at the end. The loop is written so that the
//! compiler turns it into vector instructions on any target, and compiled once more for the wider vectors that
//! only some processors of the target have.

mod simd;

/// An unfinished sum. Pieces may be added in any order, but each must start at an even offset of what is summed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd one at the end counts as if a zero followed, so only the last piece may be odd.
    ///
    /// Up to 2^31 bytes may be added in all before [`Sum::fold`].
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Headers are short, and the vector loop has a start-up cost.
        let (blocks, rest) = bytes.as_chunks::<64>();
        Sum(self.0 + if blocks.is_empty() { 0 } else { sum_blocks(blocks) } + tail(rest))
    }

    /// Adds one word, given as the number it stands for.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Sum(self.0 + u64::from(word.to_be()))
    }

    /// The folded sum, not inverted: what the kernel expects in the field of a partial checksum.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the inverted sum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum for a field in which zero means "none" (UDP, RFC 768): zero becomes its twin. For other
    /// protocols both are the same number.
    pub fn nonzero_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// True when what was summed, checksum field included, is intact.
    pub fn is_intact(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The sum of whole blocks, by the widest vectors that this processor has.
#[inline(never)]
fn sum_blocks(blocks: &[[u8; 64]]) -> u64 {
    simd::sum_blocks(blocks).unwrap_or_else(|| sum_lanes(blocks))
}

/// The loop in a form that the compiler turns into vectors of whatever target it is compiled for.
#[inline(always)]
fn sum_lanes(blocks: &[[u8; 64]]) -> u64 {
    let mut lanes = [0_u64; 8];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            let word = u64::from_ne_bytes(*word);
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    lanes.iter().sum()
}

/// The sum of the last, less than 64, bytes.
#[inline]
fn tail(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum + match *rest {
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c] => u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0])),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b)));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071 section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::default().bytes(&bytes).word(!0xddf2).fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_two_pieces(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0..300_usize) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::default().bytes(a).bytes(b).checksum(), by_the_book(&bytes));
            prop_assert_eq!(Sum::default().bytes(b).word(7).fold(), Sum::default().word(7).bytes(b).fold());
        }

        #[test]
        fn what_carries_its_checksum_is_intact(mut bytes in prop::collection::vec(any::<u8>(), 2..600)) {
            bytes[..2].fill(0);
            let sum = Sum::default().bytes(&bytes).nonzero_checksum();
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Sum::default().bytes(&bytes).is_intact());
        }
    }

    proptest! {
        #[test]
        fn wide_vectors_sum_as_narrow_ones(blocks in prop::collection::vec(any::<[u8; 64]>(), 0..40)) {
            let narrow = sum_lanes(&blocks);
            prop_assert_eq!(simd::sum_blocks(&blocks).unwrap_or(narrow), narrow);
        }
    }

    #[test]
    fn the_largest_frame_does_not_overflow() {
        assert_eq!(Sum::default().bytes(&[0xff; 65_536]).fold(), 0xffff);
    }
}
