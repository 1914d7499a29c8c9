//! `retriever-server bench`: measures a running server with the queries of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command as Clap, value_parser};
use reqwest::Url;
use shared::atomic_file;
use shared::client::{ClientConfig, RetrieveClient};
use tokio::runtime::Runtime;

use crate::bench::BenchError;
use crate::bench::asking::{Asker, Requests};
use crate::bench::load::{self, Length, MAX_REQUESTS, Pace, Record};
use crate::bench::summary::{Setting, Summary};
use crate::cli::{EXIT_FAILURE, EXIT_SUCCESS, UsageError, health};
use crate::evaluation::queries;

/// Threads that send requests: they share the machine with the server more often than not.
const CLIENT_THREADS: usize = 2;
/// Clients of the warm-up before an open loop.
const WARM_UP_CLIENTS: usize = 4;
const DEFAULT_SECONDS: f64 = 10.0;

/// What `bench` is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BenchArguments {
    url: Option<String>,
    queries: PathBuf,
    pace: Pace,
    length: Length,
    batch_queries: usize,
    top_k: usize,
    warm_up_requests: u64,
    timeout: Duration,
    seed: u64,
    json: Option<PathBuf>,
}

/// The definition of the command.
pub(crate) fn command() -> Clap {
    let flag = |name: &'static str, unit: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(unit).allow_hyphen_values(true).help(help)
    };
    Clap::new("bench")
        .about("Measure a running server: queries per second, latencies, failures by kind")
        .args([
            flag("url", "URL", "Base URL of the server [default: the port of RETRIEVER_ADDR here]"),
            flag("queries", "FILE", "JSON Lines of {\"question\"} (or \"text\", \"query\")")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
            flag("clients", "clients", "Closed loop: each client sends when it has its answer")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=4096)),
            flag("rate", "queries/s", "Open loop: Poisson arrivals, latency from the time due")
                .conflicts_with("clients")
                .value_parser(|text: &str| positive(text, 1e7)),
            flag("max-in-flight", "requests", "Open loop: most requests without an answer")
                .default_value("4096")
                .value_parser(value_parser!(u64).range(1..=65536)),
            flag("seed", "N", "Decides the arrivals of an open loop")
                .default_value("0")
                .value_parser(value_parser!(u64)),
            flag("batch", "queries", "Queries a request")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=65536)),
            flag("top-k", "passages", "Passages per query")
                .default_value("3")
                .value_parser(value_parser!(u64).range(1..=1 << 24)),
            flag("requests", "N", "End after so many requests")
                .value_parser(value_parser!(u64).range(1..=MAX_REQUESTS)),
            flag("seconds", "s", "Start no request after this time [default: 10]")
                .conflicts_with("requests")
                .value_parser(|text: &str| positive(text, 86400.0)),
            flag("warm-up", "requests", "Requests before the measurement")
                .default_value("100")
                .value_parser(value_parser!(u64).range(0..=MAX_REQUESTS)),
            flag("timeout-ms", "ms", "Longest wait for an answer")
                .default_value("60000")
                .value_parser(value_parser!(u64).range(1..=86_400_000)),
            flag("json", "FILE", "Also write the figures as JSON")
                .value_parser(value_parser!(PathBuf)),
        ])
}

/// A number above 0.
fn positive(text: &str, max: f64) -> Result<f64, String> {
    f64::from_str(text)
        .ok()
        .filter(|&number| number > 0.0 && number <= max)
        .ok_or_else(|| format!("expected a number above 0, at most {max}"))
}

impl BenchArguments {
    /// Takes the flags of [`command`].
    pub(crate) fn read(matches: &ArgMatches) -> Self {
        // Every number has a default, and was checked against its range.
        let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
        let path = |name| matches.get_one::<PathBuf>(name).cloned();
        let (batch_queries, seed) = (number("batch") as usize, number("seed"));
        let pace = match matches.get_one::<f64>("rate") {
            Some(rate) => Pace::Open {
                requests_per_s: rate / batch_queries as f64,
                seed,
                max_in_flight: number("max-in-flight") as usize,
            },
            None => Pace::Closed { clients: number("clients") as usize },
        };
        let seconds = matches.get_one::<f64>("seconds").copied().unwrap_or(DEFAULT_SECONDS);
        let length = match matches.get_one::<u64>("requests") {
            Some(&requests) => Length::Requests(requests),
            None => Length::Time(Duration::from_secs_f64(seconds)),
        };
        Self {
            url: matches.get_one::<String>("url").cloned(),
            queries: path("queries").unwrap_or_default(),
            pace,
            length,
            batch_queries,
            top_k: number("top-k") as usize,
            warm_up_requests: number("warm-up"),
            timeout: Duration::from_millis(number("timeout-ms")),
            seed,
            json: path("json"),
        }
    }
}

/// Measures, prints the table and writes the JSON. The exit code tells whether there was an answer
/// at all.
pub(crate) fn run(
    arguments: &BenchArguments,
    environment: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let endpoint = endpoint(arguments.url.clone(), environment)?;
    let texts = texts(&arguments.queries, arguments.batch_queries)?;
    let setting = setting(arguments, &endpoint, texts.len());
    let requests = Requests::new(texts, arguments.batch_queries, arguments.top_k);
    let asker = Asker::new(endpoint, arguments.batch_queries, arguments.timeout)?;
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
    // The client of the trainer decides what a retriever's address is.
    let client = RetrieveClient::new(ClientConfig::new(&url))
        .map_err(|error| UsageError(format!("--url: {error}")))?;
    Ok(client.endpoint().clone())
}

/// The different texts of a file, of which there must be as many as a request has: a server may
/// search for equal ones once.
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
    let (pace, clients, rate_queries_per_s) = match arguments.pace {
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
        let clients = match arguments.pace {
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
    Ok(load::run(runtime, arguments.pace, arguments.length, warm_up_requests, send))
}
