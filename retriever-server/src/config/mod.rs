//! What `serve` can be told. Values come from flags, then the environment, then the table of
//! defaults in [`variables`]; they are checked once, all together, and nothing below asks again.
//! What they point to on disk is looked at apart from that, in [`disk`].

mod backend;
pub mod disk;
mod reader;
pub mod source;
pub mod variables;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared::telemetry::{self, LogFormat};
use thiserror::Error;

use crate::batcher::BatchLimits;
use crate::config::backend::FormatChoice;
use crate::config::reader::{Reader, path, paths, threads};
use crate::config::source::Source;
use crate::config::variables::{self as var, Variable};
use crate::index::dense::ann::GraphKind;
use crate::index::manifest::Verification;
use crate::lexical::bm25::Bm25Parameters;
use crate::vector::RowFormat;

pub use crate::config::backend::{
    BackendConfig, BackendKind, EncoderConfig, Fusion, FusionConfig, HybridConfig, RerankerConfig,
    RuntimeConfig,
};

/// Everything `serve` needs, valid.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// What answers queries.
    pub backend: BackendConfig,
    /// The encoder, if the back end or a part of it needs one.
    pub encoder: Option<EncoderConfig>,
    /// What ranks again, if anything does.
    pub reranker: Option<RerankerConfig>,
    /// Where to listen.
    pub addr: SocketAddr,
    /// Folder of the index.
    pub index: PathBuf,
    /// Corpus to index first when there is no index. Often empty.
    pub corpus: Vec<PathBuf>,
    /// How closely the index is checked when it is opened.
    pub verification: Verification,
    /// Constants of the formula.
    pub bm25: Bm25Parameters,
    /// Keys of a passage in responses.
    pub passage_fields: PassageFields,
    /// What a request may ask for.
    pub request: RequestLimits,
    /// What the server takes on at once.
    pub load: LoadLimits,
    /// What back ends that answer several queries at a time take together.
    pub batch: BatchLimits,
    /// Threads that search.
    pub threads: usize,
}

/// Which keys of a passage go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageFields {
    /// `id`, `contents`, and `url` where the corpus has it.
    Minimal,
    /// Also `title` and `text` where the corpus has them.
    Full,
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Passages per query when the request names no number.
    pub default_top_k: usize,
    /// Most passages per query.
    pub max_top_k: usize,
    /// Largest body.
    pub max_body_bytes: usize,
    /// Most queries.
    pub max_batch_queries: usize,
    /// Longest query.
    pub max_query_bytes: usize,
    /// Most documents to rank again.
    pub max_rerank_documents: usize,
    /// Longest time, once for the body to arrive and once for the answer.
    pub deadline: Duration,
}

/// What the server takes on at once.
#[derive(Clone, Copy, Debug)]
pub struct LoadLimits {
    /// Queries being answered.
    pub max_queued_queries: usize,
    /// Requests being read or answered.
    pub max_requests: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Time to finish admitted work after a signal.
    pub grace_period: Duration,
}

/// How the log looks; apart from [`ServeConfig`] because it is needed first.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Filter of tracing.
    pub filter: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// What the `index` command can be told by variables.
#[derive(Clone, Debug)]
pub struct IndexConfig {
    /// The encoder of the vectors, if the index is to have some.
    pub encoder: Option<EncoderConfig>,
    /// Folder of the index.
    pub index: PathBuf,
    /// Corpus files.
    pub corpus: Vec<PathBuf>,
    /// Threads that analyse text.
    pub threads: usize,
}

/// What the `plan` command can be told by variables.
#[derive(Clone, Debug)]
pub struct PlanConfig {
    /// Whether there are to be vectors.
    pub needs_vectors: bool,
    /// The graph that there is to be over them, if any.
    pub graph: Option<GraphKind>,
    /// Format of the vectors that are searched.
    pub vector_format: RowFormat,
    /// Whether rows in that format are read from the index.
    pub reads_rows: bool,
    /// Folder of the index, which need not be there.
    pub index: PathBuf,
    /// Corpus files; empty if none is named.
    pub corpus: Vec<PathBuf>,
    /// Folder of the encoder's model.
    pub model: Option<PathBuf>,
    /// Threads that index.
    pub threads: usize,
}

/// Every bad value that was found.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<BadValue>,
}

impl ConfigError {
    /// A variable without a value, where one is needed.
    pub(crate) fn unset(variable: &Variable) -> Self {
        let &Variable { name, flag, accepts, .. } = variable;
        let accepts = accepts.to_owned();
        Self { faults: vec![BadValue { variable: name, flag, value: None, found: None, accepts }] }
    }
}

/// A value that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// What was given; `None` if nothing was.
    pub value: Option<String>,
    /// What is wrong where the value points to; `None` if the value itself is wrong.
    pub found: Option<String>,
    /// What is accepted.
    pub accepts: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the configuration has bad values")?;
        self.faults.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"))
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, flag, value, found, accepts } = self;
        match value {
            Some(value) => write!(formatter, "{variable} (--{flag}) is {value:?}")?,
            None => write!(formatter, "{variable} (--{flag}) is not set")?,
        }
        if let Some(found) = found {
            write!(formatter, ", but {found}")?;
        }
        write!(formatter, ": expected {accepts}")
    }
}

impl ServeConfig {
    /// Reads and checks every variable.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let backend = vars.backend();
        let runtime = vars.runtime();
        let encoder = vars.encoder(backend.as_ref(), runtime.as_ref());
        let reranker = vars.reranker(runtime.as_ref());
        let addr = vars.take(&var::ADDR, |text| text.parse().ok());
        let index = vars.take(&var::INDEX, path);
        let corpus = vars.take_optional(&var::CORPUS, paths);
        let verification = vars.take(&var::VERIFY_INDEX, |text| match text {
            "true" => Some(Verification::Digests),
            "false" => Some(Verification::Sizes),
            _ => None,
        });
        let bm25 = vars.bm25();
        let passage_fields = vars.take(&var::PASSAGE_FIELDS, |text| match text {
            "minimal" => Some(PassageFields::Minimal),
            "full" => Some(PassageFields::Full),
            _ => None,
        });
        let request = vars.request_limits();
        let load = vars.load_limits();
        let batch = vars.batch_limits(load.as_ref());
        let threads = vars.take(&var::THREADS, threads);
        vars.check_order(&var::TOP_K, &var::MAX_TOP_K);
        vars.check_order(&var::MAX_BATCH_QUERIES, &var::MAX_QUEUED_QUERIES);
        vars.finish(|| {
            Ok(Self {
                backend: backend?,
                encoder: encoder?,
                reranker: reranker?,
                addr: addr?,
                index: index?,
                corpus: corpus?,
                verification: verification?,
                bm25: bm25?,
                passage_fields: passage_fields?,
                request: request?,
                load: load?,
                batch: batch?,
                threads: threads?,
            })
        })
    }
}

impl LogConfig {
    /// Reads and checks the variables of the log.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let filter = vars
            .take(&var::LOG, |text| telemetry::check_filter(text).ok().map(|()| text.to_owned()));
        let format = vars.take(&var::LOG_FORMAT, |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        vars.finish(|| Ok(Self { filter: filter?, format: format? }))
    }
}

impl IndexConfig {
    /// Reads and checks the variables that `index` shares with `serve`.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let backends = vars.backends();
        let runtime = vars.runtime();
        let encoder = vars.encoder_of_index(backends.as_deref(), runtime.as_ref());
        let index = vars.take(&var::INDEX, path);
        let corpus = vars.take(&var::CORPUS, paths);
        let threads = vars.take(&var::THREADS, threads);
        vars.finish(|| {
            Ok(Self { encoder: encoder?, index: index?, corpus: corpus?, threads: threads? })
        })
    }
}

impl PlanConfig {
    /// Reads and checks the variables that `plan` shares with `index`.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let backends = vars.backends();
        let vector_format = vars.take(&var::VECTOR_FORMAT, FormatChoice::parse);
        let graph = vars.take(&var::ANN, GraphKind::parse);
        let index = vars.take(&var::INDEX, path);
        let corpus = vars.take_optional(&var::CORPUS, paths);
        let model = vars.take_optional(&var::MODEL, |text| path(text).map(Some));
        let threads = vars.take(&var::THREADS, threads);
        vars.finish(|| {
            let backends = backends?;
            let needs_graph = backends.iter().any(BackendConfig::needs_graph);
            let graph = Some(graph?).filter(|_| needs_graph);
            Ok(Self {
                needs_vectors: backends.iter().any(BackendConfig::needs_encoder),
                reads_rows: backend::reads_rows(&backends, graph),
                graph,
                vector_format: vector_format?.resolved(graph),
                index: index?,
                corpus: corpus?,
                model: model?,
                threads: threads?,
            })
        })
    }
}

/// Paths as [`paths`] reads them.
pub(crate) fn shown(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests;
