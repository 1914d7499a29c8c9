//! The policy: a causal language model in tch, its weights and its log-probs.
//!
//! Owns: architecture, weights, numeric types. Refuses to know about text, episodes or losses.
//! Invariant: master weights are f32; what computes is a cast of them ([`Weights`]).

mod config;
mod config_keys;
mod family;
mod rotary_config;

mod attention;
mod decoder;
mod feed_forward;
mod linear;
mod lora;
mod norm;
mod rotary;

mod adapter_files;
mod checkpoint_files;
mod device;
mod headers;
mod host;
mod log_prob;
mod packing;
mod parameters;
mod pass;
#[cfg(test)]
pub(crate) mod tests;

pub use adapter_files::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterFolder, ModelPlace, base_name, write_adapters,
};
pub use attention::{Attention, LayerSpan, PackedCausalAttention, PromptGroup};
pub(crate) use attention::{attend_one, repeat_heads};
pub(crate) use checkpoint_files::{DESCRIBING_FILES, INDEX_FILE, SINGLE_FILE};
pub use checkpoint_files::{
    SHARD_BYTES_MAX, WeightsError, read_weights, weight_files, write_weights,
};
pub use config::{Biases, LayerConfig, ModelConfig, ModelConfigError};
pub use decoder::{Decoder, LayerWeights, Weights};
pub use device::{Compute, DeviceError, select_compute, set_threads, threads};
pub use headers::stored_bytes;
pub(crate) use host::{HostLayer, HostLinear, HostMatrix, HostModel, HostRotations, HostWeights};
pub use log_prob::{CHUNK_TARGETS, ScoredPass, TokenStatistics, token_statistics};
pub use lora::{BaseName, LORA_MODULES, Lora, LoraConfig, LoraTargets};
pub(crate) use norm::RmsNorm;
pub use packing::MaskedTokens;
pub(crate) use packing::prompt_of;
pub(crate) use pass::Pass;
pub use rotary::{Rope, RopeScaling};

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use linear::Adapters;

/// A trainable model: its configuration, its f32 master weights and how it computes.
#[derive(Debug)]
pub struct Policy {
    pub config: ModelConfig,
    pub compute: Compute,
    /// Master weights by their Hugging Face name, f32; leaves of the autograd graph unless there are
    /// adapters, beside which they are frozen.
    pub parameters: BTreeMap<String, Tensor>,
    /// What is trained in place of the master weights, where that is so.
    pub lora: Option<Lora>,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json` and weights in one safetensors file or several;
    /// or a folder of adapters in PEFT's layout, which are merged into their base.
    ///
    /// # Errors
    /// Names the file and what is missing or unsupported.
    pub fn load(folder: &Path, compute: Compute) -> Result<Self, WeightsError> {
        let place = ModelPlace::find(folder, None)?;
        let mut policy = Self::load_base(&place, compute)?;
        if let Some(adapters) = &place.adapters {
            policy.adapt(adapters.read(&policy.config)?);
            policy.merge();
        }
        Ok(policy)
    }

    /// The base of `place` alone.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_base(place: &ModelPlace, compute: Compute) -> Result<Self, WeightsError> {
        let config = ModelConfig::read(&place.base)?;
        let parameters = read_weights(&place.base, &config, compute.device)?
            .into_iter()
            .map(|(name, tensor)| (name, tensor.set_requires_grad(true)))
            .collect();
        Ok(Self { config, compute, parameters, lora: None })
    }

    /// Freezes the weights and trains `lora` in their place.
    pub fn adapt(&mut self, mut lora: Lora) {
        let device = self.compute.device;
        for tensor in self.parameters.values_mut() {
            *tensor = tensor.detach().set_requires_grad(false);
        }
        for tensor in lora.parameters.values_mut() {
            *tensor = tensor.detach().to_device(device).set_requires_grad(true);
        }
        self.lora = Some(lora);
    }

    /// Puts the adapters, if there are any, into the weights, which can be trained from then on.
    pub fn merge(&mut self) {
        if self.lora.is_some() {
            let merged = self.merged_parameters();
            let leaf = |(name, tensor): (String, Tensor)| (name, tensor.set_requires_grad(true));
            self.parameters = merged.into_iter().map(leaf).collect();
            self.lora = None;
        }
    }

    /// The master weights with the adapters in them, f32, outside the graph; those that no adapter
    /// changes are the masters themselves.
    pub fn merged_parameters(&self) -> BTreeMap<String, Tensor> {
        let merged = |(name, tensor): (&String, &Tensor)| {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let lora = self.lora.as_ref();
            let found =
                lora.map_or_else(|| tensor.shallow_clone(), |one| one.merged(module, tensor));
            (name.clone(), found.detach())
        };
        tch::no_grad(|| self.parameters.iter().map(merged).collect())
    }

    /// What an optimizer moves, by name: the adapters where there are some, else all weights.
    pub fn trained(&self) -> &BTreeMap<String, Tensor> {
        self.lora.as_ref().map_or(&self.parameters, |lora| &lora.parameters)
    }

    /// As [`Self::trained`].
    pub fn trained_mut(&mut self) -> &mut BTreeMap<String, Tensor> {
        match &mut self.lora {
            Some(lora) => &mut lora.parameters,
            None => &mut self.parameters,
        }
    }

    /// The weights that compute, in the compute type. Under autograd the casts are part of the
    /// graph, so that gradients reach what is trained; cast once per update, never kept beyond it.
    /// Adapters are computed beside the frozen weights.
    pub fn weights(&self) -> Weights {
        self.weights_with(self.lora.as_ref())
    }

    /// The master weights with other adapters beside them, or with none.
    pub fn weights_with(&self, lora: Option<&Lora>) -> Weights {
        let adapters = lora.map_or(Adapters::Off, Adapters::Beside);
        Weights::from_parameters(&self.config, &self.parameters, adapters, self.compute.kind)
    }

    /// A copy of the weights outside the graph, for rollouts; adapters are merged into it.
    /// In f32 the storage of weights without adapters is the masters' own: a frozen copy then needs
    /// [`Self::frozen_weights`].
    pub fn detached_weights(&self) -> Weights {
        let adapters = self.lora.as_ref().map_or(Adapters::Off, Adapters::Merged);
        let kind = self.compute.kind;
        tch::no_grad(|| Weights::from_parameters(&self.config, &self.parameters, adapters, kind))
    }

    /// A copy of the weights that later updates do not touch.
    pub fn frozen_weights(&self) -> Weights {
        tch::no_grad(|| self.weights().deep_copy())
    }

    /// What [`Self::detached_weights`] gives, as a copy that later updates do not touch.
    pub fn rollout_snapshot(&self) -> Weights {
        tch::no_grad(|| self.detached_weights().deep_copy())
    }

    /// Numbers in the master weights.
    pub fn parameter_count(&self) -> usize {
        self.parameters.values().map(Tensor::numel).sum()
    }

    /// Numbers that an optimizer moves.
    pub fn trained_count(&self) -> usize {
        self.trained().values().map(Tensor::numel).sum()
    }
}
