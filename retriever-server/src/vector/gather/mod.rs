//! Comparison of one query with rows at arbitrary positions, several rows at a time, as a search along
//! a graph needs it. While a block of rows is multiplied, the rows of the next block are fetched into
//! the cache.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::kernel::Instructions;
use super::rows::{self, RowFormat, Rows};

/// The number of rows compared at a time.
const BLOCK_ROWS: usize = 8;

/// The number of rows up to which half a block is compared instead of a whole one.
const HALF_ROWS: usize = 4;

/// The number of independent sums in plain loops, so that the compiler can use wide registers.
const LANES: usize = 16;

/// A measure of how near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The inner product; larger is better.
    InnerProduct,
    /// The squared Euclidean distance; smaller is better.
    L2,
}

/// A comparison of queries with rows by a metric.
#[derive(Clone, Copy, Debug)]
pub struct Scorer<'a> {
    rows: Rows<'a>,
    metric: Metric,
    instructions: Instructions,
}

impl<'a> Scorer<'a> {
    pub fn new(rows: Rows<'a>, metric: Metric) -> Self {
        Self::with_instructions(Instructions::fastest(), rows, metric)
    }

    /// Uses the given instructions, to compare them.
    pub(super) fn with_instructions(
        instructions: Instructions,
        rows: Rows<'a>,
        metric: Metric,
    ) -> Self {
        Self { rows, metric, instructions }
    }

    pub fn rows(&self) -> &Rows<'a> {
        &self.rows
    }

    /// Prepares a query for `Scorer::score`: pads it with zeros to a multiple of the lanes.
    pub fn prepare(&self, query: &[f32], prepared: &mut Vec<f32>) {
        prepared.clear();
        prepared.extend_from_slice(query);
        prepared.resize(self.rows.dimension().next_multiple_of(LANES), 0.0);
    }

    /// Prepares a row as a query.
    pub(super) fn prepare_row(&self, row: u32, prepared: &mut Vec<f32>) {
        let dimension = self.rows.dimension();
        prepared.clear();
        prepared.resize(dimension.next_multiple_of(LANES), 0.0);
        self.rows.read_row(row as usize, &mut prepared[..dimension]);
    }

    /// Writes the nearness of each of `rows` to the prepared query; larger is nearer. It is the inner
    /// product, or the negative squared distance, or negative infinity where that is not finite.
    ///
    /// # Panics
    /// If one of `rows` does not exist, or the query was not prepared.
    pub(in crate::vector) fn score(&self, query: &[f32], rows: &[u32], scores: &mut Vec<f32>) {
        assert_eq!(query.len(), self.rows.dimension().next_multiple_of(LANES), "prepared");
        scores.clear();
        // Over the blocks in the order of the list: while a block is compared, the kernel prefetches
        // the rows of the next one.
        for (index, block) in rows.chunks(BLOCK_ROWS).enumerate() {
            let ahead = &rows[index * BLOCK_ROWS + block.len()..];
            let ahead = &ahead[..ahead.len().min(BLOCK_ROWS)];
            let block_scores = self.score_block(query, block, ahead);
            let block_scores = block_scores[..block.len()].iter();
            scores.extend(
                block_scores.map(
                    |&score| {
                        if score.is_finite() { score } else { f32::NEG_INFINITY }
                    },
                ),
            );
        }
    }

    fn score_block(&self, query: &[f32], block: &[u32], ahead: &[u32]) -> [f32; BLOCK_ROWS] {
        if !self.is_vectorised() {
            return self.score_plainly(query, block);
        }
        match self.instructions {
            // Screening pays for many rows in order; single rows are compared exactly from the start.
            #[cfg(target_arch = "x86_64")]
            Instructions::Screened(proof, _) | Instructions::Avx512(proof) => {
                x86::avx512::score(proof, &self.rows, self.metric, query, block, ahead)
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(proof) => {
                x86::avx2::score(proof, &self.rows, self.metric, query, block, ahead)
            }
            Instructions::Portable => self.score_plainly(query, block),
        }
    }

    /// Returns `true` if a kernel computes the metric. Distances of `I8` rows would need the scale for
    /// every number.
    fn is_vectorised(&self) -> bool {
        self.metric == Metric::InnerProduct || self.rows.format() != RowFormat::I8
    }

    fn score_plainly(&self, query: &[f32], block: &[u32]) -> [f32; BLOCK_ROWS] {
        let (format, dimension) = (self.rows.format(), self.rows.dimension());
        let mut scores = [0.0; BLOCK_ROWS];
        for (score, &row) in scores.iter_mut().zip(block) {
            let row = self.rows.bytes_of(row as usize, 1);
            // Over the row in parts of `LANES` numbers, so that a small buffer holds the decoded part.
            let mut sums = [0.0; LANES];
            for first in (0..dimension).step_by(LANES) {
                let mut numbers = [0.0; LANES];
                let count = LANES.min(dimension - first);
                rows::decode_part(row, format, first, &mut numbers[..count]);
                let query = &query[first..][..count];
                for ((sum, &factor), &number) in sums.iter_mut().zip(query).zip(&numbers) {
                    *sum += match self.metric {
                        Metric::InnerProduct => factor * number,
                        Metric::L2 => -(factor - number) * (factor - number),
                    };
                }
            }
            *score = sums.iter().sum();
        }
        scores
    }
}

/// Requests that the bytes be fetched into the cache, without waiting for them.
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(bytes);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-1f32..1.0, count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Compares all instructions with sums in double precision, for rows at arbitrary positions.
        #[test]
        fn every_way_gives_the_same_nearness(
            (query, stored, asked) in (1..90usize, 1..30usize).prop_flat_map(|(dimension, count)| (
                numbers(dimension),
                numbers(dimension * count),
                proptest::collection::vec(0..count as u32, 0..40),
            )),
            shift in 0..5usize,
        ) {
            let dimension = query.len();
            for (format, metric) in [
                (RowFormat::F32, Metric::InnerProduct), (RowFormat::F32, Metric::L2),
                (RowFormat::F16, Metric::InnerProduct), (RowFormat::F16, Metric::L2),
                (RowFormat::I8, Metric::InnerProduct), (RowFormat::I8, Metric::L2),
            ] {
                let mut bytes = vec![0xff; shift];
                for row in stored.chunks(dimension) {
                    format.append_row(row, &mut bytes);
                }
                let rows = Rows::new(&bytes[shift..], format, dimension).unwrap();
                for instructions in Instructions::available() {
                    let scorer = Scorer::with_instructions(instructions, rows, metric);
                    let (mut prepared, mut scores) = (Vec::new(), Vec::new());
                    scorer.prepare(&query, &mut prepared);
                    scorer.score(&prepared, &asked, &mut scores);
                    prop_assert_eq!(scores.len(), asked.len());
                    for (&row, &score) in asked.iter().zip(&scores) {
                        let mut row_numbers = vec![0.0; dimension];
                        rows.read_row(row as usize, &mut row_numbers);
                        let pairs = query.iter().zip(&row_numbers);
                        let pairs =
                            pairs.map(|(&left, &right)| (f64::from(left), f64::from(right)));
                        let expected: f64 = pairs.map(|(left, right)| match metric {
                            Metric::InnerProduct => left * right,
                            Metric::L2 => -(left - right) * (left - right),
                        }).sum();
                        let error = (f64::from(score) - expected).abs();
                        prop_assert!(error < 1e-5 * (1.0 + expected.abs()),
                            "{format:?} {metric:?} {instructions:?}: {score}, not {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_are_not_finite_are_farthest() {
        let numbers = [f32::NAN, 1.0, f32::INFINITY, 0.5, f32::MAX, f32::MAX];
        let mut bytes = Vec::new();
        RowFormat::F32.append_row(&numbers, &mut bytes);
        let rows = Rows::new(&bytes, RowFormat::F32, 2).unwrap();
        for instructions in Instructions::available() {
            let scorer = Scorer::with_instructions(instructions, rows, Metric::InnerProduct);
            let (mut prepared, mut scores) = (Vec::new(), Vec::new());
            scorer.prepare(&[2.0, 2.0], &mut prepared);
            scorer.score(&prepared, &[0, 1, 2], &mut scores);
            assert_eq!(scores, [f32::NEG_INFINITY; 3], "{instructions:?}");
        }
    }
}
