//! Products in vectors: AVX-512, its dot products of bfloat16, and AVX2.
//!
//! Every sum grows depth by depth in its own lane, so a row's sums do not depend on the other rows.
//!
//! All kernels loop over the steps, then over the depths of a step, then over the rows. The vectors of the
//! right side are loaded once for each depth and used for all rows, whose sums stay in registers.

#![expect(unsafe_code, reason = "instructions chosen at run time")]

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512bh, __m512i, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::mem::transmute;

use shared::machine::instruction_set::{InstructionSet, widest};

use super::{Bf16, Level, PANEL, Product, STEP};

/// Vectors of 512 bits in a panel.
const HALVES: usize = 2;
/// Vectors of 256 bits in a panel.
const QUARTERS: usize = 4;

/// Returns the levels above the portable one that this processor supports, fastest first.
pub(super) fn levels() -> Vec<Level> {
    let levels = [
        (InstructionSet::Amx, Level::Amx),
        (InstructionSet::Avx512Bf16, Level::Avx512Bf16),
        (InstructionSet::Avx512, Level::Avx512),
        (InstructionSet::Avx2, Level::Avx2),
    ];
    levels.into_iter().filter(|(needed, _)| widest() >= *needed).map(|(_, level)| level).collect()
}

/// Cuts the rows of a product into blocks, largest first, and calls the kernel with as many accumulators.
macro_rules! in_blocks {
    ($product:ident, $kernel:ident, [$($rows:literal),+]) => {{
        let mut row = 0;
        while row < $product.rows {
            let rows_left = $product.rows - row;
            $(
                if rows_left >= $rows {
                    // SAFETY: the level proves the instructions; the lengths were checked, and the
                    // block is within the rows.
                    unsafe { $kernel::<$rows>($product, row) };
                    row += $rows;
                    continue;
                }
            )+
        }
    }};
}

pub(super) fn multiply_f32(product: &mut Product<'_, f32>) {
    in_blocks!(product, rows_f32, [12, 8, 4, 2, 1]);
}

pub(super) fn multiply_bf16(product: &mut Product<'_, Bf16>) {
    in_blocks!(product, rows_bf16, [12, 8, 4, 2, 1]);
}

pub(super) fn multiply_f32_avx2(product: &mut Product<'_, f32>) {
    in_blocks!(product, rows_f32_avx2, [3, 2, 1]);
}

pub(super) fn multiply_bf16_avx2(product: &mut Product<'_, Bf16>) {
    in_blocks!(product, rows_bf16_avx2, [2, 1]);
}

/// # Safety
/// The lengths of the product must be checked, and it must have `ROWS` rows from `row` on.
#[target_feature(enable = "avx512f")]
unsafe fn rows_f32<const ROWS: usize>(product: &mut Product<'_, f32>, row: usize) {
    // SAFETY: in all of this function, offsets stay within the checked lengths.
    unsafe {
        let sums_start = product.sums.as_mut_ptr().add(row * product.sums_stride);
        let mut sums = load_sums::<ROWS>(sums_start, product.sums_stride, product.adds);
        for step in product.steps {
            let left = product.left.as_ptr().add(step.left + row * product.left_stride);
            let right = product.right.as_ptr().add(step.right);
            for depth in 0..STEP {
                let right = right.add(depth * product.right_columns);
                let numbers = [_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(PANEL / HALVES))];
                for (index, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*left.add(index * product.left_stride + depth));
                    for (sum, number) in sums.iter_mut().zip(numbers) {
                        *sum = _mm512_fmadd_ps(factor, number, *sum);
                    }
                }
            }
        }
        store_sums(&sums, sums_start, product.sums_stride);
    }
}

/// # Safety
/// The contract of [`rows_f32`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_bf16<const ROWS: usize>(product: &mut Product<'_, Bf16>, row: usize) {
    // SAFETY: in all of this function, offsets stay within the checked lengths.
    unsafe {
        let sums_start = product.sums.as_mut_ptr().add(row * product.sums_stride);
        let mut sums = load_sums::<ROWS>(sums_start, product.sums_stride, product.adds);
        for step in product.steps {
            let left = product.left.as_ptr().add(step.left + row * product.left_stride);
            let right = product.right.as_ptr().add(step.right);
            for pair in 0..STEP / 2 {
                let right = right.add(pair * 2 * product.right_columns);
                let numbers = [
                    transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.cast())),
                    transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.add(PANEL).cast())),
                ];
                for (index, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(index * product.left_stride + 2 * pair);
                    let factors = _mm512_set1_epi32(factors.cast::<i32>().read_unaligned());
                    let factors = transmute::<__m512i, __m512bh>(factors);
                    for (sum, numbers) in sums.iter_mut().zip(numbers) {
                        *sum = _mm512_dpbf16_ps(*sum, factors, numbers);
                    }
                }
            }
        }
        store_sums(&sums, sums_start, product.sums_stride);
    }
}

/// # Safety
/// `ROWS` rows of sums must lie at `sums_start`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_sums<const ROWS: usize>(
    sums_start: *const f32,
    stride: usize,
    adds: bool,
) -> [[__m512; HALVES]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
    if adds {
        for (index, sums) in sums.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a row of sums has a whole panel.
                *sum = unsafe {
                    _mm512_loadu_ps(sums_start.add(index * stride + half * PANEL / HALVES))
                };
            }
        }
    }
    sums
}

/// # Safety
/// `ROWS` rows of sums must lie at `sums_start`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_sums<const ROWS: usize>(
    sums: &[[__m512; HALVES]; ROWS],
    sums_start: *mut f32,
    stride: usize,
) {
    for (index, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: a row of sums has a whole panel.
            unsafe {
                _mm512_storeu_ps(sums_start.add(index * stride + half * PANEL / HALVES), *sum);
            }
        }
    }
}

/// # Safety
/// The contract of [`rows_f32`].
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_f32_avx2<const ROWS: usize>(product: &mut Product<'_, f32>, row: usize) {
    // SAFETY: in all of this function, offsets stay within the checked lengths.
    unsafe {
        let sums_start = product.sums.as_mut_ptr().add(row * product.sums_stride);
        let mut sums = load_quarters::<ROWS>(sums_start, product.sums_stride, product.adds);
        for step in product.steps {
            let left = product.left.as_ptr().add(step.left + row * product.left_stride);
            let right = product.right.as_ptr().add(step.right);
            for depth in 0..STEP {
                let right = right.add(depth * product.right_columns);
                let factors: [__m256; ROWS] = std::array::from_fn(|index| {
                    _mm256_set1_ps(*left.add(index * product.left_stride + depth))
                });
                for quarter in 0..QUARTERS {
                    let numbers = _mm256_loadu_ps(right.add(quarter * PANEL / QUARTERS));
                    for (sums, factor) in sums.iter_mut().zip(factors) {
                        sums[quarter] = _mm256_fmadd_ps(factor, numbers, sums[quarter]);
                    }
                }
            }
        }
        store_quarters(&sums, sums_start, product.sums_stride);
    }
}

/// # Safety
/// The contract of [`rows_f32`].
#[target_feature(enable = "avx2,fma")]
unsafe fn rows_bf16_avx2<const ROWS: usize>(product: &mut Product<'_, Bf16>, row: usize) {
    let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    // The first number of a pair is in the lower half of its lane, the second in the upper half.
    let widen = |pairs: __m256i| {
        [_mm256_slli_epi32::<16>(pairs), _mm256_and_si256(pairs, upper)]
            .map(|half| _mm256_castsi256_ps(half))
    };
    // SAFETY: in all of this function, offsets stay within the checked lengths.
    unsafe {
        let sums_start = product.sums.as_mut_ptr().add(row * product.sums_stride);
        let mut sums = load_quarters::<ROWS>(sums_start, product.sums_stride, product.adds);
        for step in product.steps {
            let left = product.left.as_ptr().add(step.left + row * product.left_stride);
            let right = product.right.as_ptr().add(step.right);
            for pair in 0..STEP / 2 {
                let right = right.add(pair * 2 * product.right_columns);
                let factors: [[__m256; 2]; ROWS] = std::array::from_fn(|index| {
                    let factors = left.add(index * product.left_stride + 2 * pair);
                    widen(_mm256_set1_epi32(factors.cast::<i32>().read_unaligned()))
                });
                for quarter in 0..QUARTERS {
                    let numbers = widen(_mm256_loadu_si256(right.add(quarter * PANEL / 2).cast()));
                    for (sums, factors) in sums.iter_mut().zip(factors) {
                        for (factor, number) in factors.into_iter().zip(numbers) {
                            sums[quarter] = _mm256_fmadd_ps(factor, number, sums[quarter]);
                        }
                    }
                }
            }
        }
        store_quarters(&sums, sums_start, product.sums_stride);
    }
}

/// # Safety
/// `ROWS` rows of sums must lie at `sums_start`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_quarters<const ROWS: usize>(
    sums_start: *const f32,
    stride: usize,
    adds: bool,
) -> [[__m256; QUARTERS]; ROWS] {
    let mut sums = [[_mm256_setzero_ps(); QUARTERS]; ROWS];
    if adds {
        for (index, sums) in sums.iter_mut().enumerate() {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a row of sums has a whole panel.
                *sum = unsafe {
                    _mm256_loadu_ps(sums_start.add(index * stride + quarter * PANEL / QUARTERS))
                };
            }
        }
    }
    sums
}

/// # Safety
/// `ROWS` rows of sums must lie at `sums_start`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_quarters<const ROWS: usize>(
    sums: &[[__m256; QUARTERS]; ROWS],
    sums_start: *mut f32,
    stride: usize,
) {
    for (index, sums) in sums.iter().enumerate() {
        for (quarter, sum) in sums.iter().enumerate() {
            // SAFETY: a row of sums has a whole panel.
            unsafe {
                _mm256_storeu_ps(sums_start.add(index * stride + quarter * PANEL / QUARTERS), *sum);
            }
        }
    }
}
