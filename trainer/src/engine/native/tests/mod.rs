//! The kernels compared with the portable ones, and the runner compared with libtorch's decoder on the
//! recorded checkpoint of every family.

mod draws;
mod families;
mod invariance;
mod kernels;
mod limits;
mod threads;

use shared::contract::splitmix;

use super::{Instructions, NativeConfig, NativeRunner, WeightFormat};
use crate::engine::{
    BLOCK_TOKENS, Choice, Draw, EngineError, Pass, Runner, Sampling, SamplingKey, Span,
};
use crate::policy::{Decoder, Policy};

/// Blocks of the runners under test.
const BLOCKS: usize = 40;
/// Positions of the rotary tables.
const POSITIONS: usize = 400;

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };
const WARM: Sampling = Sampling { temperature: 0.7, top_p: 1.0 };

/// New tokens of a sequence, and the blocks of the sequence.
#[derive(Clone, Copy)]
struct Part<'a> {
    ids: &'a [u32],
    past: usize,
    blocks: &'a [u32],
}

fn runner(
    policy: &Policy,
    format: WeightFormat,
    instructions: Instructions,
    threads: usize,
) -> NativeRunner {
    let decoder = Decoder::new(&policy.config, POSITIONS, policy.compute.device);
    let config = NativeConfig { format, blocks: BLOCKS, threads, instructions };
    NativeRunner::new(&decoder, &policy.detached_weights(), config).unwrap()
}

/// Returns `count` random tokens of the policy's vocabulary, the same for the same seed.
fn tokens(policy: &Policy, count: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let vocabulary = policy.config.vocab_size as u64;
    (0..count).map(|_| (splitmix::next(&mut state) % vocabulary) as u32).collect()
}

fn key(row: usize, sample: usize) -> SamplingKey {
    SamplingKey { seed: 3, step: 0, prompt: row as u64, sample: sample as u64 }
}

/// Feeds all parts in one pass.
fn feed(
    runner: &mut NativeRunner,
    parts: &[Part<'_>],
    draws: &[Draw],
) -> Result<Vec<Choice>, EngineError> {
    let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        let rows = ids.len()..ids.len() + part.ids.len();
        ids.extend(part.ids);
        positions.extend((part.past..part.past + part.ids.len()).map(|position| position as u32));
        spans.push(Span { rows, past: part.past, blocks: part.blocks });
    }
    runner.run(&Pass { ids: &ids, positions: &positions, spans: &spans }, draws)
}

/// Feeds a sequence `chunk` tokens at a time; returns a greedy draw and three warm draws for each token.
fn choices(
    runner: &mut NativeRunner,
    ids: &[u32],
    blocks: &[u32],
    chunk: usize,
) -> Vec<[Choice; 4]> {
    let mut actual = Vec::new();
    for (index, part) in ids.chunks(chunk).enumerate() {
        let past = index * chunk;
        let draws: Vec<Draw> = (0..part.len()).flat_map(|row| draws_of(row, past + row)).collect();
        let choices = feed(runner, &[Part { ids: part, past, blocks }], &draws).unwrap();
        actual.extend_from_slice(choices.as_chunks::<4>().0);
    }
    assert_eq!(actual.len(), ids.len());
    actual
}

/// Returns the draws from a row of a pass that is token `token` of its sequence.
fn draws_of(row: usize, token: usize) -> [Draw; 4] {
    std::array::from_fn(|sample| Draw {
        row,
        sampling: if sample == 0 { GREEDY } else { WARM },
        key: key(token, sample),
        position: token as u64 + 1,
    })
}

/// Returns enough blocks for `tokens`, in scattered order.
fn scattered_blocks(tokens: usize) -> Vec<u32> {
    (0..tokens.div_ceil(BLOCK_TOKENS)).map(|block| (block * 7 + 3) as u32 % BLOCKS as u32).collect()
}
