//! Mistral: every layer attends within `sliding_window`, unless it is null or `layer_types` names layers without it.

use super::{Family, Features, WINDOW, listed_windows, rotary, window};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const MISTRAL: Family = Family {
    model_type: "mistral",
    architecture: "MistralForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: None,
    key_value_heads: Some(8),
    read: &["layer_types", "sliding_window"],
    ignored: &["attention_bias", "max_window_layers", "mlp_bias", "use_sliding_window"],
    features,
};

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    let window = window(keys, Some(WINDOW))?;
    let listed = listed_windows(keys, layers, window)?;
    Ok(Features {
        biases: Biases::default(),
        query_key_norm: false,
        layers: rotary(listed.unwrap_or_else(|| vec![window; layers])),
    })
}
