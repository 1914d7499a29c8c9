//! The comparisons for AVX-512 and for AVX2 with FMA, from one macro.
//!
//! The interface is safe: the proofs exist only where the processor has the instructions, every row
//! comes from a checked slice of the table, and the query's length is checked before the loop that
//! reads it through a pointer.

#![expect(unsafe_code, reason = "loads at any alignment, and instructions chosen at run time")]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{BLOCK_ROWS, HALF_ROWS, Metric};
use crate::vector::rows::{RowFormat, Rows, scale};

/// The bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Requests the cache lines of `bytes`, without waiting for them.
pub(super) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        // SAFETY: every x86-64 processor has the instruction, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Returns pointers to the rows of a block; past its end, to its last row.
fn starts<const ROWS: usize>(rows: &Rows<'_>, block: &[u32]) -> [*const u8; ROWS] {
    let last = block.len() - 1;
    std::array::from_fn(|index| rows.bytes_of(block[index.min(last)] as usize, 1).as_ptr())
}

/// The loops, which are the same for both.
macro_rules! comparisons {
    ($features:literal, $proof:ty) => {
        use super::{
            _MM_HINT_T0, _mm_prefetch, BLOCK_ROWS, HALF_ROWS, LINE_BYTES, Metric, RowFormat, Rows,
            scale, starts,
        };
        use lanes::{LANES, Lanes, load, load_some, multiply_add, subtract, total, zero};

        /// Compares up to [`BLOCK_ROWS`] rows with a padded query, and prefetches the rows `ahead`.
        pub(in super::super) fn score(
            _: $proof,
            rows: &Rows<'_>,
            metric: Metric,
            query: &[f32],
            block: &[u32],
            ahead: &[u32],
        ) -> [f32; BLOCK_ROWS] {
            assert!((1..=BLOCK_ROWS).contains(&block.len()), "a block of rows");
            assert!(query.len() >= rows.dimension().next_multiple_of(LANES), "a padded query");
            let mut scores = [0.0; BLOCK_ROWS];
            // SAFETY: the proof shows that the processor has the instructions; the query's length was
            // just checked.
            unsafe {
                if block.len() <= HALF_ROWS {
                    let half = by_format::<HALF_ROWS>(rows, metric, query, block, ahead);
                    scores[..HALF_ROWS].copy_from_slice(&half);
                } else {
                    scores = by_format::<BLOCK_ROWS>(rows, metric, query, block, ahead);
                }
            }
            if rows.format() == RowFormat::I8 {
                for (score, &row) in scores.iter_mut().zip(block) {
                    *score *= scale(rows.bytes_of(row as usize, 1));
                }
            }
            scores
        }

        /// Selects the comparison for the format and the metric.
        ///
        /// # Safety
        /// `query` is as [`compare`] requires it, and `block` is not empty.
        #[target_feature(enable = $features)]
        unsafe fn by_format<const ROWS: usize>(
            rows: &Rows<'_>,
            metric: Metric,
            query: &[f32],
            block: &[u32],
            ahead: &[u32],
        ) -> [f32; ROWS] {
            let dimension = rows.dimension();
            let here = starts::<ROWS>(rows, block);
            let next = (!ahead.is_empty()).then(|| starts::<ROWS>(rows, ahead));
            let squared = metric == Metric::L2;
            // SAFETY: the starts are those of rows of this format; the caller guarantees the query.
            unsafe {
                match (rows.format(), squared) {
                    (RowFormat::F32, false) => {
                        compare::<4, ROWS, false>(here, next, dimension, query)
                    }
                    (RowFormat::F32, true) => {
                        compare::<4, ROWS, true>(here, next, dimension, query)
                    }
                    (RowFormat::F16, false) => {
                        compare::<2, ROWS, false>(here, next, dimension, query)
                    }
                    (RowFormat::F16, true) => {
                        compare::<2, ROWS, true>(here, next, dimension, query)
                    }
                    (RowFormat::I8, _) => compare::<1, ROWS, false>(here, next, dimension, query),
                }
            }
        }

        /// Compares the rows at `here` with a query, and prefetches the rows at `next`.
        ///
        /// # Safety
        /// `dimension` numbers of `WIDTH` bytes follow each of `here`. `query` holds `dimension`
        /// numbers, rounded up to a multiple of `LANES`.
        #[target_feature(enable = $features)]
        unsafe fn compare<const WIDTH: usize, const ROWS: usize, const SQUARED: bool>(
            here: [*const u8; ROWS],
            next: Option<[*const u8; ROWS]>,
            dimension: usize,
            query: &[f32],
        ) -> [f32; ROWS] {
            // Over the positions, then the rows: one load of the query serves all rows, their sums do
            // not wait for each other, and the prefetches spread over the whole computation.
            let whole = dimension - dimension % LANES;
            let mut sums = [zero(); ROWS];
            for position in (0..whole).step_by(LANES) {
                let offset_bytes = position * WIDTH;
                // Prefetches each line once, although a line may hold the numbers of several loads.
                if let Some(next) = next
                    && offset_bytes % LINE_BYTES < LANES * WIDTH
                {
                    for start in next {
                        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset_bytes).cast());
                    }
                }
                // SAFETY: `LANES` numbers follow this position in the query.
                let factor = unsafe { load::<4>(query.as_ptr().add(position).cast()) };
                for (sum, start) in sums.iter_mut().zip(here) {
                    // SAFETY: `LANES` numbers follow this position in every row.
                    let numbers = unsafe { load::<WIDTH>(start.wrapping_add(offset_bytes)) };
                    *sum = term::<SQUARED>(numbers, factor, *sum);
                }
            }
            // The rest of a row is shorter than a vector.
            if whole < dimension {
                // SAFETY: the query is padded to a multiple of `LANES`.
                let factor = unsafe { load::<4>(query.as_ptr().add(whole).cast()) };
                for (sum, start) in sums.iter_mut().zip(here) {
                    let start = start.wrapping_add(whole * WIDTH);
                    // SAFETY: every row has this many more numbers.
                    let numbers = unsafe { load_some::<WIDTH>(start, dimension - whole) };
                    *sum = term::<SQUARED>(numbers, factor, *sum);
                }
            }
            let mut totals = [0.0; ROWS];
            for (total_of_row, sum) in totals.iter_mut().zip(sums) {
                *total_of_row = if SQUARED { -total(sum) } else { total(sum) };
            }
            totals
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn term<const SQUARED: bool>(numbers: Lanes, factor: Lanes, sum: Lanes) -> Lanes {
            if SQUARED {
                let difference = subtract(numbers, factor);
                multiply_add(difference, difference, sum)
            } else {
                multiply_add(numbers, factor, sum)
            }
        }
    };
}

pub(super) mod avx512 {
    use crate::vector::lanes_x86::avx512 as lanes;

    comparisons!("avx512f", crate::vector::x86::Avx512);
}

pub(super) mod avx2 {
    use crate::vector::lanes_x86::avx2 as lanes;

    comparisons!("avx2,fma,f16c", crate::vector::x86::Avx2);
}
