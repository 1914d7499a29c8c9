//! The policy: a causal language model in tch, its weights and its log-probs.
//!
//! Owns architecture, weights and numeric types. Knows nothing about text, episodes or losses.
//! Invariant: master weights are f32. Passes compute with a cast of them ([`Weights`]).

mod config;
mod config_keys;
mod family;
mod known_keys;
mod layer_config;
mod rotary_config;

mod attention;
mod decoder;
mod feed_forward;
mod adapter;
mod linear;
mod lora;
mod norm;
mod rotary;

mod adapter_files;
mod adapter_keys;
mod adapter_plan;
mod checkpoint_files;
mod device;
mod expression;
mod headers;
mod host;
mod log_prob;
mod packing;
mod parameters;
mod pass;
mod tied_head;
#[cfg(test)]
pub(crate) mod tests;

pub use adapter_files::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterFolder, ModelPlace, base_name, write_adapters,
};
pub use attention::{Attention, LayerSpan, PackedCausalAttention, PromptGroup};
pub(crate) use attention::{attend_one, repeat_heads};
pub(crate) use checkpoint_files::{DESCRIBING_FILES, INDEX_FILE, SINGLE_FILE, TEMPLATES_FOLDER};
pub use checkpoint_files::{
    SHARD_BYTES_MAX, WeightsError, read_weights, weight_files, write_weights,
};
pub use config::ModelConfig;
pub use config_keys::ModelConfigError;
pub use decoder::{Decoder, LayerWeights, Weights};
pub use device::{Compute, DeviceError, select_compute, set_threads, threads};
pub use headers::stored_bytes;
pub(crate) use host::{HostLayer, HostLinear, HostMatrix, HostModel, HostRotations, HostWeights};
pub use layer_config::{Biases, LayerConfig};
pub use log_prob::{CHUNK_TARGETS, ScoredPass, TokenStatistics, token_statistics};
pub use lora::{AdapterConfig, BaseName, LORA_MODULES, Lora, LoraTargets};
pub(crate) use norm::RmsNorm;
pub use packing::MaskedTokens;
pub(crate) use packing::prompt_of;
pub(crate) use pass::PackedPass;
pub use rotary::{Rope, RopeScaling};

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use adapter_plan::{EMBEDDING, HEAD, weight_of};
use linear::Adapters;
use lora::parameter_of;

/// A trainable model: its configuration, its f32 master weights, and its device and compute type.
#[derive(Debug)]
pub struct Policy {
    pub config: ModelConfig,
    pub compute: Compute,
    /// Master weights by their Hugging Face name, f32. They are leaves of the autograd graph, or frozen if there
    /// are adapters.
    pub parameters: BTreeMap<String, Tensor>,
    /// Adapters that are trained instead of the master weights.
    pub lora: Option<Lora>,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json`, and weights in one or several safetensors files. Also
    /// reads a folder of adapters in PEFT's layout and merges them into their base.
    ///
    /// # Errors
    /// Fails on a missing or unsupported part, and names it with its file.
    pub fn load(folder: &Path, compute: Compute) -> Result<Self, WeightsError> {
        let place = ModelPlace::find(folder, None)?;
        let mut policy = Self::load_base(&place, compute)?;
        if let Some(adapters) = &place.adapters {
            policy.adapt(adapters.read(&policy.config)?);
            policy.merge();
        }
        Ok(policy)
    }

    /// Reads the base of `place` without its adapters.
    ///
    /// # Errors
    /// Fails as [`Self::load`] does.
    pub fn load_base(place: &ModelPlace, compute: Compute) -> Result<Self, WeightsError> {
        let config = ModelConfig::read(&place.base)?;
        if let Some(adapters) = &place.adapters {
            adapters.check(&config)?;
        }
        let parameters = read_weights(&place.base, &config, compute.device)?
            .into_iter()
            .map(|(name, tensor)| (name, tensor.set_requires_grad(true)))
            .collect();
        Ok(Self { config, compute, parameters, lora: None })
    }

    /// Freezes the weights and trains `lora` instead. Takes over the weights that were saved with the adapters. If
    /// they change only one of two tied matrices, the head becomes one of its own.
    pub fn adapt(&mut self, mut lora: Lora) {
        let device = self.compute.device;
        for (stored, tensor) in &lora.frozen {
            let name = parameter_of(stored, &self.config);
            self.parameters.insert(name, tensor.to_device(device));
        }
        if self.config.tied_embeddings && lora.plan.separates_head() {
            let embedding = self.parameters[&weight_of(EMBEDDING)].shallow_clone();
            self.parameters.insert(weight_of(HEAD), embedding);
            self.config.untie();
        }
        for tensor in self.parameters.values_mut() {
            *tensor = tensor.detach().set_requires_grad(false);
        }
        for tensor in lora.parameters.values_mut() {
            *tensor = tensor.detach().to_device(device).set_requires_grad(true);
        }
        self.lora = Some(lora);
    }

    /// Merges the adapters, if any, into the weights and makes the weights trainable.
    pub fn merge(&mut self) {
        if self.lora.is_some() {
            let merged = self.merged_parameters();
            let leaf = |(name, tensor): (String, Tensor)| (name, tensor.set_requires_grad(true));
            self.parameters = merged.into_iter().map(leaf).collect();
            self.lora = None;
        }
    }

    /// Returns the master weights with the adapters merged, f32, outside the graph. Weights without an adapter
    /// share the masters' storage.
    pub fn merged_parameters(&self) -> BTreeMap<String, Tensor> {
        let merged = |(name, tensor): (&String, &Tensor)| {
            let lora = self.lora.as_ref();
            let merged =
                lora.map_or_else(|| tensor.shallow_clone(), |lora| lora.merged(name, tensor));
            (name.clone(), merged.detach())
        };
        tch::no_grad(|| self.parameters.iter().map(merged).collect())
    }

    /// Returns the parameters that an optimizer changes, by name: the adapters if there are any, else all weights.
    pub fn trained(&self) -> &BTreeMap<String, Tensor> {
        self.lora.as_ref().map_or(&self.parameters, |lora| &lora.parameters)
    }

    /// Returns the parameters of [`Self::trained`] for changing.
    pub fn trained_mut(&mut self) -> &mut BTreeMap<String, Tensor> {
        match &mut self.lora {
            Some(lora) => &mut lora.parameters,
            None => &mut self.parameters,
        }
    }

    /// Casts the weights to the compute type. Under autograd the casts are part of the graph, so gradients reach
    /// the trained parameters. Cast once per update and do not keep the result beyond it. Adapters stay separate
    /// from the frozen weights.
    pub fn weights(&self) -> Weights {
        self.weights_with(self.lora.as_ref())
    }

    /// Casts the master weights as [`Self::weights`] does, with other adapters or none.
    pub fn weights_with(&self, lora: Option<&Lora>) -> Weights {
        let adapters = lora.map_or(Adapters::Off, Adapters::Beside);
        Weights::from_parameters(&self.config, &self.parameters, adapters, self.compute.kind)
    }

    /// Casts the weights outside the graph, for rollouts, with adapters merged. In f32, weights without adapters
    /// share the masters' storage; use [`Self::frozen_weights`] for a frozen copy.
    pub fn detached_weights(&self) -> Weights {
        let adapters = self.lora.as_ref().map_or(Adapters::Off, Adapters::Merged);
        let kind = self.compute.kind;
        tch::no_grad(|| Weights::from_parameters(&self.config, &self.parameters, adapters, kind))
    }

    /// Copies the weights; later updates do not change the copy.
    pub fn frozen_weights(&self) -> Weights {
        tch::no_grad(|| self.weights().deep_copy())
    }

    /// Copies the result of [`Self::detached_weights`]; later updates do not change the copy.
    pub fn rollout_snapshot(&self) -> Weights {
        tch::no_grad(|| self.detached_weights().deep_copy())
    }

    /// Counts the numbers in the master weights.
    pub fn parameter_count(&self) -> usize {
        self.parameters.values().map(Tensor::numel).sum()
    }

    /// Counts the numbers that an optimizer changes.
    pub fn trained_count(&self) -> usize {
        self.trained().values().map(Tensor::numel).sum()
    }
}
