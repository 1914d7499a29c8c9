//! What a start opens, and builds first where it is missing: the index, and for the dense back end
//! its vectors. Runs off the async threads and may take long.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::wire::{ServerInfo, ServerLimits};
use tracing::info;

use crate::app::ServeError;
use crate::backend::Backend;
use crate::backend::dense::{DenseBackend, Vectors};
use crate::backend::lexical::LexicalBackend;
use crate::config::{BackendKind, ConfigError, EncoderConfig, ServeConfig, disk};
use crate::corpus::store::PassageStore;
use crate::encode::{EncodeError, Encoder, EncoderOptions, Role};
use crate::gpu::GpuOptions;
use crate::index::build::{self, BuildRequest, Progress};
use crate::index::dense::build::PassageEncoder;
use crate::index::dense::{self, DenseRows, Source};
use crate::index::manifest::Manifest;
use crate::index::{self, IndexError};
use crate::pipeline::Pipeline;
use crate::state::{AppState, Loaded};
use crate::vector::RowFormat;
use crate::vector::faiss_file::{FaissIndex, Metric};

/// Time between two log lines while passages are encoded.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) fn open(state: &AppState) -> Result<Loaded, ServeError> {
    let config = &state.config;
    if !config.corpus.is_empty() {
        build_or_compare(config)?;
    }
    let open = index::open(&config.index, config.bm25, config.verification)?;
    let pool = Arc::clone(&state.pool);
    let backend: Box<dyn Backend> = match (config.backend, &config.encoder) {
        (BackendKind::Dense, Some(encoder)) => {
            let (device, threads) = (encoder.device, config.threads);
            let on_devices = GpuOptions { device, format: RowFormat::F32, threads };
            let (encoder, vectors) = match &encoder.vectors {
                Some(path) => open_faiss(config, encoder, path, &open.manifest)?,
                None => open_vectors(config, encoder, &open.manifest, &open.passages)?,
            };
            let vectors = vectors.on_devices(&on_devices)?;
            Box::new(DenseBackend::new(encoder, vectors, pool, config.threads))
        }
        _ => Box::new(LexicalBackend::new(open.lexical, pool)),
    };
    let max_query_bytes = config.request.max_query_bytes;
    let pool = Arc::clone(&state.pool);
    Ok(Loaded {
        pipeline: Pipeline::new(backend, open.passages, pool, max_query_bytes),
        info: describe(config, &open.manifest),
    })
}

/// Indexes the corpus if there is no index, and compares it with an index that is there.
fn build_or_compare(config: &ServeConfig) -> Result<(), ServeError> {
    match Manifest::load(&config.index) {
        Ok(manifest) => compare(config, &manifest),
        Err(IndexError::Missing(_)) => Ok(build_index(config)?),
        Err(error) => Err(error.into()),
    }
}

/// The encoder and the vectors it has made of the passages, which are made now if a corpus is named.
fn open_vectors(
    config: &ServeConfig,
    encoder: &EncoderConfig,
    index: &Manifest,
    passages: &PassageStore,
) -> Result<(Encoder, Vectors), ServeError> {
    let model = &encoder.model;
    let encoder = open_encoder(encoder, config.threads)?;
    let source = Source::of(index, &encoder)?;
    if !config.corpus.is_empty() && !dense::build::are_there(&config.index, &source)? {
        info!(index = %config.index.display(), "there are no vectors of this encoder, making them");
        let mut last = Instant::now();
        let mut report = |progress| {
            if let Progress::Encoding { passages, of, .. } = progress
                && last.elapsed() >= LOG_INTERVAL
            {
                last = Instant::now();
                info!(passages, of, "encoding");
            }
        };
        dense::build::build(&config.index, &source, model, passages, &encoder, &mut report)?;
    }
    let rows = DenseRows::open(&config.index, &source, config.verification)?;
    Ok((encoder, Vectors::Index(rows)))
}

/// The encoder and the vectors in a file of faiss. Whether that encoder made them, the file does
/// not say; whether they can be those of the passages, it does.
fn open_faiss(
    config: &ServeConfig,
    encoder: &EncoderConfig,
    path: &Path,
    index: &Manifest,
) -> Result<(Encoder, Vectors), ServeError> {
    let ef = encoder.hnsw_ef;
    let file = FaissIndex::open(path)?;
    let encoder = open_encoder(encoder, config.threads)?;
    let (found, found_numbers) = (file.vectors().count(), file.vectors().dimension());
    let misfit = |what: &'static str, found: String, expected: String| {
        Err(ServeError::OtherVectors { path: path.to_owned(), what, found, expected })
    };
    if found as u64 != index.passage_count {
        return misfit(
            "vectors",
            found.to_string(),
            format!("{} as passages", index.passage_count),
        );
    }
    if found_numbers != encoder.dimension() {
        let expected = format!("{} as the encoder makes", encoder.dimension());
        return misfit("numbers a vector", found_numbers.to_string(), expected);
    }
    info!(path = %path.display(), vectors = found, "faiss's vectors are used");
    match file {
        FaissIndex::Hnsw(file) => Ok((encoder, Vectors::Graph { file, ef })),
        FaissIndex::Flat(file) if file.metric() == Metric::InnerProduct => {
            Ok((encoder, Vectors::Flat(file)))
        }
        FaissIndex::Flat(_) => {
            misfit("metric", "L2".to_owned(), "inner product in a flat file".to_owned())
        }
    }
}

/// The encoder of a configuration.
pub(crate) fn open_encoder(config: &EncoderConfig, threads: usize) -> Result<Encoder, EncodeError> {
    let options = EncoderOptions {
        device: config.device,
        threads: NonZeroUsize::new(threads),
        library: config.library.clone(),
    };
    Encoder::open(&config.model, &options)
}

impl PassageEncoder for Encoder {
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        // A build is ended by ending the process: what is written is kept.
        Encoder::encode(self, texts, Role::Passage, &|| false).map_err(|error| error.to_string())
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
    };
    build::build(&request, &mut |_| {}).map(|_| ())
}

fn describe(config: &ServeConfig, manifest: &Manifest) -> ServerInfo {
    let request = config.request;
    ServerInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: config.backend.name().to_owned(),
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
