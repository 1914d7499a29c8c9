//! The kernels against their portable twins, and the runner against libtorch's decoder on every
//! family's recorded checkpoint.

mod draws;
mod families;
mod invariance;
mod kernels;
mod limits;
mod threads;

use shared::splitmix;

use super::{Instructions, NativeConfig, NativeRunner, WeightFormat};
use crate::engine::{
    BLOCK_TOKENS, Choice, Draw, EngineError, Pass, Runner, Sampling, SamplingKey, Span,
};
use crate::policy::{Decoder, Policy};

/// Blocks of the runners under test.
const BLOCKS: usize = 40;
/// Tokens that rotary tables are made for.
const POSITIONS: usize = 400;

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };
const WARM: Sampling = Sampling { temperature: 0.7, top_p: 1.0 };

/// Tokens of a sequence that are new, and where the sequence lies.
#[derive(Clone, Copy)]
struct Part<'a> {
    ids: &'a [u32],
    past: usize,
    blocks: &'a [u32],
}

fn runner(
    policy: &Policy,
    format: WeightFormat,
    (instructions, threads): (Instructions, usize),
) -> NativeRunner {
    let decoder = Decoder::new(&policy.config, POSITIONS, policy.compute.device);
    let config = NativeConfig { format, blocks: BLOCKS, threads, instructions };
    NativeRunner::new(&decoder, &policy.detached_weights(), config).unwrap()
}

/// `count` tokens of a vocabulary, the same for the same seed.
fn tokens(policy: &Policy, count: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let vocabulary = policy.config.vocab_size as u64;
    (0..count).map(|_| (splitmix::next(&mut state) % vocabulary) as u32).collect()
}

fn key(row: usize, sample: usize) -> SamplingKey {
    SamplingKey { seed: 3, step: 0, prompt: row as u64, sample: sample as u64 }
}

/// Feeds the parts in one pass.
fn feed(
    runner: &mut NativeRunner,
    parts: &[Part<'_>],
    draws: &[Draw],
) -> Result<Vec<Choice>, EngineError> {
    let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        let rows = ids.len()..ids.len() + part.ids.len();
        ids.extend(part.ids);
        positions.extend((part.past..part.past + part.ids.len()).map(|place| place as u32));
        spans.push(Span { rows, past: part.past, blocks: part.blocks });
    }
    runner.run(&Pass { ids: &ids, positions: &positions, spans: &spans }, draws)
}

/// A greedy draw and three warm ones for each of a sequence's tokens, fed `chunk` tokens at a time.
fn choices(
    runner: &mut NativeRunner,
    ids: &[u32],
    blocks: &[u32],
    chunk: usize,
) -> Vec<[Choice; 4]> {
    let mut found = Vec::new();
    for (index, part) in ids.chunks(chunk).enumerate() {
        let past = index * chunk;
        let draws: Vec<Draw> = (0..part.len()).flat_map(|row| draws_of(row, past + row)).collect();
        let choices = feed(runner, &[Part { ids: part, past, blocks }], &draws).unwrap();
        found.extend_from_slice(choices.as_chunks::<4>().0);
    }
    assert_eq!(found.len(), ids.len());
    found
}

/// The draws from a row of a pass that is token `place` of its sequence.
fn draws_of(row: usize, place: usize) -> [Draw; 4] {
    std::array::from_fn(|sample| Draw {
        row,
        sampling: if sample == 0 { GREEDY } else { WARM },
        key: key(place, sample),
        position: place as u64 + 1,
    })
}

/// Enough blocks for `tokens`, in no order.
fn scattered_blocks(tokens: usize) -> Vec<u32> {
    (0..tokens.div_ceil(BLOCK_TOKENS)).map(|block| (block * 7 + 3) as u32 % BLOCKS as u32).collect()
}
