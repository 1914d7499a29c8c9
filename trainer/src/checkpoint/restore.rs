//! Finding a run's newest checkpoint, and restoring policy, optimizers and critic from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::{
    ADAPTER_FOLDER, CRITIC_FILE, CRITIC_OPTIMIZER_FILE, CheckpointError, INPUTS_FILE, Inputs,
    MASTERS_FILE, OPTIMIZER_FILE, STATE_FILE, STATE_FOLDER, TrainerState, damaged, io,
};
use crate::policy::{ADAPTER_CONFIG_FILE, AdapterFolder, ModelConfig, Policy, read_weights};
use crate::update::AdamW;

/// A checkpoint of a run, with its state as far as it can be read.
#[derive(Debug)]
pub struct Found {
    /// The number in the folder's name.
    pub step: u64,
    pub folder: PathBuf,
    pub state: Result<TrainerState, CheckpointError>,
}

/// Finds the checkpoints of `run_dir` that a run can resume from, the newest first.
///
/// # Errors
/// Fails if the directory cannot be read. A damaged state is returned with its checkpoint.
pub fn newest_first(run_dir: &Path) -> Result<Vec<Found>, CheckpointError> {
    let parent = run_dir.join("checkpoints");
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("list", &parent)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let folder = entry.map_err(io("list", &parent))?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let step = name.strip_prefix("step-").and_then(|step| step.parse().ok());
        let path = state_folder(&folder).join(STATE_FILE);
        if let Some(step) = step.filter(|_| path.is_file()) {
            found.push(Found { step, state: read_state(&path), folder });
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.step));
    Ok(found)
}

fn read_state(path: &Path) -> Result<TrainerState, CheckpointError> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))
}

/// Returns the folder with the state of a run in a checkpoint.
fn state_folder(folder: &Path) -> PathBuf {
    let state = folder.join(STATE_FOLDER);
    if state.is_dir() { state } else { folder.to_owned() }
}

/// Reads the digests of what the run of a checkpoint was made from. Earlier versions did not write them.
///
/// # Errors
/// Fails if the file cannot be read or is damaged.
pub fn inputs(folder: &Path) -> Result<Option<Inputs>, CheckpointError> {
    let path = state_folder(folder).join(INPUTS_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&path, &error.to_string()))
}

/// Reads a further file of the state, and parses it. `None` is a checkpoint without it.
///
/// # Errors
/// Fails if the file cannot be read or is damaged.
pub fn further<T>(
    folder: &Path,
    name: &str,
    parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> Result<Option<T>, CheckpointError> {
    let path = state_folder(folder).join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    parse(&bytes).map(Some).map_err(|error| damaged(&path, &error.to_string()))
}

/// Restores the weights or adapters of `policy` from `folder`.
///
/// # Errors
/// Fails on a missing or damaged file, weights of another model, or adapters that do not match those of `policy`.
pub fn restore_policy(folder: &Path, policy: &mut Policy) -> Result<(), CheckpointError> {
    let adapters = match AdapterFolder::find(&folder.join(ADAPTER_FOLDER))? {
        Some(adapters) => Some(adapters),
        None => AdapterFolder::find(folder)?,
    };
    match (&mut policy.lora, adapters) {
        (Some(lora), Some(saved)) => {
            let read = saved.read(&policy.config)?;
            if !read.is_like(lora) {
                let (read, own) = (read.config(), lora.config());
                let difference = if read == own {
                    "its adapters are on other modules than this run's".to_owned()
                } else {
                    format!("its adapters have {read}, this run's have {own}")
                };
                return Err(other_run(&saved.folder.join(ADAPTER_CONFIG_FILE), difference));
            }
            copy_tensors(&saved.folder, read.parameters, &mut lora.parameters)
        }
        (None, None) => {
            let masters = state_folder(folder).join(MASTERS_FILE);
            let tensors = if masters.is_file() {
                read_tensors(&masters)?
            } else {
                let config =
                    ModelConfig::read(folder).map_err(crate::policy::WeightsError::from)?;
                read_weights(folder, &config, policy.compute.device)?
            };
            copy_tensors(folder, tensors, &mut policy.parameters)
        }
        (Some(_), None) => {
            let difference = "it has no adapters, so the run began with lora.rank = 0".to_owned();
            Err(other_run(folder, difference))
        }
        (None, Some(saved)) => {
            let rank = saved.rank();
            let difference = format!("it has adapters, so the run began with lora.rank = {rank}");
            Err(other_run(folder, difference))
        }
    }
}

fn other_run(path: &Path, difference: String) -> CheckpointError {
    CheckpointError::OtherRun { path: path.to_owned(), difference }
}

fn wrong_shape(name: &str, saved: &Tensor, expected: &Tensor) -> String {
    format!("{name} has shape {:?}, this run's has {:?}", saved.size(), expected.size())
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let tensors =
        Tensor::read_safetensors(path).map_err(|error| damaged(path, &error.to_string()))?;
    Ok(tensors.into_iter().collect())
}

/// Copies each of `tensors`, read from `path`, into the parameter of the same name.
fn copy_tensors(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    parameters: &mut BTreeMap<String, Tensor>,
) -> Result<(), CheckpointError> {
    if tensors.len() != parameters.len() {
        let reason = format!("{} tensors instead of {}", tensors.len(), parameters.len());
        return Err(damaged(path, &reason));
    }
    for (name, tensor) in tensors {
        let Some(parameter) = parameters.get_mut(&name) else {
            return Err(damaged(path, &format!("unknown tensor {name}")));
        };
        if parameter.size() != tensor.size() {
            return Err(damaged(path, &wrong_shape(&name, &tensor, parameter)));
        }
        tch::no_grad(|| parameter.copy_(&tensor));
    }
    Ok(())
}

/// Restores the moments of `optimizer` from `folder`.
///
/// # Errors
/// Fails on a missing or damaged file, or moments of another model.
pub fn restore_moments(
    folder: &Path,
    state: TrainerState,
    optimizer: &mut AdamW,
) -> Result<(), CheckpointError> {
    read_moments(&state_folder(folder).join(OPTIMIZER_FILE), optimizer)?;
    optimizer.updates = state.updates;
    Ok(())
}

/// Restores the critic's `parameters` and `optimizer` from `folder`.
///
/// # Errors
/// Fails on a missing or damaged file, or a critic of another model.
pub fn restore_critic(
    folder: &Path,
    state: TrainerState,
    parameters: &mut BTreeMap<String, Tensor>,
    optimizer: &mut AdamW,
) -> Result<(), CheckpointError> {
    let state_folder = state_folder(folder);
    let path = state_folder.join(CRITIC_FILE);
    if !path.is_file() {
        let name = CRITIC_FILE;
        let difference =
            format!("{name} is missing, so the run began without algorithm.advantage = \"gae\"");
        return Err(other_run(folder, difference));
    }
    copy_tensors(&path, read_tensors(&path)?, parameters)?;
    read_moments(&state_folder.join(CRITIC_OPTIMIZER_FILE), optimizer)?;
    optimizer.updates = state.critic_updates;
    Ok(())
}

fn read_moments(path: &Path, optimizer: &mut AdamW) -> Result<(), CheckpointError> {
    let tensors = read_tensors(path)?;
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
            return Err(damaged(path, &wrong_shape(&name, &tensor, moment)));
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
