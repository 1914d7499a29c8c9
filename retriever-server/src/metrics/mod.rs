//! The counts and latencies of a server, for Prometheus and for `/stats`.
//!
//! Owns every number that only grows. A request adds to atomic counts and never takes a lock, except to count an error.
//! Numbers of the moment, such as the length of a queue, are passed in when the page is written ([`Moment`]).

mod histogram;
mod process;
mod page;
mod observation;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use histogram::Histogram;
pub use observation::Observation;

/// The prefix of all names.
const PREFIX: &str = "retriever";

/// A part of the work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The body arrives.
    Body,
    /// The body becomes queries.
    Parse,
    /// Queries wait for a batch of a back end that answers several requests together.
    Wait,
    /// Queries become vectors.
    Encode,
    /// A back end ranks passages, with the waiting and the encoding.
    Search,
    /// Rows become passages.
    Passages,
    /// The passages are ranked again.
    Rerank,
    /// Answers become bytes.
    Render,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Body,
        Self::Parse,
        Self::Wait,
        Self::Encode,
        Self::Search,
        Self::Passages,
        Self::Rerank,
        Self::Render,
    ];

    /// Returns the name in metrics and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Parse => "parse",
            Self::Wait => "wait",
            Self::Encode => "encode",
            Self::Search => "search",
            Self::Passages => "passages",
            Self::Rerank => "rerank",
            Self::Render => "render",
        }
    }
}

/// A path whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/retrieve` and the other paths that search.
    Retrieve,
    /// `/access`.
    Access,
    /// `/rerank`.
    Rerank,
}

impl Route {
    const ALL: [Self; 3] = [Self::Retrieve, Self::Access, Self::Rerank];

    /// Returns the path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Retrieve => "/retrieve",
            Self::Access => "/access",
            Self::Rerank => "/rerank",
        }
    }
}

/// The form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format for a value of the header `Accept`.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the content type, which Prometheus 3 requires to be exact.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Numbers of the moment in which the page is written.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Requests that are read or answered.
    pub requests_in_flight: usize,
    /// Queries that are admitted and not answered yet.
    pub queries_in_flight: usize,
    /// Jobs that wait for a search thread.
    pub jobs_waiting: usize,
    /// `true` while queries are answered.
    pub is_ready: bool,
    /// The name of the back end.
    pub backend: &'static str,
    /// The digest of the loaded index and the number of its passages.
    pub index: Option<(String, u64)>,
}

type Label = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];

/// The counts and latencies since the start.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    started_at: SystemTime,
    stages: [Histogram; Stage::ALL.len()],
    requests: [Histogram; Route::ALL.len()],
    /// Requests without a result, by path and code.
    errors: Family<TwoLabels, Counter>,
    /// Requests without a result.
    pub requests_refused: Counter,
    /// Queries that were answered or failed.
    pub queries: Counter,
    /// Queries that failed.
    pub queries_failed: Counter,
    /// Queries that were cut to the longest length.
    pub queries_cut: Counter,
    /// Requests for more passages than the limit.
    pub requests_limited: Counter,
    /// The sizes of batches, in queries.
    pub batch_queries: Histogram,
    /// Queries that wait for a batch.
    queries_waiting: AtomicUsize,
    /// The ends of loading the index again, by outcome.
    reloads: Family<Label, Counter>,
    /// Calls of services behind this server, by service and outcome.
    calls: Family<TwoLabels, Counter>,
    /// 1 for each service that is not called, because it fails.
    open_breakers: Family<Label, Gauge>,
    /// Searches of the cache of web search, by outcome.
    lookups: Family<Label, Counter>,
    /// Metrics of parts that count for themselves.
    parts: Mutex<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
            stages: Stage::ALL.map(|_| Histogram::of_latencies()),
            requests: Route::ALL.map(|_| Histogram::of_latencies()),
            errors: Family::default(),
            requests_refused: Counter::default(),
            queries: Counter::default(),
            queries_failed: Counter::default(),
            queries_cut: Counter::default(),
            requests_limited: Counter::default(),
            batch_queries: Histogram::of_counts(),
            queries_waiting: AtomicUsize::new(0),
            reloads: Family::default(),
            calls: Family::default(),
            open_breakers: Family::default(),
            lookups: Family::default(),
            parts: Mutex::new(Registry::with_prefix(PREFIX)),
        }
    }
}

impl Metrics {
    /// Adds the time since `began` to a stage, and returns the time now.
    pub fn stage(&self, stage: Stage, began: Instant) -> Instant {
        let now = Instant::now();
        self.stages[stage as usize].observe_duration(now.saturating_duration_since(began));
        now
    }

    /// Counts a request that ends now, with the code of its error if it has no result.
    pub fn request(&self, route: Route, began: Instant, error: Option<&'static str>) {
        self.requests[route as usize].observe_duration(began.elapsed());
        if let Some(code) = error {
            self.requests_refused.inc();
            self.errors.get_or_create(&[("path", route.path()), ("code", code)]).inc();
        }
    }

    /// Sets the number of queries that wait for a batch.
    pub fn set_waiting(&self, queries: usize) {
        self.queries_waiting.store(queries, Ordering::Relaxed);
    }

    /// Counts an attempt to load the index again.
    pub fn reload(&self, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.reloads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a call of a service behind this server, which is not called any more for some time if its breaker
    /// `is_open`.
    pub fn call(&self, service: &'static str, outcome: &'static str, is_open: bool) {
        self.calls.get_or_create(&[("service", service), ("outcome", outcome)]).inc();
        self.open_breakers.get_or_create(&[("service", service)]).set(i64::from(is_open));
    }

    /// Counts a search of the cache of web search. A query that waits for the answer to an equal one is a hit.
    pub fn lookup(&self, is_hit: bool) {
        let outcome = if is_hit { "hit" } else { "miss" };
        self.lookups.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Returns the number of requests that ended.
    pub fn request_count(&self) -> u64 {
        self.requests.iter().map(|requests| requests.read().0).sum()
    }

    /// Returns the time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Adds metrics of a part that counts for itself. Their names get the prefix of all others.
    pub fn add(&self, part: Box<dyn Collector>) {
        self.lock().register_collector(part);
    }

    /// Returns the page.
    pub fn page(self: &Arc<Self>, moment: Moment, format: Format) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(page::Page { metrics: Arc::clone(self), moment }));
        let mut page = String::new();
        let parts = self.lock();
        let written = match format {
            Format::Text => prometheus_text::encode(&mut page, &registry)
                .and_then(|()| prometheus_text::encode(&mut page, &parts)),
            Format::OpenMetrics => text::encode_registry(&mut page, &registry)
                .and_then(|()| text::encode(&mut page, &parts)),
        };
        written.expect("writing to a string cannot fail");
        page
    }

    /// Locks the metrics of parts. They are only added, so a poisoned lock still guards a sound list.
    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
