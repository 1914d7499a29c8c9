//! Every sequence reads its own context, whatever is shared, cut into chunks, cancelled or released because
//! blocks run out.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::recall::{RecallRunner, mixed};
use super::{NO_STOP, STEPS_MAX, generate, request};
use crate::engine::{
    BLOCK_TOKENS, BuiltinEngine, BuiltinEngineConfig, Engine, EngineCounters, GenerateRequest,
    SamplingKey, SequenceId,
};
use crate::token::Tokenizer;

const CONTEXT: usize = 120;

fn recall_engine(config: BuiltinEngineConfig) -> BuiltinEngine {
    let runner = RecallRunner::new(config.cache_blocks(), mixed);
    BuiltinEngine::with_runner(Box::new(runner), 64, config)
}

/// A sequence with its turns: the appended tokens and the number of sampled tokens of each.
#[derive(Clone, Debug)]
struct Job {
    sample: u64,
    turns: VecDeque<(Vec<u32>, usize)>,
    /// Steps after which it is released, whatever its state.
    cancelled_after: Option<usize>,
}

impl Job {
    fn next_request(&mut self, id: SequenceId) -> Option<GenerateRequest> {
        let (append, max_new_tokens) = self.turns.pop_front()?;
        let key = SamplingKey { seed: 1, step: 1, prompt: 0, sample: self.sample };
        Some(GenerateRequest { key, ..request(id, &append, max_new_tokens) })
    }

    /// Returns the tokens that each turn must sample.
    fn expected(&self) -> Vec<Vec<u32>> {
        let key = SamplingKey { seed: 1, step: 1, prompt: 0, sample: self.sample };
        let mut context = Vec::new();
        let mut said = Vec::new();
        for (append, tokens) in &self.turns {
            context.extend(append);
            let start = context.len();
            for _ in 0..*tokens {
                context.push(mixed(&context, key));
            }
            said.push(context[start..].to_vec());
        }
        said
    }
}

/// Generates jobs whose prompts share prefixes or are equal, and whose turns fit into the context.
fn job() -> impl Strategy<Value = Job> {
    let prompt = (0_usize..3, 1_usize..50, 0_u32..3, 0_usize..8).prop_map(
        |(template, length, question, tail)| {
            let mut prompt: Vec<u32> =
                (0..length).map(|token| (token * (template + 3) % 61) as u32).collect();
            prompt.extend((0..tail as u32).map(|token| (token * 7 + question) % 64));
            prompt
        },
    );
    let turns = prop::collection::vec((0_u32..64, 0_usize..12, 1_usize..12), 0..3);
    let cancelled_after = prop_oneof![4 => Just(None), 1 => (1_usize..40).prop_map(Some)];
    (prompt, 1_usize..14, turns, 0_u64..3, cancelled_after).prop_map(
        |(prompt, first, turns, sample, cancelled_after)| {
            let observed =
                |(token, count, sampled): (u32, usize, usize)| (vec![token; count], sampled);
            let mut all = VecDeque::from([(prompt, first)]);
            all.extend(turns.into_iter().map(observed));
            Job { sample, turns: all, cancelled_after }
        },
    )
}

/// Runs jobs. Job number n is submitted at step n / 3, as a scheduler would add it.
fn run(engine: &mut BuiltinEngine, jobs: &[Job]) -> BTreeMap<SequenceId, Vec<Vec<u32>>> {
    let tokenizer = Tokenizer::characters();
    let mut live: BTreeMap<SequenceId, Job> = BTreeMap::new();
    let mut said: BTreeMap<SequenceId, Vec<Vec<u32>>> = BTreeMap::new();
    let mut waiting: VecDeque<(SequenceId, Job)> =
        jobs.iter().cloned().enumerate().map(|(id, job)| (id as u64, job)).collect();
    for step in 0..STEPS_MAX * 4 {
        while waiting.front().is_some_and(|(id, _)| *id as usize / 3 <= step) {
            let Some((id, mut job)) = waiting.pop_front() else { break };
            engine.submit(job.next_request(id).unwrap()).unwrap();
            live.insert(id, job);
        }
        if waiting.is_empty() && engine.is_idle() {
            break;
        }
        let cancelled =
            |(id, job): (&SequenceId, &Job)| (job.cancelled_after == Some(step)).then_some(*id);
        for id in live.iter().filter_map(cancelled).collect::<Vec<_>>() {
            live.remove(&id);
            engine.release(id);
        }
        for generation in engine.step(&tokenizer).unwrap() {
            let id = generation.sequence;
            let job = live.get_mut(&id).expect("a released sequence returns no turn");
            said.entry(id).or_default().push(generation.token_ids);
            if let Some(request) = job.next_request(id) {
                engine.submit(request).unwrap();
            } else {
                live.remove(&id);
                engine.release(id);
            }
        }
    }
    assert!(engine.is_idle() && waiting.is_empty() && live.is_empty(), "sequences are left");
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_sequence_reads_its_own_context(
        jobs in prop::collection::vec(job(), 1..24),
        max_sequences in 1_usize..12,
        max_prefill_tokens in 1_usize..90,
        spare_blocks in 0_usize..24,
    ) {
        let context = CONTEXT.div_ceil(BLOCK_TOKENS);
        let config = BuiltinEngineConfig {
            max_sequences,
            max_context_tokens: CONTEXT,
            max_prefill_tokens,
            cache_tokens: (context + spare_blocks) * BLOCK_TOKENS,
            share_prompts: true,
        };
        let mut engine = recall_engine(config);
        let said = run(&mut engine, &jobs);
        for (id, job) in jobs.iter().enumerate() {
            let expected = job.expected();
            let actual = said.get(&(id as u64)).map_or(&[][..], Vec::as_slice);
            prop_assert!(job.cancelled_after.is_some() || actual.len() == expected.len());
            prop_assert_eq!(actual, &expected[..actual.len()]);
        }
        let counters = engine.take_counters();
        prop_assert!(counters.most_blocks <= (context + spare_blocks) as u64);
        if jobs.iter().all(|job| job.cancelled_after.is_none()) {
            check_sum(&counters);
        }
        // All sequences were released, so no block is in use.
        prop_assert_eq!(engine.take_counters().most_blocks, 0);
    }
}

/// Checks that every token of a context was computed, shared or continued, and that recomputation is counted.
#[track_caller]
fn check_sum(counters: &EngineCounters) {
    let EngineCounters { prefill_tokens, shared_tokens, continued_tokens, .. } = *counters;
    assert_eq!(
        prefill_tokens + shared_tokens + continued_tokens,
        counters.naive_prefill_tokens + counters.recomputed_tokens,
        "{counters:?}"
    );
}

fn wide(max_prefill_tokens: usize) -> BuiltinEngineConfig {
    BuiltinEngineConfig {
        max_sequences: 16,
        max_context_tokens: 512,
        max_prefill_tokens,
        cache_tokens: 0,
        share_prompts: true,
    }
}

/// Returns sixteen samples of each of two questions in one template, with three turns each.
fn two_groups() -> Vec<Job> {
    let job = |question: u32, sample: u64| {
        let mut prompt: Vec<u32> = (0..100).map(|token| token % 50).collect();
        prompt.extend([question + 50; 12]);
        let observed = |token: u32| (vec![token; 40], 10);
        let turns = VecDeque::from([(prompt, 10), observed(3), observed(4)]);
        Job { sample, turns, cancelled_after: None }
    };
    (0..2).flat_map(|question| (0..16).map(move |sample| job(question, sample))).collect()
}

#[test]
fn a_group_of_samples_prefills_its_prompt_once_and_turns_go_on() {
    for max_prefill_tokens in [7, 64, 2048] {
        let mut engine = recall_engine(wide(max_prefill_tokens));
        let jobs = two_groups();
        let said = run(&mut engine, &jobs);
        for (id, job) in jobs.iter().enumerate() {
            assert_eq!(said[&(id as u64)], job.expected());
        }
        let counters = engine.take_counters();
        check_sum(&counters);
        assert_eq!((counters.preemptions, counters.recomputed_tokens), (0, 0));
        let contexts = [112, 112 + 50, 112 + 100];
        let naive = 32 * contexts.iter().sum::<u64>();
        assert_eq!(counters.naive_prefill_tokens, naive);
        // Each observation is computed once, together with the token that ended the turn before it.
        let turns = 32 * 2 * 41;
        let prompts = counters.prefill_tokens - turns;
        // The second question costs only the tokens that differ, and later samples cost one token each.
        assert!((124..=124 + 20).contains(&prompts), "{max_prefill_tokens}: {counters:?}");
        assert!(prompts * 8 <= 32 * 112);
        assert!(counters.prefill_tokens * 5 <= naive);
        assert_eq!(counters.decoded_tokens, 32 * 3 * 9);
    }
}

/// A cache of one and a half contexts forces preemptions, but changes no token.
#[test]
fn a_full_cache_costs_work_and_no_token() {
    let config = BuiltinEngineConfig { cache_tokens: 512 + 256, ..wide(64) };
    let mut engine = recall_engine(config);
    let jobs = two_groups();
    let said = run(&mut engine, &jobs);
    for (id, job) in jobs.iter().enumerate() {
        assert_eq!(said[&(id as u64)], job.expected());
    }
    let counters = engine.take_counters();
    check_sum(&counters);
    assert!(counters.preemptions > 0 && counters.recomputed_tokens > 0, "{counters:?}");
    assert_eq!((counters.most_blocks, counters.pool_blocks), (24, 24));
}

/// A long prompt is computed in chunks, and running sequences get a token in each of its passes.
#[test]
fn a_long_prompt_does_not_hold_up_those_that_generate() {
    let mut engine = recall_engine(wide(20));
    let tokenizer = Tokenizer::characters();
    engine.submit(request(1, &[5; 10], 100)).unwrap();
    engine.step(&tokenizer).unwrap();
    engine.submit(request(2, &[9; 200], 1)).unwrap();
    for pass in 1..=9 {
        assert!(engine.step(&tokenizer).unwrap().is_empty());
        assert_eq!(engine.partial_tokens(1).len(), 1 + pass);
        assert!(engine.partial_tokens(2).is_empty());
    }
    let ended = engine.step(&tokenizer).unwrap();
    assert_eq!(ended.iter().map(|turn| turn.sequence).collect::<Vec<_>>(), [2]);
    assert_eq!(engine.partial_tokens(1).len(), 11);
}

/// Kept prompts are dropped with the last sequence, so a rollout leaves nothing behind.
#[test]
fn prompts_are_kept_for_later_samples_while_a_sequence_lives() {
    let mut engine = recall_engine(wide(64));
    let tokenizer = Tokenizer::characters();
    let prompt: Vec<u32> = (0..40).collect();
    let sample = |id: u64| GenerateRequest { stop: NO_STOP, ..request(id, &prompt, 3) };
    let mut ask = |id: u64| {
        generate(&mut engine, &tokenizer, vec![sample(id)]);
        engine.take_counters().prefill_tokens
    };
    assert_eq!((ask(1), ask(2)), (40, 1));
    engine.release(1);
    let mut ask = |id: u64| {
        generate(&mut engine, &tokenizer, vec![sample(id)]);
        engine.take_counters().prefill_tokens
    };
    assert_eq!(ask(3), 1);
    engine.release(2);
    engine.release(3);
    generate(&mut engine, &tokenizer, vec![sample(4)]);
    assert_eq!(engine.take_counters().prefill_tokens, 40);
}
