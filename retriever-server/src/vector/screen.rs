//! Screening: products of rows and queries rounded to bfloat16, with a bound on their error. Processors
//! multiply bfloat16 many times as fast. Only the products that may be above their threshold are
//! multiplied exactly, so no hit is missed, and scores are the same as without screening.
//!
//! Let x' and y' be the rounded row and query. Then |xy - x'y'| = |(x - x')y + x'(y - y')| is at most
//! |x - x'| |y| + |x'| |y - y'| by the Cauchy-Schwarz inequality. These norms are measured, not
//! estimated.

use half::bf16;

/// The number of rows multiplied at a time.
pub(super) const SCREEN_ROWS: usize = 32;

/// The number of queries multiplied at a time: two groups of [`GROUP_QUERIES`].
pub(super) const SCREEN_QUERIES: usize = 32;

/// The number of queries in a group, whose numbers are interleaved.
pub(super) const GROUP_QUERIES: usize = 16;

/// The length of a padded row is a multiple of this.
const STEP_NUMBERS: usize = 32;

/// Returns the largest error of a sum of `dimension` rounded products, relative to the product of the
/// norms. It is four times the usual bound for single precision, because it also covers the rounding
/// of the exact product and of the bound itself.
fn rounding(dimension: usize) -> f32 {
    dimension as f32 * f32::EPSILON * 2.0
}

/// A margin far below every relevant score, and above the loss where products underflow.
const UNDERFLOW: f32 = 1e-30;

/// Returns the length of a padded row.
pub(super) fn padded(dimension: usize) -> usize {
    dimension.next_multiple_of(STEP_NUMBERS)
}

/// Rounded queries.
#[derive(Debug)]
pub(super) struct ScreenQueries {
    /// Two groups for each [`SCREEN_QUERIES`] queries. For each pair of positions, a group holds the
    /// pairs of all its queries.
    numbers: Vec<u16>,
    /// The exact queries, each padded with zeros to `exact_length` numbers.
    exact: Vec<f32>,
    exact_length: usize,
    bounds: ErrorBounds,
    padded: usize,
}

/// The terms of the error bound. The product of a row and a query is off by at most the row's residual
/// times the query's norm plus the row's norm times the query's residual.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorBounds {
    pub(super) norms: Vec<f32>,
    pub(super) residuals: Vec<f32>,
}

impl ScreenQueries {
    /// Rounds queries of `dimension` numbers. `lanes` is the width of the kernel for exact products.
    pub(super) fn new(queries: &[f32], dimension: usize, lanes: usize) -> Self {
        let count = queries.len() / dimension;
        let padded_count = count.next_multiple_of(SCREEN_QUERIES);
        let (padded, exact_length) = (padded(dimension), dimension.next_multiple_of(lanes));
        let mut numbers = vec![0; padded_count * padded];
        let mut exact = vec![0.0; count * exact_length];
        let mut bounds =
            ErrorBounds { norms: vec![0.0; padded_count], residuals: vec![0.0; padded_count] };
        let slack = 1.0 + rounding(dimension);
        for (index, query) in queries.chunks(dimension).enumerate() {
            exact[index * exact_length..][..dimension].copy_from_slice(query);
            let group = &mut numbers[index / GROUP_QUERIES * GROUP_QUERIES * padded..];
            let (mut norm, mut residual) = (0f64, 0f64);
            for (position, &number) in query.iter().enumerate() {
                let rounded = bf16::from_f32(number);
                let pair = position / 2 * GROUP_QUERIES + index % GROUP_QUERIES;
                group[pair * 2 + position % 2] = rounded.to_bits();
                norm += f64::from(number).powi(2);
                residual += (f64::from(number) - f64::from(rounded)).powi(2);
            }
            let norm = norm.sqrt() as f32 * slack;
            bounds.norms[index] = norm;
            bounds.residuals[index] = residual.sqrt() as f32 * slack + rounding(dimension) * norm;
        }
        Self { numbers, exact, exact_length, bounds, padded }
    }

    /// Returns the number of queries, including the padding of the last panel.
    pub(super) fn padded_count(&self) -> usize {
        self.bounds.norms.len()
    }

    /// Returns the first query of each panel with the panel's numbers.
    pub(super) fn panels(&self) -> impl Iterator<Item = (usize, &[u16])> {
        self.numbers
            .chunks(SCREEN_QUERIES * self.padded)
            .enumerate()
            .map(|(panel, numbers)| (panel * SCREEN_QUERIES, numbers))
    }

    /// Returns the exact query, padded with zeros.
    pub(super) fn exact(&self, query: usize) -> &[f32] {
        &self.exact[query * self.exact_length..][..self.exact_length]
    }

    /// Returns the norms and the residuals of the queries of the panel that begins with `first`.
    pub(super) fn bounds(&self, first: usize) -> [&[f32]; 2] {
        let part = first..first + SCREEN_QUERIES;
        [&self.bounds.norms[part.clone()], &self.bounds.residuals[part]]
    }
}

/// Returns the limit that belongs to a threshold: products at or below it need no exact product.
pub(super) fn limit(threshold: f32) -> f32 {
    threshold - UNDERFLOW
}

/// The rounded rows of a chunk.
#[derive(Debug, Default)]
pub(super) struct ScreenRows {
    /// Rows of `padded` numbers, padded with rows of zeros to a multiple of [`SCREEN_ROWS`].
    pub(super) numbers: Vec<u16>,
    pub(super) bounds: ErrorBounds,
}

impl ScreenRows {
    /// Resizes the buffers for `count` rows of `dimension` numbers.
    pub(super) fn resize(&mut self, count: usize, dimension: usize) {
        let count = count.next_multiple_of(SCREEN_ROWS);
        self.numbers.resize(count * padded(dimension), 0);
        self.bounds.norms.resize(count, 0.0);
        self.bounds.residuals.resize(count, 0.0);
    }

    /// Sets the bounds of a row from the sums of squares of the rounded row and of its rounding errors.
    pub(super) fn set_bounds(&mut self, row: usize, [norm, residual]: [f32; 2], dimension: usize) {
        let slack = 1.0 + rounding(dimension);
        self.bounds.norms[row] = norm.sqrt() * slack;
        self.bounds.residuals[row] = residual.sqrt() * slack;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(row: &[f32]) -> (Vec<f32>, [f32; 2]) {
        let rounded: Vec<f32> = row.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        let norm = rounded.iter().map(|x| x * x).sum();
        let residual = row.iter().zip(&rounded).map(|(x, y)| (x - y).powi(2)).sum();
        (rounded, [norm, residual])
    }

    proptest! {
        /// Products of rounded numbers are never off by more than the bound.
        #[test]
        fn the_bound_holds(
            numbers in (1..80usize).prop_flat_map(|dimension| {
                proptest::collection::vec((-1e3f32..1e3, -1e3f32..1e3), dimension)
            }),
            scale in proptest::sample::select(vec![1.0f32, 1e-3, 1e-12, 1e12]),
        ) {
            let (row, query): (Vec<f32>, Vec<f32>) =
                numbers.into_iter().map(|(row, query)| (row * scale, query)).unzip();
            let queries = ScreenQueries::new(&query, query.len(), 16);
            let mut rows = ScreenRows::default();
            rows.resize(1, row.len());
            let (rounded, sums) = round(&row);
            rows.set_bounds(0, sums, row.len());
            let [norms, residuals] = queries.bounds(0);
            let bound = rows.bounds.residuals[0] * norms[0] + rows.bounds.norms[0] * residuals[0];
            let (rounded_query, _) = round(&query);
            let exact: f64 =
                row.iter().zip(&query).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let screened: f32 = rounded.iter().zip(&rounded_query).map(|(x, y)| x * y).sum();
            let error = (exact - f64::from(screened)).abs();
            prop_assert!(error <= f64::from(bound + UNDERFLOW), "{error} above {bound}");
        }
    }

    #[test]
    fn queries_are_interleaved_in_pairs_of_positions() {
        let queries: Vec<f32> = (0..17 * 3).map(|number| number as f32).collect();
        let screen = ScreenQueries::new(&queries, 3, 4);
        assert_eq!([screen.padded_count(), screen.padded], [32, 32]);
        let (first, panel) = screen.panels().next().unwrap();
        assert_eq!((first, panel.len()), (0, 32 * 32));
        let number = |query: usize, position: usize| {
            let group = &panel[query / 16 * 16 * 32..];
            bf16::from_bits(group[(position / 2 * 16 + query % 16) * 2 + position % 2]).to_f32()
        };
        for query in 0..17 {
            for position in 0..3 {
                assert!((number(query, position) - queries[query * 3 + position]).abs() < 1e-6);
            }
            assert_eq!(screen.exact(query), [&queries[query * 3..][..3], &[0.0]].concat());
        }
        assert!(number(17, 0).abs() < 1e-6 && number(0, 3).abs() < 1e-6);
    }
}
