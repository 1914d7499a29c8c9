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
mod norm;
mod rotary;

mod checkpoint_files;
mod device;
mod headers;
mod log_prob;
mod packing;
mod parameters;
mod pass;
#[cfg(test)]
pub(crate) mod tests;

pub use attention::{Attention, LayerSpan, PackedCausalAttention, PromptGroup};
pub(crate) use attention::{attend_one, repeat_heads};
pub(crate) use checkpoint_files::{DESCRIBING_FILES, INDEX_FILE, SINGLE_FILE};
pub use checkpoint_files::{
    SHARD_BYTES_MAX, WeightsError, read_weights, weight_files, write_weights,
};
pub use config::{Biases, LayerConfig, ModelConfig, ModelConfigError};
pub use decoder::{Decoder, LayerWeights, Weights};
pub use device::{Compute, DeviceError, select_compute, set_threads};
pub use headers::stored_bytes;
pub use log_prob::{CHUNK_TARGETS, ScoredPass, TokenStatistics, token_statistics};
pub use packing::MaskedTokens;
pub(crate) use packing::prompt_of;
pub(crate) use pass::Pass;
pub use rotary::{Rope, RopeScaling};

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

/// A trainable model: its configuration, its f32 master weights and how it computes.
#[derive(Debug)]
pub struct Policy {
    pub config: ModelConfig,
    pub compute: Compute,
    /// Master weights by their Hugging Face name, f32, leaves of the autograd graph.
    pub parameters: BTreeMap<String, Tensor>,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json` and weights in one safetensors file or several.
    ///
    /// # Errors
    /// Names the file and what is missing or unsupported.
    pub fn load(folder: &Path, compute: Compute) -> Result<Self, WeightsError> {
        let config = ModelConfig::read(folder)?;
        let parameters = read_weights(folder, &config, compute.device)?
            .into_iter()
            .map(|(name, tensor)| (name, tensor.set_requires_grad(true)))
            .collect();
        Ok(Self { config, compute, parameters })
    }

    /// The weights that compute, in the compute type. Under autograd the casts are part of the
    /// graph, so that gradients reach the f32 masters; cast once per update, never kept beyond it.
    pub fn weights(&self) -> Weights {
        Weights::from_parameters(&self.config, &self.parameters, self.compute.kind)
    }

    /// A copy of the weights outside the graph, for rollouts or as the frozen reference.
    /// In f32 the storage is the masters' own: a frozen copy then needs [`Self::frozen_weights`].
    pub fn detached_weights(&self) -> Weights {
        tch::no_grad(|| self.weights())
    }

    /// A copy of the weights that later updates do not touch.
    pub fn frozen_weights(&self) -> Weights {
        tch::no_grad(|| self.weights().deep_copy())
    }

    pub fn parameter_count(&self) -> usize {
        self.parameters.values().map(Tensor::numel).sum()
    }
}
