//! The rest of the batch changes no sampled token, and samples of one prompt share its prefill.

use std::collections::{BTreeMap, VecDeque};

use super::{CONFIG, STEPS_MAX, check_close, engine, generate, native_engine, request};
use crate::engine::{
    BuiltinEngine, BuiltinEngineConfig, Engine, EngineCounters, GenerateRequest, Generation,
    SamplingKey, SequenceId,
};
use crate::policy::Policy;
use crate::policy::tests::{BF16, F32, tiny};
use crate::token::Tokenizer;

/// Recorded checkpoints with different attention: full, with normalised heads, and with windows on some
/// layers.
const CHECKPOINTS: [&str; 3] = ["llama-tiny-tied", "qwen3-tiny", "smollm3-tiny-listed"];

/// The turns of one sequence, each with the appended tokens and the number of sampled tokens.
#[derive(Clone)]
struct Job {
    id: SequenceId,
    turns: VecDeque<(Vec<u32>, usize)>,
}

/// Returns sequences of very different lengths and numbers of turns. The last one runs far longer than the
/// others, so it continues while they are idle or released.
fn jobs() -> Vec<Job> {
    let ids =
        |seed: u32, count: u32| (0..count).map(|index| (seed * 31 + index * 17) % 64).collect();
    let job = |id: u32| {
        let mut turns = VecDeque::from([(ids(id, 3 + id * 2), 2 + id as usize % 3)]);
        for turn in 0..id % 3 {
            turns.push_back((ids(id + 7 * turn + 1, 4), 3 + turn as usize));
        }
        if id == 9 {
            turns = VecDeque::from([(ids(9, 5), 24), (ids(1, 2), 9)]);
        }
        Job { id: u64::from(id), turns }
    };
    (0..10).map(job).collect()
}

/// The time at which a sequence's next turn is submitted.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// The step after its last turn ended.
    AtOnce,
    /// The first step in which nothing else runs, as after a slow search.
    WhenIdle,
}

/// Runs jobs with all first turns queued at the start; a sequence is released after its last turn.
fn run(
    engine: &mut BuiltinEngine,
    mut jobs: Vec<Job>,
    pace: Pace,
) -> BTreeMap<u64, Vec<Generation>> {
    let tokenizer = Tokenizer::characters();
    let mut results: BTreeMap<u64, Vec<Generation>> = BTreeMap::new();
    let mut later = Vec::new();
    for job in &mut jobs {
        later.push(next_request(job).unwrap());
    }
    for _ in 0..STEPS_MAX {
        let submit_now = matches!(pace, Pace::AtOnce) || engine.is_idle();
        if submit_now {
            later.drain(..).for_each(|request| engine.submit(request).unwrap());
        }
        if engine.is_idle() {
            break;
        }
        for generation in engine.step(&tokenizer).unwrap() {
            let id = generation.sequence;
            results.entry(id).or_default().push(generation);
            let job = jobs.iter_mut().find(|job| job.id == id).unwrap();
            match next_request(job) {
                Some(request) => later.push(request),
                None => engine.release(id),
            }
        }
    }
    assert!(engine.is_idle() && later.is_empty());
    results
}

fn next_request(job: &mut Job) -> Option<GenerateRequest> {
    let (append, tokens) = job.turns.pop_front()?;
    Some(request(job.id, &append, tokens))
}

/// Runs each job in its own engine.
fn alone(policy: &Policy) -> BTreeMap<u64, Vec<Generation>> {
    let run_one = |job: Job| run(&mut engine(policy, CONFIG), vec![job], Pace::AtOnce);
    jobs().into_iter().flat_map(run_one).collect()
}

#[track_caller]
fn check_same(
    actual: &BTreeMap<u64, Vec<Generation>>,
    expected: &BTreeMap<u64, Vec<Generation>>,
    name: &str,
) {
    assert!(actual.keys().eq(expected.keys()), "{name}");
    for (id, turns) in expected {
        assert_eq!(actual[id].len(), turns.len(), "{name}: turns of {id}");
        for (actual, expected) in actual[id].iter().zip(turns) {
            assert_eq!(actual.token_ids, expected.token_ids, "{name}: sequence {id}");
            assert_eq!(actual.stop, expected.stop, "{name}: sequence {id}");
            check_close(&actual.log_probs, &expected.log_probs, 1e-4, name);
        }
    }
}

#[test]
fn a_batch_changes_no_sampled_token() {
    for checkpoint in CHECKPOINTS {
        let (policy, _) = tiny(checkpoint, F32);
        let expected = alone(&policy);
        assert_eq!(expected.len(), 10);
        for (max_sequences, max_prefill_tokens) in
            [(10, 1000), (10, 12), (16, 40), (3, 1000), (1, 1)]
        {
            let config = BuiltinEngineConfig { max_sequences, max_prefill_tokens, ..CONFIG };
            let mut engine = engine(&policy, config);
            let actual = run(&mut engine, jobs(), Pace::AtOnce);
            let name = format!("{checkpoint}, {config:?}");
            check_same(&actual, &expected, &name);
            // The second run finds the tokens of the first one in the cache.
            let mut reversed = jobs();
            reversed.reverse();
            check_same(&run(&mut engine, reversed, Pace::AtOnce), &expected, &name);
        }
    }
}

/// On the native kernels, not even rounding depends on the batch, on chunks, on shared prefixes or on
/// recomputation.
#[test]
fn a_batch_changes_no_bit_that_kernels_compute() {
    for checkpoint in CHECKPOINTS {
        for compute in [F32, BF16] {
            let (policy, _) = tiny(checkpoint, compute);
            let native = |config| native_engine(&policy, config);
            let run_one = |job: Job| run(&mut native(CONFIG), vec![job], Pace::AtOnce);
            let alone: BTreeMap<_, _> = jobs().into_iter().flat_map(run_one).collect();
            for (max_sequences, max_prefill_tokens, cache_tokens) in
                [(10, 1000, 0), (10, 5, 0), (10, 30, 96), (3, 7, 64)]
            {
                let config = BuiltinEngineConfig {
                    max_sequences,
                    max_prefill_tokens,
                    cache_tokens,
                    ..CONFIG
                };
                let actual = run(&mut native(config), jobs(), Pace::AtOnce);
                for (id, turns) in &alone {
                    for (actual, expected) in actual[id].iter().zip(turns) {
                        assert_eq!(actual.token_ids, expected.token_ids, "{checkpoint} {config:?}");
                        let bits = |values: &[f32]| -> Vec<u32> {
                            values.iter().map(|value| value.to_bits()).collect()
                        };
                        assert_eq!(
                            bits(&actual.log_probs),
                            bits(&expected.log_probs),
                            "{config:?}"
                        );
                    }
                }
                assert_eq!(actual.len(), alone.len());
            }
        }
    }
}

/// Sequences between turns keep their context while others run.
#[test]
fn waiting_sequences_keep_their_context() {
    for checkpoint in CHECKPOINTS {
        let (policy, _) = tiny(checkpoint, F32);
        let expected = alone(&policy);
        let config = BuiltinEngineConfig { max_sequences: 10, ..CONFIG };
        let actual = run(&mut engine(&policy, config), jobs(), Pace::WhenIdle);
        check_same(&actual, &expected, checkpoint);
    }
}

#[test]
fn every_part_of_the_key_changes_what_is_sampled() {
    let (policy, _) = tiny(CHECKPOINTS[0], F32);
    let sample = |key: SamplingKey| {
        let request = GenerateRequest { key, ..request(1, &[4, 9, 1], 12) };
        generate(&mut engine(&policy, CONFIG), &Tokenizer::characters(), vec![request])[&1]
            .token_ids
            .clone()
    };
    let key = SamplingKey { seed: 1, step: 1, prompt: 1, sample: 1 };
    let first = sample(key);
    assert_eq!(sample(key), first);
    for other in [
        SamplingKey { seed: 2, ..key },
        SamplingKey { step: 2, ..key },
        SamplingKey { prompt: 2, ..key },
        SamplingKey { sample: 2, ..key },
    ] {
        assert_ne!(sample(other), first, "{other:?}");
    }
}

const PROMPT: [u32; 12] = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3];

/// Returns `count` samples of one prompt, with sequence ids from `first` on.
fn samples(first: u64, prompt: u64, count: u64) -> Vec<GenerateRequest> {
    let sample = |sample: u64| {
        let key = SamplingKey { seed: 1, step: 2, prompt, sample };
        GenerateRequest { key, ..request(first + sample, &PROMPT, 6) }
    };
    (0..count).map(sample).collect()
}

/// Runs the requests together, compares each with its own run alone, and returns the counters.
#[track_caller]
fn check_shared(config: BuiltinEngineConfig, requests: Vec<GenerateRequest>) -> EngineCounters {
    let (policy, _) = tiny(CHECKPOINTS[0], F32);
    let tokenizer = Tokenizer::characters();
    let mut together = engine(&policy, config);
    let actual = generate(&mut together, &tokenizer, requests.clone());
    let mut distinct = std::collections::BTreeSet::new();
    for request in requests {
        let id = request.sequence;
        let own = generate(&mut engine(&policy, config), &tokenizer, vec![request]);
        assert_eq!(actual[&id].token_ids, own[&id].token_ids, "sequence {id}");
        check_close(&actual[&id].log_probs, &own[&id].log_probs, 1e-4, "shared");
        distinct.insert(own[&id].token_ids.clone());
    }
    assert_eq!(distinct.len(), actual.len(), "samples differ");
    together.take_counters()
}

#[test]
fn samples_of_one_prompt_share_its_prefill() {
    let counters = check_shared(CONFIG, samples(0, 4, 5));
    let EngineCounters { prefill_tokens, shared_tokens, decoded_tokens, .. } = counters;
    assert_eq!((prefill_tokens, shared_tokens, decoded_tokens), (12, 48, 25));
    assert_eq!((counters.naive_prefill_tokens, counters.preemptions), (60, 0));
}

/// A sample that costs no prefill does not wait for budget.
#[test]
fn samples_share_a_prefill_whatever_its_budget() {
    for max_prefill_tokens in [1, 13, 20] {
        let config = BuiltinEngineConfig { max_prefill_tokens, ..CONFIG };
        let mut requests = samples(0, 4, 4);
        // Sharing depends on the tokens, not on the number of the prompt.
        requests.extend(samples(10, 5, 4));
        let counters = check_shared(config, requests);
        assert_eq!((counters.prefill_tokens, counters.shared_tokens), (12, 84));
    }
}

#[test]
fn prompts_share_what_they_begin_with() {
    let long = PROMPT.repeat(3);
    let mut requests = samples(0, 4, 3);
    let ends = [&[1, 2, 3][..], &[4], &[5, 6]];
    for (request, end) in requests.iter_mut().zip(ends) {
        request.append = [&long, end].concat();
    }
    let counters = check_shared(CONFIG, requests);
    assert_eq!(counters.prefill_tokens, 39 + 1 + 2);
    assert_eq!((counters.shared_tokens, counters.naive_prefill_tokens), (72, 114));
}

/// A prefix shorter than a block would have to be copied, so it is computed again.
#[test]
fn short_beginnings_are_not_shared() {
    let mut requests = samples(0, 4, 3);
    requests[1].append[11] = 60;
    requests[2].append[0] = 60;
    let counters = check_shared(CONFIG, requests);
    assert_eq!((counters.prefill_tokens, counters.shared_tokens), (36, 0));
}

/// New weights compute other keys and values for the same prompt.
#[test]
fn what_other_weights_computed_is_not_shared() {
    let (policy, _) = tiny(CHECKPOINTS[0], F32);
    let mut engine = engine(&policy, CONFIG);
    let tokenizer = Tokenizer::characters();
    let mut prefilled = |version: u64| {
        engine.set_weights(policy.detached_weights(), version);
        generate(&mut engine, &tokenizer, samples(10 * version, 4, 2));
        engine.take_counters().prefill_tokens
    };
    assert_eq!((prefilled(1), prefilled(2)), (12, 12));
}

/// Tokens that are appended in a later turn may equal another sequence's prompt.
#[test]
fn a_later_turn_is_no_prompt_to_share() {
    let (policy, _) = tiny(CHECKPOINTS[0], F32);
    let tokenizer = Tokenizer::characters();
    let fresh = || GenerateRequest { sequence: 2, ..samples(0, 4, 2).remove(1) };
    let expected = generate(&mut engine(&policy, CONFIG), &tokenizer, vec![fresh()]);
    let mut engine = engine(&policy, CONFIG);
    let later = samples(1, 4, 1).remove(0);
    let opening = GenerateRequest { append: vec![1, 2, 3], ..later.clone() };
    generate(&mut engine, &tokenizer, vec![opening]);
    let actual = generate(&mut engine, &tokenizer, vec![later, fresh()]);
    assert_eq!(actual[&2].token_ids, expected[&2].token_ids);
    check_close(&actual[&2].log_probs, &expected[&2].log_probs, 1e-4, "its own context");
}
