//! `trainer sft`: a supervised warm start on demonstrations.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use tracing::info;

use super::demonstrations::{DemonstrationEngine, Habit, demonstration_turns};
use super::model::LoadedModel;
use super::question_order::{episode_jobs, shuffled, step_questions};
use super::rollouts::EpisodeProgress;
use super::run_lock::RunLock;
use super::settings::objective::WarmStart;
use super::settings::rollout::GREEDY;
use super::stopping::{end_stopped, is_done, signals};
use super::{memory, settings};
use crate::checkpoint;
use crate::config::Config;
use crate::data::Example;
use crate::rollout::RolloutSettings;
use crate::rollout::scheduler::roll_out;
use crate::rollout::trajectory::Trajectory;
use crate::search::record::RecordedSearcher;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};
use crate::update::{TrainSequence, UpdateError, supervised_gradient};

/// The stream of random draws that chooses the demonstrations' questions, apart from those of training.
const DEMONSTRATION_STREAM: u64 = u64::MAX;

/// Returns the folder of a run's warm start.
fn warm_start_folder(config: &Config) -> PathBuf {
    config.run_dir.join("warm-start")
}

/// Trains `model.path` on demonstrations and writes `warm-start` into the run directory, unless a signal stops it.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; and SIGINT.
pub fn sft(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    sft_until(config, &signals()?, out)
}

/// Trains like [`sft`], unless `stop` is raised; nothing is written then.
///
/// # Errors
/// Those of [`sft`].
pub fn sft_until(config: &Config, stop: &StopFlag, out: &mut dyn Write) -> anyhow::Result<()> {
    if is_done(demonstrate_and_save(config, stop, out))? {
        return Ok(());
    }
    let folder = warm_start_folder(config);
    writeln!(out, "{}: stopped, run the same command to start it again", folder.display())?;
    end_stopped(stop)
}

fn demonstrate_and_save(
    config: &Config,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let _lock = RunLock::take(&config.run_dir, "sft")?;
    let model_settings = settings::model::model(config);
    let mut model = LoadedModel::open_for_training(&model_settings, &config.model.path)?;
    let questions = settings::questions::training_questions(config)
        .examples(&model.tokenizer, model.context_tokens)?;
    let warm_start = settings::objective::warm_start(config);
    let running = config.rollout.max_sequences;
    let episodes = settings::rollout::episodes(config, GREEDY, running, stop);
    let mut searcher = settings::rollout::searcher(config).open()?;
    let trajectories = demonstrations(&warm_start, &mut searcher, &episodes, &model, &questions)?;
    let sequences: Vec<TrainSequence> = trajectories.iter().map(TrainSequence::from).collect();
    train_on(&warm_start, &mut model, &sequences, stop)?;
    let folder = warm_start_folder(config);
    let form = settings::model::save_form(config);
    checkpoint::save(&folder, &model.policy, &model.place, form, None)?;
    record_phase(&config.run_dir, "warm start", started.elapsed().as_secs_f64())?;
    writeln!(out, "{}: warm start on {} demonstrations", folder.display(), sequences.len())?;
    Ok(())
}

/// Plays the demonstrations against the retriever.
fn demonstrations(
    warm_start: &WarmStart,
    searcher: &mut RecordedSearcher,
    episodes: &RolloutSettings,
    model: &LoadedModel,
    questions: &[Example],
) -> anyhow::Result<Vec<Trajectory>> {
    let WarmStart { seed, direct_fraction, .. } = *warm_start;
    let count = warm_start.demonstrations.min(questions.len());
    let order = shuffled(seed, DEMONSTRATION_STREAM, questions.len());
    let chosen: Vec<&Example> = order[..count].iter().map(|&index| &questions[index]).collect();
    let direct = (direct_fraction * count as f64).round() as usize;
    let scripts: Vec<Vec<String>> = chosen
        .iter()
        .enumerate()
        .map(|(number, example)| {
            let habit = if number < direct { Habit::Direct } else { Habit::Search };
            demonstration_turns(example, habit, number)
        })
        .collect();
    let tokenizer = &model.tokenizer;
    let mut engine = DemonstrationEngine::new(&scripts, tokenizer)?;
    let jobs = episode_jobs(0, &chosen, 1, seed, 0);
    let total = jobs.len() as u64;
    let mut observer = EpisodeProgress(Progress::start("demonstrations", total, "episodes"));
    let played = roll_out(&mut engine, searcher, tokenizer, jobs, episodes, &mut observer)?;
    observer.0.finish();
    let reason = played.last_search_failure.unwrap_or_default();
    anyhow::ensure!(
        played.failed_searches == 0,
        "{} of {count} demonstrations found no passages: {reason}",
        played.failed_searches
    );
    info!(demonstrations = count, direct, "demonstrations played");
    Ok(played.trajectories)
}

fn train_on(
    warm_start: &WarmStart,
    model: &mut LoadedModel,
    sequences: &[TrainSequence],
    stop: &StopFlag,
) -> anyhow::Result<()> {
    let WarmStart { seed, epochs, rate, optimizer: settings, .. } = warm_start;
    let mut optimizer = settings.start(model.policy.trained());
    let per_update = warm_start.trajectories_per_update.min(sequences.len());
    let updates = (epochs * sequences.len()).div_ceil(per_update) as u64;
    let mut progress = Progress::start("warm start", updates, "updates");
    for update in 0..updates {
        let chosen = step_questions(*seed, update, per_update, sequences.len());
        let batch: Vec<TrainSequence> =
            chosen.into_iter().map(|index| sequences[index].clone()).collect();
        let budget = warm_start.tokens_per_micro_batch;
        let loss = supervised_gradient(&model.policy, &model.decoder, &batch, budget, stop)?;
        let applied = settings.apply(model.policy.trained_mut(), &mut optimizer, *rate)?;
        if !loss.is_finite() {
            return Err(UpdateError::NotFinite { quantity: "loss", update, value: loss }.into());
        }
        memory::release_freed();
        progress.note(&format!("loss {loss:.3}, gradient norm {:.2}", applied.grad_norm));
        progress.advance(1);
    }
    progress.finish();
    Ok(())
}
