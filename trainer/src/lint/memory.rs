//! The memory and disk space of a run, in bytes.

use tch::Kind;

use super::ModelFacts;
use crate::config::{ActivationCheckpoints, CheckpointDtype, Config, EngineKind, KlPlacement};
use crate::engine::{
    BLOCK_TOKENS, BuiltinEngineConfig, WeightFormat, cache_tokens, cached_number_bytes,
};
use crate::policy::{CHUNK_TARGETS, LoraTargets};

/// A named amount of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub bytes: u64,
    /// Origin of the number, as the report shows it.
    pub how: String,
}

/// Memory of a run in each phase, and size of its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Memory held from the first update on. A rollout needs little more.
    pub held: Vec<Part>,
    /// Host memory held during the run, if the model is on a device.
    pub host: Vec<Part>,
    /// Additional memory, at most, while log-probs and values are computed before the updates; empty if
    /// none are computed.
    pub scoring: Vec<Part>,
    /// Additional memory, at most, while a micro-batch is computed.
    pub update: Vec<Part>,
    /// The tensors of one checkpoint.
    pub checkpoint: Vec<Part>,
}

impl Memory {
    /// Returns the sum of `parts`.
    pub fn total(parts: &[Part]) -> u64 {
        parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

fn part(name: &'static str, bytes: u64, how: impl Into<String>) -> Part {
    Part { name, bytes, how: how.into() }
}

/// Multiplies counts with saturation, because a configuration may make them arbitrarily large.
fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, &factor| product.saturating_mul(factor))
}

/// Counts of trained parameters, each of which needs a gradient and two moments.
struct Trained {
    policy: u64,
    /// Trained parameters of the critic, if there is one.
    critic: Option<u64>,
}

impl Trained {
    fn count(config: &Config, model: &ModelFacts) -> Self {
        let (shape, lora) = (&model.config, &config.lora);
        let (policy, critic) = if lora.rank > 0 {
            let adapters = shape.adapter_count(lora.rank, lora.targets);
            (adapters, adapters)
        } else {
            let head = if shape.tied_embeddings { 0 } else { shape.vocabulary_count() };
            (shape.parameter_count(), shape.parameter_count() - head)
        };
        let has_critic = config.algorithm.advantage.has_critic();
        let value_head = shape.hidden_size as u64 + 1;
        Self { policy, critic: has_critic.then_some(critic + value_head) }
    }
}

/// Computes the memory of a run of `config` with `model`. Parameters, moments, caches and checkpoints are exact;
/// packed weights leave out the padding of their panels; the activations for the backward pass are estimated
/// from the architecture.
pub fn memory(config: &Config, model: &ModelFacts) -> Memory {
    let shape = &model.config;
    let width = model.compute_bytes;
    let trained = Trained::count(config, model);
    let copy = compute_copy(model);
    let context = config.context_tokens(shape.max_positions) as u64;
    let tokens = (config.update.tokens_per_micro_batch as u64).max(context);
    let vocabulary = shape.vocab_size as u64;
    let chunk = tokens.min(CHUNK_TARGETS as u64);
    let logits = |count: u64, word: &str| {
        let how = format!("at most {word} tensors of {chunk} x {vocabulary} in f32");
        part("logits", product(&[chunk, vocabulary, 4 * count]), how)
    };
    let mut update = vec![
        part("compute copy", copy, "in the autograd graph"),
        activations(config, model, tokens),
        logits(3, "three"),
    ];
    // Adapters do not change the head.
    if config.lora.rank == 0 {
        let how = format!("at most three tensors of {vocabulary} x {} in f32", shape.hidden_size);
        let bytes = product(&[vocabulary, shape.hidden_size as u64, 12]);
        update.push(part("head gradient", bytes, how));
    }
    let has_old = config.step_updates() > 1 || config.algorithm.kl_placement == KlPlacement::Reward;
    let mut scoring = Vec::new();
    if has_old || config.training.kl_coefficient > 0.0 {
        // A frozen copy is ready to compute. The weights of the policy, or of the adapters' base, are cast first.
        if has_old || config.lora.rank > 0 {
            scoring.push(part("compute copy", copy, "of the scored model"));
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

/// Returns the memory held in every phase, without the sampler's cache: on the model's device, and on the host if
/// that is not the device.
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
        let parts = if is_offloaded { &mut host } else { held };
        parts.push(part(name, 8 * numbers, "two per parameter, f32"));
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
    // With adapters, the frozen weights are the reference.
    if config.training.kl_coefficient > 0.0 && !is_adapted {
        held.push(part("reference", frozen_copy, "a frozen copy, for the divergence"));
    }
    let orders = config.rollout.max_staleness;
    if orders > 0 && config.engine.kind == EngineKind::Builtin {
        let how = format!("at most {orders}, for rollouts that run ahead");
        held.push(part("snapshots", orders * frozen_copy, how));
    }
    if let Some(critic) = trained.critic {
        let scope = if is_adapted { "adapters and head" } else { "weights" };
        held.push(part("critic", 4 * critic, format!("{scope}, f32, {critic} parameters")));
        held.push(part("its gradients", 4 * critic, "f32"));
        push_moments(&mut held, "its moments", critic);
    }
    (held, host)
}

/// Returns the bytes of weights that only rollouts use.
fn sampler(config: &Config, model: &ModelFacts) -> (u64, &'static str) {
    let shape = &model.config;
    let matrices = shape.layer_matrix_count() + shape.vocabulary_count();
    let packed = |width: u64| 4 * shape.vocabulary_count() + width * matrices;
    match model.packed {
        Some(WeightFormat::F32) => (packed(4), "packed for kernels in f32, embeddings in f32"),
        Some(WeightFormat::Bf16) => (packed(2), "packed for kernels in bf16, embeddings in f32"),
        Some(WeightFormat::Int8) => (packed(1), "packed for kernels in 8 bits, embeddings in f32"),
        None if config.lora.rank > 0 => {
            (merged_copy(config, model), "merged weights that do not share memory with the masters")
        }
        None => (compute_copy(model), "compute weights that do not share memory with the masters"),
    }
}

/// Returns the tensors of one checkpoint.
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
        parts.push(part("masters", 4 * parameters, "f32, to resume from"));
    }
    parts.push(part("optimizer", 8 * trained.policy, "f32"));
    if let Some(critic) = trained.critic {
        parts.push(part("critic", 12 * critic, "with its optimizer, f32"));
    }
    parts
}

/// Returns the bytes of merged weights that share no memory with the masters: in f32 the joined and the adapted
/// matrices, else the same as without adapters.
fn merged_copy(config: &Config, model: &ModelFacts) -> u64 {
    let single = |name: &&str| ["o_proj", "down_proj"].contains(name);
    let adapted = LoraTargets::from_names(config.lora.targets.names().filter(single));
    match (model.compute_bytes, adapted) {
        (4, Ok(adapted)) => compute_copy(model) + 4 * model.config.target_count(adapted),
        _ => compute_copy(model),
    }
}

/// Returns the number of cache blocks in the pool, and a description of what fits in them.
fn cache_blocks(config: &Config, context: usize, token_bytes: u64) -> (u64, String) {
    let rollout = &config.rollout;
    let engine = BuiltinEngineConfig {
        max_sequences: rollout.max_sequences,
        max_context_tokens: context,
        max_prefill_tokens: rollout.max_prefill_tokens,
        cache_tokens: cache_tokens(rollout.kv_cache_mib, token_bytes),
        share_prompts: true,
    };
    let blocks = engine.cache_blocks();
    let episodes = blocks / context.div_ceil(BLOCK_TOKENS).max(1);
    (blocks as u64, format!("{episodes} episodes of {context} tokens when full"))
}

/// Returns the bytes of compute weights that share no memory with the masters: in f32 the joined matrices, else a
/// cast of every matrix and of the head.
fn compute_copy(model: &ModelFacts) -> u64 {
    let shape = &model.config;
    match model.compute_bytes {
        4 => 4 * shape.joined_matrix_count(),
        width => width * (shape.layer_matrix_count() + shape.vocabulary_count()),
    }
}

/// Estimates the activations that a pass of `tokens` keeps.
fn activations(config: &Config, model: &ModelFacts, tokens: u64) -> Part {
    let layers = model.config.layers.len() as u64;
    let of_layer = layer_token_bytes(model);
    match config.update.checkpoint_activations {
        ActivationCheckpoints::None => part(
            "activations",
            product(&[tokens, layers, of_layer]),
            format!("estimate for {tokens} tokens in a pass"),
        ),
        ActivationCheckpoints::Layers => part(
            "activations",
            product(&[tokens, 4 * (layers + 1) * model.config.hidden_size as u64 + of_layer]),
            format!("estimate for {tokens} tokens in a pass: inputs of all layers, and one layer"),
        ),
    }
}

/// Estimates the bytes per token that a layer keeps for the backward pass. In f32: the residual twice, and its
/// norms. In the compute type: the casts of these, query, key, value, the output of attention, gate, up, their
/// product, and the gate's activation. Attention keeps no scores.
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
