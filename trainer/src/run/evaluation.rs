//! `trainer eval`: every held-out question once, by default greedily, none dropped.

use std::io::Write;
use std::time::Instant;

use super::loaded_model::{
    EpisodeProgress, LoadedModel, episode_jobs, http_searcher, reward_config, rollout_config,
};
use super::{EvalOptions, end_stopped, is_done, signals};
use crate::config::Config;
use crate::data::Example;
use crate::engine::Sampling;
use crate::eval::{EvalResult, EvalRow, Searches, summary_table};
use crate::report::evaluation_path;
use crate::reward::reward;
use crate::rollout::scheduler::roll_out;
use crate::search::Searcher;
use crate::search::random::RandomPassages;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};

/// Evaluates `model.path` and writes the result as JSON, unless a signal stops it.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; any question that could not be asked
/// because its searches failed; and SIGINT.
pub fn eval(config: &Config, options: &EvalOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    eval_until(config, options, &signals()?, out)
}

/// As [`eval`], unless `stop` wishes otherwise; nothing is written then.
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
    let loaded = LoadedModel::open(config, &config.model.path)?;
    let result = evaluate(config, &loaded, &options.name, options.searches, stop)?;
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

/// Asks the loaded policy every held-out question.
pub(super) fn evaluate(
    config: &Config,
    loaded: &LoadedModel,
    name: &str,
    searches: Searches,
    stop: &StopFlag,
) -> anyhow::Result<EvalResult> {
    let started = Instant::now();
    let questions = loaded.questions(config, &config.data.test, config.eval.questions)?;
    let mut searcher: Box<dyn Searcher> = match searches {
        Searches::Retriever => Box::new(http_searcher(config)?),
        Searches::Random => {
            let corpus = config.data.corpus.as_deref().ok_or_else(|| {
                anyhow::anyhow!("data.corpus is not set: random passages are drawn from it")
            })?;
            Box::new(RandomPassages::from_corpus(corpus, config.seed)?)
        }
        Searches::None => Box::new(RandomPassages::none()),
    };
    let running = config.eval.batch.min(questions.len());
    let mut engine = loaded.engine(config, running)?;
    let sampling = Sampling { temperature: config.eval.temperature as f32, top_p: 1.0 };
    let rollout = rollout_config(config, sampling, running, stop);
    let asked: Vec<&Example> = questions.iter().collect();
    let jobs = episode_jobs(&asked, 1, config.seed, u64::MAX);
    let mut observer = EpisodeProgress(Progress::start("evaluate", jobs.len() as u64, "questions"));
    let tokenizer = &loaded.tokenizer;
    let searcher = searcher.as_mut();
    let played = roll_out(&mut engine, searcher, tokenizer, jobs, &rollout, &mut observer)?;
    observer.0.finish();
    anyhow::ensure!(
        played.failed_searches == 0,
        "{} of {} questions could not be answered because searches failed: {}",
        played.failed_searches,
        questions.len(),
        played.last_search_failure.unwrap_or_default()
    );
    let scoring = reward_config(config);
    let rows: Vec<EvalRow> = questions
        .into_iter()
        .zip(played.trajectories)
        .map(|(question, trajectory)| {
            let reward = reward(&trajectory, &question.golden_answers, &scoring);
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
        model: config.model.path.display().to_string(),
        searches,
        questions: rows.len(),
        seconds: started.elapsed().as_secs_f64(),
        rows,
    })
}
