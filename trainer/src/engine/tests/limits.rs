//! The requests that the engine refuses, and the sequences that it forgets.

use super::{CONFIG, chain_model, engine, generate, generate_one, greedy_request, request};
use crate::engine::{BuiltinEngineConfig, Engine, EngineError, StopReason};
use crate::policy::Policy;
use crate::token::Tokenizer;

/// Returns a model that follows every token with the next number.
fn counting() -> Policy {
    chain_model(&(0..128).collect::<Vec<_>>())
}

const SHORT: BuiltinEngineConfig = BuiltinEngineConfig { max_context_tokens: 10, ..CONFIG };

#[track_caller]
fn check_too_long(actual: Result<(), EngineError>, sequence: u64, needed: usize) {
    let error = actual.unwrap_err();
    let expected =
        format!("sequence {sequence} needs {needed} tokens of context, the engine holds 10");
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, EngineError::ContextTooLong { .. }));
}

#[test]
fn a_context_that_is_too_long_is_refused_with_its_numbers() {
    let mut engine = engine(&counting(), SHORT);
    assert_eq!(engine.max_context_tokens(), 10);
    check_too_long(engine.submit(request(3, &[1; 10], 4)), 3, 11);
    assert!(engine.is_idle());
    let generation = generate_one(&mut engine, request(3, &[1; 9], 4));
    assert_eq!((generation.token_ids, generation.stop), (vec![2], StopReason::Length));
}

#[test]
fn a_turn_ends_where_the_context_is_full() {
    let mut engine = engine(&counting(), SHORT);
    let generation = generate_one(&mut engine, request(3, &[20, 30, 40], 100));
    assert_eq!(generation.token_ids, (41..=47).collect::<Vec<_>>());
    assert_eq!(generation.stop, StopReason::Length);
    check_too_long(engine.submit(request(3, &[], 1)), 3, 11);
    // The full sequence does not disturb the next one.
    let generation = generate_one(&mut engine, request(4, &[50], 5));
    assert_eq!(generation.token_ids, (51..=55).collect::<Vec<_>>());
}

#[test]
fn a_sequence_has_one_turn_at_a_time() {
    let mut engine = engine(&counting(), CONFIG);
    let busy = |actual: Result<(), EngineError>| {
        let error = actual.unwrap_err();
        assert!(matches!(error, EngineError::Busy(6)), "{error}");
        assert_eq!(error.to_string(), "sequence 6 is already generating");
    };
    engine.submit(request(6, &[1], 4)).unwrap();
    busy(engine.submit(request(6, &[1], 4)));
    engine.step(&Tokenizer::characters()).unwrap();
    assert!(!engine.partial_tokens(6).is_empty());
    busy(engine.submit(request(6, &[1], 4)));
    while !engine.is_idle() {
        engine.step(&Tokenizer::characters()).unwrap();
    }
    assert!(engine.partial_tokens(6).is_empty());
    engine.submit(request(6, &[9], 1)).unwrap();
}

#[test]
fn a_prompt_must_have_a_token_and_the_model_must_know_it() {
    let mut engine = engine(&counting(), CONFIG);
    let error = engine.submit(request(2, &[], 4)).unwrap_err();
    assert_eq!(error.to_string(), "sequence 2 has an empty prompt");
    let error = engine.submit(request(2, &[5, 128], 4)).unwrap_err();
    assert!(error.to_string().contains("token 128"), "{error}");
    assert!(error.to_string().contains("128 tokens"), "{error}");
    assert!(engine.is_idle());
}

#[test]
fn releasing_forgets_a_sequence_and_frees_its_seat() {
    let config = BuiltinEngineConfig { max_sequences: 1, ..CONFIG };
    let mut engine = engine(&counting(), config);
    let tokenizer = Tokenizer::characters();
    engine.release(77);
    generate_one(&mut engine, request(1, &[10], 3));
    // The only seat belongs to a sequence between turns.
    engine.submit(request(2, &[60], 2)).unwrap();
    assert!(engine.step(&tokenizer).unwrap().is_empty());
    assert!(!engine.is_idle());
    engine.release(1);
    assert!(engine.step(&tokenizer).unwrap().is_empty());
    let actual = engine.step(&tokenizer).unwrap();
    assert_eq!(actual.len(), 1);
    assert_eq!(actual[0].token_ids, vec![61, 62]);
    // Sequences that are released while queued or running return no turn.
    engine.submit(request(3, &[70], 5)).unwrap();
    engine.release(3);
    assert!(engine.is_idle());
    engine.release(2);
    engine.submit(request(4, &[80], 5)).unwrap();
    engine.step(&tokenizer).unwrap();
    engine.release(4);
    assert!(engine.is_idle());
    assert!(engine.step(&tokenizer).unwrap().is_empty());
    // Its id may name a new sequence, which has its own context.
    let generation = generate_one(&mut engine, greedy_request(4, &[90], 2));
    assert_eq!(generation.token_ids, vec![91, 92]);
}

#[test]
fn a_prompt_longer_than_a_prefill_pass_goes_alone() {
    let config = BuiltinEngineConfig { max_prefill_tokens: 4, ..CONFIG };
    let mut engine = engine(&counting(), config);
    let requests = vec![request(1, &[9; 20], 2), request(2, &[19; 20], 2)];
    let actual = generate(&mut engine, &Tokenizer::characters(), requests);
    assert_eq!(actual[&1].token_ids, vec![10, 11]);
    assert_eq!(actual[&2].token_ids, vec![20, 21]);
    assert_eq!(engine.take_counters().prefill_tokens, 40);
}
