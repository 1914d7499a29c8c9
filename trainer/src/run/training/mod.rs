//! `trainer train`: reinforcement learning. Every stage of a step stands here by name, in order.

mod advantages;
mod ahead;
mod collecting;
mod player;
mod updates;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use shared::atomic_file;
use tracing::info;

use super::evaluation::evaluate;
use super::loaded_model::{LoadedModel, http_searcher, save_form};
use super::manifest::write_manifest;
use super::memory;
use super::rollout_engine::RolloutEngine;
use super::warm_start::optimizer;
use super::{end_stopped, is_done, signals};
use crate::algo::{KlTarget, adapted_coefficient};
use crate::checkpoint::{self, ResumeParts, TrainerState};
use crate::config::{Config, KlControllerKind};
use crate::critic::Critic;
use crate::data::Example;
use crate::eval::Searches;
use crate::policy::{Lora, Policy, Weights};
use crate::report::evaluation_path;
use crate::reward::Reward;
use crate::rollout::trajectory::Trajectory;
use crate::stop::StopFlag;
use crate::track::{
    AlgorithmMetrics, MetricsFile, Progress, StepMetrics, StepSeconds, Trace, Track, record_phase,
};
use crate::update::AdamW;
use advantages::TrainBatch;
use ahead::Ahead;
use collecting::{Collected, UnfinishedGroup};
use player::Player;
use updates::StepUpdates;

pub(super) use updates::policy_update_config;

/// Trains `model.path` by reinforcement learning through the retriever until it is done or a signal stops it; goes on
/// from the run directory's last checkpoint unless `training.resume` is off.
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
    writeln!(out, "{}: trained for {} steps", folder.display(), config.training.steps)?;
    Ok(())
}

/// A run between two steps.
struct TrainingRun<'c> {
    config: &'c Config,
    loaded: LoadedModel,
    reference: Option<Reference>,
    /// What plays rollouts between the updates; none where they go ahead.
    player: Option<Player>,
    /// What plays them beside the updates.
    ahead: Option<Ahead>,
    questions: Vec<Example>,
    optimizer: AdamW,
    critic: Option<TrainedCritic>,
    metrics: MetricsFile,
    state: TrainerState,
    /// Place in the order of the questions at which the next step begins.
    next_question: u64,
    saved_step: Option<u64>,
    /// The present step is to be evaluated before the next one begins.
    owes_evaluation: bool,
    /// Groups that the last step did not wait for.
    unfinished: Vec<UnfinishedGroup>,
    /// The timeline of the step in progress, if it is one that is traced.
    trace: Option<Trace>,
}

/// The model as it was where training began, which the divergence is measured from.
enum Reference {
    /// A copy of its weights.
    Frozen(Weights),
    /// The frozen weights that the policy computes with as well, and the adapters that were there, if
    /// they changed anything: nothing large is kept a second time.
    OverBase(Option<Lora>),
}

impl Reference {
    fn of(policy: &Policy) -> Self {
        match &policy.lora {
            Some(lora) => Self::OverBase((!lora.is_zero()).then(|| lora.deep_copy())),
            None => Self::Frozen(policy.frozen_weights()),
        }
    }
}

/// PPO's critic with its optimizer.
struct TrainedCritic {
    model: Critic,
    optimizer: AdamW,
}

impl TrainedCritic {
    /// A new one, made of the policy as it stands.
    fn start(config: &Config, loaded: &LoadedModel) -> Self {
        let model = Critic::of_policy(&loaded.policy, config.seed);
        let optimizer = optimizer(config, model.model.trained());
        Self { model, optimizer }
    }
}

impl<'c> TrainingRun<'c> {
    fn open(config: &'c Config) -> anyhow::Result<Self> {
        fs::create_dir_all(&config.run_dir)
            .with_context(|| format!("run_dir = {}", config.run_dir.display()))?;
        atomic_file::write(&config.run_dir.join("config.toml"), config.to_toml().as_bytes())?;
        write_manifest(config)?;
        info!(objective = config.objective_in_words(), "training");
        let mut loaded = LoadedModel::open_for_training(config)?;
        let questions =
            loaded.questions(config, &config.data.train, config.data.max_train_questions)?;
        // The reference is where training began, also when a run is resumed.
        let reference =
            (config.training.kl_coefficient > 0.0).then(|| Reference::of(&loaded.policy));
        let mut state = TrainerState { seed: config.seed, ..TrainerState::default() };
        let latest = checkpoint::latest(&config.run_dir)?.filter(|_| config.training.resume);
        if let Some((folder, saved)) = &latest {
            anyhow::ensure!(
                saved.seed == config.seed,
                "{} was made with seed = {}, the configuration says {}: use another run_dir, or \
                 training.resume = false",
                folder.display(),
                saved.seed,
                config.seed
            );
            info!(checkpoint = %folder.display(), step = saved.step, "going on");
            state = *saved;
            checkpoint::restore_policy(folder, &mut loaded.policy)?;
        }
        let mut optimizer = optimizer(config, loaded.policy.trained());
        if let Some((folder, saved)) = &latest {
            checkpoint::restore_moments(folder, *saved, &mut optimizer)?;
        }
        let mut critic =
            config.algorithm.advantage.has_critic().then(|| TrainedCritic::start(config, &loaded));
        if let (Some((folder, saved)), Some(critic)) = (&latest, &mut critic) {
            let TrainedCritic { model, optimizer } = critic;
            let parameters = model.model.trained_mut();
            checkpoint::restore_critic(folder, *saved, parameters, optimizer)?;
        }
        // Versions count steps, also across the steps that an earlier process did.
        let mut player = Some(Player {
            engine: RolloutEngine::open(config, &loaded, state.step)?,
            searcher: http_searcher(config)?,
        });
        let mut ahead = None;
        if config.rollout.max_staleness > 0
            && let Some(player) = player.take()
        {
            ahead = Some(Ahead::start(config, &loaded, player, state.step)?);
        }
        let metrics = MetricsFile::open(&config.run_dir.join("metrics.jsonl"), state.step)?;
        let saved_step = latest.map(|(_, state)| state.step);
        // A run may have been stopped while it evaluated its last step.
        let owes_evaluation = saved_step.is_some_and(|step| {
            is_due(config.training.eval_every_steps, step)
                && !step_evaluation(config, step).is_file()
        });
        Ok(Self {
            config,
            loaded,
            reference,
            player,
            ahead,
            questions,
            optimizer,
            critic,
            metrics,
            state,
            next_question: 0,
            saved_step,
            owes_evaluation,
            unfinished: Vec::new(),
            trace: None,
        })
    }

    /// Does the steps that are left. An error leaves the run after the last step that was done.
    fn finish(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        let total = self.config.training.steps as u64;
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

    /// One step: rollout, reward, log-probs, advantage, updates, metrics.
    fn step(&mut self, stop: &StopFlag) -> anyhow::Result<StepMetrics> {
        let (started, held_memory_mib) = (Instant::now(), memory::held_mib());
        let config = self.config;
        self.trace = is_due(config.trace_every_steps, self.state.step + 1).then(Trace::start);
        let collected = self.collect(stop)?;
        let rollout_seconds = self.end_phase("rollout", started);
        self.write_trajectories(&collected.trajectories)?;

        let log_probs_started = Instant::now();
        let without_uniform =
            config.algorithm.dynamic_sampling || config.training.skip_uniform_groups;
        let batch = TrainBatch::of(&collected, without_uniform);
        let batch = self.with_log_probs(batch, stop)?;
        let batch = self.with_advantages(batch, stop)?;
        let log_prob_seconds = self.end_phase("log-probs and advantages", log_probs_started);

        let update_started = Instant::now();
        let updates = self.update(&batch, stop)?;
        let update_seconds = self.end_phase("update", update_started);

        let seconds = StepSeconds {
            rollout: rollout_seconds,
            search: collected.search_seconds,
            generation: collected.generation_seconds,
            log_probs: log_prob_seconds,
            update: update_seconds,
            total: started.elapsed().as_secs_f64(),
        };
        let mut metrics = step_metrics(self.state.step + 1, &collected, &updates, seconds);
        metrics.held_memory_mib = held_memory_mib;
        metrics.algorithm.kl_coefficient = self.kl_coefficient();
        let finished = Instant::now();
        self.finish_step(&batch)?;
        self.metrics.append(&metrics)?;
        self.end_phase("weights to the engine", finished);
        if let Some(trace) = self.trace.take() {
            trace.write(&config.run_dir, self.state.step)?;
        }
        if is_due(config.training.save_every_steps, self.state.step) {
            self.save()?;
        }
        self.owes_evaluation = is_due(config.training.eval_every_steps, self.state.step);
        Ok(metrics)
    }

    /// Notes in the timeline what began at `started` and ends now; returns its seconds.
    fn end_phase(&mut self, name: &str, started: Instant) -> f64 {
        let took = started.elapsed();
        if let Some(trace) = &mut self.trace {
            trace.span(Track::Step, name, started, took, &json!({}));
        }
        took.as_secs_f64()
    }

    /// Moves the position of the run to after the step.
    fn finish_step(&mut self, batch: &TrainBatch) -> anyhow::Result<()> {
        self.state.step += 1;
        self.state.updates = self.optimizer.updates;
        if self.config.algorithm.dynamic_sampling || self.config.rollout.carried_groups > 0 {
            self.state.questions_drawn = Some(self.next_question);
        }
        if let Some(critic) = &self.critic {
            self.state.critic_updates = critic.optimizer.updates;
        }
        let algorithm = &self.config.algorithm;
        if let (KlControllerKind::Adaptive, Some(found)) =
            (algorithm.kl_controller, batch.divergence)
        {
            let target =
                KlTarget { divergence: algorithm.kl_target, horizon: algorithm.kl_horizon as f64 };
            let trajectories = batch.sequences.len();
            let next = adapted_coefficient(self.kl_coefficient(), target, found, trajectories);
            self.state.kl_coefficient_bits = Some(next.to_bits());
        }
        match &mut self.player {
            Some(player) => player.engine.set_policy(&self.loaded, self.state.step),
            // The next step hands them on.
            None => Ok(()),
        }
    }

    /// The divergence's weight as a controller has left it.
    fn kl_coefficient(&self) -> f64 {
        let configured = self.config.training.kl_coefficient;
        match self.config.algorithm.kl_controller {
            KlControllerKind::Fixed => configured,
            KlControllerKind::Adaptive => {
                self.state.kl_coefficient_bits.map_or(configured, f64::from_bits)
            }
        }
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
            let critic = self.critic.as_ref();
            // What is in the middle is not saved: a run that goes on asks from there again, so that no question
            // is left out.
            let mut state = self.state;
            if let Some(place) = self.unfinished.iter().map(|group| group.place).min() {
                state.questions_drawn = Some(place);
            }
            let resume = ResumeParts {
                optimizer: &self.optimizer,
                critic: critic.map(|one| (one.model.model.trained(), &one.optimizer)),
                state,
            };
            let LoadedModel { policy, place, .. } = &self.loaded;
            checkpoint::save(&folder, policy, place, save_form(self.config), Some(resume))?;
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
    collected: &Collected,
    updates: &StepUpdates,
    seconds: StepSeconds,
) -> StepMetrics {
    let trajectories = &collected.trajectories;
    let rewards = collected.kept_rewards();
    let mean = |value: &dyn Fn(&Reward) -> f64| {
        rewards.iter().map(|reward| value(reward)).sum::<f64>() / rewards.len() as f64
    };
    let per_trajectory = |value: &dyn Fn(&Trajectory) -> usize| {
        trajectories.iter().map(value).sum::<usize>() as f64 / trajectories.len().max(1) as f64
    };
    let sampled = per_trajectory(&Trajectory::sampled_tokens);
    let policy = &updates.policy;
    StepMetrics {
        step,
        reward_mean: mean(&|reward| reward.score),
        em: mean(&|reward| reward.exact_match),
        searches_per_question: per_trajectory(&|one| one.searches.len()),
        invalid_actions: trajectories.iter().map(|one| one.invalid_actions as u64).sum(),
        trajectories: trajectories.len() as u64,
        dropped_trajectories: (trajectories.len() - rewards.len()) as u64,
        stale_trajectories: collected.stale_trajectories as u64,
        response_tokens: sampled,
        entropy: policy.entropy,
        kl: policy.kl,
        clip_fraction: policy.clip_fraction,
        policy_loss: policy.policy_loss,
        grad_norm: updates.grad_norm,
        learning_rate: updates.learning_rate,
        log_prob_gap: policy.log_prob_gap,
        algorithm: AlgorithmMetrics {
            uniform_groups: collected.uniform.len() as u64,
            kl_coefficient: 0.0,
            importance: policy.importance,
            positive_log_prob: policy.positive_log_prob,
            likelihood_loss: policy.likelihood_loss,
            value_loss: updates.critic.value_loss,
            value_clip_fraction: updates.critic.clip_fraction,
            critic_grad_norm: updates.critic_grad_norm,
        },
        generation: collected.counters,
        ahead: collected.ahead,
        tokens_per_second: sampled * trajectories.len() as f64 / seconds.rollout.max(1e-9),
        seconds,
        peak_memory_mib: memory::peak_mib(),
        held_memory_mib: 0,
    }
}
