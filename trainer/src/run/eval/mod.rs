//! `trainer eval`: asks every held-out question once, by default greedily, and drops none.

mod engine;
mod method;
mod kept;
mod suite;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use super::audit::file_name;
use super::model::LoadedModel;
use super::question_order::episode_jobs;
use super::rollouts::EpisodeProgress;
use super::settings;
use super::settings::rollout::EvalSettings;
use super::stopping::{end_stopped, is_done, signals};
use crate::config::Config;
use crate::data::Example;
use crate::eval::audit::Audit;
use crate::eval::{EvalResult, EvalRow, Method, Searches, summary_table};
use crate::report::evaluation_path;
use crate::reward::matching::contains_any;
use crate::reward::reward;
use crate::rollout::scheduler::roll_out;
use crate::rollout::{RolloutSettings, SegmentKind, Trajectory};
use crate::search::Searcher;
use crate::search::random::RandomPassages;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};

pub(super) use engine::EvalEngine;
use method::Prepared;
pub use suite::{Baseline, SuiteOptions, eval_suite, eval_suite_until};

/// The options of `trainer eval` beyond the configuration.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The result's name in tables.
    pub name: String,
    pub searches: Searches,
    /// The file of the result; by default it is next to the run's other files.
    pub out: Option<PathBuf>,
}

/// Evaluates `model.path` and writes the result as JSON, unless a signal stops it.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; any question that could not be asked because its searches
/// failed; and SIGINT.
pub fn eval(config: &Config, options: &EvalOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    eval_until(config, options, &signals()?, out)
}

/// Evaluates like [`eval`], unless `stop` is raised; nothing is written then.
///
/// # Errors
/// Those of [`eval`].
pub fn eval_until(
    config: &Config,
    options: &EvalOptions,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if is_done(evaluate_and_save(config, options, stop, out))? {
        return Ok(());
    }
    writeln!(out, "{}: stopped, run the same command to start it again", options.name)?;
    end_stopped(stop)
}

fn evaluate_and_save(
    config: &Config,
    options: &EvalOptions,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let audit = config.eval.audit.as_deref().map(Audit::load).transpose()?;
    let model = LoadedModel::open(&settings::model::model(config), &config.model.path)?;
    let evaluation = settings::rollout::evaluation(config);
    let asking = Asking {
        settings: &evaluation,
        model: &model,
        name: &options.name,
        label: "evaluate",
        method: Method::Search,
        searches: options.searches,
        stop,
    };
    let mut engine = EvalEngine::open(&evaluation, &model, evaluation.running()?)?;
    let mut result = ask(&asking, &mut engine)?;
    result.ceiling = audit.map(|audit| result.ceiling_by(&audit)).transpose()?;
    let path = options
        .out
        .clone()
        .unwrap_or_else(|| evaluation_path(&config.run_dir, &file_name(&options.name)));
    result.save(&path)?;
    record_phase(&config.run_dir, &format!("evaluation: {}", options.name), result.seconds)?;
    write!(out, "{}", summary_table(&[&result]))?;
    writeln!(out, "{}", path.display())?;
    Ok(())
}

/// Asks the current policy every held-out question, with the built-in engine.
///
/// # Errors
/// A stop, anything wrong with data or retriever, and a question whose searches failed.
pub(super) fn evaluate(
    settings: &EvalSettings,
    model: &LoadedModel,
    name: &str,
    searches: Searches,
    stop: &StopFlag,
) -> anyhow::Result<EvalResult> {
    let label = "evaluate";
    let method = Method::Search;
    let asking = Asking { settings, model, name, label, method, searches, stop };
    ask(&asking, &mut EvalEngine::builtin(settings, model, settings.running()?)?)
}

/// One evaluation: the questions, the model, and how it is asked.
struct Asking<'a> {
    settings: &'a EvalSettings,
    model: &'a LoadedModel,
    /// The result's name in tables.
    name: &'a str,
    /// The name of the work in the progress.
    label: &'a str,
    method: Method,
    searches: Searches,
    stop: &'a StopFlag,
}

/// Asks every question once.
///
/// # Errors
/// Those of [`evaluate`].
fn ask(asking: &Asking<'_>, engine: &mut EvalEngine) -> anyhow::Result<EvalResult> {
    let Asking { settings, model, method, searches, stop, .. } = *asking;
    let started = Instant::now();
    let mut searcher = open_searcher(settings, searches)?;
    let prepared = method::prepare(settings, method, model, searcher.as_mut(), stop)?;
    let episodes = RolloutSettings {
        max_running_episodes: engine.running.min(prepared.len()),
        stop_flag: stop.clone(),
        ..settings.episodes.clone()
    };
    let asked: Vec<&Example> = prepared.iter().map(|prepared| &prepared.example).collect();
    let jobs = episode_jobs(0, &asked, 1, settings.seed, u64::MAX);
    let mut observer =
        EpisodeProgress(Progress::start(asking.label, jobs.len() as u64, "questions"));
    let (tokenizer, searcher) = (&model.tokenizer, searcher.as_mut());
    let played =
        roll_out(engine.engine.as_mut(), searcher, tokenizer, jobs, &episodes, &mut observer)?;
    observer.0.finish();
    anyhow::ensure!(
        played.failed_searches == 0,
        "{} of {} questions could not be answered because searches failed: {}",
        played.failed_searches,
        prepared.len(),
        played.last_search_failure.unwrap_or_default()
    );
    let rows: Vec<EvalRow> = prepared
        .into_iter()
        .zip(played.trajectories)
        .map(|(prepared, trajectory)| row(prepared, trajectory, settings))
        .collect();
    Ok(EvalResult {
        name: asking.name.to_owned(),
        model: settings.model.clone(),
        searches,
        questions: rows.len(),
        seconds: started.elapsed().as_secs_f64(),
        set: None,
        method,
        max_turns: Some(episodes.max_turns),
        ceiling: None,
        key: None,
        rows,
    })
}

fn row(prepared: Prepared, trajectory: Trajectory, settings: &EvalSettings) -> EvalRow {
    let Prepared { example: question, shown, searches } = prepared;
    let reward = reward(&trajectory, &question.golden_answers, &settings.reward);
    let observed = trajectory
        .segments
        .iter()
        .filter(|segment| segment.kind == SegmentKind::Observation)
        .map(|segment| segment.text.as_str());
    let answer_in_passages = [shown.as_str()]
        .into_iter()
        .chain(observed)
        .any(|passages| contains_any(passages, &question.golden_answers));
    EvalRow {
        example_id: question.id,
        question: question.question,
        golden_answers: question.golden_answers,
        prediction: reward.answer,
        em: reward.exact_match > 0.0,
        sub_em: reward.sub_exact_match > 0.0,
        f1: reward.f1,
        searches: searches + trajectory.searches.len(),
        answer_in_passages,
        end: trajectory.end,
        trajectory: Some(trajectory),
    }
}

fn open_searcher(settings: &EvalSettings, searches: Searches) -> anyhow::Result<Box<dyn Searcher>> {
    Ok(match searches {
        Searches::Retriever => Box::new(settings.searcher.open()?),
        Searches::Random => {
            let corpus = settings.corpus.as_deref().ok_or_else(|| {
                anyhow::anyhow!("data.corpus is not set: random passages are drawn from it")
            })?;
            Box::new(RandomPassages::from_corpus(corpus, settings.seed)?)
        }
        Searches::None => Box::new(RandomPassages::none()),
    })
}
