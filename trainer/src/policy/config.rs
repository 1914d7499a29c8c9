//! The part of a Hugging Face model folder's `config.json` that the decoder needs. Differences between
//! families are in `family`.

use std::path::Path;

use super::config_keys::{Keys, ModelConfigError};
use super::family;
use super::known_keys;
use super::layer_config::{Biases, LayerConfig};
use super::rotary::Rope;
use super::rotary_config;
use super::tied_head;

/// Dimensions and constants of a decoder of any family.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_epsilon: f64,
    pub rope: Rope,
    pub max_positions: usize,
    /// `true` if the output head is the embedding matrix: if `config.json` says so, and the weights hold no other.
    pub tied_embeddings: bool,
    pub biases: Biases,
    /// `true` if query and key heads are normed before the rotation.
    pub query_key_norm: bool,
    /// Settings of each layer, from the embedding on.
    pub layers: Vec<LayerConfig>,
    /// The file as read. Saved checkpoints keep all its keys.
    pub source: serde_json::Value,
}

impl ModelConfig {
    /// Reads and checks `folder/config.json`.
    ///
    /// # Errors
    /// Fails on a missing or malformed file, or an architecture that the decoder does not support.
    pub fn read(folder: &Path) -> Result<Self, ModelConfigError> {
        let path = folder.join("config.json");
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelConfigError::Read { path: path.clone(), source })?;
        let mut values: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes)
            .map_err(|source| ModelConfigError::Parse { path: path.clone(), source })?;
        let mut config = Self::from_keys(&Keys::new(&path, &values))?;
        if config.tied_embeddings && tied_head::differs(folder) {
            config.tied_embeddings = false;
            // Other programs would tie the weights of a saved checkpoint again.
            values.insert("tie_word_embeddings".to_owned(), serde_json::Value::Bool(false));
        }
        config.source = serde_json::Value::Object(values);
        Ok(config)
    }

    /// Gives the model an output head of its own.
    pub(super) fn untie(&mut self) {
        self.tied_embeddings = false;
        if let Some(keys) = self.source.as_object_mut() {
            keys.insert("tie_word_embeddings".to_owned(), false.into());
        }
    }

    /// Reads everything except `source`.
    fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelConfigError> {
        let family = family::find(keys)?;
        known_keys::check(keys, family.read, family.ignored)?;
        check_common(keys)?;
        let hidden_size = keys.count("hidden_size")?;
        let heads = keys.count("num_attention_heads")?;
        let key_value_heads = match family.key_value_heads {
            Some(default) if !keys.contains("num_key_value_heads") => default,
            _ => keys.optional_count("num_key_value_heads")?.unwrap_or(heads),
        };
        if heads % key_value_heads != 0 {
            return Err(keys.refuse("num_key_value_heads", "a divisor of num_attention_heads"));
        }
        if family.head_dim.is_some()
            && keys.contains("head_dim")
            && keys.value("head_dim").is_none()
        {
            return Err(keys.refuse("head_dim", "an even number, or no such key"));
        }
        let head_dim = match keys.optional_count("head_dim")?.or(family.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => return Err(keys.refuse("num_attention_heads", "a divisor of hidden_size")),
        };
        if head_dim % 2 != 0 {
            return Err(keys.refuse("head_dim", "an even number (positions turn pairs)"));
        }
        let layers = keys.count("num_hidden_layers")? as usize;
        let max_positions = keys.count("max_position_embeddings")?;
        let features = (family.features)(keys, layers)?;
        Ok(Self {
            vocab_size: keys.count("vocab_size")?,
            hidden_size,
            intermediate_size: keys.count("intermediate_size")?,
            heads,
            key_value_heads,
            head_dim,
            rms_norm_epsilon: keys.positive("rms_norm_eps")?,
            rope: rotary_config::read(keys, family.rope_theta, max_positions as f64)?,
            max_positions: max_positions as usize,
            tied_embeddings: keys.flag("tie_word_embeddings", family.tied_embeddings)?,
            biases: features.biases,
            query_key_norm: features.query_key_norm,
            layers: features.layers,
            source: serde_json::Value::Null,
        })
    }
}

/// Checks settings with the same meaning in every family. The decoder supports one value of each.
fn check_common(keys: &Keys<'_>) -> Result<(), ModelConfigError> {
    if keys
        .optional_text("hidden_act")?
        .is_some_and(|activation| activation != "silu" && activation != "swish")
    {
        return Err(keys.refuse("hidden_act", "silu"));
    }
    for (key, neutral) in [("attention_dropout", 0.0), ("partial_rotary_factor", 1.0)] {
        if keys.value(key).is_some_and(|value| value.as_f64() != Some(neutral)) {
            return Err(keys.refuse(key, &neutral.to_string()));
        }
    }
    if keys.value("quantization_config").is_some() {
        let accepted = "nothing (weights in F32, F16 or BF16)";
        return Err(keys.refuse("quantization_config", accepted));
    }
    Ok(())
}
