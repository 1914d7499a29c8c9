//! The configuration of the commands. Values come from flags, then from the environment, then from
//! the table of defaults.
//!
//! In reading order: the table ([`variables`]), flags over the environment ([`source`]), values that
//! are parsed and checked (`reader`, `backend`, `engine`, `web`, `service`), and the files that the values point to
//! ([`disk`]).
//! Every value is read once, all bad ones are reported together, and nothing below asks again.

pub mod variables;
pub mod source;
mod reader;
mod backend;
mod engine;
mod web;
mod service;
pub mod disk;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared::machine::telemetry::{self, LogFormat};
use thiserror::Error;

use crate::access::AccessFiles;
use crate::batcher::BatchLimits;
use crate::engine::{EngineConfig, EngineKind};
use crate::index::dense::ann::GraphKind;
use crate::lexical::bm25::Bm25Parameters;
use crate::vector::RowFormat;
use crate::web::settings::WebSettings;
use backend::FormatChoice;
use reader::{FaultNoted, Reader, path, paths, threads};
use source::Source;
use variables::{self as var, Variable};

pub use service::{IndexCheck, ServiceConfig};

pub use backend::{
    BackendConfig, BackendKind, EncoderConfig, HybridConfig, RerankerConfig, RuntimeConfig,
};

/// The valid configuration of `serve`.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The back end that answers queries.
    pub backend: BackendConfig,
    /// The encoder, if the back end or a part of it needs one.
    pub encoder: Option<EncoderConfig>,
    /// The engine of another machine, if the back end is one.
    pub engine: Option<EngineConfig>,
    /// The re-ranker, if there is one.
    pub reranker: Option<RerankerConfig>,
    /// The settings of web search, if that is the back end.
    pub web: Option<WebSettings>,
    /// The address to listen on.
    pub addr: SocketAddr,
    /// Folder of the index; `None` only if another service holds the passages.
    pub index: Option<PathBuf>,
    /// The corpus to index first if there is no index. Often empty.
    pub corpus: Vec<PathBuf>,
    /// The time at which the files of the index are compared with their digests.
    pub verification: IndexCheck,
    /// The constants of BM25.
    pub bm25: Bm25Parameters,
    /// The keys of a passage in responses.
    pub passage_fields: PassageFields,
    /// The client that a request means which several clients send.
    pub profile: Profile,
    /// Limits of a request.
    pub request: RequestLimits,
    /// Limits of the work that is accepted concurrently.
    pub load: LoadLimits,
    /// Limits of a batch, for back ends that answer several queries together.
    pub batch: BatchLimits,
    /// The number of threads that search.
    pub threads: usize,
    /// Keys, certificates, browsers, the admin endpoints and traces.
    pub service: ServiceConfig,
}

/// The keys of a passage in responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageFields {
    /// `id`, `contents`, and `url` where the corpus has it.
    Minimal,
    /// `id`, `contents` and `url`, which is empty where the corpus has none.
    Url,
    /// Like [`Self::Minimal`], but also `title` and `text` where the corpus has them.
    Full,
}

/// The client that a request means which several clients send, and expect different responses to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// rLLM, for `query` with `top_k` or `k`; Search-R1's own server, for `queries` alone.
    Rllm,
    /// ZeroSearch, for `query` with `top_k` or `k`.
    Zerosearch,
    /// Search-R1's web search servers, for `queries` without `return_scores`.
    Proxy,
}

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Passages per query if the request names no number.
    pub default_top_k: usize,
    /// The most passages per query.
    pub max_top_k: usize,
    /// The largest body.
    pub max_body_bytes: usize,
    /// The most queries.
    pub max_batch_queries: usize,
    /// The longest query.
    pub max_query_bytes: usize,
    /// The most documents to rank again.
    pub max_rerank_documents: usize,
    /// The longest time for the answer, once the body has arrived.
    pub deadline: Duration,
}

/// Limits of the work that is accepted concurrently.
#[derive(Clone, Copy, Debug)]
pub struct LoadLimits {
    /// The most queries that are admitted: in flight, or waiting for their turn.
    pub max_queued_queries: usize,
    /// The most queries in flight; `None` for as many as keep the back end busy.
    pub max_in_flight_queries: Option<usize>,
    /// The longest expected wait for a turn with which a request is admitted.
    pub max_wait: Duration,
    /// The most requests that are read or answered concurrently.
    pub max_requests: usize,
    /// The most bytes of all bodies together; at least one body of the largest size is read.
    pub max_bodies_bytes: usize,
    /// The most open connections.
    pub max_connections: usize,
    /// The longest time for the head of a request to arrive.
    pub header_timeout: Duration,
    /// The longest time for the body of a request to arrive, or without a byte of the answer being taken.
    pub body_timeout: Duration,
    /// The longest time between two requests of a connection.
    pub idle_timeout: Duration,
    /// The time to finish admitted work after a signal.
    pub grace_period: Duration,
}

/// The configuration of the log. It is apart from [`ServeConfig`] because it is needed first.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The filter, in the syntax of tracing.
    pub filter: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// The variables of the `index` command.
#[derive(Clone, Debug)]
pub struct IndexConfig {
    /// The engine to load the index into, if there is one.
    pub engine: Option<EngineConfig>,
    /// The encoder of the vectors, if the index gets any.
    pub encoder: Option<EncoderConfig>,
    /// Folder of the index.
    pub index: PathBuf,
    /// The corpus files; empty for an existing index if none is named.
    pub corpus: Vec<PathBuf>,
    /// The number of threads that analyse text.
    pub threads: usize,
}

/// The variables of the `plan` command.
#[derive(Clone, Debug)]
pub struct PlanConfig {
    /// `true` if the index gets vectors.
    pub needs_vectors: bool,
    /// The graph over the vectors, if there is one.
    pub graph: Option<GraphKind>,
    /// The format of the vectors that are searched.
    pub vector_format: RowFormat,
    /// `true` if rows in that format are read from the index.
    pub reads_rows: bool,
    /// Folder of the index, if one is named. It need not exist.
    pub index: Option<PathBuf>,
    /// The corpus files; empty if none is named.
    pub corpus: Vec<PathBuf>,
    /// Folder of the encoder's model.
    pub model: Option<PathBuf>,
    /// The library of ONNX Runtime; `None` to look in the usual folders.
    pub onnxruntime: Option<PathBuf>,
    /// The number of threads that index.
    pub threads: usize,
}

/// Every bad value of a configuration.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<BadValue>,
}

impl ConfigError {
    /// Returns the error of a required variable that has no value.
    pub(crate) fn unset(variable: &Variable) -> Self {
        let &Variable { name, flag, accepts, .. } = variable;
        let accepts = accepts.to_owned();
        Self {
            faults: vec![BadValue { variable: name, flag, value: None, problem: None, accepts }],
        }
    }
}

/// A value that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// Name of the variable.
    pub variable: &'static str,
    /// The name of the flag, without the dashes.
    pub flag: &'static str,
    /// The value; `None` if the variable is not set.
    pub value: Option<String>,
    /// The fault of the file or device that the value names; `None` if the value itself is bad.
    pub problem: Option<String>,
    /// The accepted values.
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
        let Self { variable, flag, value, problem, accepts } = self;
        match value {
            Some(value) => write!(formatter, "{variable} (--{flag}) is {value:?}")?,
            None => write!(formatter, "{variable} (--{flag}) is not set")?,
        }
        if let Some(problem) = problem {
            write!(formatter, ", but {problem}")?;
        }
        write!(formatter, ": expected {accepts}")
    }
}

/// The values that point to something outside of the configuration, for [`disk`] to look at. A value
/// that is not set, or that is bad and noted as such, is `None`.
#[derive(Clone, Debug)]
struct Pointers {
    encoder: Option<EncoderConfig>,
    /// Folder of the re-ranker's model.
    reranker: Option<PathBuf>,
    index: Option<PathBuf>,
    corpus: Option<Vec<PathBuf>>,
    /// The files of keys and certificates.
    files: Option<AccessFiles>,
}

impl ServeConfig {
    /// Reads and checks every variable.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let (config, _) = Self::read(&mut vars);
        vars.finish(config)
    }

    /// Reads every variable and notes every bad value. The pointers that are fine are returned even
    /// if other values are bad.
    fn read(vars: &mut Reader<'_>) -> (Result<Self, FaultNoted>, Pointers) {
        let backend = vars.backend();
        let runtime = vars.runtime();
        let encoder = vars.encoder(backend.as_ref(), runtime.as_ref());
        let engine = vars.engine_of(backend.as_ref());
        let reranker_model = vars.take_optional(&var::RERANKER, |text| path(text).map(Some));
        let reranker = vars.reranker(reranker_model.as_ref(), runtime.as_ref());
        let is_web = backend.as_ref().is_ok_and(|backend| backend.kind == BackendKind::Web);
        let web = vars.web(is_web);
        let addr = vars.take(&var::ADDR, |text| text.parse().ok());
        let is_remote = backend.as_ref().is_ok_and(|backend| backend.kind.is_remote());
        let index = if is_remote {
            vars.take_optional(&var::INDEX, |text| path(text).map(Some))
        } else {
            vars.take(&var::INDEX, path).map(Some)
        };
        let corpus = vars.take_optional(&var::CORPUS, paths);
        let verification = vars.take(&var::VERIFY_INDEX, |text| match text {
            "auto" => Some(IndexCheck::Auto),
            "background" => Some(IndexCheck::Background),
            "true" => Some(IndexCheck::Start),
            "false" => Some(IndexCheck::Never),
            _ => None,
        });
        let bm25 = vars.bm25();
        let passage_fields = vars.take(&var::PASSAGE_FIELDS, |text| match text {
            "minimal" => Some(PassageFields::Minimal),
            "url" => Some(PassageFields::Url),
            "full" => Some(PassageFields::Full),
            _ => None,
        });
        let profile = vars.take(&var::PROFILE, |text| match text {
            "rllm" => Some(Profile::Rllm),
            "zerosearch" => Some(Profile::Zerosearch),
            "proxy" => Some(Profile::Proxy),
            _ => None,
        });
        let request = vars.request_limits();
        let load = vars.load_limits();
        let batch = vars.batch_limits(load.as_ref());
        let threads = vars.take(&var::THREADS, threads);
        let service = vars.service();
        vars.check_order(&var::TOP_K, &var::MAX_TOP_K);
        vars.check_order(&var::MAX_IN_FLIGHT_QUERIES, &var::MAX_QUEUED_QUERIES);
        vars.check_order(&var::MAX_BATCH_QUERIES, &var::MAX_QUEUED_QUERIES);
        let pointers = Pointers {
            encoder: encoder.clone().ok().flatten(),
            reranker: reranker_model.ok().flatten(),
            index: index.clone().ok().flatten(),
            corpus: corpus.clone().ok(),
            files: service.as_ref().ok().map(|service| service.files.clone()),
        };
        let config = || {
            Ok(Self {
                backend: backend?,
                encoder: encoder?,
                engine: engine?,
                reranker: reranker?,
                web: web?,
                addr: addr?,
                index: index?,
                corpus: corpus?,
                verification: verification?,
                bm25: bm25?,
                passage_fields: passage_fields?,
                profile: profile?,
                request: request?,
                load: load?,
                batch: batch?,
                threads: threads?,
                service: service?,
            })
        };
        (config(), pointers)
    }
}

impl LogConfig {
    /// Reads and checks the variables of the log.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let config = Self::read(&mut vars);
        vars.finish(config)
    }

    fn read(vars: &mut Reader<'_>) -> Result<Self, FaultNoted> {
        let filter = vars
            .take(&var::LOG, |text| telemetry::check_filter(text).ok().map(|()| text.to_owned()));
        let format = vars.take(&var::LOG_FORMAT, |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        Ok(Self { filter: filter?, format: format? })
    }
}

impl IndexConfig {
    /// Reads and checks the variables that `index` shares with `serve`.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let (config, _) = Self::read(&mut vars, None);
        vars.finish(config)
    }

    /// Reads the variables as [`ServeConfig::read`] does. The index is loaded into the engine `to`, if one is
    /// named, and gets what that needs.
    fn read(vars: &mut Reader<'_>, to: Option<EngineKind>) -> (Result<Self, FaultNoted>, Pointers) {
        let backends = vars.backends(to);
        let engine = to.map(|kind| vars.engine(kind)).transpose();
        let runtime = vars.runtime();
        let encoder = vars.encoder_of_index(backends.as_deref(), runtime.as_ref());
        let index = vars.take(&var::INDEX, path);
        let corpus = vars.take_optional(&var::CORPUS, paths);
        let threads = vars.take(&var::THREADS, threads);
        let pointers = Pointers {
            encoder: encoder.clone().ok().flatten(),
            reranker: None,
            index: index.clone().ok(),
            corpus: corpus.clone().ok(),
            files: None,
        };
        let config = || {
            Ok(Self {
                engine: engine?,
                encoder: encoder?,
                index: index?,
                corpus: corpus?,
                threads: threads?,
            })
        };
        (config(), pointers)
    }
}

impl PlanConfig {
    /// Reads and checks the variables that `plan` shares with `index`.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let backends = vars.backends(None);
        let vector_format = vars.take(&var::VECTOR_FORMAT, FormatChoice::parse);
        let graph = vars.take(&var::ANN, GraphKind::parse);
        let index = vars.take_optional(&var::INDEX, |text| path(text).map(Some));
        let corpus = vars.take_optional(&var::CORPUS, paths);
        let model = vars.take_optional(&var::MODEL, |text| path(text).map(Some));
        let onnxruntime = vars.take_optional(&var::ONNXRUNTIME, |text| path(text).map(Some));
        let threads = vars.take(&var::THREADS, threads);
        let config = || {
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
                onnxruntime: onnxruntime?,
                threads: threads?,
            })
        };
        let config = config();
        vars.finish(config)
    }
}

/// Formats paths in the form that [`paths`] parses.
pub(crate) fn shown(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests;
