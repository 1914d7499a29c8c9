//! `retriever-server eval`: scores back ends of one index side by side, each opened as `serve`
//! opens it, without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, Args};
use serde_json::json;
use shared::contract::passage::Passage;
use shared::machine::atomic_file;
use shared::machine::traces::Traces;
use tracing::info;

use super::flags::{Flags, Selection, argument, count};
use super::{EXIT_SUCCESS, UsageError, start_log, warn_of_unknown};
use crate::access::Access;
use crate::config::disk::CheckedServe;
use crate::config::source::Layered;
use crate::config::variables::{self as var, Variable};
use crate::config::{BackendKind, ServeConfig};
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

/// Variables that concern the server around a back end, or that `eval` has a flag of its own for.
const EXCLUDED: [Variable; 8] = [
    var::BACKEND,
    var::ADDR,
    var::TOP_K,
    var::DEADLINE_MS,
    var::MAX_BODY_BYTES,
    var::MAX_REQUESTS,
    var::MAX_CONNECTIONS,
    var::GRACE_PERIOD_MS,
];

/// The deadline of a batch. It is far longer than a server's, as no client waits for the answer and a
/// slow re-ranker must not end an evaluation.
const BATCH_DEADLINE: Duration = Duration::from_hours(24);

#[derive(Debug, Args)]
pub(super) struct EvaluateArguments {
    /// Questions with id, golden_answers and gold_ids: JSON Lines, a JSON list, a table or parquet
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    queries: PathBuf,
    /// Judged passages in the format of TREC or BEIR [default: gold_ids]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    qrels: Option<PathBuf>,
    /// Back ends to score, with commas between them [default: that of --backend]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    backends: Vec<String>,
    /// Passages per query
    #[arg(
        long,
        value_name = "passages",
        default_value_t = 100,
        value_parser = count::<usize>(10..=100_000),
        allow_hyphen_values = true
    )]
    top_k: usize,
    /// Cut-offs of recall and of answers, with commas between them
    #[arg(
        long,
        value_name = "passages",
        default_value = "3,10,100",
        value_delimiter = ',',
        value_parser = count::<usize>(1..=100_000),
        allow_hyphen_values = true
    )]
    cutoffs: Vec<usize>,
    /// Queries in a batch
    #[arg(
        long = "batch",
        value_name = "queries",
        default_value_t = 64,
        value_parser = count::<usize>(1..=4096),
        allow_hyphen_values = true
    )]
    batch_queries: usize,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    json: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags<Evaluated>,
}

/// The variables of `serve` that a back end depends on.
#[derive(Debug)]
enum Evaluated {}

impl Selection for Evaluated {
    fn variables() -> Vec<Variable> {
        let is_excluded =
            |variable: &Variable| EXCLUDED.iter().any(|excluded| excluded.name == variable.name);
        let variables = var::VARIABLES.iter().filter(|variable| !is_excluded(variable));
        [var::BACKEND].into_iter().chain(variables.copied()).collect()
    }

    fn flag(variable: &Variable) -> Arg {
        let flag = argument(variable);
        if variable.name == var::BACKEND.name { flag.conflicts_with("backends") } else { flag }
    }
}

impl EvaluateArguments {
    /// Returns the cut-offs, each once, in ascending order.
    fn distinct_cutoffs(&self) -> Vec<usize> {
        let distinct: BTreeSet<usize> = self.cutoffs.iter().copied().collect();
        distinct.into_iter().collect()
    }
}

/// Scores every back end and prints the table.
pub(super) fn run(
    arguments: &EvaluateArguments,
    environment: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let configurations = configurations(arguments, environment)?;
    let (queries, judgements) = read(arguments)?;
    let cutoffs = arguments.distinct_cutoffs();
    let mut backends = Vec::new();
    let mut coverage = None;
    for (name, config) in configurations {
        let index = config.index.clone();
        let mut tally = Tally::new(&judgements, &cutoffs);
        let elapsed = answer(config, &queries, arguments, &mut tally)?;
        if let Some(index) = index.filter(|_| coverage.is_none()) {
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

/// Returns the configuration of each back end; only the name of the back end differs. Every fault is
/// reported before any work begins.
fn configurations(
    arguments: &EvaluateArguments,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<(String, ServeConfig)>> {
    if let Some(&cutoff) =
        arguments.distinct_cutoffs().iter().find(|&&cutoff| cutoff > arguments.top_k)
    {
        let top_k = arguments.top_k;
        let message = format!("--cutoffs has {cutoff}: expected at most {top_k}, which is --top-k");
        return Err(UsageError(message).into());
    }
    if let Some(name) = arguments.backends.iter().find(|name| BackendKind::parse(name).is_none()) {
        let accepts = var::BACKEND.accepts;
        let message =
            format!("--backends has {name:?}: expected {accepts}, with commas between them");
        return Err(UsageError(message).into());
    }
    let source = |name: Option<&String>| {
        let mut flags = arguments.flags.values.clone();
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
        configurations.push((checked.serve.backend.kind.name().to_owned(), checked.serve));
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
        None => Judgements::from_gold_passages(&queries),
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

/// Adds the results of a back end to `tally` and returns the time that its searches took.
fn answer(
    config: ServeConfig,
    queries: &[EvaluationQuery],
    arguments: &EvaluateArguments,
    tally: &mut Tally<'_>,
) -> anyhow::Result<Duration> {
    let state = AppState::new(config, Access::default(), Traces::off())?;
    let loaded = loading::open(&state)?;
    info!(backend = state.config.backend.kind.name(), queries = queries.len(), "evaluating");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut elapsed = Duration::ZERO;
    for batch in queries.chunks(arguments.batch_queries) {
        let started = Instant::now();
        let lists = runtime.block_on(ask(&loaded.pipeline, batch, arguments.top_k))?;
        elapsed += started.elapsed();
        for (query, passages) in batch.iter().zip(&lists) {
            tally.add(query, passages);
        }
    }
    Ok(elapsed)
}

/// Returns the passages for each query of a batch. A query that fails ends the evaluation, because
/// the figures of the other queries alone could not be compared.
async fn ask(
    pipeline: &Pipeline,
    batch: &[EvaluationQuery],
    top_k: usize,
) -> anyhow::Result<Vec<Vec<Passage>>> {
    let texts: Vec<String> = batch.iter().map(|query| query.text.clone()).collect();
    let asked = QueryBatch { queries: Arc::from(texts), top_k };
    let answers = pipeline.answer(asked, Ticket::new(BATCH_DEADLINE, None)).await;
    let passages = batch.iter().zip(answers).map(|(query, answer)| {
        let answers =
            answer.map_err(|fault| anyhow::anyhow!("query {:?} failed: {fault}", query.id))?;
        Ok(answers.into_iter().map(|answer| answer.passage).collect())
    });
    passages.collect()
}

/// Looks up every judged passage in the index.
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
