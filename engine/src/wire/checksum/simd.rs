//! The same loop, compiled for vectors that not every processor of the target has, and chosen at run time.

#![allow(unsafe_code)]

/// The sum of whole blocks; none where this processor has nothing wider than its target promises.
#[inline]
pub(super) fn sum_blocks(blocks: &[[u8; 64]]) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that the function asks for.
        return Some(unsafe { sum_blocks_avx2(blocks) });
    }
    let _ = blocks;
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_blocks_avx2(blocks: &[[u8; 64]]) -> u64 {
    super::sum_lanes(blocks)
}
