//! Checks of the converted model against results of `transformers`.

use std::path::PathBuf;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{F32, packed_logits};
use crate::engine::tests::{generate, greedy_request};
use crate::engine::{BuiltinEngine, BuiltinEngineConfig};
use crate::golden;
use crate::policy::{Decoder, Policy};
use crate::token::Tokenizer;

const TOLERANCE: f64 = 2e-3;

#[derive(Deserialize)]
struct Recording {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    log_probs: Vec<f32>,
    top: Vec<Top>,
    greedy_ids: Vec<u32>,
    greedy_text: String,
}

#[derive(Deserialize)]
struct Top {
    id: u32,
    text: String,
    logit: f64,
    probability: f64,
}

fn model_folder() -> PathBuf {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let folder = PathBuf::from(repository).join(".cache/models/smollm2-135m-instruct");
    let weights = folder.join("model.safetensors");
    assert!(weights.is_file(), "{} does not exist: run `make setup` first", weights.display());
    folder
}

#[test]
fn real_model_vectors_pass() {
    let folder = model_folder();
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let policy = Policy::load(&folder, F32).unwrap();
    assert_eq!(policy.parameter_count(), 134_515_008);
    let cases = golden::read::<Recording>("smollm2-reference.json").cases;
    assert!(cases.len() >= 3);
    let decoder = Decoder::new(&policy.config, 64, F32.device);
    let sequences: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    let logits = tch::no_grad(|| packed_logits(&policy, &decoder, &sequences));
    for (case, logits) in cases.iter().zip(&logits) {
        assert_eq!(tokenizer.encode_template(&case.text).unwrap(), case.ids, "{:?}", case.text);
        check_distributions(case, logits, &tokenizer);
    }
    let paris = &cases.iter().find(|case| case.text == "The capital of France is").unwrap().top[0];
    assert_eq!(paris.text, " Paris");
    assert!((paris.probability - 0.77).abs() < 0.01, "{}", paris.probability);
    check_continuations(&policy, decoder, &cases, &tokenizer);
}

/// Checks the log-probs of the text's own tokens, and the best next tokens.
fn check_distributions(case: &Case, logits: &Tensor, tokenizer: &Tokenizer) {
    let name = &case.text;
    let log_probs = logits.log_softmax(-1, Kind::Float);
    let tokens = case.ids.len() as i64;
    assert_eq!(case.log_probs.len() as i64, tokens - 1);
    for (index, &expected) in case.log_probs.iter().enumerate() {
        let log_prob = log_probs.double_value(&[index as i64, i64::from(case.ids[index + 1])]);
        let gap = (log_prob - f64::from(expected)).abs();
        assert!(gap < TOLERANCE, "{name:?} {index}: {log_prob}");
    }
    let (_, order) = logits.get(tokens - 1).topk(case.top.len() as i64, 0, true, true);
    for (rank, top) in case.top.iter().enumerate() {
        assert_eq!(order.int64_value(&[rank as i64]), i64::from(top.id), "{name:?} rank {rank}");
        assert_eq!(tokenizer.decode(&[top.id]).unwrap(), top.text);
        let at = [tokens - 1, i64::from(top.id)];
        let (logit, probability) = (logits.double_value(&at), log_probs.double_value(&at).exp());
        assert!((logit - top.logit).abs() < TOLERANCE, "{name:?} {}: {logit}", top.text);
        assert!((probability - top.probability).abs() < TOLERANCE, "{name:?}: {probability}");
    }
}

/// Checks the engine's greedy text, with all cases in one batch.
fn check_continuations(policy: &Policy, decoder: Decoder, cases: &[Case], tokenizer: &Tokenizer) {
    let config = BuiltinEngineConfig {
        max_sequences: cases.len(),
        max_context_tokens: 64,
        max_prefill_tokens: 64,
        cache_tokens: 0,
        share_prompts: true,
    };
    let mut engine = BuiltinEngine::new(decoder, policy.detached_weights(), config);
    let requests = cases
        .iter()
        .enumerate()
        .map(|(index, case)| greedy_request(index as u64, &case.ids, case.greedy_ids.len()));
    let generations = generate(&mut engine, tokenizer, requests.collect());
    for (index, case) in cases.iter().enumerate() {
        let generation = &generations[&(index as u64)];
        assert_eq!(generation.token_ids, case.greedy_ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&generation.token_ids).unwrap(), case.greedy_text);
    }
}
