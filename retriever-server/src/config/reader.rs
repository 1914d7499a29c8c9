//! Reads variables and notes every bad value, so that all of them are reported together.

use std::path::PathBuf;
use std::time::Duration;

use super::source::Source;
use super::variables::{self as var, VARIABLES, Variable};
use super::{BadValue, ConfigError, LoadLimits, RequestLimits};
use crate::batcher::BatchLimits;
use crate::lexical::bm25::Bm25Parameters;

/// The largest accepted count of queries, requests, connections, passages or rows.
const MAX_COUNT: usize = 1 << 24;
const MAX_BATCH_WAIT: Duration = Duration::from_secs(1);

/// The mark of a value that was bad. Its fault is noted in the [`Reader`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultNoted;

/// A source of variables with the faults of the values that were read.
pub(super) struct Reader<'a> {
    source: &'a dyn Source,
    faults: Vec<BadValue>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn Source) -> Self {
        Self { source, faults: Vec::new() }
    }

    /// Reads a value, or the default. A variable without either is a fault.
    pub(super) fn take<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, FaultNoted> {
        let value = self.source.get(variable.name).or(variable.default.map(str::to_owned));
        match value.as_deref().and_then(parse) {
            Some(parsed) => Ok(parsed),
            None => Err(self.note(variable, value, variable.accepts.to_owned())),
        }
    }

    /// Reads a value like [`Reader::take`]; without one, returns the default of the type.
    pub(super) fn take_optional<T: Default>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, FaultNoted> {
        match self.source.get(variable.name) {
            None => Ok(T::default()),
            Some(_) => self.take(variable, parse),
        }
    }

    /// Returns the text of a variable that must not be shown if it is bad.
    pub(super) fn text(&self, variable: &Variable) -> Option<String> {
        self.source.get(variable.name)
    }

    /// Notes a bad value.
    pub(super) fn note(
        &mut self,
        variable: &Variable,
        value: Option<String>,
        accepts: String,
    ) -> FaultNoted {
        let (variable, flag) = (variable.name, variable.flag);
        self.faults.push(BadValue { variable, flag, value, problem: None, accepts });
        FaultNoted
    }

    /// Notes a value that is bad for a reason of its own.
    pub(super) fn note_problem(
        &mut self,
        variable: &Variable,
        value: String,
        problem: String,
        accepts: String,
    ) -> FaultNoted {
        let (variable, flag) = (variable.name, variable.flag);
        let (value, problem) = (Some(value), Some(problem));
        self.faults.push(BadValue { variable, flag, value, problem, accepts });
        FaultNoted
    }

    /// Returns a value as it is, if one is set.
    pub(super) fn get(&self, variable: &Variable) -> Option<String> {
        self.source.get(variable.name)
    }

    pub(super) fn count(&mut self, variable: &Variable) -> Result<usize, FaultNoted> {
        self.take(variable, count)
    }

    pub(super) fn bytes(&mut self, variable: &Variable) -> Result<usize, FaultNoted> {
        self.take(variable, |text| {
            text.parse().ok().filter(|&bytes| (1..=1 << 32).contains(&bytes))
        })
    }

    pub(super) fn milliseconds(&mut self, variable: &Variable) -> Result<Duration, FaultNoted> {
        let limit = Duration::from_hours(24);
        self.take(variable, |text| {
            let duration = Duration::from_millis(text.parse().ok()?);
            (Duration::from_millis(1)..=limit).contains(&duration).then_some(duration)
        })
    }

    pub(super) fn bm25(&mut self) -> Result<Bm25Parameters, FaultNoted> {
        let number = |text: &str| text.parse::<f32>().ok();
        let k1 = self.take(&var::BM25_K1, |text| {
            number(text).filter(|&k1| Bm25Parameters::new(k1, 0.0).is_ok())
        });
        let b = self.take(&var::BM25_B, |text| {
            number(text).filter(|&b| Bm25Parameters::new(0.0, b).is_ok())
        });
        let (k1, b) = (k1?, b?);
        Ok(Bm25Parameters::new(k1, b).expect("each constant was checked alone"))
    }

    pub(super) fn request_limits(&mut self) -> Result<RequestLimits, FaultNoted> {
        let default_top_k = self.count(&var::TOP_K);
        let max_top_k = self.count(&var::MAX_TOP_K);
        let max_body_bytes = self.bytes(&var::MAX_BODY_BYTES);
        let max_batch_queries = self.count(&var::MAX_BATCH_QUERIES);
        let max_query_bytes = self.bytes(&var::MAX_QUERY_BYTES);
        let max_rerank_documents = self.count(&var::MAX_RERANK_DOCUMENTS);
        let deadline = self.milliseconds(&var::DEADLINE_MS);
        Ok(RequestLimits {
            default_top_k: default_top_k?,
            max_top_k: max_top_k?,
            max_body_bytes: max_body_bytes?,
            max_batch_queries: max_batch_queries?,
            max_query_bytes: max_query_bytes?,
            max_rerank_documents: max_rerank_documents?,
            deadline: deadline?,
        })
    }

    pub(super) fn load_limits(&mut self) -> Result<LoadLimits, FaultNoted> {
        let max_queued_queries = self.count(&var::MAX_QUEUED_QUERIES);
        let max_in_flight_queries = self.take(&var::MAX_IN_FLIGHT_QUERIES, |text| match text {
            "auto" => Some(None),
            _ => count(text).map(Some),
        });
        let max_wait = self.milliseconds(&var::MAX_WAIT_MS);
        let max_requests = self.count(&var::MAX_REQUESTS);
        let max_bodies_bytes = self.bytes(&var::MAX_BODIES_BYTES);
        let max_connections = self.count(&var::MAX_CONNECTIONS);
        let header_timeout = self.milliseconds(&var::HEADER_TIMEOUT_MS);
        let body_timeout = self.milliseconds(&var::BODY_TIMEOUT_MS);
        let idle_timeout = self.milliseconds(&var::IDLE_TIMEOUT_MS);
        let grace_period = self.milliseconds(&var::GRACE_PERIOD_MS);
        Ok(LoadLimits {
            max_queued_queries: max_queued_queries?,
            max_in_flight_queries: max_in_flight_queries?,
            max_wait: max_wait?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            idle_timeout: idle_timeout?,
            max_requests: max_requests?,
            max_bodies_bytes: max_bodies_bytes?,
            max_connections: max_connections?,
            grace_period: grace_period?,
        })
    }

    pub(super) fn batch_limits(
        &mut self,
        load: Result<&LoadLimits, &FaultNoted>,
    ) -> Result<BatchLimits, FaultNoted> {
        let max_queries = self.count(&var::BATCH_QUERIES);
        let max_tokens = self.count(&var::BATCH_TOKENS);
        let wait = self.take(&var::BATCH_WAIT_US, |text| {
            let wait = Duration::from_micros(text.parse().ok()?);
            (wait <= MAX_BATCH_WAIT).then_some(wait)
        });
        Ok(BatchLimits {
            max_queries: max_queries?,
            max_tokens: max_tokens?,
            wait: wait?,
            capacity_queries: load.map_err(|noted| *noted)?.max_queued_queries,
            steady_top_k: usize::MAX,
        })
    }

    /// Notes a fault if `smaller` is larger than `larger`. Values that are not counts are noted already.
    pub(super) fn check_order(&mut self, smaller: &Variable, larger: &Variable) {
        let source = self.source;
        let value =
            |variable: &Variable| source.get(variable.name).or(variable.default.map(str::to_owned));
        let (small, large) = (value(smaller), value(larger));
        let parsed = [&small, &large].map(|text| text.as_deref().and_then(count));
        if let [Some(count), Some(limit)] = parsed
            && count > limit
        {
            let accepts = format!("at most {limit}, the value of {}", larger.name);
            self.note(smaller, small, accepts);
        }
    }

    /// Returns the configuration if no value was bad, else all faults in the order of the table.
    pub(super) fn finish<T>(mut self, config: Result<T, FaultNoted>) -> Result<T, ConfigError> {
        match config {
            Ok(config) if self.faults.is_empty() => Ok(config),
            _ => {
                let row = |fault: &BadValue| {
                    VARIABLES.iter().position(|variable| variable.name == fault.variable)
                };
                self.faults.sort_by_key(row);
                Err(ConfigError { faults: self.faults })
            }
        }
    }

    /// Adds faults that show only where values point to.
    pub(super) fn add_faults(&mut self, faults: impl IntoIterator<Item = BadValue>) {
        self.faults.extend(faults);
    }
}

pub(super) fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=MAX_COUNT).contains(number))
}

pub(super) fn threads(text: &str) -> Option<usize> {
    if text == "auto" {
        return Some(std::thread::available_parallelism().map_or(1, usize::from));
    }
    text.parse().ok().filter(|number| (1..=1024).contains(number))
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// Parses paths with commas between them.
pub(super) fn paths(text: &str) -> Option<Vec<PathBuf>> {
    text.split(',').map(path).collect()
}
