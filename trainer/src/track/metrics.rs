//! `metrics.jsonl`: one row per training step, appended and synced as soon as the step is done.
//!
//! Invariant: rows are in the order of their steps, and no step has two rows. A killed process leaves at
//! most one torn line, the last one, which readers skip.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{guard::GuardMetrics, reward::RewardMetrics};
use crate::engine::EngineCounters;
use crate::search::record::RecordCounters;

/// The wall time of a step by activity, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSeconds {
    /// Time for generating, scoring and waiting for passages.
    pub rollout: f64,
    /// The part of `rollout` in which all episodes waited for passages.
    pub search: f64,
    /// The part of `rollout` in which the engine computed.
    #[serde(default)]
    pub generation: f64,
    /// Time for the log-probs of the trainer and of the reference model.
    pub log_probs: f64,
    /// Time for forward pass, backward pass and optimizer.
    pub update: f64,
    /// Time of the whole step.
    pub total: f64,
}

/// Metrics of rollouts that run ahead of the updates; zeros if they do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AheadMetrics {
    /// Number of policy updates, in steps, between sampling a trajectory and learning from it; mean over the
    /// trajectories.
    pub staleness_mean: f64,
    /// The largest such number.
    pub staleness_max: u64,
    /// Number of groups of later steps that were already ordered when the step began to learn.
    pub groups_ahead: u64,
    /// Seconds of the step's rollout that overlapped with other work.
    pub overlapped_seconds: f64,
}

/// The use of a record of searches; zeros without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordMetrics {
    /// Number of queries that the record answered.
    pub hits: u64,
    /// Number of queries that it had no answer to.
    pub misses: u64,
    /// Number of answers that were added to it.
    pub recorded: u64,
    /// Share of the queries that the record answered.
    pub hit_rate: f64,
}

impl RecordMetrics {
    /// Returns the metrics of these counts.
    pub fn of(counters: RecordCounters) -> Self {
        let RecordCounters { hits, misses, recorded } = counters;
        let hit_rate = hits as f64 / (hits + misses).max(1) as f64;
        Self { hits, misses, recorded, hit_rate }
    }
}

/// Metrics of some algorithms only; 0 for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlgorithmMetrics {
    /// Number of groups whose trajectories all have the same reward.
    pub uniform_groups: u64,
    /// Weight of the divergence from the reference model in this step.
    #[serde(deserialize_with = "nan_if_null")]
    pub kl_coefficient: f64,
    /// Mean weight that corrects trained tokens for the sampler; 1 without correction.
    #[serde(deserialize_with = "nan_if_null")]
    pub importance: f64,
    /// Mean log-prob of the tokens with a positive advantage, in nats. It falls before a collapse.
    #[serde(deserialize_with = "nan_if_null")]
    pub positive_log_prob: f64,
    /// The loss term that preserves likelihoods, before its coefficient.
    #[serde(deserialize_with = "nan_if_null")]
    pub likelihood_loss: f64,
    /// The critic's loss.
    #[serde(deserialize_with = "nan_if_null")]
    pub value_loss: f64,
    /// Share of the critic's tokens whose value was clipped.
    #[serde(deserialize_with = "nan_if_null")]
    pub value_clip_fraction: f64,
    /// L2 norm of the critic's gradient before clipping, mean over the step's updates.
    #[serde(deserialize_with = "nan_if_null")]
    pub critic_grad_norm: f64,
}

/// The metrics of one training step. A number that cannot be computed is NaN, `null` in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean reward of the trajectories that were trained on.
    #[serde(deserialize_with = "nan_if_null")]
    pub reward_mean: f64,
    /// Share of those trajectories whose answer matches a golden one exactly.
    #[serde(deserialize_with = "nan_if_null")]
    pub em: f64,
    /// Mean number of searches sent per trajectory.
    #[serde(deserialize_with = "nan_if_null")]
    pub searches_per_question: f64,
    /// Number of turns without a complete search or answer, over all trajectories.
    pub invalid_actions: u64,
    /// Number of trajectories rolled out, including the dropped ones.
    pub trajectories: u64,
    /// Number of trajectories dropped because one of their searches never succeeded.
    pub dropped_trajectories: u64,
    /// Number of trajectories that were partly sampled before the policy's last update.
    #[serde(default)]
    pub stale_trajectories: u64,
    /// Mean number of sampled tokens per trajectory.
    #[serde(deserialize_with = "nan_if_null")]
    pub response_tokens: f64,
    /// Mean entropy of the policy at the sampled tokens, in nats.
    #[serde(deserialize_with = "nan_if_null")]
    pub entropy: f64,
    /// Mean estimated divergence from the reference model, in nats per token.
    #[serde(deserialize_with = "nan_if_null")]
    pub kl: f64,
    /// Share of trained tokens whose probability ratio was clipped.
    #[serde(deserialize_with = "nan_if_null")]
    pub clip_fraction: f64,
    #[serde(deserialize_with = "nan_if_null")]
    pub policy_loss: f64,
    /// L2 norm of the gradient before clipping, mean over the step's updates.
    #[serde(deserialize_with = "nan_if_null")]
    pub grad_norm: f64,
    /// Learning rate of the step's last update.
    #[serde(deserialize_with = "nan_if_null")]
    pub learning_rate: f64,
    /// Mean absolute difference between the sampler's and the trainer's log-probs, in nats.
    #[serde(deserialize_with = "nan_if_null")]
    pub log_prob_gap: f64,
    /// Metrics of some algorithms only.
    #[serde(default)]
    pub algorithm: AlgorithmMetrics,
    /// The built-in engine's work, and the work that it saved.
    #[serde(default)]
    pub generation: EngineCounters,
    /// Metrics of rollouts that run ahead of the updates.
    #[serde(default)]
    pub ahead: AheadMetrics,
    /// The use of a record of searches.
    #[serde(default)]
    pub record: RecordMetrics,
    /// Findings of the guard against collapse.
    #[serde(default)]
    pub guard: GuardMetrics,
    /// The use of services that score trajectories.
    #[serde(default)]
    pub reward: RewardMetrics,
    /// Sampled tokens per second of the rollout.
    #[serde(deserialize_with = "nan_if_null")]
    pub tokens_per_second: f64,
    pub seconds: StepSeconds,
    /// Peak memory of the process so far, in MiB.
    pub peak_memory_mib: u64,
    /// Memory of the process at the beginning of the step, in MiB: the part that stays between steps.
    #[serde(default)]
    pub held_memory_mib: u64,
}

impl StepMetrics {
    /// Returns the row without times, rates, memory and the use of a record, which differ between equal runs.
    /// Deterministic runs with the same seed agree in everything else.
    #[must_use]
    pub fn without_times(&self) -> Self {
        Self {
            tokens_per_second: 0.0,
            seconds: StepSeconds::default(),
            peak_memory_mib: 0,
            held_memory_mib: 0,
            ahead: AheadMetrics { overlapped_seconds: 0.0, ..self.ahead },
            record: RecordMetrics::default(),
            reward: RewardMetrics { known_verdicts: 0, ..self.reward.clone() },
            ..self.clone()
        }
    }
}

/// Reads `null` as NaN, which JSON cannot represent.
pub(super) fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// An error in reading or writing metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}:{line}: not a metrics row: {message}", path.display())]
    Row { path: PathBuf, line: usize, message: String },
    #[error("{}: step {step} cannot follow step {last}", path.display())]
    Order { path: PathBuf, step: u64, last: u64 },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MetricsError {
    let path = path.to_owned();
    move |source| MetricsError::Io { action, path, source }
}

/// Reads all rows of a metrics file. Skips a torn last line and refuses any other bad line.
pub fn read_metrics(path: &Path) -> Result<Vec<StepMetrics>, MetricsError> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    Ok(parse_rows(path, &bytes)?.into_iter().map(|(row, _)| row).collect())
}

/// Parses the rows in `bytes`; returns each with its line.
fn parse_rows<'b>(
    path: &Path,
    bytes: &'b [u8],
) -> Result<Vec<(StepMetrics, &'b [u8])>, MetricsError> {
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate().peekable();
    let mut rows = Vec::new();
    while let Some((index, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) => rows.push((row, line)),
            // A kill can only tear the text after the last line break.
            Err(_) if lines.peek().is_none() => {}
            Err(error) => {
                let message = error.to_string();
                return Err(MetricsError::Row { path: path.to_owned(), line: index + 1, message });
            }
        }
    }
    Ok(rows)
}

/// `metrics.jsonl`, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    last_step: u64,
}

impl MetricsFile {
    /// Opens the file of a run that continues after `done_steps` steps (0 for a new run). Removes a torn line
    /// and the rows of later steps, which a resumed run repeats.
    pub fn open(path: &Path, done_steps: u64) -> Result<Self, MetricsError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("read", path)(error)),
        };
        let mut rows = parse_rows(path, &bytes)?;
        rows.retain(|(row, _)| row.step <= done_steps);
        let last_step = rows.last().map_or(0, |(row, _)| row.step);
        // Keep the lines as they are. A number that is read and written again may lose its last digit, and a
        // resumed run would then differ from an uninterrupted one.
        let mut kept = Vec::new();
        for (_, line) in rows {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        // Write another file and rename it: a kill during this loses no row.
        let partial = path.with_extension("jsonl.partial");
        let mut file = File::create(&partial).map_err(io_error("create", &partial))?;
        file.write_all(&kept).map_err(io_error("write", &partial))?;
        file.sync_all().map_err(io_error("sync", &partial))?;
        std::fs::rename(&partial, path).map_err(io_error("rename to", path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(io_error("open", path))?;
        Ok(Self { path: path.to_owned(), file, last_step })
    }

    /// Appends one row and waits until it is on disk.
    pub fn append(&mut self, row: &StepMetrics) -> Result<(), MetricsError> {
        if row.step <= self.last_step {
            let path = self.path.clone();
            return Err(MetricsError::Order { path, step: row.step, last: self.last_step });
        }
        let line = encode(&self.path, row)?;
        self.file.write_all(line.as_bytes()).map_err(io_error("write", &self.path))?;
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.last_step = row.step;
        Ok(())
    }
}

/// Encodes a row as one line with its line break.
fn encode(path: &Path, row: &StepMetrics) -> Result<String, MetricsError> {
    let mut line = serde_json::to_string(row)
        .map_err(|error| io_error("encode a row of", path)(error.into()))?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            reward_mean: 0.25,
            em: 0.25,
            searches_per_question: 1.5,
            invalid_actions: 3,
            trajectories: 32,
            dropped_trajectories: 0,
            stale_trajectories: 0,
            response_tokens: 61.5,
            entropy: 0.8,
            kl: 0.001,
            clip_fraction: 0.01,
            policy_loss: -0.02,
            grad_norm: 0.7,
            learning_rate: 1e-6,
            log_prob_gap: 1e-4,
            algorithm: AlgorithmMetrics::default(),
            generation: EngineCounters::default(),
            ahead: AheadMetrics::default(),
            record: RecordMetrics::default(),
            guard: GuardMetrics::default(),
            reward: RewardMetrics::default(),
            tokens_per_second: 120.0,
            seconds: StepSeconds {
                rollout: 10.0,
                search: 1.0,
                generation: 8.0,
                log_probs: 2.0,
                update: 5.0,
                total: 17.0,
            },
            peak_memory_mib: 4000,
            held_memory_mib: 3000,
        }
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.append(&row(1)).unwrap();
        // The row is visible before the file is closed.
        assert_eq!(read_metrics(&path).unwrap(), [row(1)]);
        file.append(&row(2)).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [row(1), row(2)]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_removed_on_opening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole = serde_json::to_string(&row(1)).unwrap();
        std::fs::write(&path, format!("{whole}\n{}", &whole[..whole.len() / 2])).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [row(1)]);
        let mut file = MetricsFile::open(&path, 1).unwrap();
        file.append(&row(2)).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [row(1), row(2)]);
    }

    #[test]
    fn a_bad_line_in_the_middle_is_refused_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole = serde_json::to_string(&row(1)).unwrap();
        std::fs::write(&path, format!("{whole}\n{{\"step\":2}}\n{whole}\n")).unwrap();
        let message = read_metrics(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2: not a metrics row: missing field"), "{message}");
    }

    #[test]
    fn resuming_removes_the_rows_of_repeated_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        for step in 1..=5 {
            file.append(&row(step)).unwrap();
        }
        drop(file);
        let mut file = MetricsFile::open(&path, 3).unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 3);
        file.append(&row(4)).unwrap();
        let steps: Vec<u64> = read_metrics(&path).unwrap().iter().map(|row| row.step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }

    #[test]
    fn kept_rows_stay_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        // The parser reads this number as its neighbour.
        let log_prob_gap = 2.430_220_902_488_943_3e-8;
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.append(&StepMetrics { log_prob_gap, ..row(1) }).unwrap();
        let written = std::fs::read(&path).unwrap();
        drop(file);
        MetricsFile::open(&path, 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), written);
    }

    #[test]
    fn a_step_cannot_be_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = MetricsFile::open(&dir.path().join("metrics.jsonl"), 0).unwrap();
        file.append(&row(2)).unwrap();
        let message = file.append(&row(2)).unwrap_err().to_string();
        assert!(message.ends_with("step 2 cannot follow step 2"), "{message}");
    }

    #[test]
    fn nan_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.append(&StepMetrics { kl: f64::NAN, ..row(1) }).unwrap();
        let rows = read_metrics(&path).unwrap();
        assert_eq!(rows.len(), 1);
        assert!(rows[0].kl.is_nan());
    }

    #[test]
    fn rows_without_times_are_equal_when_only_times_differ() {
        let mut later = row(1);
        later.seconds.total = 99.0;
        later.tokens_per_second = 1.0;
        later.peak_memory_mib = 1;
        later.held_memory_mib = 2;
        assert_ne!(later, row(1));
        assert_eq!(later.without_times(), row(1).without_times());
        later.kl = 0.5;
        assert_ne!(later.without_times(), row(1).without_times());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let path = Path::new("no/such/folder/metrics.jsonl");
        let message = MetricsFile::open(path, 0).unwrap_err().to_string();
        assert!(message.starts_with("cannot create no/such/folder/metrics.jsonl.partial"));
    }
}
