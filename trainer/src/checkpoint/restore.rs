//! Puts a checkpoint back into what goes on from it.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::{
    ADAPTER_FOLDER, CRITIC_FILE, CRITIC_OPTIMIZER_FILE, CheckpointError, MASTERS_FILE,
    OPTIMIZER_FILE, TrainerState, damaged,
};
use crate::policy::{ADAPTER_CONFIG_FILE, AdapterFolder, ModelConfig, Policy, read_weights};
use crate::update::AdamW;

const ANOTHER_RUN: &str = "use another run_dir, or training.resume = false";

/// Puts the saved weights, or adapters, of `folder` into `policy`.
///
/// # Errors
/// A missing or damaged file, weights of another model, or a checkpoint of a run that trained adapters
/// where `policy` has none, none where it has some, or others.
pub fn restore_policy(folder: &Path, policy: &mut Policy) -> Result<(), CheckpointError> {
    let beside = folder.join(ADAPTER_FOLDER);
    let adapters = match AdapterFolder::find(&beside)? {
        None => AdapterFolder::find(folder)?,
        found => found,
    };
    match (&mut policy.lora, adapters) {
        (Some(lora), Some(saved)) => {
            if saved.config != lora.config {
                let (one, other) = (saved.config, lora.config);
                let reason = format!("its adapters have {one}, the run's {other}; {ANOTHER_RUN}");
                return Err(damaged(&saved.folder.join(ADAPTER_CONFIG_FILE), &reason));
            }
            let tensors = saved.read(&policy.config)?.parameters;
            put(&saved.folder, tensors, &mut lora.parameters)
        }
        (None, None) => {
            let masters = folder.join(MASTERS_FILE);
            let tensors = if masters.is_file() {
                read_tensors(&masters)?
            } else {
                let config =
                    ModelConfig::read(folder).map_err(crate::policy::WeightsError::from)?;
                read_weights(folder, &config, policy.compute.device)?
            };
            put(folder, tensors, &mut policy.parameters)
        }
        (Some(_), None) => {
            let reason = format!(
                "it has no adapters: the run was begun with lora.rank = 0; \
                                  {ANOTHER_RUN}"
            );
            Err(damaged(folder, &reason))
        }
        (None, Some(saved)) => {
            let reason = format!(
                "it has adapters: the run was begun with lora.rank = {}; \
                                  {ANOTHER_RUN}",
                saved.config.rank
            );
            Err(damaged(folder, &reason))
        }
    }
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let tensors =
        Tensor::read_safetensors(path).map_err(|error| damaged(path, &error.to_string()))?;
    Ok(tensors.into_iter().collect())
}

/// Copies every one of `tensors`, read from `path`, into the parameter of its name.
fn put(
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
            return Err(damaged(path, &format!("{name} has shape {:?}", tensor.size())));
        }
        tch::no_grad(|| parameter.copy_(&tensor));
    }
    Ok(())
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
        let reason = format!(
            "it is not there: the run was begun without algorithm.advantage = \"gae\"; {ANOTHER_RUN}"
        );
        return Err(damaged(&path, &reason));
    }
    put(&path, read_tensors(&path)?, parameters)?;
    read_moments(&folder.join(CRITIC_OPTIMIZER_FILE), optimizer)?;
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
