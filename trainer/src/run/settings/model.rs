//! The loading and saving of models.

use std::path::PathBuf;

use tch::Kind;

use crate::checkpoint::SaveForm;
use crate::config::{ActivationCheckpoints, CheckpointDtype, ComputeDtype, Config, DeviceChoice};
use crate::policy::AdapterConfig;
use crate::token::ChatDate;

/// The settings by which a model is loaded.
#[derive(Clone, Debug)]
pub(crate) struct ModelSettings {
    /// The base model of a folder of adapters, in place of the one that the folder names.
    pub(crate) base: Option<PathBuf>,
    pub(crate) chat_date: ChatDate,
    pub(crate) device: DeviceChoice,
    pub(crate) dtype: ComputeDtype,
    /// Threads that the model computes on; 0 takes one per core.
    pub(crate) threads: usize,
    /// Limit of an episode's tokens; the model's own limit holds as well.
    pub(crate) max_context_tokens: usize,
    /// Computes each layer again on the way back instead of keeping what it computed.
    pub(crate) recomputes_layers: bool,
    /// Prompts are wanted in the model's chat template.
    pub(crate) chat: bool,
    /// The adapters to train; without them the model's own weights are trained.
    pub(crate) adapters: Option<AdapterConfig>,
    /// Seed of new adapters.
    pub(crate) seed: u64,
}

/// Returns how `config` loads models.
pub(crate) fn model(config: &Config) -> ModelSettings {
    let layers = ActivationCheckpoints::Layers;
    ModelSettings {
        base: config.model.base.clone(),
        chat_date: config.model.chat_date,
        device: config.model.device,
        dtype: config.model.dtype,
        threads: if config.deterministic { 1 } else { config.threads },
        max_context_tokens: config.context_tokens(usize::MAX),
        recomputes_layers: config.update.checkpoint_activations == layers,
        chat: config.data.chat,
        adapters: adapters(config),
        seed: config.seed,
    }
}

/// Returns the adapters that `config` trains, if any.
fn adapters(config: &Config) -> Option<AdapterConfig> {
    let lora = &config.lora;
    (lora.rank > 0).then_some(AdapterConfig {
        rank: lora.rank,
        alpha: lora.alpha,
        rank_stabilised: lora.rslora,
        targets: lora.targets,
    })
}

/// Returns how `config` saves models.
pub(crate) fn save_form(config: &Config) -> SaveForm {
    let kind = match config.checkpoint.dtype {
        CheckpointDtype::F32 => Kind::Float,
        CheckpointDtype::Bf16 => Kind::BFloat16,
    };
    SaveForm { kind, merged: config.lora.merge_on_save }
}
