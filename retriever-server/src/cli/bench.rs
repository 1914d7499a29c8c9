//! `retriever-server bench`: measures a running server with the queries of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use shared::contract::client;
use shared::machine::atomic_file;
use tokio::runtime::Runtime;

use super::flags::count;
use super::{EXIT_FAILURE, EXIT_SUCCESS, UsageError, health};
use crate::bench::BenchError;
use crate::bench::asking::{Asker, Requests};
use crate::bench::load::{self, Length, MAX_REQUESTS, Pace, Record};
use crate::bench::summary::{Setting, Summary};
use crate::evaluation::queries;

/// Threads that send requests. Few, as they often share the machine with the server.
const CLIENT_THREADS: usize = 2;
/// The number of clients that warm the server up before an open loop.
const WARM_UP_CLIENTS: usize = 4;
const DEFAULT_SECONDS: f64 = 10.0;

/// Queries of a request, and what an open loop may have in flight: as many as a server may accept.
const MAX_AT_ONCE: u64 = 1 << 16;

#[derive(Clone, Debug, Args)]
pub(super) struct BenchArguments {
    /// Base URL of the server [default: the port of RETRIEVER_ADDR on this machine]
    #[arg(long, value_name = "URL", allow_hyphen_values = true)]
    url: Option<String>,
    /// Queries with "question", "text" or "query": JSON Lines, a JSON list, a table or parquet
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    queries: PathBuf,
    /// Closed loop: each client sends a request once it has the answer to its last one
    #[arg(
        long,
        value_name = "clients",
        default_value_t = 1,
        value_parser = count::<usize>(1..=4096),
        allow_hyphen_values = true
    )]
    clients: usize,
    /// Open loop: Poisson arrivals; a latency runs from the time at which the request was due
    #[arg(
        long,
        value_name = "queries/s",
        conflicts_with = "clients",
        value_parser = |text: &str| positive(text, 1e7),
        allow_hyphen_values = true
    )]
    rate: Option<f64>,
    /// Open loop: most requests without an answer
    #[arg(
        long,
        value_name = "requests",
        default_value_t = 4096,
        value_parser = count::<usize>(1..=MAX_AT_ONCE),
        allow_hyphen_values = true
    )]
    max_in_flight: usize,
    /// Seed of the arrivals of an open loop
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = count::<u64>(0..=u64::MAX),
        allow_hyphen_values = true
    )]
    seed: u64,
    /// Queries in a request
    #[arg(
        long = "batch",
        value_name = "queries",
        default_value_t = 1,
        value_parser = count::<usize>(1..=MAX_AT_ONCE),
        allow_hyphen_values = true
    )]
    batch_queries: usize,
    /// Passages per query
    #[arg(
        long,
        value_name = "passages",
        default_value_t = 3,
        value_parser = count::<usize>(1..=1 << 24),
        allow_hyphen_values = true
    )]
    top_k: usize,
    /// End after this many requests
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<u64>(1..=MAX_REQUESTS),
        allow_hyphen_values = true
    )]
    requests: Option<u64>,
    /// Start no request after this time [default: 10]
    #[arg(
        long,
        value_name = "s",
        conflicts_with = "requests",
        value_parser = |text: &str| positive(text, 86400.0),
        allow_hyphen_values = true
    )]
    seconds: Option<f64>,
    /// Requests before the measurement
    #[arg(
        long = "warm-up",
        value_name = "requests",
        default_value_t = 100,
        value_parser = count::<u64>(0..=MAX_REQUESTS),
        allow_hyphen_values = true
    )]
    warm_up_requests: u64,
    /// Longest wait for an answer
    #[arg(
        long,
        value_name = "ms",
        default_value_t = 60_000,
        value_parser = count::<u64>(1..=86_400_000),
        allow_hyphen_values = true
    )]
    timeout_ms: u64,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    json: Option<PathBuf>,
}

/// Parses a number above 0.
fn positive(text: &str, max: f64) -> Result<f64, String> {
    f64::from_str(text)
        .ok()
        .filter(|&number| number > 0.0 && number <= max)
        .ok_or_else(|| format!("expected a number above 0, at most {max}"))
}

impl BenchArguments {
    fn pace(&self) -> Pace {
        match self.rate {
            Some(queries_per_s) => Pace::Open {
                requests_per_s: queries_per_s / self.batch_queries as f64,
                seed: self.seed,
                max_in_flight: self.max_in_flight,
            },
            None => Pace::Closed { clients: self.clients },
        }
    }

    fn length(&self) -> Length {
        match self.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(Duration::from_secs_f64(self.seconds.unwrap_or(DEFAULT_SECONDS))),
        }
    }
}

/// Measures, prints the table and writes the JSON. The exit code is 0 if any request was answered.
pub(super) fn run(
    arguments: &BenchArguments,
    environment: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let endpoint = endpoint(arguments.url.clone(), environment)?;
    let texts = texts(&arguments.queries, arguments.batch_queries)?;
    let setting = setting(arguments, &endpoint, texts.len());
    let requests = Requests::new(texts, arguments.batch_queries, arguments.top_k);
    let asker =
        Asker::new(endpoint, arguments.batch_queries, Duration::from_millis(arguments.timeout_ms))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLIENT_THREADS)
        .enable_all()
        .build()
        .map_err(BenchError::Threads)?;
    let server = runtime.block_on(asker.server());
    let record = measure(&runtime, arguments, &asker, requests)?;
    let summary = Summary::new(setting, server, record);
    out.write_all(summary.table().as_bytes())?;
    if let Some(path) = &arguments.json {
        atomic_file::write(path, &serde_json::to_vec_pretty(&summary)?)?;
    }
    Ok(if summary.requests_answered > 0 { EXIT_SUCCESS } else { EXIT_FAILURE })
}

fn endpoint(url: Option<String>, environment: &BTreeMap<String, String>) -> anyhow::Result<Url> {
    let url = url.unwrap_or_else(|| health::default_url(environment));
    // The trainer's client decides which addresses a retriever can have.
    Ok(client::endpoint(&url).map_err(|error| UsageError(format!("--url: {error}")))?)
}

/// Returns the distinct texts of a file. There must be as many as a request has queries, because a
/// server may search for equal queries once.
fn texts(path: &Path, batch_queries: usize) -> anyhow::Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let queries = queries::read(path).map_err(|error| UsageError(format!("--queries: {error}")))?;
    let texts: Vec<String> = queries
        .into_iter()
        .map(|query| query.text)
        .filter(|text| seen.insert(text.clone()))
        .collect();
    if texts.len() < batch_queries {
        let (count, path) = (texts.len(), path.display());
        let message = format!(
            "--batch is {batch_queries}: expected at most {count}, the different queries of {path}"
        );
        return Err(UsageError(message).into());
    }
    Ok(texts)
}

fn setting(arguments: &BenchArguments, endpoint: &Url, queries_in_file: usize) -> Setting {
    let batch_queries = arguments.batch_queries;
    let (pace, clients, rate_queries_per_s) = match arguments.pace() {
        Pace::Closed { clients } => ("closed", Some(clients), None),
        Pace::Open { requests_per_s, .. } => {
            ("open", None, Some(requests_per_s * batch_queries as f64))
        }
    };
    Setting {
        url: endpoint.to_string(),
        pace,
        clients,
        rate_queries_per_s,
        seed: arguments.seed,
        batch_queries,
        top_k: arguments.top_k,
        queries_in_file,
        warm_up_requests: arguments.warm_up_requests,
    }
}

fn measure(
    runtime: &Runtime,
    arguments: &BenchArguments,
    asker: &Asker,
    requests: Requests,
) -> Result<Record, BenchError> {
    let requests = std::sync::Arc::new(requests);
    let send = {
        let asker = asker.clone();
        move |number| {
            let (asker, body) = (asker.clone(), requests.body(number));
            async move { asker.ask(body).await }
        }
    };
    let warm_up_requests = arguments.warm_up_requests;
    if warm_up_requests > 0 {
        let clients = match arguments.pace() {
            Pace::Closed { clients } => clients,
            Pace::Open { .. } => WARM_UP_CLIENTS,
        };
        let length = Length::Requests(warm_up_requests);
        let record = load::run(runtime, Pace::Closed { clients }, length, 0, send.clone());
        if record.latencies_ns.is_empty() {
            let kinds = record.failures.iter().map(|(kind, count)| format!("{kind} ({count})"));
            let failures = kinds.collect::<Vec<_>>().join(", ");
            return Err(BenchError::NoAnswer { url: asker.endpoint().to_string(), failures });
        }
    }
    Ok(load::run(runtime, arguments.pace(), arguments.length(), warm_up_requests, send))
}
