//! Exact search for the largest inner products over rows of numbers that somebody else owns. It
//! reads no files and knows nothing of passages or models.
//!
//! The way of a search: queries are packed into `panels`, `scan` hands chunks of rows to threads, a
//! kernel (`x86` or `portable`, chosen by [`Instructions`]) multiplies and compares with each
//! query's threshold before a product leaves its register, and the few that pass go to a bounded
//! heap (`best`). What is left is scored again in double precision, so that scores and their order
//! depend neither on the processor nor on the other queries of a batch.

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
pub mod hnsw;
pub mod usearch;
pub mod faiss_file;

use std::thread;

pub use distances::top_k_by_distance;
pub use gather::{Metric, Scorer};
pub use kernel::Instructions;
pub use rows::{DIMENSION_MAX, RowFormat, Rows, RowsError};

use best::Best;
use scan::Scan;

use crate::query::Hit;

/// Hits that are kept past the last one asked for, as the order can change when they are scored
/// again.
const SPARE_HITS: usize = 8;

/// Sums that run beside each other, so that one does not wait for the last.
const PARTIAL_SUMS: usize = 8;

/// The `top_k` rows with the largest inner product for each query, best first; equal scores go to
/// the lower row. `queries` holds `dimension` finite numbers a query. A row whose score is not
/// finite is left out, so that a list may be shorter than `top_k`. `stop` is asked every few
/// milliseconds at most; the result is None once it says so.
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

/// [`top_k`] with chosen instructions, to compare them.
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
    let found = Scan::new(rows, queries, top_k + SPARE_HITS, instructions).run(threads, stop)?;
    let mut found: Vec<_> = found.into_iter().map(Best::into_sorted).collect();
    rescore(rows, queries, &mut found, top_k, threads);
    Some(found)
}

/// Scores the hits of each query by these rows, in double precision, and keeps the `top_k` best,
/// best first. With rows of a finer format than those that were searched, it makes up for the
/// coarser ones.
///
/// # Panics
/// If a hit is not a row, or `queries` does not hold `dimension` numbers for each list of hits.
pub fn rescore(
    rows: &Rows<'_>,
    queries: &[f32],
    found: &mut [Vec<Hit>],
    top_k: usize,
    threads: usize,
) {
    let dimension = rows.dimension();
    assert_eq!(queries.len(), found.len() * dimension, "a list of hits a query");
    let rescore = |queries: &[f32], found: &mut [Vec<Hit>]| {
        let mut numbers = vec![0.0; dimension];
        for (query, hits) in queries.chunks(dimension).zip(found) {
            let mut best = Best::new(top_k);
            for &Hit { row, .. } in hits.iter() {
                rows.read_row(row as usize, &mut numbers);
                best.offer(Hit { row, score: inner_product(query, &numbers) });
            }
            *hits = best.into_sorted();
        }
    };
    let hits: usize = found.iter().map(Vec::len).sum();
    let threads = threads.min(hits * dimension / scan::THREAD_PRODUCTS).max(1);
    let share = found.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut shares = queries.chunks(share * dimension).zip(found.chunks_mut(share));
        let own = shares.next();
        for (queries, found) in shares {
            scope.spawn(move || rescore(queries, found));
        }
        if let Some((queries, found)) = own {
            rescore(queries, found);
        }
    });
}

/// The sum of products in double precision, rounded once.
fn inner_product(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0f64; PARTIAL_SUMS];
    for (one, other) in one.chunks(PARTIAL_SUMS).zip(other.chunks(PARTIAL_SUMS)) {
        for ((sum, one), other) in sums.iter_mut().zip(one).zip(other) {
            *sum += f64::from(*one) * f64::from(*other);
        }
    }
    sums.iter().sum::<f64>() as f32
}

#[cfg(test)]
mod tests;
