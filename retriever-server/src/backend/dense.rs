//! The `dense` back end: queries become vectors, and the nearest rows are searched for: all rows
//! one by one, or along the graph of a file that has one. A batch is encoded and searched as one.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use crate::backend::{Backend, Hit, QueryOutcome, SearchFault, SearchFuture};
use crate::encode::{EncodeError, Encoder, Role};
use crate::gpu::{GpuError, GpuIndex, GpuOptions};
use crate::index::dense::DenseRows;
use crate::pool::Pool;
use crate::query::QueryBatch;
use crate::ticket::Ticket;
use crate::vector::faiss_file::{FlatFile, HnswFile};
use crate::vector::{self, RowFormat, Rows};

/// Where the vectors of the passages are.
#[derive(Debug)]
pub enum Vectors {
    /// In the index.
    Index(DenseRows),
    /// In a flat file of faiss, of inner products.
    Flat(FlatFile),
    /// In a file of faiss with a graph.
    Graph {
        /// The file.
        file: HnswFile,
        /// Rows that a search keeps in sight: more find better and take longer.
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
    /// Loads them to the devices that the options mean. Those with a graph stay where they are, as
    /// do all where the options mean the processor.
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

    /// The rows, if they are searched one by one.
    fn exact_rows(&self) -> Option<Result<Rows<'_>, String>> {
        match self {
            Self::Index(rows) => Some(rows.rows().map_err(|fault| fault.to_string())),
            Self::Flat(file) => Some(
                Rows::new(file.rows(), RowFormat::F32, file.dimension())
                    .map_err(|fault| fault.to_string()),
            ),
            Self::Gpu { host, .. } => host.exact_rows(),
            Self::Graph { .. } => None,
        }
    }

    /// Number of hits up to which a shorter list is the start of a longer one.
    pub fn steady_top_k(&self) -> usize {
        match self {
            Self::Index(_) | Self::Flat(_) => usize::MAX,
            Self::Graph { ef, .. } => *ef,
            Self::Gpu { host, .. } => host.steady_top_k(),
        }
    }

    /// The nearest rows for each query; `None` once `stop` says so.
    fn search(
        &self,
        queries: &[f32],
        top_k: usize,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Vec<Hit>>>, String> {
        match (self, self.exact_rows().transpose()?) {
            (Self::Gpu { devices, .. }, Some(rows)) => devices
                .search(&rows, queries, top_k, threads, stop)
                .map_err(|fault| fault.to_string()),
            (Self::Graph { file, ef }, _) => {
                Ok(search_graph(file, queries, top_k, *ef, threads, stop))
            }
            (_, Some(rows)) => Ok(vector::top_k(&rows, queries, top_k, threads, stop)),
            (_, None) => Err("there are no rows".to_owned()),
        }
    }
}

/// Searches the graph for each query, on several threads.
fn search_graph(
    file: &HnswFile,
    queries: &[f32],
    top_k: usize,
    ef: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<Vec<Hit>>> {
    let dimension = file.vectors().dimension();
    let queries: Vec<&[f32]> = queries.chunks_exact(dimension).collect();
    let share = queries.len().div_ceil(threads.max(1)).max(1);
    let search = |part: &[&[f32]]| -> Option<Vec<Vec<Hit>>> {
        part.iter().map(|query| file.search(query, top_k, ef, &|| stop())).collect()
    };
    let parts: Vec<Option<Vec<Vec<Hit>>>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            queries.chunks(share).map(|part| scope.spawn(move || search(part))).collect();
        running.into_iter().map(|one| one.join().ok().flatten()).collect()
    });
    parts.into_iter().collect::<Option<Vec<_>>>().map(|parts| parts.concat())
}

/// An encoder over the vectors of an index.
#[derive(Debug)]
pub struct DenseBackend {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Shared {
    encoder: Arc<Encoder>,
    vectors: Vectors,
    threads: usize,
    /// Held while a batch is encoded: two that took turns in the model would both end late, while
    /// like this one is searched as the other is encoded.
    turn: Mutex<()>,
}

impl DenseBackend {
    /// Answers from `vectors`, which `encoder` made; a batch is searched by `threads` threads.
    pub fn new(encoder: Arc<Encoder>, vectors: Vectors, pool: Arc<Pool>, threads: usize) -> Self {
        Self { shared: Arc::new(Shared { encoder, vectors, threads, turn: Mutex::new(()) }), pool }
    }
}

impl Backend for DenseBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let count = batch.queries.len();
            let answers = self.pool.run(move || shared.search(&batch, &ticket)).await;
            answers.unwrap_or_else(|_| vec![Err(SearchFault::Internal); count])
        })
    }
}

impl Shared {
    /// The outcome of every query; a query without any text finds nothing, as in the other back
    /// ends.
    fn search(&self, batch: &QueryBatch, ticket: &Ticket) -> Vec<QueryOutcome> {
        let asked: Vec<usize> =
            (0..batch.queries.len()).filter(|&n| !batch.queries[n].trim().is_empty()).collect();
        let mut outcomes: Vec<QueryOutcome> = vec![Ok(Vec::new()); batch.queries.len()];
        let found = self.search_all(batch, &asked, ticket);
        for (place, &query) in asked.iter().enumerate() {
            outcomes[query] = match &found {
                Ok(lists) => lists.get(place).cloned().ok_or(SearchFault::Internal),
                Err(fault) => Err(*fault),
            };
        }
        outcomes
    }

    fn search_all(
        &self,
        batch: &QueryBatch,
        asked: &[usize],
        ticket: &Ticket,
    ) -> Result<Vec<Vec<Hit>>, SearchFault> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let stop = || ticket.is_over();
        let texts: Vec<&str> = asked.iter().map(|&query| batch.queries[query].as_str()).collect();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let queries = self.encoder.encode(&texts, Role::Query, &stop).map_err(|fault| {
            if matches!(fault, EncodeError::Stopped) {
                return SearchFault::DeadlineExceeded;
            }
            error!(%fault, "queries could not be encoded");
            SearchFault::Internal
        })?;
        drop(turn);
        let found = self.vectors.search(&queries, batch.top_k, self.threads, &stop);
        found
            .map_err(|fault| {
                error!(%fault, "the vectors cannot be searched");
                SearchFault::Internal
            })?
            .ok_or(SearchFault::DeadlineExceeded)
    }
}
