//! The built-in engine: its cache, its batching, its stops and its limits.
//!
//! Numbers are checked on small random checkpoints. Stops are checked on a model that follows each token with
//! one fixed token, so a test decides what is generated.

mod batching;
mod cache;
mod limits;
mod paging;
pub(crate) mod recall;
mod stops;

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{
    BuiltinEngine, BuiltinEngineConfig, Engine, GenerateRequest, Generation, RunnerChoice,
    RunnerKind, Sampling, SamplingKey, SequenceId, StopRule, runner,
};
use crate::policy::tests::F32;
use crate::policy::{Biases, Decoder, LayerConfig, ModelConfig, Policy, Rope, RopeScaling};
use crate::token::Tokenizer;

const CONFIG: BuiltinEngineConfig = BuiltinEngineConfig {
    max_sequences: 8,
    max_context_tokens: 64,
    max_prefill_tokens: 256,
    cache_tokens: 0,
    share_prompts: true,
};

const NO_STOP: StopRule = StopRule { stop_at: Vec::new(), cut_after: Vec::new() };

/// Far more steps than the generations of any test have tokens.
const STEPS_MAX: usize = 1000;

/// Creates an engine on tensor operations.
fn engine(policy: &Policy, config: BuiltinEngineConfig) -> BuiltinEngine {
    let device = policy.compute.device;
    let decoder = Decoder::new(&policy.config, config.max_context_tokens, device);
    BuiltinEngine::new(decoder, policy.detached_weights(), config)
}

/// Creates an engine on the native kernels, in the type that the policy computes in.
fn native_engine(policy: &Policy, config: BuiltinEngineConfig) -> BuiltinEngine {
    let decoder = Decoder::new(&policy.config, config.max_context_tokens, policy.compute.device);
    let choice = RunnerChoice { kind: RunnerKind::Native, format: None };
    let weights = policy.detached_weights();
    let runner = runner(decoder, weights, config.cache_blocks(), choice).unwrap();
    BuiltinEngine::with_runner(runner, policy.config.vocab_size as u64, config)
}

/// Returns a turn at temperature 1, with a key that belongs to the sequence.
fn request(sequence: SequenceId, append: &[u32], max_new_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        sequence,
        append: append.to_vec(),
        max_new_tokens,
        stop: NO_STOP,
        sampling: Sampling { temperature: 1.0, top_p: 1.0 },
        key: SamplingKey { seed: 5, step: 0, prompt: sequence, sample: 0 },
    }
}

/// Returns a turn that always chooses the most likely token.
pub(crate) fn greedy_request(
    sequence: SequenceId,
    append: &[u32],
    max_new_tokens: usize,
) -> GenerateRequest {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0 };
    GenerateRequest { sampling, ..request(sequence, append, max_new_tokens) }
}

/// Submits all requests, then steps until all of them have ended.
pub(crate) fn generate(
    engine: &mut BuiltinEngine,
    tokenizer: &Tokenizer,
    requests: Vec<GenerateRequest>,
) -> BTreeMap<SequenceId, Generation> {
    let expected = requests.len();
    for request in requests {
        engine.submit(request).unwrap();
    }
    let mut generations = BTreeMap::new();
    for _ in 0..STEPS_MAX {
        if engine.is_idle() {
            break;
        }
        for generation in engine.step(tokenizer).unwrap() {
            assert_eq!(generation.token_ids.len(), generation.log_probs.len());
            generations.insert(generation.sequence, generation);
        }
    }
    assert!(engine.is_idle(), "turns are left after {STEPS_MAX} steps");
    assert_eq!(generations.len(), expected);
    generations
}

/// Generates one turn of one sequence, with one token for each character.
fn generate_one(engine: &mut BuiltinEngine, request: GenerateRequest) -> Generation {
    let id = request.sequence;
    generate(engine, &Tokenizer::characters(), vec![request]).remove(&id).unwrap()
}

#[track_caller]
fn check_close(actual: &[f32], expected: &[f32], tolerance: f32, name: &str) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert!((actual - expected).abs() < tolerance, "{name} {index}: {actual}, not {expected}");
    }
}

const CHAIN_SIZE: i64 = 128;

/// Returns a model of 128 tokens that follows each of `ids` with the next one, whatever the context. Embeddings
/// are unit vectors, attention and feed-forward add nothing, and the head's row of a token points to the token
/// before it. After any other token, all tokens are equally likely.
fn chain_model(ids: &[u32]) -> Policy {
    let config = ModelConfig {
        vocab_size: CHAIN_SIZE,
        hidden_size: CHAIN_SIZE,
        intermediate_size: 2,
        heads: 2,
        key_value_heads: 1,
        head_dim: 4,
        rms_norm_epsilon: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
        max_positions: 256,
        tied_embeddings: false,
        biases: Biases::default(),
        query_key_norm: false,
        layers: vec![LayerConfig { rotary: true, window: None }],
        source: serde_json::Value::Null,
    };
    let options = (Kind::Float, F32.device);
    let zeros = |rows: i64, columns: i64| Tensor::zeros([rows, columns], options);
    let ones = || Tensor::ones([CHAIN_SIZE], options);
    let head = zeros(CHAIN_SIZE, CHAIN_SIZE);
    for link in ids.windows(2) {
        let row = head.get(i64::from(link[1]));
        // The norm scales a unit vector to length sqrt(128), which makes a logit of 56.
        let _ = row.get(i64::from(link[0])).fill_(5.0);
    }
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let parameters = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), Tensor::eye(CHAIN_SIZE, options)),
        (layer("input_layernorm"), ones()),
        (layer("self_attn.q_proj"), zeros(8, CHAIN_SIZE)),
        (layer("self_attn.k_proj"), zeros(4, CHAIN_SIZE)),
        (layer("self_attn.v_proj"), zeros(4, CHAIN_SIZE)),
        (layer("self_attn.o_proj"), zeros(CHAIN_SIZE, 8)),
        (layer("post_attention_layernorm"), ones()),
        (layer("mlp.gate_proj"), zeros(2, CHAIN_SIZE)),
        (layer("mlp.up_proj"), zeros(2, CHAIN_SIZE)),
        (layer("mlp.down_proj"), zeros(CHAIN_SIZE, 2)),
        ("model.norm.weight".to_owned(), ones()),
        ("lm_head.weight".to_owned(), head),
    ]);
    Policy { config, compute: F32, parameters, lora: None }
}
