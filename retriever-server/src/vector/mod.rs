//! Search for the nearest of many vectors. It knows nothing of passages or models.
//!
//! [`top_k`] finds the largest inner products over all rows. It works on bytes that the caller
//! provides, and reads no files:
//!
//! 1. `panels` packs the queries.
//! 2. `scan` hands chunks of rows to threads.
//! 3. A kernel (`x86` or `portable`, chosen by [`Instructions`]) multiplies, and compares each product
//!    with its query's threshold before the product leaves its register. The few that pass go to a
//!    bounded heap (`best`).
//! 4. The hits in the heap are scored again in double precision, so that scores and their order
//!    depend neither on the processor nor on the other queries of a batch.
//!
//! [`hnsw`] searches along a graph instead, and compares single rows with `gather`. `copies` finds the
//! rows that share a place in a graph. Three modules read files, and two of them also write:
//! [`faiss_file`] reads the index files of faiss and arrays of numpy, [`hnsw`] keeps its graphs in a
//! format of its own, and [`usearch`] uses the library's format.

mod rows;
mod kernel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod bf16_x86;
#[cfg(target_arch = "x86_64")]
mod screen;
mod panels;
mod best;
mod scan;
mod distances;
mod gather;
mod copies;
pub mod hnsw;
pub mod usearch;
pub mod faiss_file;

pub use distances::top_k_by_distance;
pub use gather::{Metric, Scorer};
pub use kernel::Instructions;
pub use rows::{DIMENSION_MAX, RowFormat, Rows, RowsError};

use best::BestHits;
use scan::Scan;

use crate::processor::fork_join::fork_join;
use crate::query::Hit;

/// The number of hits that are kept in addition to those requested, because the order can change when
/// they are scored again.
const SPARE_HITS: usize = 8;

/// The number of independent sums, so that an addition does not wait for the previous one.
const PARTIAL_SUMS: usize = 8;

/// Returns the `top_k` rows with the largest inner product for each query, best first; of equal scores
/// the lower row comes first. `queries` holds `dimension` finite numbers for each query. Rows whose
/// score is not finite are left out, so a list may be shorter than `top_k`. `stop` is called at least
/// every few milliseconds; once it returns `true`, the result is `None`.
///
/// # Panics
/// If the length of `queries` is not a multiple of the rows' dimension.
pub fn top_k(
    rows: &Rows<'_>,
    queries: &[f32],
    top_k: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Vec<Hit>>> {
    top_k_with(Instructions::fastest(), rows, queries, top_k, threads, stop)
}

/// Computes [`top_k`] with the given instructions, to compare them.
pub fn top_k_with(
    instructions: Instructions,
    rows: &Rows<'_>,
    queries: &[f32],
    top_k: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Vec<Hit>>> {
    assert!(queries.len().is_multiple_of(rows.dimension()), "every query has all its numbers");
    let top_k = top_k.min(rows.count());
    if top_k == 0 || queries.is_empty() {
        return Some(vec![Vec::new(); queries.len() / rows.dimension()]);
    }
    let best = Scan::new(rows, queries, top_k + SPARE_HITS, instructions).run(threads, stop)?;
    let mut lists: Vec<_> = best.into_iter().map(BestHits::into_sorted).collect();
    rescore(rows, queries, &mut lists, top_k, threads);
    Some(lists)
}

/// Scores the hits of each query again from `rows`, in double precision, and keeps the `top_k` best,
/// best first. If `rows` have a finer format than the rows that were searched, this makes up for the
/// coarser format.
///
/// # Panics
/// If a hit is not one of `rows`, or `queries` does not hold `dimension` numbers for each list.
pub fn rescore(
    rows: &Rows<'_>,
    queries: &[f32],
    lists: &mut [Vec<Hit>],
    top_k: usize,
    threads: usize,
) {
    let dimension = rows.dimension();
    assert_eq!(queries.len(), lists.len() * dimension, "a list of hits for each query");
    let rescore = |queries: &[f32], lists: &mut [Vec<Hit>]| {
        let mut numbers = vec![0.0; dimension];
        for (query, hits) in queries.chunks(dimension).zip(lists) {
            let mut best = BestHits::new(top_k);
            for &Hit { row, .. } in hits.iter() {
                rows.read_row(row as usize, &mut numbers);
                best.offer(Hit { row, score: inner_product(query, &numbers) });
            }
            *hits = best.into_sorted();
        }
    };
    let hits: usize = lists.iter().map(Vec::len).sum();
    let threads = threads.min(hits * dimension / scan::THREAD_PRODUCTS).max(1);
    let share = lists.len().div_ceil(threads).max(1);
    let shares = queries.chunks(share * dimension).zip(lists.chunks_mut(share));
    fork_join(shares, |(queries, lists)| rescore(queries, lists));
}

/// Returns the sum of the products in double precision, rounded once.
fn inner_product(query: &[f32], row: &[f32]) -> f32 {
    let mut sums = [0f64; PARTIAL_SUMS];
    for (query, row) in query.chunks(PARTIAL_SUMS).zip(row.chunks(PARTIAL_SUMS)) {
        for ((sum, left), right) in sums.iter_mut().zip(query).zip(row) {
            *sum += f64::from(*left) * f64::from(*right);
        }
    }
    sums.iter().sum::<f64>() as f32
}

#[cfg(test)]
mod tests;
