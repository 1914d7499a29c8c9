//! The kernels for AVX-512 and for AVX2 with FMA, from one macro.
//!
//! The interface is safe: a value of [`Avx512`] or [`Avx2`] exists only where the processor has the
//! instructions, and every kernel checks the lengths of its slices once, before the loop that reads
//! them through pointers.

#![expect(unsafe_code, reason = "loads at any alignment, and instructions chosen at run time")]

use shared::machine::instruction_set::{InstructionSet, widest};

use super::kernel::{BLOCK_ROWS, PANEL_GROUPS, Survivor};
use super::rows::{RowFormat, scale};

/// Proof that the processor has AVX-512F.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        (widest() >= InstructionSet::Avx512).then_some(Self(()))
    }
}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (widest() >= InstructionSet::Avx2).then_some(Self(()))
    }
}

/// The loops, which are the same for both.
macro_rules! kernels {
    ($features:literal, $proof:ty) => {
        use super::{BLOCK_ROWS, PANEL_GROUPS, RowFormat, Survivor, scale};
        use lanes::{LANES, above, load, load_some, multiply_add, splat, to_array, total, zero};

        impl $proof {
            pub(in super::super) const LANES: usize = LANES;

            /// Multiplies up to [`BLOCK_ROWS`] rows of `f32` with the queries of a panel, and appends
            /// the products above their query's threshold to `survivors`, with ascending rows.
            pub(in super::super) fn tile(
                self,
                rows: &[u8],
                dimension: usize,
                panel: &[f32],
                thresholds: &[f32],
                survivors: &mut Vec<Survivor>,
            ) {
                let count = rows.len() / (dimension * size_of::<f32>());
                assert!((1..=BLOCK_ROWS).contains(&count), "a block of rows");
                assert_eq!(panel.len(), thresholds.len() * dimension, "a threshold for each query");
                let tile = match thresholds.len() / LANES {
                    1 => tile::<{ TILE_ROWS[0] }, 1>,
                    2 => tile::<{ TILE_ROWS[1] }, 2>,
                    groups => {
                        assert_eq!(groups, PANEL_GROUPS, "groups of a panel");
                        tile::<{ TILE_ROWS[2] }, PANEL_GROUPS>
                    }
                };
                // SAFETY: `self` proves the instructions; the lengths were just checked.
                unsafe { tile(rows, dimension, panel, thresholds, survivors) };
            }

            /// Returns the products of up to [`BLOCK_ROWS`] rows with one query, which is padded with
            /// zeros to a multiple of `LANES`.
            pub(in super::super) fn products(
                self,
                rows: &[u8],
                format: RowFormat,
                dimension: usize,
                query: &[f32],
            ) -> [f32; BLOCK_ROWS] {
                let row_bytes = format.row_bytes(dimension);
                assert!((1..=BLOCK_ROWS).contains(&(rows.len() / row_bytes)), "a block of rows");
                assert_eq!(query.len(), dimension.next_multiple_of(LANES), "a padded query");
                // SAFETY: `self` proves the instructions; the lengths were just checked.
                unsafe {
                    match format {
                        RowFormat::F32 => products::<4>(rows, row_bytes, dimension, query),
                        RowFormat::F16 => products::<2>(rows, row_bytes, dimension, query),
                        RowFormat::I8 => {
                            let mut scores = products::<1>(rows, row_bytes, dimension, query);
                            for (score, row) in scores.iter_mut().zip(rows.chunks(row_bytes)) {
                                *score *= scale(row);
                            }
                            scores
                        }
                    }
                }
            }

            /// Decodes one row to `f32`.
            pub(in super::super) fn decode(
                self,
                row: &[u8],
                format: RowFormat,
                numbers: &mut [[u8; 4]],
            ) {
                assert_eq!(row.len(), format.row_bytes(numbers.len()), "a row");
                // SAFETY: `self` proves the instructions; the length was just checked.
                unsafe {
                    match format {
                        RowFormat::F32 => decode::<4>(row, 1.0, numbers),
                        RowFormat::F16 => decode::<2>(row, 1.0, numbers),
                        RowFormat::I8 => decode::<1>(row, scale(row), numbers),
                    }
                }
            }
        }

        /// Multiplies `ROWS` rows at a time with `GROUPS` vectors of queries.
        ///
        /// # Safety
        /// `rows` holds at least one row, `thresholds` holds `GROUPS` times `LANES` numbers, and
        /// `panel` holds `dimension` times as many.
        #[target_feature(enable = $features)]
        unsafe fn tile<const ROWS: usize, const GROUPS: usize>(
            rows: &[u8],
            dimension: usize,
            panel: &[f32],
            thresholds: &[f32],
            survivors: &mut Vec<Survivor>,
        ) {
            let row_bytes = dimension * size_of::<f32>();
            let count = rows.len() / row_bytes;
            for first in (0..count).step_by(ROWS) {
                let starts: [*const f32; ROWS] = std::array::from_fn(|row| {
                    // Past the end the last row is read instead; its extra products are ignored.
                    rows[(first + row).min(count - 1) * row_bytes..].as_ptr().cast()
                });
                // Over the positions, then the rows, then the groups of queries: all sums stay in
                // registers, and the factors of a position are loaded once for all rows.
                let mut sums = [[zero(); GROUPS]; ROWS];
                let mut queries = panel.as_ptr();
                for position in 0..dimension {
                    let mut factors = [zero(); GROUPS];
                    for (group, factor) in factors.iter_mut().enumerate() {
                        // SAFETY: `panel` holds `GROUPS` times `LANES` numbers for each position.
                        *factor = unsafe { load::<4>(queries.add(group * LANES).cast()) };
                    }
                    for (sums, start) in sums.iter_mut().zip(starts) {
                        // SAFETY: `dimension` numbers follow the start of every row.
                        let number = splat(unsafe { start.add(position).read_unaligned() });
                        for (sum, factor) in sums.iter_mut().zip(factors) {
                            *sum = multiply_add(number, factor, *sum);
                        }
                    }
                    queries = queries.wrapping_add(GROUPS * LANES);
                }
                // Over the groups, then the rows, so that a group's thresholds are loaded once. Most
                // vectors have no product above them, and one comparison skips such a vector.
                for group in 0..GROUPS {
                    let start = thresholds.as_ptr().wrapping_add(group * LANES);
                    // SAFETY: `thresholds` holds `LANES` numbers for each group.
                    let threshold = unsafe { load::<4>(start.cast()) };
                    for (row, sums) in sums.iter().enumerate().take(count - first) {
                        let mut lanes = above(sums[group], threshold);
                        if lanes == 0 {
                            continue;
                        }
                        let scores = to_array(sums[group]);
                        while lanes != 0 {
                            let lane = lanes.trailing_zeros() as usize;
                            lanes &= lanes - 1;
                            let score = scores[lane];
                            survivors.push(Survivor {
                                row: first + row,
                                query: group * LANES + lane,
                                score,
                            });
                        }
                    }
                }
            }
        }

        /// Multiplies a block of rows with one query.
        ///
        /// # Safety
        /// `rows` holds at least one row of `row_bytes`, which are at least `dimension` times `WIDTH`.
        /// `query` holds `dimension` numbers, rounded up to a multiple of `LANES`.
        #[target_feature(enable = $features)]
        unsafe fn products<const WIDTH: usize>(
            rows: &[u8],
            row_bytes: usize,
            dimension: usize,
            query: &[f32],
        ) -> [f32; BLOCK_ROWS] {
            let count = rows.len() / row_bytes;
            let starts: [*const u8; BLOCK_ROWS] =
                std::array::from_fn(|row| rows[row.min(count - 1) * row_bytes..].as_ptr());
            // Over the positions, then the rows: one load of the query serves all rows, and their
            // sums do not wait for each other.
            let whole = dimension - dimension % LANES;
            let mut sums = [zero(); BLOCK_ROWS];
            for position in (0..whole).step_by(LANES) {
                // SAFETY: `LANES` numbers follow this position in the query.
                let factor = unsafe { load::<4>(query.as_ptr().add(position).cast()) };
                for (sum, start) in sums.iter_mut().zip(starts) {
                    // SAFETY: `LANES` numbers follow this position in every row.
                    let numbers = unsafe { load::<WIDTH>(start.wrapping_add(position * WIDTH)) };
                    *sum = multiply_add(numbers, factor, *sum);
                }
            }
            if whole < dimension {
                // SAFETY: the query is padded to a multiple of `LANES`.
                let factor = unsafe { load::<4>(query.as_ptr().add(whole).cast()) };
                for (sum, start) in sums.iter_mut().zip(starts) {
                    let start = start.wrapping_add(whole * WIDTH);
                    // SAFETY: every row has this many more numbers.
                    let numbers = unsafe { load_some::<WIDTH>(start, dimension - whole) };
                    *sum = multiply_add(numbers, factor, *sum);
                }
            }
            let mut totals = [0.0; BLOCK_ROWS];
            for (total_of_row, sum) in totals.iter_mut().zip(sums) {
                *total_of_row = total(sum);
            }
            totals
        }

        /// Decodes the numbers of a row to `f32`.
        ///
        /// # Safety
        /// `row` holds at least as many numbers of `WIDTH` bytes as `numbers` has elements.
        #[target_feature(enable = $features)]
        unsafe fn decode<const WIDTH: usize>(row: &[u8], scale: f32, numbers: &mut [[u8; 4]]) {
            for (index, numbers) in numbers.chunks_mut(LANES).enumerate() {
                let start = row.as_ptr().wrapping_add(index * LANES * WIDTH);
                // SAFETY: the row has this many more numbers.
                let lanes = unsafe {
                    if numbers.len() == LANES {
                        load::<WIDTH>(start)
                    } else {
                        load_some::<WIDTH>(start, numbers.len())
                    }
                };
                let lanes =
                    if WIDTH == 1 { multiply_add(lanes, splat(scale), zero()) } else { lanes };
                for (number, lane) in numbers.iter_mut().zip(to_array(lanes)) {
                    *number = lane.to_le_bytes();
                }
            }
        }
    };
}

mod avx512 {
    use crate::vector::lanes_x86::avx512 as lanes;

    /// The number of rows multiplied at a time with 1, 2 and 3 groups of queries: the sums fit in the
    /// 32 registers, and there are always enough independent products for two units of latency 4.
    pub(super) const TILE_ROWS: [usize; 3] = [8, 8, 8];

    kernels!("avx512f", super::Avx512);
}

mod avx2 {
    use crate::vector::lanes_x86::avx2 as lanes;

    /// The number of rows multiplied at a time with 1, 2 and 3 groups of queries: the sums fit in the
    /// 16 registers.
    pub(super) const TILE_ROWS: [usize; 3] = [8, 4, 4];

    kernels!("avx2,fma,f16c", super::Avx2);
}
