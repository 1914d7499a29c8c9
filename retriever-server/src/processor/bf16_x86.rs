//! Rounding to bfloat16 by the instructions of AVX-512 BF16.

#![expect(unsafe_code, reason = "instructions chosen at run time")]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_slli_epi32,
};
use std::mem::transmute;

/// Rounds two vectors to bfloat16, the numbers of the first one first. Also returns the rounded values as
/// `f32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(crate) fn round(numbers: [__m512; 2]) -> (__m512i, [__m512; 2]) {
    let both: __m512bh = _mm512_cvtne2ps_pbh(numbers[1], numbers[0]);
    // SAFETY: both types are 64 bytes without any invalid bit pattern.
    let both: __m512i = unsafe { transmute(both) };
    let halves = [_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both)];
    let widened = halves
        .map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))));
    (both, widened)
}
