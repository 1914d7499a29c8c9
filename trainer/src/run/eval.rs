//! `trainer eval`: asks every held-out question once, by default greedily, and drops none.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use super::model::LoadedModel;
use super::question_order::episode_jobs;
use super::rollouts::EpisodeProgress;
use super::settings;
use super::settings::rollout::EvalSettings;
use super::stopping::{end_stopped, is_done, signals};
use crate::config::Config;
use crate::data::Example;
use crate::eval::{EvalResult, EvalRow, Searches, summary_table};
use crate::report::evaluation_path;
use crate::reward::reward;
use crate::rollout::RolloutSettings;
use crate::rollout::scheduler::roll_out;
use crate::search::Searcher;
use crate::search::random::RandomPassages;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};

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
    let model = LoadedModel::open(&settings::model::model(config), &config.model.path)?;
    let evaluation = settings::rollout::evaluation(config);
    let result = evaluate(&evaluation, &model, &options.name, options.searches, stop)?;
    let path = options.out.clone().unwrap_or_else(|| {
        let file: String = options
            .name
            .chars()
            .map(|letter| if letter.is_alphanumeric() { letter } else { '-' })
            .collect();
        evaluation_path(&config.run_dir, &file)
    });
    result.save(&path)?;
    record_phase(&config.run_dir, &format!("evaluation: {}", options.name), result.seconds)?;
    write!(out, "{}", summary_table(&[&result]))?;
    writeln!(out, "{}", path.display())?;
    Ok(())
}

/// Asks the current policy every held-out question.
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
    let started = Instant::now();
    let questions = settings.questions.examples(&model.tokenizer, model.context_tokens)?;
    let mut searcher = open_searcher(settings, searches)?;
    let running = settings.batch.min(questions.len());
    let mut engine = model.engine(&settings.engine, running)?;
    let episodes = RolloutSettings {
        max_running_episodes: running,
        stop_flag: stop.clone(),
        ..settings.episodes.clone()
    };
    let asked: Vec<&Example> = questions.iter().collect();
    let jobs = episode_jobs(0, &asked, 1, settings.seed, u64::MAX);
    let mut observer = EpisodeProgress(Progress::start("evaluate", jobs.len() as u64, "questions"));
    let (tokenizer, searcher) = (&model.tokenizer, searcher.as_mut());
    let played = roll_out(&mut engine, searcher, tokenizer, jobs, &episodes, &mut observer)?;
    observer.0.finish();
    anyhow::ensure!(
        played.failed_searches == 0,
        "{} of {} questions could not be answered because searches failed: {}",
        played.failed_searches,
        questions.len(),
        played.last_search_failure.unwrap_or_default()
    );
    let rows: Vec<EvalRow> = questions
        .into_iter()
        .zip(played.trajectories)
        .map(|(question, trajectory)| {
            let reward = reward(&trajectory, &question.golden_answers, &settings.reward);
            EvalRow {
                example_id: question.id,
                question: question.question,
                golden_answers: question.golden_answers,
                prediction: reward.answer,
                em: reward.exact_match > 0.0,
                sub_em: reward.sub_exact_match > 0.0,
                f1: reward.f1,
                searches: trajectory.searches.len(),
                end: trajectory.end,
                trajectory: Some(trajectory),
            }
        })
        .collect();
    Ok(EvalResult {
        name: name.to_owned(),
        model: settings.model.clone(),
        searches,
        questions: rows.len(),
        seconds: started.elapsed().as_secs_f64(),
        rows,
    })
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
