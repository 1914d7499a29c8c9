//! Opens everything that a server needs: the index, and the encoder, vectors and graphs of its back ends.
//! Missing parts are built first if a corpus is named. It may take long and must not run on the async
//! threads.

mod error;
mod dense;
mod engine;
mod identity;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tracing::info;

use crate::backend::hybrid::HybridBackend;
use crate::backend::lexical::LexicalBackend;
use crate::backend::web::WebBackend;
use crate::backend::{Backend, PassageSource};
use crate::batcher::{BatchLimits, Batcher};
use crate::config::{
    BackendKind, ConfigError, IndexCheck, RerankerConfig, ServeConfig, disk, variables as var,
};
use crate::corpus::store::PassageStore;
use crate::encode::cross_encoder::CrossEncoder;
use crate::encode::{Encoder, Goal};
use crate::index::build::{self, BuildRequest};
use crate::index::later::LaterChecks;
use crate::index::manifest::{Manifest, Verification};
use crate::index::{self, IndexError, OpenIndex};
use crate::lexical::reader::LexicalReader;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::pool::Pool;
use crate::rerank::Reranker;
use crate::state::{AppState, IndexFacts, Loaded};
use crate::web::search::WebSearch;

pub use error::ServeError;

pub(crate) use dense::open_encoder;

use identity::identity;

/// The bytes that are digested before the first query in any case: they delay a start by less than half a second, also
/// on processors without instructions for SHA-256.
const AT_ONCE_BYTES: u64 = 128 << 20;

/// Opens the index and the back ends of a configuration. Missing parts are built first if a corpus is named.
pub(crate) fn open(state: &AppState) -> Result<Loaded, ServeError> {
    open_as(state, &state.config, true)
}

/// Opens for a server that answers already what may be new. Nothing is built: a missing part is an error.
pub(crate) fn open_again(state: &AppState) -> Result<Loaded, ServeError> {
    let mut config = state.config.clone();
    // A symbolic link may be turned to another folder meanwhile; all files must come from one.
    config.index = config.index.map(|index| fs::canonicalize(&index).unwrap_or(index));
    open_as(state, &config, false)
}

fn open_as(state: &AppState, config: &ServeConfig, builds: bool) -> Result<Loaded, ServeError> {
    // Before a build, which may take hours.
    let encoder = open_query_encoder(config)?;
    let reranker = open_reranker(config, &state.pool)?.map(Arc::new);
    if let Some((source, index)) = open_source(state, config, encoder.as_ref())? {
        let pipeline = Pipeline::over_passages(source, config.request.max_query_bytes)
            .with_reranker(reranker.clone());
        let identity = identity(config, index.as_ref());
        return Ok(Loaded::new(pipeline, reranker, index, identity));
    }
    let at_once = if config.verification == IndexCheck::Auto { AT_ONCE_BYTES } else { 0 };
    let later = LaterChecks::new(at_once);
    // A server that answers already can wait for the digests of the next index.
    let verification = verification(config, builds.then_some(&later));
    if builds && !config.corpus.is_empty() {
        build_or_compare(config, verification)?;
    }
    let open = index::open(index_folder(config)?, config.bm25, verification)?;
    let OpenIndex { manifest, passages, lexical } = open;
    if !builds {
        compare(config, &manifest, verification)?;
    }
    let mut opening =
        Opening::new(state, config, (&manifest, &passages, lexical), encoder, verification);
    opening.builds = builds;
    let backend = opening.open_backend(config.backend.kind)?;
    let max_query_bytes = config.request.max_query_bytes;
    let index = IndexFacts {
        digest: manifest.digest,
        passage_count: manifest.passage_count,
        analyzer: Some(manifest.analyzer.clone()),
    };
    let pool = Arc::clone(&state.pool);
    let pipeline =
        Pipeline::new(backend, passages, pool, max_query_bytes).with_reranker(reranker.clone());
    let identity = identity(config, Some(&index));
    let loaded = Loaded::new(pipeline, reranker, Some(index), identity);
    Ok(loaded.with_checks(config.verification, later))
}

/// A service that holds the passages, with what it says about them.
type Source = (Box<dyn PassageSource>, Option<IndexFacts>);

/// Opens the service that holds the passages; `None` for a back end over an index of ours.
fn open_source(
    state: &AppState,
    config: &ServeConfig,
    encoder: Option<&Arc<Encoder>>,
) -> Result<Option<Source>, ServeError> {
    match config.backend.kind {
        BackendKind::Web => {
            let settings = config.web.clone();
            let settings = settings.ok_or_else(|| ConfigError::unset(&var::WEB_PROVIDER))?;
            let search = WebSearch::open(settings).map_err(ServeError::Upstream)?;
            Ok(Some((Box::new(WebBackend::new(search)), None)))
        }
        BackendKind::Engine(_) => {
            let engine = config.engine.as_ref();
            let engine = engine.ok_or_else(|| ConfigError::unset(&var::ENGINE_URL))?;
            let (source, index) = engine::open(state, engine, encoder.map(Arc::clone))?;
            Ok(Some((Box::new(source), index)))
        }
        BackendKind::Bm25 | BackendKind::Dense | BackendKind::Ann | BackendKind::Hybrid => Ok(None),
    }
}

/// Returns the comparison of files with the manifest that the configuration asks for. Without `later`, digests are
/// compared at once.
fn verification<'a>(config: &ServeConfig, later: Option<&'a LaterChecks>) -> Verification<'a> {
    match (config.verification, later) {
        (IndexCheck::Never, _) => Verification::Sizes,
        (IndexCheck::Auto | IndexCheck::Background, Some(checks)) => Verification::Later(checks),
        (IndexCheck::Auto | IndexCheck::Background, None) | (IndexCheck::Start, _) => {
            Verification::Digests
        }
    }
}

/// Returns the folder of the index, which a back end over an index of ours has.
fn index_folder(config: &ServeConfig) -> Result<&Path, ConfigError> {
    config.index.as_deref().ok_or_else(|| ConfigError::unset(&var::INDEX))
}

/// Opens what [`open`] opens, without building anything. Returns the names of the parts that a start would
/// build first.
pub(crate) fn check(state: &AppState) -> Result<Vec<String>, ServeError> {
    let config = &state.config;
    if config.backend.kind.is_remote() {
        open_source(state, config, open_query_encoder(config)?.as_ref())?;
        open_reranker(config, &state.pool)?;
        return Ok(Vec::new());
    }
    let verification = verification(config, None);
    match Manifest::load(index_folder(config)?) {
        Ok(manifest) => compare(config, &manifest, verification)?,
        Err(IndexError::Missing(_)) if !config.corpus.is_empty() => return check_unbuilt(state),
        Err(error) => return Err(error.into()),
    }
    let encoder = open_query_encoder(config)?;
    let open = index::open(index_folder(config)?, config.bm25, verification)?;
    let OpenIndex { manifest, passages, lexical } = open;
    let mut opening =
        Opening::new(state, config, (&manifest, &passages, lexical), encoder, verification);
    let mut unbuilt = Vec::new();
    for kind in config.backend.components() {
        match opening.open_backend(kind) {
            Err(ServeError::Unbuilt(part)) if unbuilt.contains(&part) => {}
            Err(ServeError::Unbuilt(part)) => unbuilt.push(part),
            opened => drop(opened?),
        }
    }
    open_reranker(config, &state.pool)?;
    Ok(unbuilt)
}

/// Opens what does not need an index, and reads the first passages of the corpus that the index will be
/// built from.
fn check_unbuilt(state: &AppState) -> Result<Vec<String>, ServeError> {
    let config = &state.config;
    build::read_head(&config.corpus)?;
    let mut unbuilt = Vec::new();
    if let (Some(encoder), Some(opened)) = (&config.encoder, open_query_encoder(config)?) {
        match &encoder.vectors {
            Some(path) => drop(dense::open_file(path, None, &opened)?),
            None => unbuilt.push(dense::VECTORS.to_owned()),
        }
    }
    open_reranker(config, &state.pool)?;
    Ok(unbuilt)
}

/// Opens the encoder, if the configuration has one.
fn open_query_encoder(config: &ServeConfig) -> Result<Option<Arc<Encoder>>, ServeError> {
    let Some(encoder) = &config.encoder else { return Ok(None) };
    Ok(Some(Arc::new(open_encoder(encoder, config.threads, Goal::Latency)?)))
}

/// Opens the re-ranker, if the configuration has one.
fn open_reranker(config: &ServeConfig, pool: &Arc<Pool>) -> Result<Option<Reranker>, ServeError> {
    let Some(RerankerConfig { model, runtime, depth, budget }) = &config.reranker else {
        return Ok(None);
    };
    let scorer =
        CrossEncoder::open(model, &dense::options(runtime, config.threads, Goal::Latency))?;
    Ok(Some(Reranker::new(Box::new(scorer), Arc::clone(pool), *depth, *budget)))
}

/// The parts that back ends are opened with. Several back ends share them.
struct Opening<'a> {
    config: &'a ServeConfig,
    pool: &'a Arc<Pool>,
    metrics: &'a Arc<Metrics>,
    manifest: &'a Manifest,
    passages: &'a PassageStore,
    lexical: Arc<LexicalReader>,
    /// The encoder, if a back end needs one.
    encoder: Option<Arc<Encoder>>,
    /// `true` if missing parts are built, and `false` if they are errors.
    builds: bool,
    verification: Verification<'a>,
}

impl<'a> Opening<'a> {
    fn new(
        state: &'a AppState,
        config: &'a ServeConfig,
        (manifest, passages, lexical): (&'a Manifest, &'a PassageStore, LexicalReader),
        encoder: Option<Arc<Encoder>>,
        verification: Verification<'a>,
    ) -> Self {
        let (pool, metrics) = (&state.pool, &state.metrics);
        let lexical = Arc::new(lexical);
        Self {
            config,
            pool,
            metrics,
            manifest,
            passages,
            lexical,
            encoder,
            builds: false,
            verification,
        }
    }

    /// Returns an error that names a missing part, unless it is to be built.
    fn may_build(&self, part: &str) -> Result<(), ServeError> {
        if self.builds { Ok(()) } else { Err(ServeError::Unbuilt(part.to_owned())) }
    }

    /// Opens a back end over this index. A process may have several.
    fn open_backend(&mut self, kind: BackendKind) -> Result<Box<dyn Backend>, ServeError> {
        match kind {
            BackendKind::Bm25 => {
                let reader = Arc::clone(&self.lexical);
                Ok(Box::new(LexicalBackend::new(reader, Arc::clone(self.pool))))
            }
            BackendKind::Dense => self.open_dense(),
            BackendKind::Ann => self.open_ann(),
            BackendKind::Hybrid => self.open_hybrid(),
            // Opened before, as it needs no index.
            BackendKind::Web | BackendKind::Engine(_) => {
                Err(ConfigError::unset(&var::INDEX).into())
            }
        }
    }

    /// Wraps a back end that is faster with large batches, so that the queries of several requests share
    /// one. Its list of up to `steady_top_k` hits must be the start of any longer one.
    fn batched(&self, backend: Box<dyn Backend>, steady_top_k: usize) -> Box<dyn Backend> {
        let limits = BatchLimits { steady_top_k, ..self.config.batch };
        Box::new(Batcher::new(backend, limits, Arc::clone(self.metrics)))
    }

    /// Opens both parts of the hybrid back end.
    fn open_hybrid(&mut self) -> Result<Box<dyn Backend>, ServeError> {
        let hybrid = self.config.backend.hybrid;
        let hybrid = hybrid.ok_or_else(|| ConfigError::unset(&var::HYBRID))?;
        let [one, other] = hybrid.components;
        let components = [self.open_backend(one)?, self.open_backend(other)?];
        Ok(Box::new(HybridBackend::new(components, hybrid.fusion, Arc::clone(self.pool))))
    }
}

/// Builds the index of the corpus if there is none, else compares the corpus with the index.
fn build_or_compare(
    config: &ServeConfig,
    verification: Verification<'_>,
) -> Result<(), ServeError> {
    let index = index_folder(config)?;
    match Manifest::load(index) {
        Ok(manifest) => compare(config, &manifest, verification),
        Err(IndexError::Missing(_)) => Ok(build_index(config, index)?),
        Err(error) => Err(error.into()),
    }
}

/// Refuses an index of another corpus.
fn compare(
    config: &ServeConfig,
    manifest: &Manifest,
    verification: Verification<'_>,
) -> Result<(), ServeError> {
    if config.corpus.is_empty() {
        return Ok(());
    }
    let index = index_folder(config)?;
    let unread = disk::compare(&config.corpus, index, manifest, verification)
        .map_err(|fault| ConfigError { faults: vec![fault] })?;
    for (path, error) in unread {
        info!(path = %path.display(), %error, "the index is served without a look at this corpus file, which cannot be read");
    }
    Ok(())
}

/// Builds the index of the corpus.
fn build_index(config: &ServeConfig, index: &Path) -> Result<(), IndexError> {
    info!(index = %index.display(), "there is no index, building one");
    let request = BuildRequest {
        corpus: config.corpus.clone(),
        index: index.to_owned(),
        force: false,
        threads: config.threads,
        compact: false,
    };
    build::build(&request, &mut |_| {}).map(|_| ())
}
