//! The products on AMX tiles.
//!
//! The interface is safe: a [`Tiles`] exists only if the processor has the instructions, and lengths are
//! checked before anything is read.

#![expect(
    unsafe_code,
    reason = "instructions chosen at run time, and tiles that only assembly can use"
)]

use std::arch::asm;
use std::arch::x86_64::{_mm512_maskz_loadu_ps, _mm512_store_si512, _mm512_sub_ps};

use shared::machine::instruction_set::{InstructionSet, widest};
use shared::machine::tiles_x86::{self, TILE_ROW_BYTES};

use super::columns::Columns;
use super::weights::{
    BLOCK_COLUMNS, BLOCK_LINES, Line, ROW_LINES, STEP, Sums, TILE_ROWS, TileFactors,
};
use crate::processor::bf16_x86::round;

/// The number of `f32` in a vector.
const LANES: usize = 16;

/// Proof that the processor has AMX tiles of bfloat16, and AVX-512 BF16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::encode) struct Tiles(());

/// Sums at an address to which tiles can be stored directly.
#[repr(C, align(64))]
struct AlignedSums(Sums);

impl Tiles {
    pub(super) fn detect() -> Option<Self> {
        (widest() >= InstructionSet::Amx).then_some(Self(()))
    }

    /// Implements [`super::SplitMultiplier::split_rows`].
    #[expect(clippy::unused_self, reason = "it proves that the processor has the instructions")]
    pub(super) fn split_rows(self, numbers: &[f32], inner: usize, tile: &mut [Line]) {
        // Step by step, which writes adjacent lines. Row by row would write lines 2 KiB apart.
        for (step, lines) in tile.chunks_exact_mut(ROW_LINES).enumerate() {
            let (high, low) = lines.split_at_mut(TILE_ROWS);
            for ((row, high), low) in numbers.chunks_exact(inner).zip(high).zip(low) {
                let part = &row[(step * STEP).min(inner)..];
                // SAFETY: `self` proves the instructions.
                unsafe { split_line(part, high, low) };
            }
        }
    }

    /// Implements [`super::SplitMultiplier::multiply`].
    #[expect(clippy::unused_self, reason = "it proves that the processor has the instructions")]
    pub(super) fn multiply<'a>(
        self,
        tiles: impl Iterator<Item = TileFactors<'a>>,
        products: &mut Columns<'_>,
    ) {
        let mut sums = AlignedSums([[0.0; BLOCK_COLUMNS]; 2 * TILE_ROWS]);
        let stride = products.stride();
        tiles_x86::configure();
        for TileFactors { upper, lower, block, row, column } in tiles {
            let steps = block.len() / BLOCK_LINES;
            assert!(steps > 0, "weights have rows");
            for rows in [Some(upper), lower].into_iter().flatten() {
                assert_eq!(rows.len(), steps * ROW_LINES, "lines of a tile of rows");
            }
            let rows = if lower.is_some() { 2 * TILE_ROWS } else { TILE_ROWS };
            // Tiles can only be stored whole. At the edges of the product they go to `sums`, and the
            // part inside the product is copied from there.
            let target = products.block(row, column, rows);
            let (start, stride) = match target {
                Some(start) => (start, stride),
                None => (sums.0.as_mut_ptr().cast(), BLOCK_COLUMNS),
            };
            match lower {
                // SAFETY: `self` proves the instructions, `configure` gave this thread its tiles, the
                // lengths were checked above, and `start` has space for `rows` rows of products.
                Some(lower) => unsafe { multiply_two(upper, lower, block, steps, start, stride) },
                // SAFETY: the same holds for 16 rows.
                None => unsafe { multiply_one(upper, block, steps, start, stride) },
            }
            if target.is_none() {
                products.write(row, column, &sums.0);
            }
        }
        tiles_x86::release();
    }
}

/// Splits up to 32 numbers into a line of high and a line of low parts.
///
/// # Safety
///
/// The processor must have AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn split_line(numbers: &[f32], high: &mut Line, low: &mut Line) {
    // The mask fills the lines of a short row with zeros.
    let numbers = [0, LANES].map(|start| {
        let count = numbers.len().saturating_sub(start).min(LANES);
        let mask = ((1u32 << count) - 1) as u16;
        // SAFETY: numbers outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, numbers.as_ptr().wrapping_add(start)) }
    });
    let (rounded, widened) = round(numbers);
    // The low part is the rounding error of the high part.
    let errors = [0, 1].map(|half| _mm512_sub_ps(numbers[half], widened[half]));
    let (errors, _) = round(errors);
    // SAFETY: a line has 64 bytes, at an address that is a multiple of 64.
    unsafe {
        _mm512_store_si512((&raw mut high.0).cast(), rounded);
        _mm512_store_si512((&raw mut low.0).cast(), errors);
    }
}

/// Multiplies 32 rows of activations with a block of weights.
///
/// # Safety
///
/// The calling thread must have configured its tiles. `upper` and `lower` must have [`ROW_LINES`] lines
/// per step and `block` [`BLOCK_LINES`], with at least one step. At `start` there must be space for 32
/// rows of [`BLOCK_COLUMNS`] numbers, whose starts are `stride` numbers apart.
unsafe fn multiply_two(
    upper: &[Line],
    lower: &[Line],
    block: &[Line],
    steps: usize,
    start: *mut f32,
    stride: usize,
) {
    // The loop goes over the steps. Four tiles of sums (two of rows times two of columns) stay in
    // registers all the time, and every loaded tile serves at least two products.
    // SAFETY: each step reads two tiles of `upper`, two of `lower` and four of `block`, which the caller
    // provides. At the end, two times two tiles of sums are written to `start`.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            // High times high.
            "tileloadd tmm4, [{upper} + {line} * 1]",
            "tileloadd tmm6, [{block} + {line} * 1]",
            "tileloadd tmm7, [{block} + {line} * 1 + 1024]",
            "tileloadd tmm5, [{lower} + {line} * 1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High times low.
            "tileloadd tmm6, [{block} + {line} * 1 + 2048]",
            "tileloadd tmm7, [{block} + {line} * 1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Low times high.
            "tileloadd tmm4, [{upper} + {line} * 1 + 1024]",
            "tileloadd tmm6, [{block} + {line} * 1]",
            "tileloadd tmm7, [{block} + {line} * 1 + 1024]",
            "tileloadd tmm5, [{lower} + {line} * 1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 2048", "add {lower}, 2048", "add {block}, 4096",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{start} + {row} * 1], tmm0",
            "tilestored [{start} + {row} * 1 + 64], tmm1",
            "tilestored [{lower_start} + {row} * 1], tmm2",
            "tilestored [{lower_start} + {row} * 1 + 64], tmm3",
            upper = inout(reg) upper.as_ptr() => _,
            lower = inout(reg) lower.as_ptr() => _,
            block = inout(reg) block.as_ptr() => _,
            steps = inout(reg) steps => _,
            start = in(reg) start,
            lower_start = in(reg) start.wrapping_add(TILE_ROWS * stride),
            line = in(reg) TILE_ROW_BYTES,
            row = in(reg) stride * size_of::<f32>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Multiplies 16 rows of activations with a block of weights.
///
/// # Safety
///
/// The same conditions as for [`multiply_two`] must hold, without `lower` and for 16 rows.
unsafe fn multiply_one(
    upper: &[Line],
    block: &[Line],
    steps: usize,
    start: *mut f32,
    stride: usize,
) {
    // The loop goes over the steps. Adjacent products add to different sums, so none waits for the
    // one before it.
    // SAFETY: each step reads two tiles of `upper` and four of `block`, which the caller provides. At the
    // end, two tiles of sums are written to `start`.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{upper} + {line} * 1]",
            "tileloadd tmm6, [{block} + {line} * 1]",
            "tileloadd tmm7, [{block} + {line} * 1 + 1024]",
            "tileloadd tmm5, [{upper} + {line} * 1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm2, [{block} + {line} * 1 + 2048]",
            "tileloadd tmm3, [{block} + {line} * 1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm2",
            "tdpbf16ps tmm1, tmm4, tmm3",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "add {upper}, 2048", "add {block}, 4096",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{start} + {row} * 1], tmm0",
            "tilestored [{start} + {row} * 1 + 64], tmm1",
            upper = inout(reg) upper.as_ptr() => _,
            block = inout(reg) block.as_ptr() => _,
            steps = inout(reg) steps => _,
            start = in(reg) start,
            line = in(reg) TILE_ROW_BYTES,
            row = in(reg) stride * size_of::<f32>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
