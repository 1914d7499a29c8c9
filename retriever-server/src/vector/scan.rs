//! Comparison of all rows with all queries on several threads. Whichever thread is free takes the next
//! chunk of rows. A chunk stays in the cache while every panel of queries is multiplied with it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::best::BestHits;
#[cfg(target_arch = "x86_64")]
use super::bf16_x86::Screening;
use super::kernel::{BLOCK_ROWS, Instructions, Survivor};
use super::panels::Panels;
use super::rows::{RowFormat, Rows};
#[cfg(target_arch = "x86_64")]
use super::screen::{self, SCREEN_QUERIES, ScreenQueries, ScreenRows};
use crate::processor::fork_join::fork_join;
use crate::query::Hit;

/// The bytes of a chunk of rows as `f32`: half of a small second-level cache.
const CHUNK_BYTES: usize = 256 << 10;

/// The divisor of a chunk's number of rows, chosen so that kernels work on whole blocks.
const CHUNK_ROWS_STEP: usize = 32;

/// The number of multiplications that justifies a further thread.
pub(super) const THREAD_PRODUCTS: usize = 1 << 20;

/// The input of a search, which all threads share.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    rows: &'a Rows<'a>,
    instructions: Instructions,
    queries: Queries,
    /// The number of queries.
    count: usize,
    /// The most hits of a query.
    capacity: usize,
    chunk_rows: usize,
}

/// Queries in the order in which the kernels read them.
#[derive(Debug)]
enum Queries {
    /// One query, padded with zeros. The kernel reads rows in their stored format.
    One(Vec<f32>),
    /// Several queries. Rows are decoded once for all of them.
    Many(Panels),
    /// Several queries that are compared in bfloat16 first.
    #[cfg(target_arch = "x86_64")]
    Screened(ScreenQueries, Screening),
}

/// A thread's hits and its buffers.
#[derive(Debug)]
struct Worker {
    best: Vec<BestHits>,
    /// The threshold of each query; infinity for the padding of the last panel.
    thresholds: Vec<f32>,
    numbers: Vec<[u8; 4]>,
    #[cfg(target_arch = "x86_64")]
    rounded: ScreenRows,
    /// The products of all rows of a chunk with a panel.
    #[cfg(target_arch = "x86_64")]
    scores: Vec<f32>,
    survivors: Vec<Survivor>,
}

/// A thread's part of a search: it claims chunks one by one and returns the best hits in them.
pub(super) type ChunkWork<'a> =
    dyn Fn(&mut dyn FnMut() -> Option<usize>) -> Vec<BestHits> + Sync + 'a;

/// Hands `chunks` to whichever thread is free, and returns the best hits of all chunks. `stop` is called
/// before every chunk; once it returns `true`, the result is `None`.
pub(super) fn over_chunks(
    chunks: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
    work: &ChunkWork<'_>,
) -> Option<Vec<BestHits>> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let claim = || {
        if stopped.load(Ordering::Relaxed) || stop() {
            stopped.store(true, Ordering::Relaxed);
            return None;
        }
        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&chunk| chunk < chunks)
    };
    let parts = fork_join(0..threads.max(1), |_| work(&mut || claim()));
    let best = parts.into_iter().reduce(|mut best, part| {
        for (best, part) in best.iter_mut().zip(part) {
            best.absorb(part);
        }
        best
    });
    best.filter(|_| !stopped.into_inner())
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        rows: &'a Rows<'a>,
        queries: &[f32],
        capacity: usize,
        instructions: Instructions,
    ) -> Self {
        let dimension = rows.dimension();
        let count = queries.len() / dimension;
        let lanes = instructions.lanes();
        let queries = if count == 1 {
            let mut query = queries.to_vec();
            query.resize(dimension.next_multiple_of(lanes), 0.0);
            Queries::One(query)
        } else {
            match instructions {
                #[cfg(target_arch = "x86_64")]
                Instructions::Screened(_, screening) => {
                    Queries::Screened(ScreenQueries::new(queries, dimension, lanes), screening)
                }
                _ => Queries::Many(Panels::pack(queries, dimension, lanes)),
            }
        };
        let chunk_rows = CHUNK_BYTES / (dimension * size_of::<f32>());
        let chunk_rows = (chunk_rows - chunk_rows % CHUNK_ROWS_STEP).max(CHUNK_ROWS_STEP);
        Self { rows, instructions, queries, count, capacity, chunk_rows }
    }

    /// Returns the best hits of each query. `stop` is called before every chunk; once it returns
    /// `true`, the result is `None`.
    pub(super) fn run(
        &self,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<Vec<BestHits>> {
        let chunks = self.rows.count().div_ceil(self.chunk_rows);
        let products = self.rows.count() * self.rows.dimension() * self.count;
        let threads = threads.min(products / THREAD_PRODUCTS).min(chunks).max(1);
        over_chunks(chunks, threads, stop, &|claim| {
            let mut worker = self.worker();
            while let Some(chunk) = claim() {
                self.search(chunk * self.chunk_rows, &mut worker);
            }
            worker.best
        })
    }

    fn worker(&self) -> Worker {
        let padded = match &self.queries {
            Queries::One(_) => 1,
            Queries::Many(panels) => panels.padded_count(),
            #[cfg(target_arch = "x86_64")]
            Queries::Screened(queries, _) => queries.padded_count(),
        };
        let best = vec![BestHits::new(self.capacity); self.count];
        let mut thresholds: Vec<f32> = best.iter().map(BestHits::threshold).collect();
        thresholds.resize(padded, f32::INFINITY);
        Worker {
            best,
            thresholds,
            numbers: Vec::new(),
            #[cfg(target_arch = "x86_64")]
            rounded: ScreenRows::default(),
            #[cfg(target_arch = "x86_64")]
            scores: Vec::new(),
            survivors: Vec::new(),
        }
    }

    /// Searches the chunk that begins at row `first`.
    fn search(&self, first: usize, worker: &mut Worker) {
        let count = self.chunk_rows.min(self.rows.count() - first);
        let stored = self.rows.bytes_of(first, count);
        match &self.queries {
            Queries::One(query) => self.search_one(first, stored, query, worker),
            Queries::Many(panels) => self.search_many(first, stored, panels, worker),
            #[cfg(target_arch = "x86_64")]
            Queries::Screened(queries, screening) => {
                self.search_screened(first, stored, queries, *screening, worker);
            }
        }
    }

    fn search_one(&self, first: usize, stored: &[u8], query: &[f32], worker: &mut Worker) {
        let (format, dimension) = (self.rows.format(), self.rows.dimension());
        let row_bytes = format.row_bytes(dimension);
        let (best, threshold) = (&mut worker.best[0], &mut worker.thresholds[0]);
        for (block, rows) in stored.chunks(BLOCK_ROWS * row_bytes).enumerate() {
            let scores = self.instructions.products(rows, format, dimension, query);
            for (row, &score) in scores[..rows.len() / row_bytes].iter().enumerate() {
                if score > *threshold {
                    best.offer(Hit { row: (first + block * BLOCK_ROWS + row) as u32, score });
                    *threshold = best.threshold();
                }
            }
        }
    }

    fn search_many(&self, first: usize, stored: &[u8], panels: &Panels, worker: &mut Worker) {
        let (format, dimension) = (self.rows.format(), self.rows.dimension());
        let Worker { best, thresholds, numbers, survivors, .. } = worker;
        let numbers = if format == RowFormat::F32 {
            stored
        } else {
            let stored = stored.chunks(format.row_bytes(dimension));
            numbers.resize(stored.len() * dimension, [0; 4]);
            for (row, numbers) in stored.zip(numbers.chunks_mut(dimension)) {
                self.instructions.decode(row, format, numbers);
            }
            numbers.as_flattened()
        };
        // Over the panels, then over the blocks of the chunk, so that the chunk stays in the cache for
        // all panels, and each product meets the threshold that earlier blocks have raised.
        for (queries, panel) in panels.iter() {
            let block_bytes = BLOCK_ROWS * RowFormat::F32.row_bytes(dimension);
            for (block, rows) in numbers.chunks(block_bytes).enumerate() {
                let thresholds = &mut thresholds[queries.clone()];
                self.instructions.tile(rows, dimension, panel, thresholds, survivors);
                for Survivor { row, query, score } in survivors.drain(..) {
                    let best = &mut best[queries.start + query];
                    best.offer(Hit { row: (first + block * BLOCK_ROWS + row) as u32, score });
                    thresholds[query] = best.threshold();
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn search_screened(
        &self,
        first: usize,
        stored: &[u8],
        queries: &ScreenQueries,
        screening: Screening,
        worker: &mut Worker,
    ) {
        let (format, dimension) = (self.rows.format(), self.rows.dimension());
        let row_bytes = format.row_bytes(dimension);
        let Worker { best, thresholds, rounded, scores, survivors, .. } = worker;
        // The chunk is rounded once for all panels.
        screening.narrow(stored, format, dimension, rounded);
        scores.resize(rounded.bounds.norms.len() * SCREEN_QUERIES, 0.0);
        for (first_query, panel) in queries.panels() {
            screening.products(&rounded.numbers, panel, scores);
            let bounds = queries.bounds(first_query);
            let panel_thresholds = first_query..first_query + SCREEN_QUERIES;
            for (row, bytes) in stored.chunks(row_bytes).enumerate() {
                let scores = &scores[row * SCREEN_QUERIES..][..SCREEN_QUERIES];
                let own = [rounded.bounds.norms[row], rounded.bounds.residuals[row]];
                let limits = &thresholds[panel_thresholds.clone()];
                screening.compare(row, [scores, limits], bounds, own, survivors);
                for Survivor { query, .. } in survivors.drain(..) {
                    let query = first_query + query;
                    // A row that is not finite also passes for the padding of the panel.
                    let Some(best) = best.get_mut(query) else { continue };
                    let exact = queries.exact(query);
                    let score = self.instructions.products(bytes, format, dimension, exact)[0];
                    best.offer(Hit { row: (first + row) as u32, score });
                    thresholds[query] = screen::limit(best.threshold());
                }
            }
        }
    }
}
