//! Vectors of numbers in AVX-512 and in AVX2 with FMA and F16C. The kernels of [`super::x86`] and of
//! [`super::gather`] consist of these functions. Each function needs the instructions of its module.

#![expect(unsafe_code, reason = "loads and stores at any alignment")]

/// The functions that both modules share.
macro_rules! lanes {
    ($features:literal) => {
        /// Loads `count` numbers, followed by zeros.
        ///
        /// # Safety
        /// `count` is below `LANES`, and `count` numbers of `WIDTH` bytes can be read at `start`.
        #[inline]
        #[target_feature(enable = $features)]
        pub(in crate::vector) unsafe fn load_some<const WIDTH: usize>(
            start: *const u8,
            count: usize,
        ) -> Lanes {
            let mut bytes = [0u8; LANES * size_of::<f32>()];
            // SAFETY: the buffer is longer than `count` numbers, and as long as a whole load.
            unsafe {
                std::ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), count * WIDTH);
                load::<WIDTH>(bytes.as_ptr())
            }
        }
    };
}

pub(super) mod avx512 {
    use std::arch::x86_64::{
        __m512, _CMP_GT_OQ, _mm_loadu_si128, _mm256_loadu_si256, _mm512_cmp_ps_mask,
        _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };

    pub(in crate::vector) type Lanes = __m512;
    pub(in crate::vector) const LANES: usize = 16;

    lanes!("avx512f");

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn zero() -> Lanes {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn splat(number: f32) -> Lanes {
        _mm512_set1_ps(number)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn multiply_add(left: Lanes, right: Lanes, sum: Lanes) -> Lanes {
        _mm512_fmadd_ps(left, right, sum)
    }

    /// Returns a bit for each lane in which `left` is above `right`, and none where either is NaN.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn above(left: Lanes, right: Lanes) -> u32 {
        u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(left, right))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn total(lanes: Lanes) -> f32 {
        _mm512_reduce_add_ps(lanes)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn to_array(lanes: Lanes) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array has as many numbers as the vector.
        unsafe { _mm512_storeu_ps(array.as_mut_ptr(), lanes) };
        array
    }

    /// Loads `LANES` numbers of `WIDTH` bytes.
    ///
    /// # Safety
    /// `LANES` numbers of `WIDTH` bytes can be read at `start`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) unsafe fn load<const WIDTH: usize>(start: *const u8) -> Lanes {
        // SAFETY: the caller guarantees that the numbers can be read; the loads accept any alignment.
        unsafe {
            match WIDTH {
                1 => _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(start.cast()))),
                2 => _mm512_cvtph_ps(_mm256_loadu_si256(start.cast())),
                _ => _mm512_loadu_ps(start.cast()),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::vector) fn subtract(left: Lanes, right: Lanes) -> Lanes {
        _mm512_sub_ps(left, right)
    }
}

pub(super) mod avx2 {
    use std::arch::x86_64::{
        __m256, _CMP_GT_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64,
        _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm256_castps256_ps128, _mm256_cmp_ps,
        _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_extractf128_ps,
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_movemask_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps, _mm256_sub_ps,
    };

    pub(in crate::vector) type Lanes = __m256;
    pub(in crate::vector) const LANES: usize = 8;

    lanes!("avx2,fma,f16c");

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn zero() -> Lanes {
        _mm256_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn splat(number: f32) -> Lanes {
        _mm256_set1_ps(number)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn multiply_add(left: Lanes, right: Lanes, sum: Lanes) -> Lanes {
        _mm256_fmadd_ps(left, right, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn above(left: Lanes, right: Lanes) -> u32 {
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(left, right)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn total(lanes: Lanes) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn to_array(lanes: Lanes) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array has as many numbers as the vector.
        unsafe { _mm256_storeu_ps(array.as_mut_ptr(), lanes) };
        array
    }

    /// Loads `LANES` numbers of `WIDTH` bytes.
    ///
    /// # Safety
    /// `LANES` numbers of `WIDTH` bytes can be read at `start`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) unsafe fn load<const WIDTH: usize>(start: *const u8) -> Lanes {
        // SAFETY: the caller guarantees that the numbers can be read; the loads accept any alignment.
        unsafe {
            match WIDTH {
                1 => _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(start.cast()))),
                2 => _mm256_cvtph_ps(_mm_loadu_si128(start.cast())),
                _ => _mm256_loadu_ps(start.cast()),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::vector) fn subtract(left: Lanes, right: Lanes) -> Lanes {
        _mm256_sub_ps(left, right)
    }
}
