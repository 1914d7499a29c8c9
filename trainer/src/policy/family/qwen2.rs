//! Qwen2 and Qwen2.5: biases on queries, keys and values.

use super::{Family, Features, WINDOW, listed_windows, rotary, window};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::Biases;

pub(super) const QWEN2: Family = Family {
    model_type: "qwen2",
    architecture: "Qwen2ForCausalLM",
    rope_theta: 10_000.0,
    tied_embeddings: false,
    head_dim: None,
    key_value_heads: Some(32),
    read: WINDOW_KEYS,
    ignored: &["attention_bias", "mlp_bias"],
    features,
};

/// Default of `max_window_layers`, the number of layers without a window.
const FULL_LAYERS: usize = 28;

/// Keys of the windows of Qwen2.
const WINDOW_KEYS: &[&str] =
    &["layer_types", "max_window_layers", "sliding_window", "use_sliding_window"];

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    Ok(Features {
        biases: Biases { query_key_value: true, ..Biases::default() },
        query_key_norm: false,
        layers: rotary(windows_above(keys, layers)?),
    })
}

/// Reads the windows. Despite its name, `max_window_layers` is the first layer with one. Qwen3 does the same.
pub(super) fn windows_above(
    keys: &Keys<'_>,
    layers: usize,
) -> Result<Vec<Option<i64>>, ModelConfigError> {
    let full = keys.optional_index("max_window_layers")?.unwrap_or(FULL_LAYERS);
    let is_used = keys.flag("use_sliding_window", false)?;
    let window = window(keys, Some(WINDOW))?.filter(|_| is_used);
    let above = || (0..layers).map(|layer| window.filter(|_| layer >= full)).collect();
    Ok(listed_windows(keys, layers, window)?.unwrap_or_else(above))
}
