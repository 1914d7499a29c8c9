//! `retriever-server eval`: scores back ends of one index side by side, each opened as `serve`
//! opens it, without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command as Clap, value_parser};
use serde_json::json;
use shared::atomic_file;
use shared::passage::Passage;
use tracing::info;

use crate::cli::arguments::{argument, values};
use crate::cli::{EXIT_SUCCESS, UsageError, start_log, warn_of_unknown};
use crate::config::ServeConfig;
use crate::config::disk::CheckedServe;
use crate::config::source::{Layered, Source};
use crate::config::variables::{self as var, Variable};
use crate::corpus::store::PassageStore;
use crate::evaluation::coverage::{Coverage, judged_passages};
use crate::evaluation::judgements::Judgements;
use crate::evaluation::queries::{self, EvaluationQuery};
use crate::evaluation::scores::{self, BackendScores, Tally};
use crate::loading;
use crate::pipeline::Pipeline;
use crate::query::QueryBatch;
use crate::state::AppState;
use crate::ticket::Ticket;

/// Variables that concern the server around a back end, or that have a flag of `eval`'s own.
const NOT_TAKEN: [Variable; 8] = [
    var::BACKEND,
    var::ADDR,
    var::TOP_K,
    var::DEADLINE_MS,
    var::MAX_BODY_BYTES,
    var::MAX_REQUESTS,
    var::MAX_CONNECTIONS,
    var::GRACE_PERIOD_MS,
];

/// Longest time of a batch. Nobody waits for its answer, and a slow re-ranker must not end an evaluation:
/// the deadline of a server's requests does not hold here.
const PATIENCE: Duration = Duration::from_hours(24);

/// What `eval` is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EvaluateArguments {
    /// Values by the name of their variable.
    flags: BTreeMap<String, String>,
    queries: PathBuf,
    qrels: Option<PathBuf>,
    /// Names; empty for the one of the configuration.
    backends: Vec<String>,
    top_k: usize,
    cutoffs: Vec<usize>,
    batch_queries: usize,
    json: Option<PathBuf>,
}

/// The definition of the command.
pub(crate) fn command() -> Clap {
    let flag = |name: &'static str, unit: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(unit).allow_hyphen_values(true).help(help)
    };
    Clap::new("eval")
        .about("Score back ends with queries whose answers are known, side by side")
        .args([
            flag("queries", "FILE", "JSON Lines of id, question, golden_answers, gold_ids")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
            flag("qrels", "FILE", "Judged passages, as TREC or BEIR has them [default: gold_ids]")
                .value_parser(value_parser!(PathBuf)),
            flag("backends", "NAMES", "With commas between them [default: that of --backend]")
                .value_delimiter(','),
            flag("top-k", "passages", "Passages per query")
                .default_value("100")
                .value_parser(value_parser!(u64).range(10..=100_000)),
            flag("cutoffs", "passages", "Cut-offs of recall and of answers, with commas")
                .default_value("3,10,100")
                .value_delimiter(',')
                .value_parser(value_parser!(u64).range(1..=100_000)),
            flag("batch", "queries", "Queries answered at a time")
                .default_value("64")
                .value_parser(value_parser!(u64).range(1..=4096)),
            flag("json", "FILE", "Also write the figures as JSON")
                .value_parser(value_parser!(PathBuf)),
        ])
        .arg(argument(&var::BACKEND).conflicts_with("backends"))
        .args(taken().map(argument))
}

fn taken() -> impl Iterator<Item = &'static Variable> {
    var::VARIABLES.iter().filter(|one| NOT_TAKEN.iter().all(|other| other.name != one.name))
}

impl EvaluateArguments {
    /// Takes the flags of [`command`].
    pub(crate) fn read(matches: &ArgMatches) -> Self {
        let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default() as usize;
        let path = |name| matches.get_one::<PathBuf>(name).cloned();
        let variables: Vec<Variable> = taken().copied().chain([var::BACKEND]).collect();
        let cutoffs: BTreeSet<usize> =
            matches.get_many::<u64>("cutoffs").into_iter().flatten().map(|&k| k as usize).collect();
        let backends = matches.get_many::<String>("backends").into_iter().flatten().cloned();
        Self {
            flags: values(matches, &variables),
            queries: path("queries").unwrap_or_default(),
            qrels: path("qrels"),
            backends: backends.collect(),
            top_k: number("top-k"),
            cutoffs: cutoffs.into_iter().collect(),
            batch_queries: number("batch"),
            json: path("json"),
        }
    }
}

/// Scores every back end and prints the table.
pub(crate) fn run(
    arguments: &EvaluateArguments,
    environment: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let configurations = configurations(arguments, environment)?;
    let (queries, judgements) = read(arguments)?;
    let mut backends = Vec::new();
    let mut coverage = None;
    for (name, config) in configurations {
        let index = config.index.clone();
        let mut tally = Tally::new(&judgements, &arguments.cutoffs);
        let elapsed = answer(config, &queries, arguments, &mut tally)?;
        if coverage.is_none() {
            // The first back end has made the index where there was none.
            coverage = Some(cover(&index, &queries, &judgements)?);
        }
        backends.push(BackendScores {
            scores: tally.finish(),
            backend: name,
            ms_per_query: elapsed.as_secs_f64() * 1e3 / queries.len() as f64,
        });
    }
    if let Some(coverage) = coverage {
        write!(out, "{coverage}")?;
    }
    write!(out, "{}", scores::table(&backends))?;
    if let Some(path) = &arguments.json {
        let (top_k, batch_queries) = (arguments.top_k, arguments.batch_queries);
        let record = json!({"coverage": coverage, "top_k": top_k, "batch_queries": batch_queries,
                            "backends": backends});
        atomic_file::write(path, &serde_json::to_vec_pretty(&record)?)?;
    }
    Ok(EXIT_SUCCESS)
}

/// What each back end is told: the same but for its name. All faults come before any work.
fn configurations(
    arguments: &EvaluateArguments,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<(String, ServeConfig)>> {
    if let Some(&cutoff) = arguments.cutoffs.iter().find(|&&one| one > arguments.top_k) {
        let top_k = arguments.top_k;
        let message = format!("--cutoffs has {cutoff}: expected at most {top_k}, which is --top-k");
        return Err(UsageError(message).into());
    }
    let source = |name: Option<&String>| {
        let mut flags = arguments.flags.clone();
        flags.extend(name.map(|name| (var::BACKEND.name.to_owned(), name.clone())));
        Layered { flags, environment: environment.clone() }
    };
    let sources: Vec<Layered> = if arguments.backends.is_empty() {
        vec![source(None)]
    } else {
        arguments.backends.iter().map(|name| source(Some(name))).collect()
    };
    let mut configurations = Vec::new();
    for source in &sources {
        let checked = CheckedServe::resolve(source)?;
        if configurations.is_empty() {
            start_log(&checked.log)?;
            warn_of_unknown(source);
        }
        let name = source.get(var::BACKEND.name).or(var::BACKEND.default.map(str::to_owned));
        configurations.push((name.unwrap_or_default(), checked.serve));
    }
    Ok(configurations)
}

fn read(arguments: &EvaluateArguments) -> anyhow::Result<(Vec<EvaluationQuery>, Judgements)> {
    let queries = queries::read(&arguments.queries)
        .map_err(|error| UsageError(format!("--queries: {error}")))?;
    let judgements = match &arguments.qrels {
        Some(path) => {
            Judgements::read(path).map_err(|error| UsageError(format!("--qrels: {error}")))?
        }
        None => Judgements::of_gold_passages(&queries),
    };
    let is_scored = |query: &EvaluationQuery| {
        !query.answers.is_empty() || judgements.queries.contains_key(&query.id)
    };
    if !queries.iter().any(is_scored) {
        let path = arguments.queries.display();
        let message = format!(
            "--queries is {path}: no query has answers or judged passages, expected \
             golden_answers or gold_ids in it, or --qrels with its identifiers"
        );
        return Err(UsageError(message).into());
    }
    Ok((queries, judgements))
}

/// Counts what a back end finds for every query; returns how long it takes to find it.
fn answer(
    config: ServeConfig,
    queries: &[EvaluationQuery],
    arguments: &EvaluateArguments,
    tally: &mut Tally<'_>,
) -> anyhow::Result<Duration> {
    let state = AppState::new(config)?;
    let loaded = loading::open(&state)?;
    info!(backend = loaded.info.backend, queries = queries.len(), "evaluating");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut elapsed = Duration::ZERO;
    for batch in queries.chunks(arguments.batch_queries) {
        let started = Instant::now();
        let lists = runtime.block_on(ask(&loaded.pipeline, batch, arguments.top_k))?;
        elapsed += started.elapsed();
        for (query, found) in batch.iter().zip(&lists) {
            tally.add(query, found);
        }
    }
    Ok(elapsed)
}

/// A query that fails ends the evaluation: without it, the figures would be those of other queries.
async fn ask(
    pipeline: &Pipeline,
    batch: &[EvaluationQuery],
    top_k: usize,
) -> anyhow::Result<Vec<Vec<Passage>>> {
    let texts: Vec<String> = batch.iter().map(|query| query.text.clone()).collect();
    let asked = QueryBatch { queries: Arc::from(texts), top_k };
    let answers = pipeline.answer(asked, Ticket::new(PATIENCE, None)).await;
    let found = batch.iter().zip(answers).map(|(query, answer)| {
        let answer =
            answer.map_err(|fault| anyhow::anyhow!("query {:?} failed: {fault}", query.id))?;
        Ok(answer.into_iter().map(|one| one.passage).collect())
    });
    found.collect()
}

/// Looks every judged passage up in the index.
fn cover(
    index: &Path,
    queries: &[EvaluationQuery],
    judgements: &Judgements,
) -> anyhow::Result<Coverage> {
    let mut missing = judged_passages(queries, judgements);
    let passages = PassageStore::open(index)?;
    for row in 0..passages.len() as u32 {
        if missing.is_empty() {
            break;
        }
        missing.remove(passages.get(row)?.id.as_str());
    }
    Ok(Coverage::new(queries, judgements, |id| missing.contains(id)))
}
