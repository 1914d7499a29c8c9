//! What `serve` can be told. Values come from flags, then the environment, then the table of
//! defaults in [`variables`]; they are checked once, all together, and nothing below asks again.
//! What they point to on disk is looked at apart from that, in [`disk`].

pub mod disk;
pub mod source;
pub mod variables;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared::telemetry::{self, LogFormat};
use thiserror::Error;

use crate::config::source::Source;
use crate::config::variables::{self as var, Variable};
use crate::encode::device::Device;
use crate::index::manifest::Verification;
use crate::lexical::bm25::Bm25Parameters;

/// The largest number taken for any count of queries, requests, connections or threads.
const MAX_COUNT: usize = 1 << 24;

/// Everything `serve` needs, valid.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// What answers queries.
    pub backend: BackendKind,
    /// The encoder, if the back end needs one.
    pub encoder: Option<EncoderConfig>,
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
    /// Threads that search.
    pub threads: usize,
}

/// The back ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Lexical search by BM25.
    Bm25,
    /// Exact search over vectors.
    Dense,
}

impl BackendKind {
    /// Name in configuration and in `/info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Bm25, Self::Dense].into_iter().find(|kind| kind.name() == text)
    }
}

/// Where the encoder is and what it runs on.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Folder of the model.
    pub model: PathBuf,
    /// What it runs on.
    pub device: Device,
    /// ONNX Runtime; `None` looks in the usual places.
    pub library: Option<PathBuf>,
    /// A file of faiss with the vectors; `None` for those in the index.
    pub vectors: Option<PathBuf>,
    /// Rows that a search along a graph keeps in sight.
    pub hnsw_ef: usize,
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

/// Every bad value that was found.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<BadValue>,
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
        let backend = vars.take(&var::BACKEND, BackendKind::parse);
        let encoder = vars.encoder(backend);
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
        let threads = vars.take(&var::THREADS, threads);
        vars.check_order(&var::TOP_K, &var::MAX_TOP_K);
        vars.check_order(&var::MAX_BATCH_QUERIES, &var::MAX_QUEUED_QUERIES);
        vars.finish(|| {
            Ok(Self {
                backend: backend?,
                encoder: encoder?,
                addr: addr?,
                index: index?,
                corpus: corpus?,
                verification: verification?,
                bm25: bm25?,
                passage_fields: passage_fields?,
                request: request?,
                load: load?,
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
        let backend = vars.take(&var::BACKEND, BackendKind::parse);
        let encoder = vars.encoder(backend);
        let index = vars.take(&var::INDEX, path);
        let corpus = vars.take(&var::CORPUS, paths);
        let threads = vars.take(&var::THREADS, threads);
        vars.finish(|| {
            Ok(Self { encoder: encoder?, index: index?, corpus: corpus?, threads: threads? })
        })
    }
}

/// A bad value was found and noted.
#[derive(Clone, Copy, Debug)]
struct Noted;

/// Reads variables and notes every bad value.
struct Reader<'a> {
    source: &'a dyn Source,
    faults: Vec<BadValue>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a dyn Source) -> Self {
        Self { source, faults: Vec::new() }
    }

    /// The value, or the default. A variable without either is a fault.
    fn take<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Noted> {
        let value = self.source.get(variable.name).or(variable.default.map(str::to_owned));
        match value.as_deref().and_then(parse) {
            Some(parsed) => Ok(parsed),
            None => Err(self.note(variable, value, variable.accepts.to_owned())),
        }
    }

    /// Like [`Reader::take`], but nothing is as good as the empty value.
    fn take_optional<T: Default>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Noted> {
        match self.source.get(variable.name) {
            None => Ok(T::default()),
            Some(_) => self.take(variable, parse),
        }
    }

    fn note(&mut self, variable: &Variable, value: Option<String>, accepts: String) -> Noted {
        let (variable, flag) = (variable.name, variable.flag);
        self.faults.push(BadValue { variable, flag, value, found: None, accepts });
        Noted
    }

    fn count(&mut self, variable: &Variable) -> Result<usize, Noted> {
        self.take(variable, count)
    }

    fn bytes(&mut self, variable: &Variable) -> Result<usize, Noted> {
        self.take(variable, |text| {
            text.parse().ok().filter(|&bytes| (1..=1 << 32).contains(&bytes))
        })
    }

    fn milliseconds(&mut self, variable: &Variable) -> Result<Duration, Noted> {
        let limit = Duration::from_hours(24);
        self.take(variable, |text| {
            let duration = Duration::from_millis(text.parse().ok()?);
            (Duration::from_millis(1)..=limit).contains(&duration).then_some(duration)
        })
    }

    /// The encoder, if the back end needs one; its device is checked in any case.
    fn encoder(
        &mut self,
        backend: Result<BackendKind, Noted>,
    ) -> Result<Option<EncoderConfig>, Noted> {
        let device = self.take(&var::DEVICE, |text| text.parse().ok());
        let library = self.take_optional(&var::ONNXRUNTIME, |text| path(text).map(Some));
        let vectors = self.take_optional(&var::VECTORS, |text| path(text).map(Some));
        let hnsw_ef = self.count(&var::HNSW_EF);
        if backend? != BackendKind::Dense {
            return Ok(None);
        }
        let model = self.take(&var::MODEL, path);
        Ok(Some(EncoderConfig {
            model: model?,
            device: device?,
            library: library?,
            vectors: vectors?,
            hnsw_ef: hnsw_ef?,
        }))
    }

    fn bm25(&mut self) -> Result<Bm25Parameters, Noted> {
        let number = |text: &str| text.parse::<f32>().ok();
        let k1 = self.take(&var::BM25_K1, |text| {
            number(text).filter(|&k1| Bm25Parameters::new(k1, 0.0).is_ok())
        });
        let b = self.take(&var::BM25_B, |text| {
            number(text).filter(|&b| Bm25Parameters::new(0.0, b).is_ok())
        });
        Bm25Parameters::new(k1?, b?).map_err(|_| Noted)
    }

    fn request_limits(&mut self) -> Result<RequestLimits, Noted> {
        let default_top_k = self.count(&var::TOP_K);
        let max_top_k = self.count(&var::MAX_TOP_K);
        let max_body_bytes = self.bytes(&var::MAX_BODY_BYTES);
        let max_batch_queries = self.count(&var::MAX_BATCH_QUERIES);
        let max_query_bytes = self.bytes(&var::MAX_QUERY_BYTES);
        let deadline = self.milliseconds(&var::DEADLINE_MS);
        Ok(RequestLimits {
            default_top_k: default_top_k?,
            max_top_k: max_top_k?,
            max_body_bytes: max_body_bytes?,
            max_batch_queries: max_batch_queries?,
            max_query_bytes: max_query_bytes?,
            deadline: deadline?,
        })
    }

    fn load_limits(&mut self) -> Result<LoadLimits, Noted> {
        let max_queued_queries = self.count(&var::MAX_QUEUED_QUERIES);
        let max_requests = self.count(&var::MAX_REQUESTS);
        let max_connections = self.count(&var::MAX_CONNECTIONS);
        let grace_period = self.milliseconds(&var::GRACE_PERIOD_MS);
        Ok(LoadLimits {
            max_queued_queries: max_queued_queries?,
            max_requests: max_requests?,
            max_connections: max_connections?,
            grace_period: grace_period?,
        })
    }

    /// Notes a fault if one count is larger than the other.
    fn check_order(&mut self, smaller: &Variable, larger: &Variable) {
        let source = self.source;
        let value =
            |variable: &Variable| source.get(variable.name).or(variable.default.map(str::to_owned));
        let (small, large) = (value(smaller), value(larger));
        let parsed = [&small, &large].map(|text| text.as_deref().and_then(count));
        if let [Some(one), Some(other)] = parsed
            && one > other
        {
            let accepts = format!("at most {other}, the value of {}", larger.name);
            self.note(smaller, small, accepts);
        }
    }

    /// The result, if no value was bad.
    fn finish<T>(self, build: impl FnOnce() -> Result<T, Noted>) -> Result<T, ConfigError> {
        match build() {
            Ok(config) if self.faults.is_empty() => Ok(config),
            _ => Err(ConfigError { faults: self.faults }),
        }
    }
}

fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=MAX_COUNT).contains(number))
}

fn threads(text: &str) -> Option<usize> {
    if text == "auto" {
        return Some(std::thread::available_parallelism().map_or(1, usize::from));
    }
    text.parse().ok().filter(|number| (1..=1024).contains(number))
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// Paths with commas between them.
fn paths(text: &str) -> Option<Vec<PathBuf>> {
    text.split(',').map(path).collect()
}

/// Paths as [`paths`] reads them.
pub(crate) fn shown(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests;
