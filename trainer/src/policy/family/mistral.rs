//! Mistral: every layer attends within `sliding_window`, if it is set.

use super::{Family, Features, rotary};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const MISTRAL: Family = Family {
    model_type: "mistral",
    architecture: "MistralForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: None,
    features,
};

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    let window = keys.optional_count("sliding_window")?;
    Ok(Features {
        biases: Biases::default(),
        query_key_norm: false,
        layers: rotary(vec![window; layers]),
    })
}
