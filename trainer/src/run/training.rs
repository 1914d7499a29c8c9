//! `trainer train`: GRPO. Every stage of a step stands here by name, in order.

mod updates;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use shared::atomic_file;
use tracing::{info, warn};

use super::evaluation::evaluate;
use super::loaded_model::{
    EpisodeProgress, LoadedModel, episode_jobs, http_searcher, reward_config, rollout_config,
};
use super::manifest::write_manifest;
use super::memory;
use super::question_order::step_questions;
use super::warm_start::optimizer_config;
use super::{end_stopped, is_done, signals};
use crate::algo::group_advantages;
use crate::checkpoint::{self, TrainerState};
use crate::config::Config;
use crate::data::Example;
use crate::engine::{BuiltinEngine, Sampling};
use crate::eval::Searches;
use crate::policy::Weights;
use crate::report::evaluation_path;
use crate::reward::{Reward, reward};
use crate::rollout::scheduler::{Rollout, roll_out};
use crate::rollout::trajectory::{EndReason, Trajectory};
use crate::search::http::HttpSearcher;
use crate::stop::StopFlag;
use crate::track::{MetricsFile, Progress, StepMetrics, StepSeconds, record_phase};
use crate::update::{AdamW, TrainSequence};

/// Trains `model.path` by GRPO through the retriever until it is done or a signal stops it; goes on
/// from the run directory's last checkpoint unless `grpo.resume` is off.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; and SIGINT. The last checkpoint stays.
pub fn train(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    train_until(config, &signals()?, out)
}

/// As [`train`], until it is done or `stop` wishes its end: then the step in progress is given up,
/// and the checkpoint of the one before it is written.
///
/// # Errors
/// Those of [`train`].
pub fn train_until(config: &Config, stop: &StopFlag, out: &mut dyn Write) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut run = TrainingRun::open(config)?;
    let done = is_done(run.finish(stop))?;
    let folder = run.save()?;
    if !done {
        writeln!(out, "{}: stopped, run the same command to go on", folder.display())?;
        return end_stopped(stop);
    }
    record_phase(&config.run_dir, "training", started.elapsed().as_secs_f64())?;
    writeln!(out, "{}: trained for {} steps", folder.display(), config.grpo.steps)?;
    Ok(())
}

/// A run between two steps.
struct TrainingRun<'c> {
    config: &'c Config,
    loaded: LoadedModel,
    reference: Option<Weights>,
    engine: BuiltinEngine,
    searcher: HttpSearcher,
    questions: Vec<Example>,
    optimizer: AdamW,
    metrics: MetricsFile,
    state: TrainerState,
    saved_step: Option<u64>,
    /// The present step is to be evaluated before the next one begins.
    owes_evaluation: bool,
}

/// What a step learned from its trajectories before it updates.
struct Scored {
    rewards: Vec<Reward>,
    sequences: Vec<TrainSequence>,
}

impl<'c> TrainingRun<'c> {
    fn open(config: &'c Config) -> anyhow::Result<Self> {
        fs::create_dir_all(&config.run_dir)
            .with_context(|| format!("run_dir = {}", config.run_dir.display()))?;
        atomic_file::write(&config.run_dir.join("config.toml"), config.to_toml().as_bytes())?;
        write_manifest(config)?;
        let mut loaded = LoadedModel::open(config, &config.model.path)?;
        let questions =
            loaded.questions(config, &config.data.train, config.data.max_train_questions)?;
        // The reference is where training began, also when a run is resumed.
        let reference = (config.grpo.kl_coefficient > 0.0).then(|| loaded.policy.frozen_weights());
        let mut state = TrainerState { step: 0, updates: 0, seed: config.seed };
        let latest = checkpoint::latest(&config.run_dir)?.filter(|_| config.grpo.resume);
        if let Some((folder, saved)) = &latest {
            anyhow::ensure!(
                saved.seed == config.seed,
                "{} was made with seed = {}, the configuration says {}: use another run_dir, or \
                 grpo.resume = false",
                folder.display(),
                saved.seed,
                config.seed
            );
            info!(checkpoint = %folder.display(), step = saved.step, "going on");
            state = *saved;
            loaded = LoadedModel::open(config, folder)?;
        }
        let mut optimizer = AdamW::new(&loaded.policy.parameters, optimizer_config(config));
        if let Some((folder, saved)) = &latest {
            checkpoint::restore_moments(folder, *saved, &mut optimizer)?;
        }
        let mut engine = loaded.engine(config.rollout.max_sequences);
        // Versions count steps, also across the steps that an earlier process did.
        engine.set_weights(loaded.policy.detached_weights(), state.step);
        let searcher = http_searcher(config)?;
        let metrics = MetricsFile::open(&config.run_dir.join("metrics.jsonl"), state.step)?;
        let saved_step = latest.map(|(_, state)| state.step);
        // A run may have been stopped while it evaluated its last step.
        let owes_evaluation = saved_step.is_some_and(|step| {
            is_due(config.grpo.eval_every_steps, step) && !step_evaluation(config, step).is_file()
        });
        Ok(Self {
            config,
            loaded,
            reference,
            engine,
            searcher,
            questions,
            optimizer,
            metrics,
            state,
            saved_step,
            owes_evaluation,
        })
    }

    /// Does the steps that are left. An error leaves the run after the last step that was done.
    fn finish(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        let total = self.config.grpo.steps as u64;
        let mut progress = Progress::start("train", total, "steps");
        progress.skip(self.state.step);
        self.evaluate_if_owed(stop)?;
        while self.state.step < total {
            stop.check()?;
            let metrics = self.step(stop)?;
            progress.note(&format!(
                "reward {:.3}, em {:.3}, searches {:.2}, kl {:.4}, entropy {:.2}",
                metrics.reward_mean,
                metrics.em,
                metrics.searches_per_question,
                metrics.kl,
                metrics.entropy
            ));
            progress.advance(1);
            self.evaluate_if_owed(stop)?;
            memory::release_freed();
        }
        progress.finish();
        Ok(())
    }

    /// One step: rollout, reward, advantage, log-probs, update, metrics.
    fn step(&mut self, stop: &StopFlag) -> anyhow::Result<StepMetrics> {
        let started = Instant::now();
        let grpo = &self.config.grpo;
        let chosen = step_questions(
            self.config.seed,
            self.state.step,
            grpo.prompts_per_step,
            self.questions.len(),
        );
        let rollout = self.roll_out(&chosen, stop)?;
        let rollout_seconds = started.elapsed().as_secs_f64();
        let Scored { rewards, sequences } = self.score(&chosen, &rollout)?;
        self.write_trajectories(&rollout.trajectories)?;

        let log_probs_started = Instant::now();
        let sequences = self.with_log_probs(sequences, stop)?;
        let log_prob_seconds = log_probs_started.elapsed().as_secs_f64();

        let update_started = Instant::now();
        let (update, grad_norm, learning_rate) = self.update(&sequences, stop)?;
        let update_seconds = update_started.elapsed().as_secs_f64();

        self.state.step += 1;
        self.state.updates = self.optimizer.updates;
        self.engine.set_weights(self.loaded.policy.detached_weights(), self.state.step);
        let seconds = StepSeconds {
            rollout: rollout_seconds,
            search: rollout.times.search_only.as_secs_f64(),
            log_probs: log_prob_seconds,
            update: update_seconds,
            total: started.elapsed().as_secs_f64(),
        };
        let mut metrics = step_metrics(self.state.step, &rollout, &rewards, seconds);
        metrics.entropy = update.entropy;
        metrics.kl = update.kl;
        metrics.clip_fraction = update.clip_fraction;
        metrics.policy_loss = update.policy_loss;
        metrics.log_prob_gap = update.log_prob_gap;
        metrics.grad_norm = grad_norm;
        metrics.learning_rate = learning_rate;
        self.metrics.append(&metrics)?;
        if is_due(grpo.save_every_steps, self.state.step) {
            self.save()?;
        }
        self.owes_evaluation = is_due(grpo.eval_every_steps, self.state.step);
        Ok(metrics)
    }

    fn roll_out(&mut self, chosen: &[usize], stop: &StopFlag) -> anyhow::Result<Rollout> {
        let config = self.config;
        let examples: Vec<&Example> = chosen.iter().map(|&index| &self.questions[index]).collect();
        let jobs = episode_jobs(&examples, config.grpo.group_size, config.seed, self.state.step);
        let sampling = Sampling {
            temperature: config.rollout.temperature as f32,
            top_p: config.rollout.top_p as f32,
        };
        let rollout = rollout_config(config, sampling, config.rollout.max_sequences, stop);
        let label = format!("rollout {}", self.state.step + 1);
        let mut observer =
            EpisodeProgress(Progress::start(&label, jobs.len() as u64, "trajectories"));
        let tokenizer = &self.loaded.tokenizer;
        let (engine, searcher) = (&mut self.engine, &mut self.searcher);
        let rollout = roll_out(engine, searcher, tokenizer, jobs, &rollout, &mut observer)?;
        observer.0.finish();
        Ok(rollout)
    }

    /// Rewards and advantages; trajectories without their passages are left out of both.
    fn score(&self, chosen: &[usize], rollout: &Rollout) -> anyhow::Result<Scored> {
        let total = rollout.trajectories.len();
        let failed = rollout.ended(EndReason::SearchFailed);
        if failed > 0 {
            let reason = rollout.last_search_failure.as_deref().unwrap_or("unknown");
            warn!(failed, total, reason, "trajectories dropped: their searches failed");
        }
        let limit = self.config.grpo.max_failed_search_fraction;
        anyhow::ensure!(
            failed as f64 <= limit * total as f64,
            "searches failed in {failed} of {total} trajectories, more than \
             grpo.max_failed_search_fraction = {limit} allows; last failure: {}",
            rollout.last_search_failure.as_deref().unwrap_or("unknown")
        );
        let scoring = reward_config(self.config);
        let kept: Vec<&Trajectory> =
            rollout.trajectories.iter().filter(|one| one.end.is_trainable()).collect();
        let rewards: Vec<Reward> = kept
            .iter()
            .map(|one| {
                let golden = &self.questions[chosen[one.prompt]].golden_answers;
                reward(one, golden, &scoring)
            })
            .collect();
        let scores: Vec<f64> = rewards.iter().map(|reward| reward.score).collect();
        let groups: Vec<usize> = kept.iter().map(|one| one.prompt).collect();
        let advantages = group_advantages(&scores, &groups, self.config.grpo.normalise_by_std);
        let mut sequences: Vec<TrainSequence> =
            kept.iter().map(|one| TrainSequence::of(one)).collect();
        for ((sequence, advantage), group) in sequences.iter_mut().zip(advantages).zip(&groups) {
            // What is left of a group that lost all others to failed searches has nothing to be
            // compared with: its raw score would only pull towards itself.
            let compared = groups.iter().filter(|&other| other == group).count() > 1;
            sequence.advantage = if compared { advantage } else { 0.0 };
        }
        if self.config.grpo.skip_uniform_groups {
            sequences.retain(|sequence| sequence.advantage != 0.0);
        }
        Ok(Scored { rewards, sequences })
    }

    /// Keeps every trajectory of the step, compressed.
    fn write_trajectories(&self, trajectories: &[Trajectory]) -> anyhow::Result<()> {
        let folder = self.config.run_dir.join("trajectories");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("step-{}.jsonl.zst", self.state.step + 1));
        let mut lines = Vec::new();
        for trajectory in trajectories {
            serde_json::to_writer(&mut lines, trajectory)?;
            lines.push(b'\n');
        }
        let packed = zstd::encode_all(lines.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
        Ok(atomic_file::write(&path, &packed)?)
    }

    fn evaluate_if_owed(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        if self.owes_evaluation {
            let step = self.state.step;
            let name = format!("step {step}");
            let result = evaluate(self.config, &self.loaded, &name, Searches::Retriever, stop)?;
            info!(step, em = result.em().value(), "evaluated");
            result.save(&step_evaluation(self.config, step))?;
            self.owes_evaluation = false;
        }
        Ok(())
    }

    /// Writes the checkpoint of the present step, unless it is there already.
    fn save(&mut self) -> anyhow::Result<PathBuf> {
        let name = format!("step-{}", self.state.step);
        let folder = self.config.run_dir.join("checkpoints").join(name);
        if self.saved_step != Some(self.state.step) {
            let resume = Some((&self.optimizer, self.state));
            checkpoint::save(&folder, &self.loaded.policy, &self.config.model.path, resume)?;
            self.saved_step = Some(self.state.step);
        }
        Ok(folder)
    }
}

/// Whether what happens after `every` steps (0: never) happens after this one.
fn is_due(every: usize, step: u64) -> bool {
    every > 0 && step > 0 && step.is_multiple_of(every as u64)
}

/// Where the evaluation of a step is written.
fn step_evaluation(config: &Config, step: u64) -> PathBuf {
    evaluation_path(&config.run_dir, &format!("step-{step}"))
}

fn step_metrics(
    step: u64,
    rollout: &Rollout,
    rewards: &[Reward],
    seconds: StepSeconds,
) -> StepMetrics {
    let trajectories = &rollout.trajectories;
    let mean = |value: &dyn Fn(&Reward) -> f64| {
        rewards.iter().map(value).sum::<f64>() / rewards.len() as f64
    };
    let per_trajectory = |value: &dyn Fn(&Trajectory) -> usize| {
        trajectories.iter().map(value).sum::<usize>() as f64 / trajectories.len().max(1) as f64
    };
    let sampled = per_trajectory(&Trajectory::sampled_tokens);
    StepMetrics {
        step,
        reward_mean: mean(&|reward| reward.score),
        em: mean(&|reward| reward.exact_match),
        searches_per_question: per_trajectory(&|one| one.searches.len()),
        invalid_actions: trajectories.iter().map(|one| one.invalid_actions as u64).sum(),
        trajectories: trajectories.len() as u64,
        dropped_trajectories: (trajectories.len() - rewards.len()) as u64,
        response_tokens: sampled,
        entropy: 0.0,
        kl: 0.0,
        clip_fraction: 0.0,
        policy_loss: 0.0,
        grad_norm: 0.0,
        learning_rate: 0.0,
        log_prob_gap: 0.0,
        tokens_per_second: sampled * trajectories.len() as f64 / seconds.rollout.max(1e-9),
        seconds,
        peak_memory_mib: memory::peak_mib(),
    }
}
