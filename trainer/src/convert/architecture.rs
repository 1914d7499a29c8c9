//! The shape of a Llama model: read from GGUF metadata, written as Hugging Face's `config.json`. Owns the
//! checks that make the shape consistent.

use serde::Serialize;

use super::dtype::Dtype;
use super::error::GgufError;
use super::metadata::Metadata;

const LAYERS_MAX: usize = 1_024;
const WIDTH_MAX: usize = 1_048_576;
const CONTEXT_MAX: usize = 1_073_741_824;
const ROPE_BASE_DEFAULT: f64 = 10_000.0;

/// Sizes and constants of a Llama model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Architecture {
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
    pub(super) bos: Option<u32>,
    pub(super) eos: u32,
    pub(super) pad: Option<u32>,
}

impl Architecture {
    pub(super) fn from_metadata(metadata: &Metadata<'_>) -> Result<Self, GgufError> {
        metadata.one_of("general.architecture", &["llama"])?;
        let vocabulary = metadata.texts("tokenizer.ggml.tokens")?.len();
        let hidden = metadata.size("llama.embedding_length", WIDTH_MAX)?;
        let heads = metadata.size("llama.attention.head_count", hidden)?;
        let token = |name: &str| token_id(metadata, name, vocabulary);
        let eos_key = "tokenizer.ggml.eos_token_id";
        let architecture = Self {
            layers: metadata.size("llama.block_count", LAYERS_MAX)?,
            hidden,
            feed_forward: metadata.size("llama.feed_forward_length", WIDTH_MAX)?,
            heads,
            key_value_heads: metadata
                .optional_size("llama.attention.head_count_kv", heads)?
                .unwrap_or(heads),
            head_size: metadata
                .optional_size("llama.attention.key_length", WIDTH_MAX)?
                .unwrap_or(hidden / heads),
            vocabulary,
            context_tokens: metadata.size("llama.context_length", CONTEXT_MAX)?,
            norm_epsilon: metadata.positive("llama.attention.layer_norm_rms_epsilon")?,
            rope_base: metadata
                .optional_positive("llama.rope.freq_base")?
                .unwrap_or(ROPE_BASE_DEFAULT),
            bos: token("tokenizer.ggml.bos_token_id")?,
            eos: token(eos_key)?
                .ok_or_else(|| GgufError::metadata(eos_key, "a token id", "nothing"))?,
            pad: token("tokenizer.ggml.padding_token_id")?,
        };
        architecture.check(metadata)?;
        Ok(architecture)
    }

    /// Refuses inconsistent shapes, and rotary embeddings that this `config.json` cannot describe.
    fn check(&self, metadata: &Metadata<'_>) -> Result<(), GgufError> {
        let divides = |key: &str, divisor: usize, multiple: usize, multiple_key: &str| {
            if multiple.is_multiple_of(divisor) {
                return Ok(());
            }
            let expected = format!("a divisor of {multiple_key}, {multiple}");
            Err(GgufError::metadata(key, expected, divisor.to_string()))
        };
        let heads_key = "llama.attention.head_count";
        divides("llama.attention.head_count_kv", self.key_value_heads, self.heads, heads_key)?;
        if metadata.optional_unsigned("llama.attention.key_length")?.is_none() {
            divides(heads_key, self.heads, self.hidden, "llama.embedding_length")?;
        }
        let rotary_key = "llama.rope.dimension_count";
        let rotary = metadata.optional_size(rotary_key, WIDTH_MAX)?.unwrap_or(self.head_size);
        if rotary != self.head_size || rotary % 2 != 0 {
            let expected = format!("an even number equal to the head size, {}", self.head_size);
            return Err(GgufError::metadata(rotary_key, expected, rotary.to_string()));
        }
        let scaling_key = "llama.rope.scaling.type";
        match metadata.optional_text(scaling_key)? {
            None | Some("none") => Ok(()),
            Some(scaling) => Err(GgufError::metadata(scaling_key, "none", scaling)),
        }
    }

    /// Returns the content of `config.json`. `tied` is `true` if the output layer is the embedding.
    pub(super) fn config(&self, tied: bool, dtype: Dtype) -> Config {
        Config {
            architectures: ["LlamaForCausalLM"],
            attention_bias: false,
            attention_dropout: 0.0,
            bos_token_id: self.bos,
            eos_token_id: self.eos,
            pad_token_id: self.pad,
            head_dim: self.head_size,
            hidden_act: "silu",
            hidden_size: self.hidden,
            initializer_range: 1.0 / (self.hidden as f64).sqrt(),
            intermediate_size: self.feed_forward,
            max_position_embeddings: self.context_tokens,
            mlp_bias: false,
            model_type: "llama",
            num_attention_heads: self.heads,
            num_hidden_layers: self.layers,
            num_key_value_heads: self.key_value_heads,
            rms_norm_eps: decimal(self.norm_epsilon),
            rope_scaling: None,
            rope_theta: decimal(self.rope_base),
            tie_word_embeddings: tied,
            torch_dtype: dtype.torch_name(),
            use_cache: true,
            vocab_size: self.vocabulary,
        }
    }

    /// Returns the content of `generation_config.json`.
    pub(super) fn generation_config(&self) -> GenerationConfig {
        GenerationConfig { bos_token_id: self.bos, eos_token_id: self.eos, pad_token_id: self.pad }
    }
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

/// The fields of Hugging Face's `config.json`.
#[expect(clippy::struct_excessive_bools, reason = "the file format has them")]
#[derive(Debug, Serialize)]
pub(super) struct Config {
    architectures: [&'static str; 1],
    attention_bias: bool,
    attention_dropout: f64,
    bos_token_id: Option<u32>,
    eos_token_id: u32,
    pad_token_id: Option<u32>,
    head_dim: usize,
    hidden_act: &'static str,
    hidden_size: usize,
    initializer_range: f64,
    intermediate_size: usize,
    max_position_embeddings: usize,
    mlp_bias: bool,
    model_type: &'static str,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    num_key_value_heads: usize,
    rms_norm_eps: f64,
    rope_scaling: Option<()>,
    rope_theta: f64,
    tie_word_embeddings: bool,
    torch_dtype: &'static str,
    use_cache: bool,
    vocab_size: usize,
}

/// The fields of `generation_config.json`.
#[expect(clippy::struct_field_names, reason = "the file format has them")]
#[derive(Debug, Serialize)]
pub(super) struct GenerationConfig {
    bos_token_id: Option<u32>,
    eos_token_id: u32,
    pad_token_id: Option<u32>,
}
