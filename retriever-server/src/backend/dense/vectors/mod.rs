//! Where the vectors of the passages are, and how the nearest are found.

use crate::gpu::{GpuError, GpuIndex, GpuOptions};
use crate::index::dense::DenseRows;
use crate::processor::fork_join::fork_join;
use crate::query::Hit;
use crate::vector::faiss_file::{FlatFile, HnswFile, Metric};
use crate::vector::hnsw::GraphFile;
use crate::vector::usearch::UsearchFile;
use crate::vector::{self, RowFormat, Rows, Scorer};

/// Hits that are found by coarse rows for each that is asked for, to be scored again by exact ones.
const CANDIDATES_PER_HIT: usize = 4;
/// Fewest of them, where few hits are asked for.
const CANDIDATES_MIN: usize = 64;

/// Whether to stop, asked from several threads.
type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// What is found, unless the search was stopped or has failed.
type Found<T> = Result<Option<T>, String>;

/// Where the vectors of the passages are.
#[derive(Debug)]
pub enum Vectors {
    /// In the index: all are searched.
    Index(DenseRows),
    /// In the index, with a graph over them.
    Graph {
        /// The vectors.
        rows: DenseRows,
        /// The graph.
        graph: GraphFile,
        /// Rows that a search keeps in sight: more find better and take longer.
        ef: usize,
    },
    /// In the index, with a graph that has coarse ones of its own.
    Usearch {
        /// The vectors, by which hits are scored again.
        rows: DenseRows,
        /// The graph.
        graph: UsearchFile,
    },
    /// In a flat file of faiss.
    FaissFlat(FlatFile),
    /// In a file of faiss with a graph.
    FaissHnsw {
        /// The file.
        file: HnswFile,
        /// As above.
        ef: usize,
    },
    /// On CUDA devices, beside those that the host has.
    Gpu {
        /// In the index or in a flat file.
        host: Box<Self>,
        /// On the devices.
        devices: GpuIndex,
    },
}

impl Vectors {
    /// Loads them to the devices that the options mean. Those with a graph or searched by distance
    /// stay where they are, as do all where the options mean the processor.
    pub fn on_devices(self, options: &GpuOptions) -> Result<Self, GpuError> {
        let opened = match self.exact_rows() {
            Some(Ok(rows)) => GpuIndex::open(&rows, options)?,
            Some(Err(_)) | None => None,
        };
        Ok(match opened {
            Some(devices) => Self::Gpu { host: Box::new(self), devices },
            None => self,
        })
    }

    /// The format of the rows that are searched.
    pub fn searched_format(&self) -> RowFormat {
        match self {
            Self::Index(rows) | Self::Graph { rows, .. } => rows.searched_format(),
            Self::FaissFlat(_) | Self::FaissHnsw { .. } => RowFormat::F32,
            Self::Usearch { graph, .. } => graph.format(),
            Self::Gpu { host, .. } => host.searched_format(),
        }
    }

    /// The exact rows, if they are searched one by one for the largest inner products.
    fn exact_rows(&self) -> Option<Result<Rows<'_>, String>> {
        match self {
            Self::Index(rows) => Some(rows.rows().map_err(|fault| fault.to_string())),
            Self::FaissFlat(file) => (file.metric() != Metric::L2).then(|| Ok(file.table())),
            Self::Gpu { host, .. } => host.exact_rows(),
            Self::Graph { .. } | Self::Usearch { .. } | Self::FaissHnsw { .. } => None,
        }
    }

    /// Number of hits up to which a shorter list is the start of a longer one: more hits than that
    /// have more candidates.
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

    /// The nearest rows for each query; `None` once `stop` says so.
    pub(super) fn search(
        &self,
        queries: &[f32],
        top_k: usize,
        threads: usize,
        stop: Stop<'_>,
    ) -> Found<Vec<Vec<Hit>>> {
        match self {
            Self::Gpu { devices, .. } => {
                let rows = self.exact_rows().transpose()?.ok_or("there are no rows")?;
                let found = devices.search(&rows, queries, top_k, threads, stop);
                found.map_err(|fault| fault.to_string())
            }
            Self::Index(rows) => {
                let (exact, searched) = both(rows)?;
                Ok(scan(&exact, &searched, queries, (top_k, threads), stop))
            }
            Self::Graph { rows, graph, ef } => {
                let (exact, searched) = both(rows)?;
                let scorer = Scorer::new(searched, vector::Metric::InnerProduct);
                let ef = (*ef).max(top_k);
                let candidates = candidates(top_k).min(ef);
                let found = search_each(queries, exact.dimension(), threads, &|query| {
                    Ok(graph.search(&scorer, query, (candidates, ef), &|| stop()))
                })?;
                Ok(rescored(found, &exact, queries, (top_k, threads)))
            }
            Self::Usearch { rows, graph } => {
                let exact = rows.rows().map_err(|fault| fault.to_string())?;
                // The library keeps as many rows in sight as it is to find, if those are more.
                let candidates = candidates(top_k).min(graph.ef().max(top_k));
                let found = search_each(queries, exact.dimension(), threads, &|query| {
                    let found = graph.search(query, candidates, &|| stop());
                    found.map_err(|fault| fault.to_string())
                })?;
                Ok(rescored(found, &exact, queries, (top_k, threads)))
            }
            Self::FaissFlat(file) if file.metric() == Metric::L2 => {
                Ok(vector::top_k_by_distance(&file.table(), queries, top_k, threads, stop))
            }
            Self::FaissFlat(file) => {
                Ok(vector::top_k(&file.table(), queries, top_k, threads, stop))
            }
            Self::FaissHnsw { file, ef } => {
                search_each(queries, file.vectors().dimension(), threads, &|query| {
                    Ok(file.search(query, top_k, (*ef).max(top_k), &|| stop()))
                })
            }
        }
    }
}

/// The exact rows and those that are searched.
fn both(rows: &DenseRows) -> Result<(Rows<'_>, Rows<'_>), String> {
    let read = || Ok((rows.rows()?, rows.searched()?));
    read().map_err(|fault: crate::index::IndexError| fault.to_string())
}

fn candidates(top_k: usize) -> usize {
    top_k.saturating_mul(CANDIDATES_PER_HIT).max(CANDIDATES_MIN)
}

fn scan(
    exact: &Rows<'_>,
    searched: &Rows<'_>,
    queries: &[f32],
    (top_k, threads): (usize, usize),
    stop: Stop<'_>,
) -> Option<Vec<Vec<Hit>>> {
    if searched.format() == RowFormat::F32 {
        return vector::top_k(searched, queries, top_k, threads, stop);
    }
    let found = vector::top_k(searched, queries, candidates(top_k), threads, stop);
    rescored(found, exact, queries, (top_k, threads))
}

fn rescored(
    found: Option<Vec<Vec<Hit>>>,
    exact: &Rows<'_>,
    queries: &[f32],
    (top_k, threads): (usize, usize),
) -> Option<Vec<Vec<Hit>>> {
    let mut found = found?;
    vector::rescore(exact, queries, &mut found, top_k, threads);
    Some(found)
}

/// Searches for each query alone, on several threads.
fn search_each(
    queries: &[f32],
    dimension: usize,
    threads: usize,
    search: &(dyn Fn(&[f32]) -> Found<Vec<Hit>> + Sync),
) -> Found<Vec<Vec<Hit>>> {
    let share = (queries.len() / dimension).div_ceil(threads.max(1)).max(1);
    let parts = fork_join(queries.chunks(share * dimension), |part| -> Found<Vec<Vec<Hit>>> {
        part.chunks_exact(dimension).map(search).collect()
    });
    let parts: Option<Vec<_>> = parts.into_iter().collect::<Result<_, String>>()?;
    Ok(parts.map(|parts| parts.concat()))
}

#[cfg(test)]
mod tests;
