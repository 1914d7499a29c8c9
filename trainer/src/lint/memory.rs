//! What a run holds in memory and leaves on disk, in bytes.

use super::ModelFacts;
use crate::config::{ActivationCheckpoints, AdvantageEstimator, Config};
use crate::policy::CHUNK_TARGETS;

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
    let slots = config.rollout.max_sequences as u64;
    let row = [2, shape.layers.len() as u64, shape.key_value_heads as u64, shape.head_dim as u64];
    let cache = product(&[product(&row), slots, context, width]);
    held.push(part("cache", cache, format!("{slots} episodes of {context} tokens, when full")));

    let tokens = (config.update.tokens_per_micro_batch as u64).max(context);
    let vocabulary = shape.vocab_size as u64;
    let logits = tokens.min(CHUNK_TARGETS as u64);
    let update = vec![
        part("compute copy", copy, "inside the graph"),
        activations(config, model, tokens),
        part(
            "logits",
            product(&[logits, vocabulary, 12]),
            format!("at most: three of {logits} x {vocabulary} in f32"),
        ),
        part(
            "head gradient",
            product(&[vocabulary, shape.hidden_size as u64, 12]),
            format!("at most: three of {vocabulary} x {} in f32", shape.hidden_size),
        ),
    ];
    let mut checkpoint =
        vec![part("model", 4 * parameters, "f32"), part("optimizer", 8 * parameters, "f32")];
    if let Some(critic) = critic {
        checkpoint.push(part("critic", 12 * critic, "with its optimizer, f32"));
    }
    Memory { held, update, checkpoint }
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

/// What a pass of `tokens` keeps of its layers.
fn activations(config: &Config, model: &ModelFacts, tokens: u64) -> Part {
    let layers = model.config.layers.len() as u64;
    let of_layer = layer_token_bytes(model);
    match config.update.checkpoint_activations {
        ActivationCheckpoints::None => part(
            "activations",
            product(&[tokens, layers, of_layer]),
            format!("estimate: {tokens} tokens a pass"),
        ),
        ActivationCheckpoints::Layers => part(
            "activations",
            product(&[tokens, 4 * (layers + 1) * model.config.hidden_size as u64 + of_layer]),
            format!("estimate: {tokens} tokens a pass, layers' inputs and one layer"),
        ),
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
