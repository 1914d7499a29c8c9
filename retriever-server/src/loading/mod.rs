//! What a start opens, and builds first where it is missing: the index, and what each back end
//! needs beside it. Runs off the async threads and may take long.

mod error;
mod dense;

use std::sync::Arc;

use shared::wire::{ServerInfo, ServerLimits};
use tracing::info;

use crate::backend::Backend;
use crate::backend::hybrid::HybridBackend;
use crate::backend::lexical::LexicalBackend;
use crate::batcher::{BatchCounters, BatchLimits, Batcher};
use crate::config::{
    BackendKind, ConfigError, RerankerConfig, ServeConfig, disk, variables as var,
};
use crate::corpus::store::PassageStore;
use crate::encode::cross_encoder::CrossEncoder;
use crate::encode::{Encoder, Goal};
use crate::index::build::{self, BuildRequest};
use crate::index::manifest::Manifest;
use crate::index::{self, IndexError, OpenIndex};
use crate::lexical::reader::LexicalReader;
use crate::pipeline::Pipeline;
use crate::pool::Pool;
use crate::rerank::Reranker;
use crate::state::{AppState, Loaded};

pub use error::ServeError;

pub(crate) use dense::open_encoder;

pub(crate) fn open(state: &AppState) -> Result<Loaded, ServeError> {
    let config = &state.config;
    if !config.corpus.is_empty() {
        build_or_compare(config)?;
    }
    let open = index::open(&config.index, config.bm25, config.verification)?;
    let OpenIndex { manifest, passages, lexical } = open;
    let mut opening = Opening {
        config,
        pool: &state.pool,
        batches: &state.batches,
        manifest: &manifest,
        passages: &passages,
        lexical: Arc::new(lexical),
        encoder: None,
    };
    let backend = opening.open_backend(config.backend.kind)?;
    let reranker = open_reranker(config, &state.pool)?.map(Arc::new);
    let max_query_bytes = config.request.max_query_bytes;
    let info = describe(config, &manifest);
    let pool = Arc::clone(&state.pool);
    let pipeline =
        Pipeline::new(backend, passages, pool, max_query_bytes).with_reranker(reranker.clone());
    Ok(Loaded { pipeline, reranker, info })
}

fn open_reranker(config: &ServeConfig, pool: &Arc<Pool>) -> Result<Option<Reranker>, ServeError> {
    let Some(RerankerConfig { model, runtime, depth, budget }) = &config.reranker else {
        return Ok(None);
    };
    let scorer =
        CrossEncoder::open(model, &dense::options(runtime, config.threads, Goal::Latency))?;
    Ok(Some(Reranker::new(Box::new(scorer), Arc::clone(pool), *depth, *budget)))
}

/// What back ends are opened with, and what several of them share.
struct Opening<'a> {
    config: &'a ServeConfig,
    pool: &'a Arc<Pool>,
    batches: &'a Arc<BatchCounters>,
    manifest: &'a Manifest,
    passages: &'a PassageStore,
    lexical: Arc<LexicalReader>,
    /// Opened when the first back end asks for it.
    encoder: Option<Arc<Encoder>>,
}

impl Opening<'_> {
    /// A back end over this index. A process may have several.
    fn open_backend(&mut self, kind: BackendKind) -> Result<Box<dyn Backend>, ServeError> {
        match kind {
            BackendKind::Bm25 => {
                let reader = Arc::clone(&self.lexical);
                Ok(Box::new(LexicalBackend::new(reader, Arc::clone(self.pool))))
            }
            BackendKind::Dense => self.open_dense(),
            BackendKind::Ann => self.open_ann(),
            BackendKind::Hybrid => self.open_hybrid(),
        }
    }

    /// The back end with batches of several requests: for those that gain by large ones. Its list
    /// of up to `steady_top_k` hits is the start of any longer one.
    fn batched(&self, backend: Box<dyn Backend>, steady_top_k: usize) -> Box<dyn Backend> {
        let limits = BatchLimits { steady_top_k, ..self.config.batch };
        Box::new(Batcher::new(backend, limits, Arc::clone(self.batches)))
    }

    fn open_hybrid(&mut self) -> Result<Box<dyn Backend>, ServeError> {
        let hybrid = self.config.backend.hybrid;
        let hybrid = hybrid.ok_or_else(|| ConfigError::unset(&var::HYBRID))?;
        let [one, other] = hybrid.components;
        let components = [self.open_backend(one)?, self.open_backend(other)?];
        Ok(Box::new(HybridBackend::new(components, hybrid.fusion, Arc::clone(self.pool))))
    }
}

/// Indexes the corpus if there is no index, and compares it with an index that is there.
fn build_or_compare(config: &ServeConfig) -> Result<(), ServeError> {
    match Manifest::load(&config.index) {
        Ok(manifest) => compare(config, &manifest),
        Err(IndexError::Missing(_)) => Ok(build_index(config)?),
        Err(error) => Err(error.into()),
    }
}

fn compare(config: &ServeConfig, manifest: &Manifest) -> Result<(), ServeError> {
    let unread = disk::compare(&config.corpus, &config.index, manifest, config.verification)
        .map_err(|fault| ConfigError { faults: vec![fault] })?;
    for (path, error) in unread {
        info!(path = %path.display(), %error, "the index is served without this corpus file");
    }
    Ok(())
}

fn build_index(config: &ServeConfig) -> Result<(), IndexError> {
    info!(index = %config.index.display(), "there is no index, building it");
    let request = BuildRequest {
        corpus: config.corpus.clone(),
        index: config.index.clone(),
        force: false,
        threads: config.threads,
        compact: false,
    };
    build::build(&request, &mut |_| {}).map(|_| ())
}

fn describe(config: &ServeConfig, manifest: &Manifest) -> ServerInfo {
    let (request, components) = (config.request, config.backend.components());
    ServerInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: config.backend.kind.name().to_owned(),
        components: components.iter().map(|kind| kind.name().to_owned()).collect(),
        has_reranker: config.reranker.is_some(),
        index_digest: manifest.digest.to_string(),
        passage_count: manifest.passage_count,
        analyzer: manifest.analyzer.clone(),
        k1: config.bm25.k1(),
        b: config.bm25.b(),
        limits: ServerLimits {
            default_top_k: request.default_top_k,
            max_top_k: request.max_top_k,
            max_batch_queries: request.max_batch_queries,
            max_query_bytes: request.max_query_bytes,
            max_body_bytes: request.max_body_bytes,
            max_queued_queries: config.load.max_queued_queries,
            deadline_ms: request.deadline.as_millis() as u64,
        },
    }
}
