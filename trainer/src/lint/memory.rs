//! What a run holds in memory and leaves on disk, in bytes.

use tch::Kind;

use super::ModelFacts;
use crate::config::{ActivationCheckpoints, CheckpointDtype, Config, EngineKind, KlPlacement};
use crate::engine::{
    BLOCK_TOKENS, BuiltinEngineConfig, WeightFormat, cache_tokens, cached_number_bytes,
};
use crate::policy::{CHUNK_TARGETS, LoraTargets};

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
    /// Held in the host's memory, where the model computes elsewhere.
    pub host: Vec<Part>,
    /// Held in addition while log-probs and values are computed before the updates, at most; empty
    /// where none are.
    pub scoring: Vec<Part>,
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

/// Numbers that are trained, which take a gradient and two moments.
struct Trained {
    policy: u64,
    /// Of a critic, if there is one.
    critic: Option<u64>,
}

impl Trained {
    fn of(config: &Config, model: &ModelFacts) -> Self {
        let (shape, lora) = (&model.config, &config.lora);
        let (policy, of_critic) = if lora.rank > 0 {
            let adapters = shape.adapter_count(lora.rank, lora.targets);
            (adapters, adapters)
        } else {
            let head = if shape.tied_embeddings { 0 } else { shape.vocabulary_count() };
            (shape.parameter_count(), shape.parameter_count() - head)
        };
        let has_critic = config.algorithm.advantage.has_critic();
        let value_head = shape.hidden_size as u64 + 1;
        Self { policy, critic: has_critic.then_some(of_critic + value_head) }
    }
}

/// The parts of a run of `config` with `model`. Parameters, moments, caches and checkpoints are exact,
/// packed weights but for what fills up their panels; what the backward pass keeps is an estimate from
/// the architecture.
pub fn memory(config: &Config, model: &ModelFacts) -> Memory {
    let shape = &model.config;
    let width = model.compute_bytes;
    let trained = Trained::of(config, model);
    let copy = compute_copy(model);
    let context = config.context_tokens(shape.max_positions) as u64;
    let tokens = (config.update.tokens_per_micro_batch as u64).max(context);
    let vocabulary = shape.vocab_size as u64;
    let chunk = tokens.min(CHUNK_TARGETS as u64);
    let logits = |count: u64, what: &str| {
        let how = format!("at most: {what} of {chunk} x {vocabulary} in f32");
        part("logits", product(&[chunk, vocabulary, 4 * count]), how)
    };
    let mut update = vec![
        part("compute copy", copy, "inside the graph"),
        activations(config, model, tokens),
        logits(3, "three"),
    ];
    // Adapters leave the head as it is.
    if config.lora.rank == 0 {
        let how = format!("at most: three of {vocabulary} x {} in f32", shape.hidden_size);
        let bytes = product(&[vocabulary, shape.hidden_size as u64, 12]);
        update.push(part("head gradient", bytes, how));
    }
    let has_old = config.step_updates() > 1 || config.algorithm.kl_placement == KlPlacement::Reward;
    let mut scoring = Vec::new();
    if has_old || config.training.kl_coefficient > 0.0 {
        // A frozen copy computes by itself; the policy's weights are cast, and so are those of the base.
        if has_old || config.lora.rank > 0 {
            scoring.push(part("compute copy", copy, "of what is scored"));
        }
        scoring.push(logits(4, "four"));
    } else if trained.critic.is_some() {
        scoring.push(part("compute copy", copy, "of the critic"));
    }
    let kind = if width == 4 { Kind::Float } else { Kind::BFloat16 };
    let token_bytes = shape.cached_token_bytes(cached_number_bytes(model.packed, kind));
    let (mut held, host) = held(config, model, &trained);
    if config.engine.kind == EngineKind::Builtin {
        let (blocks, how) = cache_blocks(config, context as usize, token_bytes);
        held.push(part("cache", product(&[blocks, BLOCK_TOKENS as u64, token_bytes]), how));
    }
    Memory { held, host, scoring, update, checkpoint: checkpoint(config, model, &trained) }
}

/// What is held whatever is computed, but for the sampler's cache; and what of it is in the host's memory,
/// where the model is elsewhere.
fn held(config: &Config, model: &ModelFacts, trained: &Trained) -> (Vec<Part>, Vec<Part>) {
    let (shape, width) = (&model.config, model.compute_bytes);
    let parameters = shape.parameter_count();
    let is_adapted = config.lora.rank > 0;
    let frozen = if is_adapted { ", frozen" } else { "" };
    let mut held =
        vec![part("weights", 4 * parameters, format!("f32, {parameters} parameters{frozen}"))];
    if is_adapted {
        let how = format!("f32, {} parameters", trained.policy);
        held.push(part("adapters", 4 * trained.policy, how));
    }
    held.push(part("gradients", 4 * trained.policy, "f32"));
    let mut host = Vec::new();
    let is_offloaded = config.optimizer.offload && !model.on_host;
    let mut push_moments = |held: &mut Vec<Part>, name, numbers: u64| {
        let place = if is_offloaded { &mut host } else { held };
        place.push(part(name, 8 * numbers, "two of AdamW, f32"));
    };
    push_moments(&mut held, "moments", trained.policy);
    if config.engine.kind == EngineKind::Builtin {
        let (bytes, how) = sampler(config, model);
        held.push(part("sampler", bytes, how));
    }
    let norms_and_biases = parameters
        - shape.layer_matrix_count()
        - shape.vocabulary_count() * if shape.tied_embeddings { 1 } else { 2 };
    let frozen_copy = 4 * (shape.vocabulary_count() + norms_and_biases)
        + width * (shape.layer_matrix_count() + shape.vocabulary_count());
    // Beside adapters the reference is the frozen weights.
    if config.training.kl_coefficient > 0.0 && !is_adapted {
        held.push(part("reference", frozen_copy, "a frozen copy, for the divergence"));
    }
    let orders = config.rollout.max_staleness;
    if orders > 0 && config.engine.kind == EngineKind::Builtin {
        let how = format!("{orders} at most, for rollouts that go ahead");
        held.push(part("snapshots", orders * frozen_copy, how));
    }
    if let Some(critic) = trained.critic {
        let what = if is_adapted { "adapters and head" } else { "weights" };
        held.push(part("critic", 4 * critic, format!("{what}, f32, {critic} parameters")));
        held.push(part("its gradients", 4 * critic, "f32"));
        push_moments(&mut held, "its moments", critic);
    }
    (held, host)
}

/// What rollouts compute with and share with nothing else.
fn sampler(config: &Config, model: &ModelFacts) -> (u64, &'static str) {
    let shape = &model.config;
    let matrices = shape.layer_matrix_count() + shape.vocabulary_count();
    let packed = |width: u64| 4 * shape.vocabulary_count() + width * matrices;
    match model.packed {
        Some(WeightFormat::F32) => (packed(4), "packed for kernels in f32, embeddings in f32"),
        Some(WeightFormat::Bf16) => (packed(2), "packed for kernels in bf16, embeddings in f32"),
        Some(WeightFormat::Int8) => (packed(1), "packed for kernels in 8 bits, embeddings in f32"),
        None if config.lora.rank > 0 => (
            merged_copy(config, model),
            "weights with the adapters in them, where not the weights' own",
        ),
        None => (compute_copy(model), "what computes and is not the weights' own memory"),
    }
}

/// Tensors of one checkpoint.
fn checkpoint(config: &Config, model: &ModelFacts, trained: &Trained) -> Vec<Part> {
    let parameters = model.config.parameter_count();
    let is_adapted = config.lora.rank > 0;
    let (width, format) = match config.checkpoint.dtype {
        CheckpointDtype::F32 => (4, "f32"),
        CheckpointDtype::Bf16 => (2, "bf16"),
    };
    let mut parts = Vec::new();
    if !is_adapted || config.lora.merge_on_save {
        parts.push(part("model", width * parameters, format));
    }
    if is_adapted {
        parts.push(part("adapters", 4 * trained.policy, "f32"));
    } else if config.checkpoint.dtype == CheckpointDtype::Bf16 {
        parts.push(part("masters", 4 * parameters, "f32, to go on from"));
    }
    parts.push(part("optimizer", 8 * trained.policy, "f32"));
    if let Some(critic) = trained.critic {
        parts.push(part("critic", 12 * critic, "with its optimizer, f32"));
    }
    parts
}

/// Bytes of weights with adapters merged that share no memory with the masters: in f32 the matrices
/// that are joined or adapted, else as without adapters.
fn merged_copy(config: &Config, model: &ModelFacts) -> u64 {
    let single = |name: &&str| ["o_proj", "down_proj"].contains(name);
    let adapted = LoraTargets::of(config.lora.targets.names().filter(single));
    match (model.compute_bytes, adapted) {
        (4, Ok(adapted)) => compute_copy(model) + 4 * model.config.target_count(adapted),
        _ => compute_copy(model),
    }
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
