//! Dense Qwen3: query and key heads are normed, and the width of heads is a setting of its own.

use super::qwen2::windows_above;
use super::{Family, Features, rotary};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const QWEN3: Family = Family {
    model_type: "qwen3",
    architecture: "Qwen3ForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: Some(128),
    key_value_heads: Some(32),
    read: &[
        "attention_bias",
        "layer_types",
        "max_window_layers",
        "sliding_window",
        "use_sliding_window",
    ],
    ignored: &["mlp_bias"],
    features,
};

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    let attention = keys.flag("attention_bias", false)?;
    Ok(Features {
        biases: Biases::new(attention, false),
        query_key_norm: true,
        layers: rotary(windows_above(keys, layers)?),
    })
}
