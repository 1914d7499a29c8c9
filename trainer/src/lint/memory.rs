//! What a run holds in memory and leaves on disk, in bytes.

use super::ModelFacts;
use crate::config::{AdvantageEstimator, Config};
use crate::engine::{BLOCK_TOKENS, BuiltinEngineConfig, cache_tokens};

/// One thing that takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub bytes: u64,
    /// How it is computed.
    pub how: String,
}

/// Memory of a run by phase, and its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Held from the first update on; the rollout needs little more.
    pub held: Vec<Part>,
    /// Held in addition while a micro-batch is computed, at most.
    pub update: Vec<Part>,
    /// Tensors of one checkpoint.
    pub checkpoint: Vec<Part>,
}

impl Memory {
    /// Sum of parts.
    pub fn total(parts: &[Part]) -> u64 {
        parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

fn part(name: &'static str, bytes: u64, how: impl Into<String>) -> Part {
    Part { name, bytes, how: how.into() }
}

/// Multiplies counts that a configuration may make as large as it likes.
fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, &factor| product.saturating_mul(factor))
}

/// The parts of a run of `config` with `model`. Parameters, moments, caches and checkpoints are exact;
/// what the backward pass keeps is an estimate from the architecture.
pub fn memory(config: &Config, model: &ModelFacts) -> Memory {
    let shape = &model.config;
    let parameters = shape.parameter_count();
    let width = model.compute_bytes;
    let critic = (config.algorithm.advantage == AdvantageEstimator::Gae).then(|| {
        let head = if shape.tied_embeddings { 0 } else { shape.vocabulary_count() };
        parameters - head + shape.hidden_size as u64 + 1
    });
    let copy = compute_copy(model);
    let mut held = vec![
        part("weights", 4 * parameters, format!("f32, {parameters} parameters")),
        part("gradients", 4 * parameters, "f32"),
        part("moments", 8 * parameters, "two of AdamW, f32"),
        part("sampler", copy, "what computes and is not the weights' own memory"),
    ];
    if config.grpo.kl_coefficient > 0.0 {
        let norms_and_biases = parameters
            - shape.layer_matrix_count()
            - shape.vocabulary_count() * if shape.tied_embeddings { 1 } else { 2 };
        let bytes = 4 * (shape.vocabulary_count() + norms_and_biases)
            + width * (shape.layer_matrix_count() + shape.vocabulary_count());
        held.push(part("reference", bytes, "a frozen copy, for the divergence"));
    }
    if let Some(critic) = critic {
        let how = format!("weights, gradients, moments of {critic} parameters, f32");
        held.push(part("critic", 16 * critic, how));
    }
    let context = config.context_tokens(shape.max_positions) as u64;
    let (blocks, how) = cache_blocks(config, context as usize, shape.cached_token_bytes(width));
    let block = [BLOCK_TOKENS as u64, shape.cached_token_bytes(width)];
    held.push(part("cache", product(&[blocks, product(&block)]), how));

    let tokens = (config.update.tokens_per_micro_batch as u64).max(context);
    let vocabulary = shape.vocab_size as u64;
    let update = vec![
        part("compute copy", copy, "inside the graph"),
        part(
            "activations",
            product(&[tokens, shape.layers.len() as u64, layer_token_bytes(model)]),
            format!("estimate: {tokens} tokens a pass"),
        ),
        part(
            "logits",
            product(&[tokens, vocabulary, 12]),
            format!("at most: three of {tokens} x {vocabulary} in f32, every token sampled"),
        ),
    ];
    let mut checkpoint =
        vec![part("model", 4 * parameters, "f32"), part("optimizer", 8 * parameters, "f32")];
    if let Some(critic) = critic {
        checkpoint.push(part("critic", 12 * critic, "with its optimizer, f32"));
    }
    Memory { held, update, checkpoint }
}

/// Blocks of keys and values in the pool, and what they hold.
fn cache_blocks(config: &Config, context: usize, token_bytes: u64) -> (u64, String) {
    let rollout = &config.rollout;
    let engine = BuiltinEngineConfig {
        max_sequences: rollout.max_sequences,
        max_context_tokens: context,
        max_prefill_tokens: rollout.max_prefill_tokens,
        cache_tokens: cache_tokens(rollout.kv_cache_mib, token_bytes),
        share_prompts: true,
    };
    let blocks = engine.pool_blocks();
    let episodes = blocks / context.div_ceil(BLOCK_TOKENS).max(1);
    (blocks as u64, format!("{episodes} episodes of {context} tokens, when full"))
}

/// Bytes of the weights that compute and share no memory with the masters: in f32 the matrices that are
/// joined, else a cast of every matrix and of the head.
fn compute_copy(model: &ModelFacts) -> u64 {
    let shape = &model.config;
    match model.compute_bytes {
        4 => 4 * shape.joined_matrix_count(),
        width => width * (shape.layer_matrix_count() + shape.vocabulary_count()),
    }
}

/// Bytes that a layer keeps of a token for the backward pass, estimated: the residual twice and its
/// norms in f32; their casts, query, key, value, what attention returns, and gate, up, their product
/// and the gate's activation in the compute type. Attention keeps no scores.
fn layer_token_bytes(model: &ModelFacts) -> u64 {
    let shape = &model.config;
    let [hidden, inner, heads, key_value_heads, head] = [
        shape.hidden_size,
        shape.intermediate_size,
        shape.heads,
        shape.key_value_heads,
        shape.head_dim,
    ]
    .map(|size| size as u64);
    let query = heads * head;
    let key = key_value_heads * head;
    let casts = if model.compute_bytes == 4 { 0 } else { 2 * hidden };
    16 * hidden + model.compute_bytes * (casts + 3 * query + 4 * key + 4 * inner)
}
