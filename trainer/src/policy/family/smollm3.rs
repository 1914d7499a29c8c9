//! SmolLM3: every fourth layer sees no positions (NoPE).

use super::{Family, Features, listed_windows, window};
use crate::policy::config_keys::{Keys, ModelConfigError};
use crate::policy::layer_config::{Biases, LayerConfig};

pub(super) const SMOLLM3: Family = Family {
    model_type: "smollm3",
    architecture: "SmolLM3ForCausalLM",
    rope_theta: 2_000_000.0,
    tied_embeddings: true,
    head_dim: None,
    key_value_heads: Some(4),
    read: &[
        "attention_bias",
        "layer_types",
        "mlp_bias",
        "no_rope_layer_interval",
        "no_rope_layers",
        "sliding_window",
        "use_sliding_window",
    ],
    ignored: &["max_window_layers"],
    features,
};

/// Default of `no_rope_layer_interval`: one in this many layers has no positions.
const INTERVAL: i64 = 4;

fn features(keys: &Keys<'_>, layers: usize) -> Result<Features, ModelConfigError> {
    let attention = keys.flag("attention_bias", false)?;
    let rotary = rotary_layers(keys, layers)?;
    let window = window(keys, None)?;
    let is_used = keys.flag("use_sliding_window", false)?;
    // `use_sliding_window` only counts without a list.
    let windows = listed_windows(keys, layers, window)?.unwrap_or_else(|| {
        rotary.iter().map(|&rotary| window.filter(|_| is_used && !rotary)).collect()
    });
    let layers = rotary.iter().zip(windows);
    Ok(Features {
        biases: Biases::new(attention, keys.flag("mlp_bias", false)?),
        query_key_norm: false,
        layers: layers.map(|(&rotary, window)| LayerConfig { rotary, window }).collect(),
    })
}

/// Returns `true` for the layers with rotary positions. Despite its name, `no_rope_layers` is 1 for those.
fn rotary_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>, ModelConfigError> {
    let Some(listed) = keys.optional_list("no_rope_layers")? else {
        let interval = keys.optional_count("no_rope_layer_interval")?.unwrap_or(INTERVAL) as usize;
        return Ok((1..=layers).map(|layer| layer % interval != 0).collect());
    };
    let flags = listed.iter().take(layers).map(|flag| match flag.as_i64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    });
    flags
        .collect::<Option<Vec<bool>>>()
        .filter(|flags| flags.len() == layers)
        .ok_or_else(|| keys.refuse("no_rope_layers", "0 or 1 for each of num_hidden_layers"))
}
