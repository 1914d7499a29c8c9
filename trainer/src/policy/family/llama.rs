//! Llama 2, 3, 3.1 and 3.2, and SmolLM2, which has the same architecture.

use super::{Family, Features, rotary};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: None,
    features,
};

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    let attention = keys.flag("attention_bias", false)?;
    Ok(Features {
        biases: Biases::new(attention, keys.flag("mlp_bias", false)?),
        query_key_norm: false,
        layers: rotary(vec![None; layers]),
    })
}
