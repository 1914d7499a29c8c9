//! Llama 2, 3, 3.1 and 3.2, and SmolLM2, which has the same architecture.

use super::{Family, Features, listed_windows, rotary};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: None,
    key_value_heads: None,
    read: &["attention_bias", "layer_types", "mlp_bias"],
    ignored: &["max_window_layers", "use_sliding_window"],
    features,
};

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    // A window has no effect on a forward pass of transformers, but its cache of keys follows it. So only null is
    // accepted for `sliding_window`.
    let windows = listed_windows(keys, layers, None)?;
    let attention = keys.flag("attention_bias", false)?;
    Ok(Features {
        biases: Biases::new(attention, keys.flag("mlp_bias", false)?),
        query_key_norm: false,
        layers: rotary(windows.unwrap_or_else(|| vec![None; layers])),
    })
}
