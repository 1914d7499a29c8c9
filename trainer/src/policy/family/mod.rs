//! The model families. Each has a file that translates its `config.json` into settings of the common parts.
//! Nothing is computed here.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod smollm3;

use super::config_keys::{Keys, ModelConfigError};
use super::layer_config::{Biases, LayerConfig};

/// A family of models, identified by its `model_type`.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    /// The class of transformers that loads such a folder.
    architecture: &'static str,
    /// Default base of the rotary wavelengths.
    pub(super) rope_theta: f64,
    /// `true` if the head is the embedding by default.
    pub(super) tied_embeddings: bool,
    /// Default width of a head. `None` means `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<i64>,
    /// Reads the family's own settings for a number of layers.
    pub(super) features: fn(&Keys<'_>, usize) -> Result<Features, ModelConfigError>,
}

/// Settings of a family beyond dimensions.
pub(super) struct Features {
    pub(super) biases: Biases,
    pub(super) query_key_norm: bool,
    pub(super) layers: Vec<LayerConfig>,
}

const FAMILIES: [&Family; 5] =
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

/// Reads the window of each layer from `use_sliding_window`, `sliding_window` and `layer_types`. Without the last,
/// the layers for which `slides` returns `true` have a window.
fn windows(
    keys: &Keys<'_>,
    layers: usize,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<i64>>, ModelConfigError> {
    let is_used = keys.flag("use_sliding_window", false)?;
    let window = if is_used { keys.optional_count("sliding_window")? } else { None };
    let Some(types) = keys.optional_list("layer_types")? else {
        return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
    };
    let refuse = |accepted| keys.refuse("layer_types", accepted);
    if types.len() < layers {
        return Err(refuse("full_attention or sliding_attention for each of num_hidden_layers"));
    }
    types[..layers]
        .iter()
        .map(|layer_type| match (layer_type.as_str(), window) {
            (Some("full_attention"), _) => Ok(None),
            (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
            (Some("sliding_attention"), None) => {
                Err(refuse("full_attention, unless use_sliding_window and sliding_window are set"))
            }
            _ => Err(refuse("full_attention or sliding_attention for each layer")),
        })
        .collect()
}
