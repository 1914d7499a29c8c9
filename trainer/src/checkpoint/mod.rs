//! Checkpoints: Hugging Face folders of a model or of adapters, with the state that a run needs to resume.
//!
//! Invariant: a folder `step-N` is whole or absent.
//! Invariant: every safetensors file directly in a folder belongs to the model or the adapters, since servers read all of
//! them. The state of a run is in a folder of its own.
//! Invariant: a run resumes from all bits of f32, whatever the format of the saved model.

mod restore;
mod retention;
mod rollout;
#[cfg(test)]
mod tests;

pub use restore::{
    Found, further, inputs, newest_first, restore_critic, restore_moments, restore_policy,
};
pub use retention::{Retention, remove, remove_leftovers};
pub use rollout::save_for_rollouts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::machine::atomic_file::{AtomicDir, AtomicError};
use tch::{Kind, Tensor};

use crate::policy::{
    ADAPTER_CONFIG_FILE, DESCRIBING_FILES, ModelPlace, Policy, SHARD_BYTES_MAX, TEMPLATES_FOLDER,
    WeightsError, write_adapters, write_weights,
};
use crate::update::AdamW;

/// Folder of the adapters, inside the folder of the model that they are merged into.
pub const ADAPTER_FOLDER: &str = "adapter";
/// Folder of the state of a run. Earlier versions wrote its files next to those of the model.
pub const STATE_FOLDER: &str = "state";
/// Weights in f32, written if the model is saved in fewer bits.
const MASTERS_FILE: &str = "masters.safetensors";

const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const CRITIC_FILE: &str = "critic.safetensors";
const CRITIC_OPTIMIZER_FILE: &str = "critic_optimizer.safetensors";
const CONFIG_FILE: &str = "config.json";
const STATE_FILE: &str = "trainer_state.json";
const INPUTS_FILE: &str = "inputs.json";

/// Digests of what a run was made from, by the name of what it is.
pub type Inputs = BTreeMap<String, Digest>;

/// Further files of a run's state, by their names in the folder of the state.
pub type StateFiles = BTreeMap<String, Vec<u8>>;

/// The position of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Number of completed training steps.
    pub step: u64,
    /// Number of optimizer updates.
    pub updates: u64,
    pub seed: u64,
    /// Number of questions drawn so far, if it is not the same in every step.
    #[serde(default)]
    pub questions_drawn: Option<u64>,
    /// Number of optimizer updates of the critic.
    #[serde(default)]
    pub critic_updates: u64,
    /// Bits of the divergence's weight, if a controller has changed it. Decimal text might not read back to the
    /// same number.
    #[serde(default)]
    pub kl_coefficient_bits: Option<u64>,
}

/// The format of a written model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveForm {
    /// Number format of the weights: f32, or else bf16. Adapters are always written in f32.
    pub kind: Kind,
    /// `true` if adapters are merged into a whole model and also written next to it, `false` if only adapters are
    /// written.
    pub merged: bool,
}

impl SaveForm {
    /// A whole model in f32.
    pub const WHOLE: Self = Self { kind: Kind::Float, merged: true };
}

/// The state that a run needs to resume, besides the policy.
#[derive(Clone, Copy, Debug)]
pub struct ResumeParts<'r> {
    pub optimizer: &'r AdamW,
    pub critic: Option<CriticParts<'r>>,
    pub state: TrainerState,
    pub inputs: &'r Inputs,
    /// Parts of the run that keep their state in a file of their own.
    pub files: &'r StateFiles,
}

/// The state of a critic.
#[derive(Clone, Copy, Debug)]
pub struct CriticParts<'r> {
    /// The trained parameters by name.
    pub parameters: &'r BTreeMap<String, Tensor>,
    pub optimizer: &'r AdamW,
}

/// The reason why a checkpoint could not be written or read.
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
    #[error(
        "{path} is from a run with other settings: {difference}; use another run_dir, or training.resume = false"
    )]
    OtherRun { path: PathBuf, difference: String },
    #[error(
        "{path} is from a run with other inputs: {difference}; use another run_dir, or training.resume = false to start \
         anew"
    )]
    OtherInputs { path: PathBuf, difference: String },
}

impl CheckpointError {
    /// Returns `true` if the files themselves cannot be read or are not whole, so that an earlier checkpoint may help.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::OtherRun { .. } | Self::OtherInputs { .. })
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}

/// Writes `policy` to `folder`, with the describing files of `source`, from which it was loaded, and with the state
/// in `resume`. Replaces an older `folder`.
///
/// # Errors
/// Fails if a file cannot be written. `folder` is then unchanged.
pub fn save(
    folder: &Path,
    policy: &Policy,
    source: &ModelPlace,
    form: SaveForm,
    resume: Option<ResumeParts<'_>>,
) -> Result<(), CheckpointError> {
    let new = AtomicDir::create(folder)?;
    let partial = new.path();
    match &policy.lora {
        Some(lora) if !form.merged => write_adapters(partial, lora)?,
        Some(lora) => {
            write_model(partial, policy, form.kind)?;
            let adapters = partial.join(ADAPTER_FOLDER);
            fs::create_dir(&adapters).map_err(io("create", &adapters))?;
            write_adapters(&adapters, lora)?;
            share_like(&adapters.join(ADAPTER_CONFIG_FILE), &adapters)?;
        }
        None => write_model(partial, policy, form.kind)?,
    }
    copy_describing(partial, source)?;
    if let Some(parts) = resume {
        write_state(&partial.join(STATE_FOLDER), policy, form, parts)?;
    }
    let has_model = policy.lora.is_none() || form.merged;
    let model = partial.join(if has_model { CONFIG_FILE } else { ADAPTER_CONFIG_FILE });
    share_like(&model, partial)?;
    for inner in [STATE_FOLDER, TEMPLATES_FOLDER].map(|name| partial.join(name)) {
        if inner.is_dir() {
            share_like(&model, &inner)?;
        }
    }
    Ok(new.commit()?)
}

/// Writes the state that a run needs to resume into the new folder `state`.
fn write_state(
    folder: &Path,
    policy: &Policy,
    form: SaveForm,
    parts: ResumeParts<'_>,
) -> Result<(), CheckpointError> {
    let ResumeParts { optimizer, critic, state, inputs, files } = parts;
    fs::create_dir(folder).map_err(io("create", folder))?;
    if policy.lora.is_none() && form.kind != Kind::Float {
        write_tensors(&folder.join(MASTERS_FILE), &named("", &policy.parameters))?;
    }
    write_moments(&folder.join(OPTIMIZER_FILE), optimizer)?;
    if let Some(CriticParts { parameters, optimizer }) = critic {
        write_tensors(&folder.join(CRITIC_FILE), &named("", parameters))?;
        write_moments(&folder.join(CRITIC_OPTIMIZER_FILE), optimizer)?;
    }
    for (name, text) in [
        (INPUTS_FILE, serde_json::to_vec_pretty(inputs)),
        (STATE_FILE, serde_json::to_vec_pretty(&state)),
    ] {
        let text = text.map_err(|error| damaged(folder, &error.to_string()))?;
        let path = folder.join(name);
        fs::write(&path, text).map_err(io("write", &path))?;
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(io("write", &path))?;
    }
    Ok(())
}

/// Gives every file of `folder` the access rights of `model`. The safetensors writer makes its files readable only
/// to the owner.
fn share_like(model: &Path, folder: &Path) -> Result<(), CheckpointError> {
    let permissions = fs::metadata(model).map_err(io("read", model))?.permissions();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        if path.is_file() {
            fs::set_permissions(&path, permissions.clone()).map_err(io("share", &path))?;
        }
    }
    Ok(())
}

/// Writes the weights, with adapters merged, and the configuration.
fn write_model(folder: &Path, policy: &Policy, kind: Kind) -> Result<(), CheckpointError> {
    let config = policy.config.source.clone();
    write_model_as(folder, &policy.merged_parameters(), config, kind)
}

/// Writes weights in `kind`, and the `config` of their model.
fn write_model_as(
    folder: &Path,
    parameters: &BTreeMap<String, Tensor>,
    mut config: serde_json::Value,
    kind: Kind,
) -> Result<(), CheckpointError> {
    write_weights(folder, parameters, kind, SHARD_BYTES_MAX)?;
    let word = match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    };
    // transformers 5 calls the key dtype, earlier versions torch_dtype.
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = word.into();
    let text =
        serde_json::to_vec_pretty(&config).map_err(|error| damaged(folder, &error.to_string()))?;
    let path = folder.join(CONFIG_FILE);
    fs::write(&path, text).map_err(io("write", &path))
}

/// Copies the files of the tokenizer and of generation, so that the folder is usable without its source.
fn copy_describing(folder: &Path, source: &ModelPlace) -> Result<(), CheckpointError> {
    for name in DESCRIBING_FILES {
        let from = source.folder_with(name).join(name);
        if from.is_file() {
            fs::copy(&from, folder.join(name)).map_err(io("copy", &from))?;
        }
    }
    let Some(templates) = source.subfolder(TEMPLATES_FOLDER) else { return Ok(()) };
    let copies = folder.join(TEMPLATES_FOLDER);
    fs::create_dir(&copies).map_err(io("create", &copies))?;
    for entry in fs::read_dir(&templates).map_err(io("list", &templates))? {
        let from = entry.map_err(io("list", &templates))?.path();
        if let Some(name) = from.file_name().filter(|_| from.is_file()) {
            fs::copy(&from, copies.join(name)).map_err(io("copy", &from))?;
        }
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

/// Returns every tensor with `prefix` before its name.
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
    Tensor::write_safetensors(tensors, path)
        .map_err(|error| io("write", path)(std::io::Error::other(error.to_string())))
}
