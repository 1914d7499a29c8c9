//! `trainer sft`: a supervised warm start on demonstrations.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use tch::Tensor;
use tracing::info;

use super::demonstrations::{DemonstrationEngine, Habit, demonstration_turns};
use super::loaded_model::{
    EpisodeProgress, LoadedModel, episode_jobs, http_searcher, rollout_config, save_form,
};
use super::memory;
use super::question_order::{shuffled, step_questions};
use super::{end_stopped, is_done, signals};
use crate::checkpoint;
use crate::config::Config;
use crate::data::Example;
use crate::engine::Sampling;
use crate::rollout::scheduler::roll_out;
use crate::rollout::trajectory::Trajectory;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};
use crate::update::{
    AdamW, AdamWConfig, MomentsPlace, TrainSequence, UpdateError, clip_gradients,
    supervised_gradient, warmed_up,
};

/// Stream of random draws that chooses the demonstrations' questions, apart from training's.
const DEMONSTRATION_STREAM: u64 = u64::MAX;

/// Where the warm start of a run is written.
pub(super) fn warm_start_folder(config: &Config) -> PathBuf {
    config.run_dir.join("warm-start")
}

/// Trains `model.path` on demonstrations and writes `warm-start` into the run directory, unless a
/// signal stops it.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; and SIGINT.
pub fn sft(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    sft_until(config, &signals()?, out)
}

/// As [`sft`], unless `stop` wishes otherwise; nothing is written then.
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
    let mut loaded = LoadedModel::open_for_training(config)?;
    let questions =
        loaded.questions(config, &config.data.train, config.data.max_train_questions)?;
    let trajectories = demonstrations(config, &loaded, &questions, stop)?;
    let sequences: Vec<TrainSequence> = trajectories.iter().map(TrainSequence::of).collect();
    train_on(config, &mut loaded, &sequences, stop)?;
    let folder = warm_start_folder(config);
    checkpoint::save(&folder, &loaded.policy, &loaded.place, save_form(config), None)?;
    record_phase(&config.run_dir, "warm start", started.elapsed().as_secs_f64())?;
    writeln!(out, "{}: warm start on {} demonstrations", folder.display(), sequences.len())?;
    Ok(())
}

/// Plays the demonstrations against the retriever.
fn demonstrations(
    config: &Config,
    loaded: &LoadedModel,
    questions: &[Example],
    stop: &StopFlag,
) -> anyhow::Result<Vec<Trajectory>> {
    let count = config.sft.demonstrations.min(questions.len());
    let order = shuffled(config.seed, DEMONSTRATION_STREAM, questions.len());
    let chosen: Vec<&Example> = order[..count].iter().map(|&index| &questions[index]).collect();
    let direct = (config.sft.direct_fraction * count as f64).round() as usize;
    let scripts: Vec<Vec<String>> = chosen
        .iter()
        .enumerate()
        .map(|(number, example)| {
            let habit = if number < direct { Habit::Direct } else { Habit::Search };
            demonstration_turns(example, habit, number)
        })
        .collect();
    let mut engine = DemonstrationEngine::new(&scripts, &loaded.tokenizer)?;
    let mut searcher = http_searcher(config)?;
    let greedy = Sampling { temperature: 0.0, top_p: 1.0 };
    let rollout = rollout_config(config, greedy, config.rollout.max_sequences, stop);
    let jobs = episode_jobs(&chosen, 1, config.seed, 0);
    let total = jobs.len() as u64;
    let mut observer = EpisodeProgress(Progress::start("demonstrations", total, "episodes"));
    let tokenizer = &loaded.tokenizer;
    let played = roll_out(&mut engine, &mut searcher, tokenizer, jobs, &rollout, &mut observer)?;
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
    config: &Config,
    loaded: &mut LoadedModel,
    sequences: &[TrainSequence],
    stop: &StopFlag,
) -> anyhow::Result<()> {
    let mut optimizer = optimizer(config, loaded.policy.trained());
    let per_update = config.sft.trajectories_per_update.min(sequences.len());
    let updates = (config.sft.epochs * sequences.len()).div_ceil(per_update) as u64;
    let mut progress = Progress::start("warm start", updates, "updates");
    for update in 0..updates {
        let chosen = step_questions(config.seed, update, per_update, sequences.len());
        let batch: Vec<TrainSequence> =
            chosen.into_iter().map(|index| sequences[index].clone()).collect();
        let budget = config.update.tokens_per_micro_batch;
        let loss = supervised_gradient(&loaded.policy, &loaded.decoder, &batch, budget, stop)?;
        let rate = warmed_up(config.sft.learning_rate, config.sft.warmup_updates, update);
        let parameters = loaded.policy.trained_mut();
        let norm = apply_gradient(config, parameters, &mut optimizer, rate)?;
        if !loss.is_finite() {
            return Err(UpdateError::NotFinite { what: "loss", update, value: loss }.into());
        }
        memory::release_freed();
        progress.note(&format!("loss {loss:.3}, gradient norm {norm:.2}"));
        progress.advance(1);
    }
    progress.finish();
    Ok(())
}

/// The configured optimizer of `parameters`, before its first update.
pub(super) fn optimizer(config: &Config, parameters: &BTreeMap<String, Tensor>) -> AdamW {
    let optimizer = &config.optimizer;
    let constants = AdamWConfig {
        beta1: optimizer.beta1,
        beta2: optimizer.beta2,
        epsilon: optimizer.epsilon,
        weight_decay: optimizer.weight_decay,
    };
    let place = if optimizer.offload { MomentsPlace::Host } else { MomentsPlace::WithParameters };
    AdamW::new(parameters, constants, place)
}

/// Clips and applies the gradient that has been gathered; returns its norm before clipping.
///
/// # Errors
/// A norm that is not finite; the weights are then left as they were.
pub(super) fn apply_gradient(
    config: &Config,
    parameters: &mut BTreeMap<String, Tensor>,
    optimizer: &mut AdamW,
    learning_rate: f64,
) -> Result<f64, UpdateError> {
    let norm = clip_gradients(parameters, config.optimizer.max_grad_norm);
    if !norm.is_finite() {
        let update = optimizer.updates;
        return Err(UpdateError::NotFinite { what: "gradient norm", update, value: norm });
    }
    optimizer.step(parameters, learning_rate);
    Ok(norm)
}
