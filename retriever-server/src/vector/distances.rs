//! Exact search by squared distance, which faiss files may require. Vectors of length 1, such as those
//! of encoders, have the same order by inner product, and the search by inner product is faster.

use super::best::BestHits;
use super::gather::{Metric, Scorer};
use super::rows::Rows;
use super::scan::{THREAD_PRODUCTS, over_chunks};
use crate::query::Hit;

/// The bytes of a chunk of rows, which stays in the cache while all queries are compared with it.
const CHUNK_BYTES: usize = 256 << 10;

/// Returns the `top_k` rows with the smallest distance for each query, best first; of equal distances
/// the lower row comes first. A score is the negative squared distance. The rest is as in
/// [`super::top_k`].
///
/// # Panics
/// If the length of `queries` is not a multiple of the rows' dimension.
pub fn top_k_by_distance(
    rows: &Rows<'_>,
    queries: &[f32],
    top_k: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Vec<Hit>>> {
    let dimension = rows.dimension();
    assert!(queries.len().is_multiple_of(dimension), "every query has all its numbers");
    let scorer = Scorer::new(*rows, Metric::L2);
    let queries: Vec<Vec<f32>> = queries
        .chunks(dimension)
        .map(|query| {
            let mut prepared = Vec::new();
            scorer.prepare(query, &mut prepared);
            prepared
        })
        .collect();
    let chunk_rows = (CHUNK_BYTES / rows.format().row_bytes(dimension)).max(1);
    let chunks = rows.count().div_ceil(chunk_rows);
    let products = rows.count().saturating_mul(dimension).saturating_mul(queries.len());
    let threads = threads.min(products / THREAD_PRODUCTS).min(chunks).max(1);
    let best = over_chunks(chunks, threads, stop, &|claim| {
        let mut best = vec![BestHits::new(top_k.min(rows.count())); queries.len()];
        let (mut numbers, mut scores) = (Vec::new(), Vec::new());
        while let Some(chunk) = claim() {
            let first = chunk * chunk_rows;
            numbers.clear();
            numbers.extend(first as u32..rows.count().min(first + chunk_rows) as u32);
            for (query, best) in queries.iter().zip(&mut best) {
                scorer.score(query, &numbers, &mut scores);
                for (&row, &score) in numbers.iter().zip(&scores) {
                    best.offer(Hit { row, score });
                }
            }
        }
        best
    })?;
    Some(best.into_iter().map(BestHits::into_sorted).collect())
}
