//! `config.json` of a Hugging Face model folder, as far as the decoder needs it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Dimensions and constants of a Llama-architecture decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub layers: usize,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_epsilon: f64,
    pub rope_theta: f64,
    pub max_positions: usize,
    /// The output head is the embedding matrix.
    pub tied_embeddings: bool,
    /// The file as read, so that a saved checkpoint keeps every key.
    pub source: serde_json::Value,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    #[error(
        "cannot read {path}: {source} (a model folder holds config.json, model.safetensors and tokenizer.json)"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a model configuration: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{path}: {key} = {value} is not supported; accepted: {accepted}")]
    Unsupported { path: PathBuf, key: &'static str, value: String, accepted: &'static str },
}

/// The keys as written by transformers, old (`rope_theta`) and new (`rope_parameters`).
#[derive(Deserialize)]
struct RawConfig {
    model_type: String,
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
}

#[derive(Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

fn default_activation() -> String {
    "silu".to_owned()
}

impl ModelConfig {
    /// Reads and checks `folder/config.json`.
    ///
    /// # Errors
    /// A missing or malformed file, or an architecture that the decoder does not compute.
    pub fn read(folder: &Path) -> Result<Self, ModelConfigError> {
        let path = folder.join("config.json");
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelConfigError::Read { path: path.clone(), source })?;
        let parse = |source| ModelConfigError::Parse { path: path.clone(), source };
        let source: serde_json::Value = serde_json::from_slice(&bytes).map_err(parse)?;
        let raw: RawConfig = serde_json::from_value(source.clone()).map_err(parse)?;
        raw.check(&path)?;
        let rope = raw.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads),
            rms_norm_epsilon: raw.rms_norm_eps,
            rope_theta: rope.or(raw.rope_theta).unwrap_or(10_000.0),
            max_positions: raw.max_position_embeddings,
            tied_embeddings: raw.tie_word_embeddings,
            source,
        })
    }
}

impl RawConfig {
    fn check(&self, path: &Path) -> Result<(), ModelConfigError> {
        let refuse = |key, value: String, accepted| {
            Err(ModelConfigError::Unsupported { path: path.to_owned(), key, value, accepted })
        };
        if self.model_type != "llama" {
            return refuse("model_type", self.model_type.clone(), "llama");
        }
        if self.hidden_act != "silu" {
            return refuse("hidden_act", self.hidden_act.clone(), "silu");
        }
        if self.attention_bias || self.mlp_bias {
            return refuse("attention_bias or mlp_bias", "true".to_owned(), "false");
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|value| !value.is_null()) {
            return refuse("rope_scaling", scaling.to_string(), "null");
        }
        let rope_type = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = rope_type.filter(|&kind| kind != "default") {
            return refuse("rope_parameters.rope_type", kind.to_owned(), "default");
        }
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads.unwrap_or(1)),
            ("head_dim", self.head_dim.unwrap_or(2)),
        ];
        for (key, value) in positive {
            if value < 1 {
                return refuse(key, value.to_string(), "a number of at least 1");
            }
        }
        let key_value_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        if self.num_attention_heads % key_value_heads != 0 {
            let accepted = "a divisor of num_attention_heads";
            return refuse("num_key_value_heads", key_value_heads.to_string(), accepted);
        }
        if self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads) % 2 != 0 {
            return refuse("head_dim", "odd".to_owned(), "an even number (rotary halves)");
        }
        Ok(())
    }
}
