//! The shape of a model: read from GGUF metadata, written as Hugging Face's `config.json`. Owns the
//! checks that make the shape consistent, and the list of the metadata that is understood.

use serde_json::{Value as Json, json};

use super::dtype::Dtype;
use super::error::GgufError;
use super::gguf::Gguf;
use super::metadata::Metadata;
use super::rope;

const LAYERS_MAX: usize = 1_024;
const WIDTH_MAX: usize = 1_048_576;
const CONTEXT_MAX: usize = 1_073_741_824;
const ROPE_BASE_DEFAULT: f64 = 10_000.0;

/// Keys after `ARCHITECTURE.` that are read. A file with another one may compute something else.
const KEYS: [&str; 22] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "vocab_size",
];

/// The families of models that convert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Family {
    const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// Returns the name in both formats.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// Sizes and constants of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Architecture {
    pub(super) family: Family,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) feed_forward: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_size: usize,
    pub(super) vocabulary: usize,
    pub(super) context_tokens: usize,
    norm_epsilon: f64,
    rope_base: f64,
    rope_scaling: Json,
    pub(super) bos: Option<u32>,
    pub(super) eos: u32,
    pub(super) pad: Option<u32>,
}

impl Architecture {
    pub(super) fn read(gguf: &Gguf<'_>) -> Result<Self, GgufError> {
        let metadata = &gguf.metadata;
        let names = Family::ALL.map(Family::name);
        let name = metadata.one_of("general.architecture", &names)?;
        let family = Family::ALL.into_iter().find(|family| family.name() == name);
        let family = family.expect("the name is one of the list");
        let key = |part: &str| format!("{name}.{part}");
        check_keys(metadata, name)?;
        let vocabulary = metadata.texts("tokenizer.ggml.tokens")?.len();
        let hidden = metadata.size(&key("embedding_length"), WIDTH_MAX)?;
        let heads = metadata.size(&key("attention.head_count"), hidden)?;
        let head_size = metadata.optional_size(&key("attention.key_length"), WIDTH_MAX)?;
        let token = |name: &str| token_id(metadata, name, vocabulary);
        let eos_key = "tokenizer.ggml.eos_token_id";
        let mut architecture = Self {
            family,
            layers: metadata.size(&key("block_count"), LAYERS_MAX)?,
            hidden,
            feed_forward: metadata.size(&key("feed_forward_length"), WIDTH_MAX)?,
            heads,
            key_value_heads: metadata
                .optional_size(&key("attention.head_count_kv"), heads)?
                .unwrap_or(heads),
            head_size: head_size.unwrap_or(hidden / heads),
            vocabulary,
            context_tokens: metadata.size(&key("context_length"), CONTEXT_MAX)?,
            norm_epsilon: metadata.positive(&key("attention.layer_norm_rms_epsilon"))?,
            rope_base: metadata
                .optional_positive(&key("rope.freq_base"))?
                .unwrap_or(ROPE_BASE_DEFAULT),
            rope_scaling: Json::Null,
            bos: token("tokenizer.ggml.bos_token_id")?,
            eos: token(eos_key)?
                .ok_or_else(|| GgufError::metadata(eos_key, "a token id", "nothing"))?,
            pad: token("tokenizer.ggml.padding_token_id")?,
        };
        architecture.check(metadata)?;
        architecture.rope_scaling = rope::scaling(
            gguf,
            name,
            architecture.head_size,
            decimal(architecture.rope_base),
            architecture.context_tokens,
        )?;
        Ok(architecture)
    }

    /// Refuses inconsistent shapes, and what `config.json` cannot describe.
    fn check(&self, metadata: &Metadata<'_>) -> Result<(), GgufError> {
        let key = |part: &str| format!("{}.{part}", self.family.name());
        let divides = |key: &str, divisor: usize, multiple: usize, multiple_key: &str| {
            if multiple.is_multiple_of(divisor) {
                return Ok(());
            }
            let expected = format!("a divisor of {multiple_key}, {multiple}");
            Err(GgufError::metadata(key, expected, divisor.to_string()))
        };
        let heads_key = key("attention.head_count");
        divides(&key("attention.head_count_kv"), self.key_value_heads, self.heads, &heads_key)?;
        if metadata.optional_unsigned(&key("attention.key_length"))?.is_none() {
            divides(&heads_key, self.heads, self.hidden, &key("embedding_length"))?;
        }
        let same = |name: &str, expected: usize, meaning: &str| {
            let found = metadata.optional_size(&key(name), WIDTH_MAX)?.unwrap_or(expected);
            if found == expected {
                return Ok(());
            }
            Err(GgufError::metadata(key(name), format!("{meaning}, {expected}"), found.to_string()))
        };
        same("rope.dimension_count", self.head_size, "an even number equal to the head size")?;
        same("attention.value_length", self.head_size, "the head size")?;
        same("vocab_size", self.vocabulary, "the number of tokens")?;
        if !self.head_size.is_multiple_of(2) {
            let found = self.head_size.to_string();
            return Err(GgufError::metadata(key("attention.key_length"), "an even number", found));
        }
        match metadata.optional_bool(&key("attention.causal"))? {
            None | Some(true) => Ok(()),
            Some(false) => Err(GgufError::metadata(key("attention.causal"), "true", "false")),
        }
    }

    /// Returns the content of `config.json`. `tied` is `true` if the output layer is the embedding; `biases` tells
    /// if attention and feed-forward have biases.
    pub(super) fn config(&self, tied: bool, biases: (bool, bool), dtype: Dtype) -> Json {
        let mut config = json!({
            "architectures": [self.family.class()],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "eos_token_id": self.eos,
            "pad_token_id": self.pad,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 1.0 / (self.hidden as f64).sqrt(),
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.context_tokens,
            "model_type": self.family.name(),
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": decimal(self.norm_epsilon),
            "rope_scaling": self.rope_scaling,
            "rope_theta": decimal(self.rope_base),
            "tie_word_embeddings": tied,
            "torch_dtype": dtype.torch_name(),
            "use_cache": true,
            "vocab_size": self.vocabulary,
        });
        match self.family {
            Family::Llama => {
                config["attention_bias"] = json!(biases.0);
                config["mlp_bias"] = json!(biases.1);
            }
            Family::Qwen2 => config["use_sliding_window"] = json!(false),
            Family::Qwen3 => {
                config["attention_bias"] = json!(biases.0);
                config["use_sliding_window"] = json!(false);
            }
        }
        config
    }

    /// Returns the content of `generation_config.json`.
    pub(super) fn generation_config(&self) -> Json {
        json!({"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad})
    }
}

/// Refuses metadata about the model that is not understood, unless it is a number of 0.
fn check_keys(metadata: &Metadata<'_>, architecture: &str) -> Result<(), GgufError> {
    let parts = metadata
        .keys()
        .filter_map(|key| key.strip_prefix(architecture).and_then(|rest| rest.strip_prefix('.')));
    for part in parts.filter(|part| !KEYS.contains(part)) {
        let key = format!("{architecture}.{part}");
        if metadata.optional_unsigned(&key) != Ok(Some(0)) {
            return Err(metadata.wrong(&key, "no such key (it may change what the model computes)"));
        }
    }
    Ok(())
}

/// Returns the shortest decimal that a 32-bit number represents: 1e-5, not 9.999999747378752e-6.
fn decimal(value: f64) -> f64 {
    (value as f32).to_string().parse().expect("the text of a number is a number")
}

fn token_id(
    metadata: &Metadata<'_>,
    key: &str,
    vocabulary: usize,
) -> Result<Option<u32>, GgufError> {
    match metadata.optional_unsigned(key)? {
        None => Ok(None),
        Some(id) => match u32::try_from(id) {
            Ok(small) if (small as usize) < vocabulary => Ok(Some(small)),
            _ => {
                let expected = format!("a token id below {vocabulary}");
                Err(GgufError::metadata(key, expected, id.to_string()))
            }
        },
    }
}
