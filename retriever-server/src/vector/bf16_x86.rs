//! The kernels of screening: AMX, which multiplies tiles of bfloat16, and the dot products of
//! AVX-512 BF16.
//!
//! The interface is safe, as in [`super::x86`]: a [`Screening`] exists only where the processor has
//! the instructions, and every kernel checks the lengths of its slices once.

#![expect(
    unsafe_code,
    reason = "instructions chosen at run time, and tiles, which only assembly can use"
)]

use std::arch::asm;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _CMP_NLE_UQ, _MM_HINT_T0, _mm_maskz_loadu_epi8, _mm_prefetch,
    _mm256_maskz_loadu_epi16, _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};
use std::mem::transmute;

use shared::machine::instruction_set::{InstructionSet, widest};
use shared::machine::tiles_x86::{self, TILE_ROW_BYTES, TILE_ROWS as TILE};

use super::kernel::Survivor;
use super::rows::{RowFormat, scale};
use super::screen::{GROUP_QUERIES, SCREEN_QUERIES, SCREEN_ROWS, ScreenRows, padded};
use crate::processor::bf16_x86::round;

/// The number of `f32` in a vector.
const LANES: usize = 16;

/// The distance in bytes by which rows are prefetched before they are rounded. Memory serves many
/// requests in parallel, and without prefetching the processor makes too few.
const AHEAD_BYTES: usize = 2048;

/// Proof that the processor has AVX-512 BF16, with the instructions that multiply.
#[derive(Clone, Copy, Debug)]
pub struct Screening(ScreenKernel);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScreenKernel {
    /// Tiles of 16 by 16 products.
    Amx,
    /// Vectors of 16 products.
    Dot,
}

impl Screening {
    /// Returns all kinds that this processor has, fastest first.
    pub(super) fn detect() -> impl Iterator<Item = Self> {
        let forms = [
            (InstructionSet::Amx, ScreenKernel::Amx),
            (InstructionSet::Avx512Bf16, ScreenKernel::Dot),
        ];
        forms.into_iter().filter(|(needed, _)| widest() >= *needed).map(|(_, form)| Self(form))
    }

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            ScreenKernel::Amx => "AMX",
            ScreenKernel::Dot => "AVX-512 BF16",
        }
    }

    /// Rounds rows of `dimension` numbers.
    #[expect(clippy::unused_self, reason = "it is the proof of the instructions")]
    pub(super) fn narrow(
        self,
        stored: &[u8],
        format: RowFormat,
        dimension: usize,
        rows: &mut ScreenRows,
    ) {
        let row_bytes = format.row_bytes(dimension);
        rows.resize(stored.len() / row_bytes, dimension);
        let padded = padded(dimension);
        for (index, row) in stored.chunks_exact(row_bytes).enumerate() {
            let rounded = &mut rows.numbers[index * padded..][..padded];
            // SAFETY: `self` proves the instructions. The row has `dimension` numbers of its format,
            // and `rounded` has the length of a padded row.
            let sums = unsafe {
                match format {
                    RowFormat::F32 => narrow_row::<4>(row, 1.0, dimension, rounded),
                    RowFormat::F16 => narrow_row::<2>(row, 1.0, dimension, rounded),
                    RowFormat::I8 => narrow_row::<1>(row, scale(row), dimension, rounded),
                }
            };
            rows.set_bounds(index, sums, dimension);
        }
    }

    /// Writes the products of rows with a panel of queries to `scores`: for each row one number for each
    /// query. The number of rows is a multiple of [`SCREEN_ROWS`].
    pub(super) fn products(self, rows: &[u16], panel: &[u16], scores: &mut [f32]) {
        let padded = panel.len() / SCREEN_QUERIES;
        assert!(padded > 0 && padded.is_multiple_of(2 * TILE), "numbers of a row");
        assert!(rows.len().is_multiple_of(SCREEN_ROWS * padded), "blocks of rows");
        assert_eq!(
            scores.len(),
            rows.len() / padded * SCREEN_QUERIES,
            "a score for each row and query"
        );
        let blocks = rows.chunks_exact(SCREEN_ROWS * padded);
        let blocks = blocks.zip(scores.chunks_exact_mut(SCREEN_ROWS * SCREEN_QUERIES));
        match self.0 {
            // SAFETY: `self` proves the instructions; the lengths were just checked.
            ScreenKernel::Amx => unsafe { tile_products(blocks, panel, padded) },
            // SAFETY: `self` proves the instructions; the lengths were just checked.
            ScreenKernel::Dot => blocks.for_each(|(rows, scores)| unsafe {
                dot_products(rows, panel, padded, scores);
            }),
        }
    }

    /// Appends the queries of a panel to `survivors` for which the score of row `row` may be above the
    /// limit, or is NaN. `bounds` are the norms and residuals of the queries, `own` those of the row.
    #[expect(clippy::unused_self, reason = "it is the proof of the instructions")]
    pub(super) fn compare(
        self,
        row: usize,
        [scores, limits]: [&[f32]; 2],
        bounds: [&[f32]; 2],
        own: [f32; 2],
        survivors: &mut Vec<Survivor>,
    ) {
        for numbers in [scores, limits, bounds[0], bounds[1]] {
            assert_eq!(numbers.len(), SCREEN_QUERIES, "a panel");
        }
        // SAFETY: `self` proves the instructions; the lengths were just checked.
        let mut queries = unsafe { compare_row(scores, limits, bounds, own) };
        while queries != 0 {
            let query = queries.trailing_zeros() as usize;
            queries &= queries - 1;
            survivors.push(Survivor { row, query, score: scores[query] });
        }
    }
}

/// Rounds a row. Returns the sums of squares of the rounded row and of its rounding errors.
///
/// # Safety
/// `row` holds `dimension` numbers of `WIDTH` bytes, and `rounded` has the length of a padded row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn narrow_row<const WIDTH: usize>(
    row: &[u8],
    scale: f32,
    dimension: usize,
    rounded: &mut [u16],
) -> [f32; 2] {
    let row = row.as_ptr();
    let (mut norm, mut residual) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    // Over the row, two vectors at a time, because one instruction rounds two.
    for (step, target) in rounded.chunks_exact_mut(2 * LANES).enumerate() {
        let starts = [step * 2 * LANES, step * 2 * LANES + LANES];
        let numbers = starts.map(|start| {
            // A prefetch is a hint, so the pointer may be past the end.
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(start * WIDTH + AHEAD_BYTES).cast());
            // SAFETY: it reads the rest of the row and nothing after it.
            let numbers = unsafe { load_some::<WIDTH>(row, start, dimension) };
            if WIDTH == 1 { _mm512_mul_ps(numbers, _mm512_set1_ps(scale)) } else { numbers }
        });
        let (both, widened) = round(numbers);
        // SAFETY: the target has as many numbers as the two vectors.
        unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), both) };
        for (widened, numbers) in widened.into_iter().zip(numbers) {
            let lost = _mm512_sub_ps(numbers, widened);
            norm = _mm512_fmadd_ps(widened, widened, norm);
            residual = _mm512_fmadd_ps(lost, lost, residual);
        }
    }
    [_mm512_reduce_add_ps(norm), _mm512_reduce_add_ps(residual)]
}

/// Loads the numbers from `start` on, with zeros from `end` on.
///
/// # Safety
/// `end` numbers of `WIDTH` bytes can be read at `row`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_some<const WIDTH: usize>(row: *const u8, start: usize, end: usize) -> __m512 {
    let left = end.saturating_sub(start).min(LANES);
    let mask = ((1u32 << left) - 1) as u16;
    let source = row.wrapping_add(start * WIDTH);
    // SAFETY: only the numbers in the mask are read, and these are before `end`.
    unsafe {
        match WIDTH {
            1 => {
                let bytes = _mm_maskz_loadu_epi8(mask, source.cast());
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
            }
            2 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, source.cast())),
            _ => _mm512_maskz_loadu_ps(mask, source.cast()),
        }
    }
}

/// Multiplies blocks of rows with a panel in tiles. Four tiles of sums, two by two, use each loaded
/// tile of rows and of queries twice.
///
/// # Safety
/// The processor has AMX. A block has [`SCREEN_ROWS`] rows of `padded` numbers, and
/// [`SCREEN_QUERIES`] scores for each row; the panel has as many queries.
unsafe fn tile_products<'a>(
    blocks: impl Iterator<Item = (&'a [u16], &'a mut [f32])>,
    panel: &[u16],
    padded: usize,
) {
    tiles_x86::configure();
    for (rows, scores) in blocks {
        let (upper, lower) = (rows.as_ptr(), rows[TILE * padded..].as_ptr());
        let (left, right) = (panel.as_ptr(), panel[GROUP_QUERIES * padded..].as_ptr());
        let scores = scores.as_mut_ptr();
        // SAFETY: each step reads 64 bytes of each row and, from each group, 16 pairs of numbers of
        // 16 queries; `padded` / 32 steps read everything. It writes two times two tiles of scores.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{upper} + {row_bytes} * 1]",
                "tileloadd tmm6, [{left} + {pair_bytes} * 1]",
                "tileloadd tmm7, [{right} + {pair_bytes} * 1]",
                "tileloadd tmm5, [{lower} + {row_bytes} * 1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 64", "add {lower}, 64",
                "add {left}, 1024", "add {right}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{scores} + {score_bytes} * 1], tmm0",
                "tilestored [{scores} + {score_bytes} * 1 + 64], tmm1",
                "tilestored [{scores} + {score_bytes} * 1 + 2048], tmm2",
                "tilestored [{scores} + {score_bytes} * 1 + 2112], tmm3",
                upper = inout(reg) upper => _, lower = inout(reg) lower => _,
                left = inout(reg) left => _, right = inout(reg) right => _,
                steps = inout(reg) padded / (2 * TILE) => _,
                scores = in(reg) scores,
                row_bytes = in(reg) padded * size_of::<u16>(),
                pair_bytes = in(reg) TILE_ROW_BYTES,
                score_bytes = in(reg) SCREEN_QUERIES * size_of::<f32>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
    tiles_x86::release();
}

/// Multiplies a block of rows with a panel by dot products of pairs.
///
/// # Safety
/// The same as for [`tile_products`], for one block, with AVX-512 BF16 instead of AMX.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn dot_products(rows: &[u16], panel: &[u16], padded: usize, scores: &mut [f32]) {
    const ROWS: usize = 8;
    let groups = [panel.as_ptr(), panel[GROUP_QUERIES * padded..].as_ptr()];
    let parts =
        rows.chunks_exact(ROWS * padded).zip(scores.chunks_exact_mut(ROWS * SCREEN_QUERIES));
    for (rows, scores) in parts {
        let starts: [*const i32; ROWS] =
            std::array::from_fn(|row| rows[row * padded..].as_ptr().cast());
        // Over the pairs of positions, then the rows, then the two groups of queries: the sums stay
        // in registers, and the factors of a pair are loaded once for all rows.
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for pair in 0..padded / 2 {
            // SAFETY: a group has `padded` / 2 vectors of pairs, and both types are 64 bytes.
            let factors = groups.map(|group| unsafe {
                transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
                    group.add(pair * 2 * LANES).cast(),
                ))
            });
            for (sums, start) in sums.iter_mut().zip(starts) {
                // SAFETY: a row has `padded` / 2 pairs, and both types are 64 bytes.
                let numbers = unsafe {
                    let pair = start.add(pair).read_unaligned();
                    transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
                };
                for (sum, factor) in sums.iter_mut().zip(factors) {
                    *sum = _mm512_dpbf16_ps(*sum, numbers, factor);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (group, sum) in sums.iter().enumerate() {
                let target = &mut scores[row * SCREEN_QUERIES + group * LANES..][..LANES];
                // SAFETY: the target has as many numbers as the vector.
                unsafe { _mm512_storeu_ps(target.as_mut_ptr(), *sum) };
            }
        }
    }
}

/// Returns a bit for each query whose score is above its limit minus the error bound, or is NaN.
///
/// # Safety
/// Each slice has [`SCREEN_QUERIES`] numbers.
#[target_feature(enable = "avx512f")]
unsafe fn compare_row(
    scores: &[f32],
    limits: &[f32],
    [norms, residuals]: [&[f32]; 2],
    [own_norm, own_residual]: [f32; 2],
) -> u32 {
    let (own_norm, own_residual) = (_mm512_set1_ps(own_norm), _mm512_set1_ps(own_residual));
    let mut queries = 0;
    for group in 0..SCREEN_QUERIES / LANES {
        let load = |numbers: &[f32]| {
            // SAFETY: the caller guarantees that each slice has the numbers of all groups.
            unsafe { _mm512_loadu_ps(numbers.as_ptr().wrapping_add(group * LANES)) }
        };
        let limit = _mm512_fnmadd_ps(own_residual, load(norms), load(limits));
        let limit = _mm512_fnmadd_ps(own_norm, load(residuals), limit);
        let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(load(scores), limit);
        queries |= u32::from(above) << (group * LANES);
    }
    queries
}
