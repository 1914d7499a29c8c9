//! The state machine under random arrivals, lengths, cancellations and scarce blocks.
//!
//! [`Simulation`] drives `plan`, `apply` and `collect` as the engine does, and checks the invariants of the
//! roster in every pass.

mod simulation;

use proptest::prelude::*;

use crate::engine::config::BuiltinEngineConfig;
use crate::engine::runner::BLOCK_TOKENS;
use simulation::Simulation;

/// Longest context in tokens: four blocks, the last one partly filled.
const CONTEXT: usize = 120;
/// All tokens are below this id, so each is one character of the tokenizer.
const VOCABULARY: u32 = 64;

/// Tokens that are appended to a sequence, and the most tokens that are sampled after them.
#[derive(Clone, Debug)]
struct PlannedTurn {
    append: Vec<u32>,
    max_new_tokens: usize,
}

/// A sequence: when it arrives, its turns, and when it is cancelled.
#[derive(Clone, Debug)]
struct Job {
    arrives_at: usize,
    turns: Vec<PlannedTurn>,
    /// Passes between two turns, as during a search.
    pause: usize,
    /// Passes after its arrival at which it is released, whatever it is doing.
    cancelled_after: Option<usize>,
}

/// Jobs whose prompts share prefixes of all lengths, some of them whole prompts.
fn job() -> impl Strategy<Value = Job> {
    let prompt = (0_usize..2, 1_usize..80, 0_u32..3, 0_usize..6).prop_map(
        |(template, length, question, tail)| -> Vec<u32> {
            let template = (0..length).map(|index| (index * (template + 3) % 61) as u32);
            let tail = (0..tail as u32).map(|index| (index * 7 + question) % VOCABULARY);
            template.chain(tail).collect()
        },
    );
    let first = (prompt, 1_usize..30)
        .prop_map(|(append, max_new_tokens)| PlannedTurn { append, max_new_tokens });
    let later =
        (0..VOCABULARY, 0_usize..40, 1_usize..30).prop_map(|(token, count, max_new_tokens)| {
            PlannedTurn { append: vec![token; count], max_new_tokens }
        });
    let turns = (first, prop::collection::vec(later, 0..3)).prop_map(|(first, later)| {
        let mut turns = vec![first];
        turns.extend(later);
        turns
    });
    let cancelled_after = prop_oneof![4 => Just(None), 1 => (0_usize..40).prop_map(Some)];
    (0_usize..60, turns, 0_usize..12, cancelled_after).prop_map(
        |(arrives_at, turns, pause, cancelled_after)| Job {
            arrives_at,
            turns,
            pause,
            cancelled_after,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_roster_keeps_its_invariants(
        jobs in prop::collection::vec(job(), 1..20),
        max_sequences in 1_usize..10,
        max_prefill_tokens in 0_usize..90,
        spare_blocks in 0_usize..16,
        share_prompts in prop::bool::weighted(0.8),
        weights_change_at in prop::option::of(0_usize..80),
    ) {
        let blocks = CONTEXT.div_ceil(BLOCK_TOKENS) + spare_blocks;
        let config = BuiltinEngineConfig {
            max_sequences,
            max_context_tokens: CONTEXT,
            max_prefill_tokens,
            cache_tokens: blocks * BLOCK_TOKENS,
            share_prompts,
        };
        let mut simulation = Simulation::new(config, blocks);
        simulation.run(&jobs, weights_change_at);
        let cancelled = jobs.iter().any(|job| job.cancelled_after.is_some());
        simulation.check_end(&jobs, cancelled);
    }
}
