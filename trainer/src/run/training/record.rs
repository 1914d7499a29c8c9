//! The files that a run writes about its steps: metrics, trajectories, timelines, and the batch of a refused update.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use shared::machine::atomic_file;

use super::questions::Collected;
use super::score::Scored;
use crate::reward::Reward;
use crate::rollout::trajectory::{EndReason, Trajectory};
use crate::run::failed_batch::{self, Failure};
use crate::run::learner::{CriticUpdates, Learner, PolicyUpdates, UpdateFault};
use crate::run::{is_due, memory};
use crate::track::{
    AlgorithmMetrics, GuardMetrics, MetricsFile, RecordMetrics, StepMetrics, StepSeconds, Trace,
    Track,
};

/// The record of a run in its folder.
#[derive(Debug)]
pub(crate) struct RunLog {
    run_dir: PathBuf,
    /// The configuration as TOML, which is kept with a refused batch.
    config_toml: String,
    metrics: MetricsFile,
    /// Steps between timelines; 0 writes none.
    trace_every_steps: usize,
}

impl RunLog {
    /// Opens the record of a run after `done` steps.
    ///
    /// # Errors
    /// The file system's, and a metrics file that is damaged.
    pub(crate) fn open(
        run_dir: PathBuf,
        config_toml: String,
        trace_every_steps: usize,
        done: u64,
    ) -> anyhow::Result<Self> {
        let metrics = MetricsFile::open(&run_dir.join("metrics.jsonl"), done)?;
        Ok(Self { run_dir, config_toml, metrics, trace_every_steps })
    }

    /// Begins the record of `step`, which counts from 1.
    pub(crate) fn begin(&self, step: u64) -> StepLog {
        let now = Instant::now();
        StepLog {
            step,
            started: now,
            phase_started: now,
            seconds: StepSeconds::default(),
            held_memory_mib: memory::held_mib(),
            trace: is_due(self.trace_every_steps, step).then(Trace::start),
        }
    }

    /// Appends the row of a step.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn append(&mut self, metrics: &StepMetrics) -> anyhow::Result<()> {
        Ok(self.metrics.append(metrics)?)
    }

    /// Returns the error of updates that ended early in `step`. If an update was refused, keeps its batch and says
    /// what to do.
    pub(crate) fn refused(
        &self,
        learner: &Learner,
        step: u64,
        fault: UpdateFault,
    ) -> anyhow::Error {
        let (error, batch) = match fault {
            UpdateFault::Stopped(stopped) => return stopped.into(),
            UpdateFault::NotFinite { error, batch } => (error, batch),
        };
        let failure = Failure::new(step, &batch, &error);
        let folder = failed_batch::folder_of(&self.run_dir, step);
        let kept = match failed_batch::save(&folder, &self.config_toml, learner, &batch, &failure) {
            Ok(()) => {
                let folder = folder.display();
                format!("its batch is kept: `trainer replay {folder}` says where the number arises")
            }
            Err(reason) => format!("its batch could not be kept: {reason:#}"),
        };
        let advice = "to resume from the last checkpoint, run the same command with a lower \
                      training.learning_rate (or critic.learning_rate), a lower \
                      optimizer.max_grad_norm or model.dtype = \"f32\"";
        anyhow::Error::new(error).context(format!("step {step} failed; {kept}; {advice}"))
    }

    /// Writes every trajectory of a step, compressed.
    fn write_trajectories(&self, step: u64, trajectories: &[Trajectory]) -> anyhow::Result<()> {
        let folder = self.run_dir.join("trajectories");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("step-{step}.jsonl.zst"));
        let mut lines = Vec::new();
        for trajectory in trajectories {
            serde_json::to_writer(&mut lines, trajectory)?;
            lines.push(b'\n');
        }
        let packed = zstd::encode_all(lines.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
        Ok(atomic_file::write(&path, &packed)?)
    }
}

/// The record of a step in progress: its phases one after the other.
#[derive(Debug)]
pub(crate) struct StepLog {
    step: u64,
    started: Instant,
    phase_started: Instant,
    seconds: StepSeconds,
    /// Memory that the process held when the step began.
    held_memory_mib: u64,
    /// The timeline, if this step has one.
    pub(crate) trace: Option<Trace>,
}

/// The figures of a step, from which its row is made.
pub(crate) struct StepFigures<'s> {
    pub(crate) played: &'s Collected<'s>,
    pub(crate) scored: &'s Scored,
    pub(crate) policy: &'s PolicyUpdates,
    pub(crate) critic: &'s CriticUpdates,
    /// The weight of the divergence as the step used it.
    pub(crate) kl_coefficient: f64,
}

impl StepLog {
    /// Ends the rollout phase and writes its trajectories.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn end_rollout(
        &mut self,
        record: &RunLog,
        trajectories: &[Trajectory],
    ) -> anyhow::Result<()> {
        self.seconds.rollout = self.end_phase("rollout");
        record.write_trajectories(self.step, trajectories)?;
        self.phase_started = Instant::now();
        Ok(())
    }

    /// Ends the phase of log-probs and advantages.
    pub(crate) fn end_log_probs(&mut self) {
        self.seconds.log_probs = self.end_phase("log-probs and advantages");
    }

    /// Ends the phase of the updates.
    pub(crate) fn end_update(&mut self) {
        self.seconds.update = self.end_phase("update");
        self.seconds.total = self.started.elapsed().as_secs_f64();
    }

    /// Ends the step, and writes its timeline.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn finish(mut self, record: &RunLog) -> anyhow::Result<()> {
        self.end_phase("weights to the engine");
        if let Some(trace) = self.trace {
            trace.write(&record.run_dir, self.step)?;
        }
        Ok(())
    }

    /// Adds the current phase to the timeline and begins the next one; returns the seconds that it took.
    fn end_phase(&mut self, name: &str) -> f64 {
        let (started, took) = (self.phase_started, self.phase_started.elapsed());
        if let Some(trace) = &mut self.trace {
            trace.span(Track::Step, name, started, took, &json!({}));
        }
        self.phase_started = Instant::now();
        took.as_secs_f64()
    }

    /// Returns the row of the step, whose updates are done.
    pub(crate) fn metrics(&self, figures: &StepFigures<'_>) -> StepMetrics {
        let StepFigures { played, scored, policy, critic, kl_coefficient } = figures;
        let trajectories = &played.trajectories;
        let rewards: Vec<&Reward> = scored.rewards.iter().flatten().collect();
        let mean = |value: &dyn Fn(&Reward) -> f64| {
            rewards.iter().map(|reward| value(reward)).sum::<f64>() / rewards.len() as f64
        };
        let per_trajectory = |value: &dyn Fn(&Trajectory) -> usize| {
            trajectories.iter().map(value).sum::<usize>() as f64 / trajectories.len().max(1) as f64
        };
        let sampled = per_trajectory(&Trajectory::sampled_tokens);
        let is_stale = |trajectory: &&Trajectory| trajectory.versions_behind(self.step - 1) > 0;
        let is_abnormal = |trajectory: &&Trajectory| {
            matches!(trajectory.end, EndReason::TurnLimit | EndReason::ContextLimit)
                || trajectory.length_stops > 0
                || trajectory.invalid_actions > 0
        };
        let seconds = StepSeconds {
            search: played.search_seconds,
            generation: played.generation_seconds,
            ..self.seconds
        };
        StepMetrics {
            step: self.step,
            reward_mean: mean(&|reward| reward.score),
            em: mean(&|reward| reward.exact_match),
            searches_per_question: per_trajectory(&|trajectory| trajectory.searches.len()),
            invalid_actions: trajectories
                .iter()
                .map(|trajectory| trajectory.invalid_actions as u64)
                .sum(),
            trajectories: trajectories.len() as u64,
            dropped_trajectories: (trajectories.len() - rewards.len()) as u64,
            stale_trajectories: trajectories.iter().filter(is_stale).count() as u64,
            response_tokens: sampled,
            entropy: policy.statistics.entropy,
            kl: policy.statistics.kl,
            clip_fraction: policy.statistics.clip_fraction,
            policy_loss: policy.statistics.policy_loss,
            grad_norm: policy.grad_norm,
            learning_rate: policy.learning_rate,
            log_prob_gap: policy.statistics.log_prob_gap,
            algorithm: AlgorithmMetrics {
                uniform_groups: scored.uniform_groups.len() as u64,
                kl_coefficient: *kl_coefficient,
                importance: policy.statistics.importance,
                positive_log_prob: policy.statistics.positive_log_prob,
                likelihood_loss: policy.statistics.likelihood_loss,
                value_loss: critic.statistics.value_loss,
                value_clip_fraction: critic.statistics.clip_fraction,
                critic_grad_norm: critic.grad_norm,
            },
            generation: played.counters,
            ahead: played.ahead,
            record: RecordMetrics::of(played.record),
            guard: GuardMetrics {
                groups: played.examples.len() as u64,
                abnormal_trajectories: trajectories.iter().filter(is_abnormal).count() as u64,
                ..GuardMetrics::default()
            },
            reward: scored.outside.metrics.clone(),
            tokens_per_second: sampled * trajectories.len() as f64 / seconds.rollout.max(1e-9),
            seconds,
            peak_memory_mib: memory::peak_mib(),
            held_memory_mib: self.held_memory_mib,
        }
    }
}
