//! The model families. Each has a file that translates its `config.json` into settings of the common parts.
//! Nothing is computed here.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod smollm3;

use serde_json::Value;

use super::config_keys::{Keys, ModelConfigError};
use super::layer_config::{Biases, LayerConfig};

/// A family of models, identified by its `model_type`.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    /// The class of transformers that loads such a folder.
    pub(super) architecture: &'static str,
    /// Default base of the rotary wavelengths.
    pub(super) rope_theta: f64,
    /// `true` if the head is the embedding by default.
    pub(super) tied_embeddings: bool,
    /// Default width of a head. `None` means `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<i64>,
    /// Default number of key heads of a file without the key. `None` means as many as query heads, as null does.
    pub(super) key_value_heads: Option<i64>,
    /// Keys that `features` reads.
    pub(super) read: &'static [&'static str],
    /// Keys that the class of transformers for this family does not read, though others do.
    pub(super) ignored: &'static [&'static str],
    /// Reads the family's own settings for a number of layers.
    pub(super) features: fn(&Keys<'_>, usize) -> Result<Features, ModelConfigError>,
}

/// Settings of a family beyond dimensions.
pub(super) struct Features {
    pub(super) biases: Biases,
    pub(super) query_key_norm: bool,
    pub(super) layers: Vec<LayerConfig>,
}

/// Default of `sliding_window` in the classes of Qwen2, Qwen3 and Mistral.
const WINDOW: i64 = 4096;

pub(super) const FAMILIES: [&Family; 5] =
    [&llama::LLAMA, &qwen2::QWEN2, &qwen3::QWEN3, &mistral::MISTRAL, &smollm3::SMOLLM3];

/// Finds the family of `model_type`.
///
/// # Errors
/// Fails on an unknown type, or an architecture other than the family's language model.
pub(super) fn find(keys: &Keys<'_>) -> Result<&'static Family, ModelConfigError> {
    let model_type = keys.text("model_type")?;
    let family = FAMILIES.into_iter().find(|family| family.model_type == model_type);
    let family = family.ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        keys.refuse("model_type", &known.join(", "))
    })?;
    if let Some(named) = keys.optional_list("architectures")?
        && named.iter().any(|name| name != family.architecture)
    {
        return Err(keys.refuse("architectures", &format!("[\"{}\"]", family.architecture)));
    }
    Ok(family)
}

/// Creates layers with these windows that all use rotary positions.
fn rotary(windows: Vec<Option<i64>>) -> Vec<LayerConfig> {
    windows.into_iter().map(|window| LayerConfig { rotary: true, window }).collect()
}

/// Reads `layer_types`: the window of each layer, which is `window` for `sliding_attention`. Returns `None` without
/// the key.
fn listed_windows(
    keys: &Keys<'_>,
    layers: usize,
    window: Option<i64>,
) -> Result<Option<Vec<Option<i64>>>, ModelConfigError> {
    let Some(types) = keys.optional_list("layer_types")? else { return Ok(None) };
    let refuse = |accepted| keys.refuse("layer_types", accepted);
    if types.len() != layers {
        return Err(refuse("full_attention or sliding_attention for each of num_hidden_layers"));
    }
    let window_of = |layer_type: &Value| match (layer_type.as_str(), window) {
        (Some("full_attention" | "attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
        (Some("sliding_attention"), None) => {
            Err(refuse("full_attention, unless there is a sliding window"))
        }
        _ => Err(refuse("full_attention or sliding_attention for each layer")),
    };
    types.iter().map(window_of).collect::<Result<_, _>>().map(Some)
}

/// Reads `sliding_window`. Null means none, and a file without the key means `default`.
fn window(keys: &Keys<'_>, default: Option<i64>) -> Result<Option<i64>, ModelConfigError> {
    if keys.contains("sliding_window") {
        keys.optional_count("sliding_window")
    } else {
        Ok(default)
    }
}
