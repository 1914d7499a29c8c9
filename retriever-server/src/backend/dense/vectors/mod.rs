//! The vectors of the passages and the search for the nearest ones.

use thiserror::Error;

use crate::gpu::{GpuError, GpuIndex, GpuOptions};
use crate::index::IndexError;
use crate::index::dense::DenseRows;
use crate::processor::fork_join::fork_join;
use crate::query::Hit;
use crate::vector::faiss_file::{FlatFile, HnswFile, Metric};
use crate::vector::hnsw::{GraphFile, GraphSearchSize};
use crate::vector::usearch::{UsearchError, UsearchFile};
use crate::vector::{self, RowFormat, Rows, Scorer};

/// Candidates from coarse rows for each requested hit. They are scored again by exact rows.
const CANDIDATES_PER_HIT: usize = 4;
/// The fewest candidates, however few hits are requested.
const CANDIDATES_MIN: usize = 64;

/// A function that returns `true` if the search should stop. Several threads call it.
type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// A result of a search; `None` if the search was stopped.
type Searched<T> = Result<Option<T>, VectorsError>;

/// The error of vectors that cannot be loaded or searched.
#[derive(Debug, Error)]
pub enum VectorsError {
    /// The vectors of the index are damaged.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A CUDA device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The library usearch failed.
    #[error(transparent)]
    Usearch(#[from] UsearchError),
}

/// The size of a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchSize {
    /// Hits per query.
    pub(super) top_k: usize,
    /// Threads that search.
    pub(super) threads: usize,
}

/// The vectors of the passages, by their storage.
#[derive(Debug)]
pub enum Vectors {
    /// Vectors in the index, all of which are searched.
    Index(DenseRows),
    /// Vectors in the index, with a graph over them.
    Graph {
        /// The vectors.
        rows: DenseRows,
        /// The graph.
        graph: GraphFile,
        /// The number of candidates that a search keeps. More raise the recall and take longer.
        ef: usize,
    },
    /// Vectors in the index, with a graph of usearch that has coarse vectors of its own.
    Usearch {
        /// The exact vectors, by which hits are scored again.
        rows: DenseRows,
        /// The graph.
        graph: UsearchFile,
    },
    /// Vectors in a flat file of faiss, all of which are searched.
    FaissFlat(FlatFile),
    /// Vectors in a file of faiss with a graph.
    FaissHnsw {
        /// The file.
        file: HnswFile,
        /// The number of candidates that a search keeps.
        ef: usize,
    },
    /// Vectors on CUDA devices, with the exact ones on the host.
    Gpu {
        /// The exact vectors: in the index or in a flat file.
        host: Box<Self>,
        /// The vectors on the devices.
        devices: GpuIndex,
    },
}

impl Vectors {
    /// Loads the vectors to the devices of `options`. Vectors with a graph or searched by distance stay
    /// on the host, as do all if the options name the processor.
    pub fn on_devices(self, options: &GpuOptions) -> Result<Self, VectorsError> {
        let opened = match self.exact_rows()? {
            Some(rows) => GpuIndex::open(&rows, options)?,
            None => None,
        };
        Ok(match opened {
            Some(devices) => Self::Gpu { host: Box::new(self), devices },
            None => self,
        })
    }

    /// Returns the format of the rows that are searched.
    pub fn searched_format(&self) -> RowFormat {
        match self {
            Self::Index(rows) | Self::Graph { rows, .. } => rows.searched_format(),
            Self::FaissFlat(file) => file.format(),
            Self::FaissHnsw { file, .. } => file.vectors().format(),
            Self::Usearch { graph, .. } => graph.format(),
            Self::Gpu { host, .. } => host.searched_format(),
        }
    }

    /// Returns the exact rows, if they are scanned for the largest inner products.
    fn exact_rows(&self) -> Result<Option<Rows<'_>>, IndexError> {
        match self {
            Self::Index(rows) => rows.rows().map(Some),
            Self::FaissFlat(file) => Ok((file.metric() != Metric::L2).then(|| file.table())),
            Self::Gpu { host, .. } => host.exact_rows(),
            Self::Graph { .. } | Self::Usearch { .. } | Self::FaissHnsw { .. } => Ok(None),
        }
    }

    /// Returns the number of hits up to which a shorter list is the start of a longer one. Longer lists
    /// are chosen from more candidates.
    pub fn steady_top_k(&self) -> usize {
        const STEADY: usize = CANDIDATES_MIN / CANDIDATES_PER_HIT;
        match self {
            Self::Index(rows) if rows.has_coarse() => STEADY,
            Self::Index(_) | Self::FaissFlat(_) => usize::MAX,
            Self::Graph { ef, .. } => STEADY.min(*ef),
            Self::Usearch { graph, .. } => STEADY.min(graph.ef()),
            Self::FaissHnsw { ef, .. } => *ef,
            Self::Gpu { host, .. } => host.steady_top_k(),
        }
    }

    /// Returns the nearest rows for each query, or `None` once `stop` returns `true`.
    pub(super) fn search(
        &self,
        queries: &[f32],
        size: SearchSize,
        stop: Stop<'_>,
    ) -> Searched<Vec<Vec<Hit>>> {
        let SearchSize { top_k, threads } = size;
        match self {
            Self::Gpu { host, devices } => {
                let rows = host.exact_rows()?.expect("only scanned rows are loaded to devices");
                Ok(devices.search(&rows, queries, top_k, threads, stop)?)
            }
            Self::Index(rows) => Ok(scan(&rows.rows()?, &rows.searched()?, queries, size, stop)),
            Self::Graph { rows, graph, ef } => {
                let (exact, searched) = (rows.rows()?, rows.searched()?);
                let scorer = Scorer::new(searched, vector::Metric::InnerProduct);
                let ef = (*ef).max(top_k);
                let graph_size = GraphSearchSize { top_k: candidates(top_k).min(ef), ef };
                let hits = search_each(queries, exact.dimension(), threads, &|query| {
                    Ok(graph.search(&scorer, query, graph_size, &|| stop()))
                })?;
                Ok(rescored(hits, &exact, queries, size))
            }
            Self::Usearch { rows, graph } => {
                let exact = rows.rows()?;
                // The library keeps at least as many candidates as it is to return.
                let candidates = candidates(top_k).min(graph.ef().max(top_k));
                let hits = search_each(queries, exact.dimension(), threads, &|query| {
                    Ok(graph.search(query, candidates, &|| stop())?)
                })?;
                Ok(rescored(hits, &exact, queries, size))
            }
            Self::FaissFlat(file) if file.metric() == Metric::L2 => {
                Ok(vector::top_k_by_distance(&file.table(), queries, top_k, threads, stop))
            }
            Self::FaissFlat(file) => {
                Ok(vector::top_k(&file.table(), queries, top_k, threads, stop))
            }
            Self::FaissHnsw { file, ef } => {
                let graph_size = GraphSearchSize { top_k, ef: (*ef).max(top_k) };
                search_each(queries, file.vectors().dimension(), threads, &|query| {
                    Ok(file.search(query, graph_size, &|| stop()))
                })
            }
        }
    }
}

/// Returns the number of candidates from coarse rows for `top_k` hits.
fn candidates(top_k: usize) -> usize {
    top_k.saturating_mul(CANDIDATES_PER_HIT).max(CANDIDATES_MIN)
}

/// Scans all rows. Hits of coarse rows are scored again by exact ones.
fn scan(
    exact: &Rows<'_>,
    searched: &Rows<'_>,
    queries: &[f32],
    size: SearchSize,
    stop: Stop<'_>,
) -> Option<Vec<Vec<Hit>>> {
    let SearchSize { top_k, threads } = size;
    if searched.format() == RowFormat::F32 {
        return vector::top_k(searched, queries, top_k, threads, stop);
    }
    let hits = vector::top_k(searched, queries, candidates(top_k), threads, stop);
    rescored(hits, exact, queries, size)
}

/// Scores hits again by exact rows and keeps the best `top_k` of each query.
fn rescored(
    hits: Option<Vec<Vec<Hit>>>,
    exact: &Rows<'_>,
    queries: &[f32],
    size: SearchSize,
) -> Option<Vec<Vec<Hit>>> {
    let mut hits = hits?;
    vector::rescore(exact, queries, &mut hits, size.top_k, size.threads);
    Some(hits)
}

/// Searches for each query alone, on several threads.
fn search_each(
    queries: &[f32],
    dimension: usize,
    threads: usize,
    search: &(dyn Fn(&[f32]) -> Searched<Vec<Hit>> + Sync),
) -> Searched<Vec<Vec<Hit>>> {
    let share = (queries.len() / dimension).div_ceil(threads.max(1)).max(1);
    let parts = fork_join(queries.chunks(share * dimension), |part| -> Searched<Vec<Vec<Hit>>> {
        part.chunks_exact(dimension).map(search).collect()
    });
    let parts: Option<Vec<_>> = parts.into_iter().collect::<Result<_, VectorsError>>()?;
    Ok(parts.map(|parts| parts.concat()))
}

#[cfg(test)]
mod tests;
