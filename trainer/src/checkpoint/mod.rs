//! Checkpoints: a Hugging Face model folder, and beside it what a run needs to go on.
//!
//! Invariant: a folder `step-N` is whole or absent.

mod rollout;
#[cfg(test)]
mod tests;

pub use rollout::save_for_rollouts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::atomic_file::{AtomicDir, AtomicError};
use tch::{Kind, Tensor};

use crate::policy::{DESCRIBING_FILES, Policy, SHARD_BYTES_MAX, WeightsError, write_weights};
use crate::update::AdamW;

const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const CRITIC_FILE: &str = "critic.safetensors";
const CRITIC_OPTIMIZER_FILE: &str = "critic_optimizer.safetensors";
const STATE_FILE: &str = "trainer_state.json";

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Training steps completed.
    pub step: u64,
    /// Optimizer updates made.
    pub updates: u64,
    pub seed: u64,
    /// Questions drawn so far, where that is not the same number every step.
    #[serde(default)]
    pub questions_drawn: Option<u64>,
    /// Optimizer updates of the critic.
    #[serde(default)]
    pub critic_updates: u64,
    /// The bits of the divergence's weight, where a controller has changed it: decimal text need not
    /// read back to the same number.
    #[serde(default)]
    pub kl_coefficient_bits: Option<u64>,
}

/// What a run needs to go on, beside the policy.
#[derive(Clone, Copy, Debug)]
pub struct ResumeParts<'r> {
    pub optimizer: &'r AdamW,
    /// The critic's parameters and optimizer, where there is one.
    pub critic: Option<(&'r BTreeMap<String, Tensor>, &'r AdamW)>,
    pub state: TrainerState,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}

/// Writes `policy` to `folder` with the model files of `source`, and, if given, optimizer moments
/// and state. An older `folder` of the same name is replaced.
///
/// # Errors
/// The file system's; `folder` is then as it was before.
pub fn save(
    folder: &Path,
    policy: &Policy,
    source: &Path,
    resume: Option<ResumeParts<'_>>,
) -> Result<(), CheckpointError> {
    let new = AtomicDir::create(folder)?;
    let partial = new.path();
    write_model(partial, policy, source)?;
    if let Some(ResumeParts { optimizer, critic, state }) = resume {
        write_moments(&partial.join(OPTIMIZER_FILE), optimizer)?;
        if let Some((parameters, optimizer)) = critic {
            write_tensors(&partial.join(CRITIC_FILE), &named("", parameters))?;
            write_moments(&partial.join(CRITIC_OPTIMIZER_FILE), optimizer)?;
        }
        let text = serde_json::to_vec_pretty(&state)
            .map_err(|error| damaged(partial, &error.to_string()))?;
        let path = partial.join(STATE_FILE);
        fs::write(&path, text).map_err(io("write", &path))?;
    }
    share_like_config(partial)?;
    Ok(new.commit()?)
}

/// Gives every file the access rights of `config.json`: the safetensors writer makes its own
/// readable to the owner alone.
fn share_like_config(folder: &Path) -> Result<(), CheckpointError> {
    let config = folder.join("config.json");
    let permissions = fs::metadata(&config).map_err(io("read", &config))?.permissions();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        fs::set_permissions(&path, permissions.clone()).map_err(io("share", &path))?;
    }
    Ok(())
}

fn write_model(folder: &Path, policy: &Policy, source: &Path) -> Result<(), CheckpointError> {
    let config = policy.config.source.clone();
    write_model_as(folder, &policy.parameters, config, Kind::Float, source)
}

/// Writes weights in `kind`, the `config` of their model, and the describing files of `source`.
fn write_model_as(
    folder: &Path,
    parameters: &BTreeMap<String, Tensor>,
    mut config: serde_json::Value,
    kind: Kind,
    source: &Path,
) -> Result<(), CheckpointError> {
    write_weights(folder, parameters, kind, SHARD_BYTES_MAX)?;
    let name = match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    };
    if let Some(keys) = config.as_object_mut() {
        // transformers 5 calls the key dtype, earlier ones torch_dtype.
        let key = if keys.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        keys.insert(key.to_owned(), name.into());
    }
    let text =
        serde_json::to_vec_pretty(&config).map_err(|error| damaged(folder, &error.to_string()))?;
    let path = folder.join("config.json");
    fs::write(&path, text).map_err(io("write", &path))?;
    for name in DESCRIBING_FILES {
        let from = source.join(name);
        if from.is_file() {
            fs::copy(&from, folder.join(name)).map_err(io("copy", &from))?;
        }
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

/// Every tensor with `prefix` before its name.
fn named(prefix: &str, tensors: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)> {
    tensors
        .iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone()))
        .collect()
}

fn write_moments(path: &Path, optimizer: &AdamW) -> Result<(), CheckpointError> {
    let mut tensors = named("first.", &optimizer.first);
    tensors.extend(named("second.", &optimizer.second));
    write_tensors(path, &tensors)
}

fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    Tensor::write_safetensors(tensors, path).map_err(|error| damaged(path, &error.to_string()))
}

/// The newest whole checkpoint of `run_dir` that a run can go on from.
///
/// # Errors
/// An unreadable directory, or a state file that is damaged.
pub fn latest(run_dir: &Path) -> Result<Option<(PathBuf, TrainerState)>, CheckpointError> {
    let folder = run_dir.join("checkpoints");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("list", &folder)(error)),
    };
    let mut newest: Option<(PathBuf, TrainerState)> = None;
    for entry in entries {
        let path = entry.map_err(io("list", &folder))?.path();
        let named =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
        let state_path = path.join(STATE_FILE);
        if !named || !state_path.is_file() {
            continue;
        }
        let bytes = fs::read(&state_path).map_err(io("read", &state_path))?;
        let state: TrainerState = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(&state_path, &error.to_string()))?;
        if newest.as_ref().is_none_or(|(_, other)| other.step < state.step) {
            newest = Some((path, state));
        }
    }
    Ok(newest)
}

/// Puts the saved moments of `folder` into `optimizer`.
///
/// # Errors
/// A missing or damaged file, or moments of another model.
pub fn restore_moments(
    folder: &Path,
    state: TrainerState,
    optimizer: &mut AdamW,
) -> Result<(), CheckpointError> {
    read_moments(&folder.join(OPTIMIZER_FILE), optimizer)?;
    optimizer.updates = state.updates;
    Ok(())
}

/// Puts the saved critic of `folder` and its moments into `parameters` and `optimizer`.
///
/// # Errors
/// A missing or damaged file, or a critic of another model.
pub fn restore_critic(
    folder: &Path,
    state: TrainerState,
    parameters: &mut BTreeMap<String, Tensor>,
    optimizer: &mut AdamW,
) -> Result<(), CheckpointError> {
    let path = folder.join(CRITIC_FILE);
    if !path.is_file() {
        let reason = "it is not there: the run was begun without algorithm.advantage = \"gae\"; use \
                      another run_dir, or grpo.resume = false";
        return Err(damaged(&path, reason));
    }
    let tensors =
        Tensor::read_safetensors(&path).map_err(|error| damaged(&path, &error.to_string()))?;
    if tensors.len() != parameters.len() {
        let reason = format!("{} tensors instead of {}", tensors.len(), parameters.len());
        return Err(damaged(&path, &reason));
    }
    for (name, tensor) in tensors {
        let Some(parameter) = parameters.get_mut(&name) else {
            return Err(damaged(&path, &format!("unknown tensor {name}")));
        };
        if parameter.size() != tensor.size() {
            return Err(damaged(&path, &format!("{name} has shape {:?}", tensor.size())));
        }
        tch::no_grad(|| parameter.copy_(&tensor));
    }
    read_moments(&folder.join(CRITIC_OPTIMIZER_FILE), optimizer)?;
    optimizer.updates = state.critic_updates;
    Ok(())
}

fn read_moments(path: &Path, optimizer: &mut AdamW) -> Result<(), CheckpointError> {
    let tensors =
        Tensor::read_safetensors(path).map_err(|error| damaged(path, &error.to_string()))?;
    let mut restored = 0;
    for (name, tensor) in tensors {
        let (moments, parameter) = match name.split_once('.') {
            Some(("first", parameter)) => (&mut optimizer.first, parameter),
            Some(("second", parameter)) => (&mut optimizer.second, parameter),
            _ => return Err(damaged(path, &format!("unknown tensor {name}"))),
        };
        let Some(moment) = moments.get_mut(parameter) else {
            return Err(damaged(path, &format!("moments of unknown parameter {parameter}")));
        };
        if moment.size() != tensor.size() {
            return Err(damaged(path, &format!("{name} has shape {:?}", tensor.size())));
        }
        moment.copy_(&tensor);
        restored += 1;
    }
    let expected = optimizer.first.len() + optimizer.second.len();
    if restored != expected {
        return Err(damaged(path, &format!("{restored} moments instead of {expected}")));
    }
    Ok(())
}
