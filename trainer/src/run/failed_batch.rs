//! The folder that keeps an update that was refused because a number was not finite: the batch, the weights and the
//! configuration, with which `trainer replay` computes it again.
//!
//! **Invariant:** `failure.json` is written last; a folder without it is incomplete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shared::machine::atomic_file;
use tch::{Kind, Tensor};

use super::learner::{Learner, RefusedBatch};
use crate::checkpoint::{self, SaveForm};
use crate::critic::{Critic, CriticSequence};
use crate::policy::Policy;
use crate::update::{TrainSequence, UpdateError};

const BATCH_FILE: &str = "batch.safetensors";
const CRITIC_FILE: &str = "critic.safetensors";
const FAILURE_FILE: &str = "failure.json";
/// The folder of the policy's weights.
pub(super) const MODEL_FOLDER: &str = "model";
pub(super) const CONFIG_FILE: &str = "config.toml";

/// The failure of an update, as `failure.json` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// Counts from 1.
    pub(super) step: u64,
    /// Optimizer updates made before.
    pub(super) update: u64,
    /// "policy" or "critic".
    pub(super) part: String,
    /// The name of the number that was not finite.
    pub(super) what: String,
    /// Its value, in words: JSON has no NaN.
    pub(super) value: String,
}

/// Returns the folder that keeps the batch of a step that failed.
pub(super) fn folder_of(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join(format!("failed-batch-step-{step}"))
}

/// Writes a refused batch with the learner's current weights into `folder`; `config` is the configuration as TOML.
///
/// # Errors
/// The file system's.
pub(super) fn save(
    folder: &Path,
    config: &str,
    learner: &Learner,
    batch: &RefusedBatch,
    failure: &Failure,
) -> anyhow::Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // All bits, and adapters apart from their base: the failure may need both.
    let form = SaveForm { kind: Kind::Float, merged: false };
    let (policy, place) = (&learner.model.policy, &learner.model.place);
    checkpoint::save(&folder.join(MODEL_FOLDER), policy, place, form, None)?;
    atomic_file::write(&folder.join(CONFIG_FILE), config.as_bytes())?;
    let tensors = match batch {
        RefusedBatch::Policy(sequences) => policy_tensors(sequences),
        RefusedBatch::Critic(sequences) => {
            let critic = learner.estimator.critic();
            let critic = critic.expect("only the critic's own update refuses its batch");
            let parameters: Vec<(&String, &Tensor)> =
                critic.model.network.trained().iter().collect();
            Tensor::write_safetensors(&parameters, folder.join(CRITIC_FILE))?;
            critic_tensors(sequences)
        }
    };
    Tensor::write_safetensors(&tensors, folder.join(BATCH_FILE))?;
    atomic_file::write(&folder.join(FAILURE_FILE), &serde_json::to_vec_pretty(failure)?)?;
    Ok(())
}

impl Failure {
    /// Describes the failure of an update in `step`, which counts from 1.
    pub(super) fn new(step: u64, batch: &RefusedBatch, error: &UpdateError) -> Self {
        let UpdateError::NotFinite { quantity, update, value } = error;
        let part = match batch {
            RefusedBatch::Policy(_) => "policy",
            RefusedBatch::Critic(_) => "critic",
        };
        Self {
            step,
            update: *update,
            part: part.to_owned(),
            what: (*quantity).to_owned(),
            value: value.to_string(),
        }
    }
}

/// Reads the failure that `folder` keeps.
///
/// # Errors
/// A folder that keeps none, or is incomplete.
pub(super) fn read_failure(folder: &Path) -> anyhow::Result<Failure> {
    let path = folder.join(FAILURE_FILE);
    let bytes = fs::read(&path).with_context(|| {
        format!("cannot read {}: it takes a folder failed-batch-step-N of a run", path.display())
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

fn named(index: usize, parts: Vec<(&'static str, Tensor)>) -> Vec<(String, Tensor)> {
    let full = |(part, tensor): (&'static str, Tensor)| (format!("{index:06}.{part}"), tensor);
    // A part that a trajectory does not have is left out.
    parts.into_iter().filter(|(_, tensor)| tensor.numel() > 0).map(full).collect()
}

fn tokens_and_mask(token_ids: &[u32], mask: &[bool]) -> Vec<(&'static str, Tensor)> {
    let ids: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
    let flags: Vec<i64> = mask.iter().map(|&flag| i64::from(flag)).collect();
    vec![("ids", Tensor::from_slice(&ids)), ("mask", Tensor::from_slice(&flags))]
}

fn policy_tensors(sequences: &[TrainSequence]) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let mut parts = tokens_and_mask(&sequence.token_ids, &sequence.mask);
        parts.push(("weight", Tensor::from_slice(&[sequence.weight])));
        parts.push(("advantages", Tensor::from_slice(&sequence.advantages)));
        parts.push(("sampler", Tensor::from_slice(&sequence.sampler_log_probs)));
        let optional =
            [("old", &sequence.old_log_probs), ("reference", &sequence.reference_log_probs)];
        for (name, values) in optional {
            if let Some(values) = values {
                parts.push((name, Tensor::from_slice(values)));
            }
        }
        tensors.extend(named(index, parts));
    }
    tensors
}

fn critic_tensors(sequences: &[CriticSequence]) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let mut parts = tokens_and_mask(&sequence.token_ids, &sequence.mask);
        parts.push(("values", Tensor::from_slice(&sequence.old_values)));
        parts.push(("returns", Tensor::from_slice(&sequence.returns)));
        tensors.extend(named(index, parts));
    }
    tensors
}

/// The tensors of each sequence by their parts' names.
struct Stored(Vec<BTreeMap<String, Tensor>>);

impl Stored {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(BATCH_FILE);
        let tensors = Tensor::read_safetensors(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut sequences: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, tensor) in tensors {
            let (index, part) = name
                .split_once('.')
                .with_context(|| format!("{}: unknown tensor {name}", path.display()))?;
            sequences.entry(index.to_owned()).or_default().insert(part.to_owned(), tensor);
        }
        Ok(Self(sequences.into_values().collect()))
    }
}

fn floats(parts: &BTreeMap<String, Tensor>, name: &str) -> anyhow::Result<Option<Vec<f32>>> {
    parts.get(name).map(|tensor| Ok(Vec::<f32>::try_from(tensor.to_kind(Kind::Float))?)).transpose()
}

fn ids_and_mask(parts: &BTreeMap<String, Tensor>) -> anyhow::Result<(Vec<u32>, Vec<bool>)> {
    let integers = |name: &str| -> anyhow::Result<Vec<i64>> {
        let tensor = parts.get(name).with_context(|| format!("a sequence has no {name}"))?;
        Ok(Vec::<i64>::try_from(tensor)?)
    };
    let ids = integers("ids")?.into_iter().map(|id| id as u32).collect();
    Ok((ids, integers("mask")?.into_iter().map(|flag| flag != 0).collect()))
}

/// Reads the sequences of a failed policy update.
///
/// # Errors
/// A missing or damaged file.
pub(super) fn read_policy_batch(folder: &Path) -> anyhow::Result<Vec<TrainSequence>> {
    let sequence = |parts: BTreeMap<String, Tensor>| {
        let (token_ids, mask) = ids_and_mask(&parts)?;
        Ok(TrainSequence {
            token_ids,
            mask,
            advantages: floats(&parts, "advantages")?.unwrap_or_default(),
            weight: parts.get("weight").map_or(0.0, |weight| weight.double_value(&[0])),
            old_log_probs: floats(&parts, "old")?,
            reference_log_probs: floats(&parts, "reference")?,
            sampler_log_probs: floats(&parts, "sampler")?.unwrap_or_default(),
        })
    };
    Stored::read(folder)?.0.into_iter().map(sequence).collect()
}

/// Reads the critic of a failed update and its sequences; `policy` has the same architecture.
///
/// # Errors
/// A missing or damaged file.
pub(super) fn read_critic_batch(
    folder: &Path,
    policy: &Policy,
) -> anyhow::Result<(Critic, Vec<CriticSequence>)> {
    let path = folder.join(CRITIC_FILE);
    let mut critic = Critic::of_policy(policy, 0);
    let tensors = Tensor::read_safetensors(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    for (name, tensor) in tensors {
        let parameter = critic
            .network
            .trained_mut()
            .get_mut(&name)
            .with_context(|| format!("{}: unknown tensor {name}", path.display()))?;
        tch::no_grad(|| parameter.f_copy_(&tensor))
            .with_context(|| format!("{}: tensor {name}", path.display()))?;
    }
    let sequence = |parts: BTreeMap<String, Tensor>| {
        let (token_ids, mask) = ids_and_mask(&parts)?;
        Ok(CriticSequence {
            token_ids,
            mask,
            old_values: floats(&parts, "values")?.unwrap_or_default(),
            returns: floats(&parts, "returns")?.unwrap_or_default(),
        })
    };
    let sequences: anyhow::Result<Vec<CriticSequence>> =
        Stored::read(folder)?.0.into_iter().map(sequence).collect();
    Ok((critic, sequences?))
}
