//! Grouped-query attention over blocks of cached keys and values.
//!
//! The softmax is taken over [`CHUNK_BLOCKS`] blocks at a time, with the running maximum and sum of
//! "Online normalizer calculation for softmax" (arXiv 1805.02867). Chunks begin at fixed places of a
//! sequence, and blocks that a row does not attend to change nothing of it: what a token attends to
//! is the same to the last bit whether it came in a prompt, a part of one, or alone.

use super::buffer::Buffer;
use super::cache::{HeadCache, block_numbers};
use super::kernel::{Engaged, Number, PANEL, Product, ROWS_MAX, STEP, Step, lanes};
use crate::engine::BLOCK_TOKENS;

/// Blocks whose scores are held at a time.
const CHUNK_BLOCKS: usize = 8;
const CHUNK_TOKENS: usize = CHUNK_BLOCKS * BLOCK_TOKENS;

/// Some query heads of some tokens of one sequence, all of one key and value head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queries<'a, T> {
    /// `[group, padded rows, head_dim_padded]`, turned.
    pub(super) numbers: &'a [T],
    pub(super) padded_rows: usize,
    pub(super) group: usize,
    pub(super) head_dim: usize,
    /// The first row of these tokens.
    pub(super) row: usize,
    /// Place of the first of these tokens in its sequence.
    pub(super) position: usize,
    pub(super) blocks: &'a [u32],
    /// Tokens that a token attends to, itself among them.
    pub(super) window: Option<usize>,
}

/// What a thread computes attention in.
#[derive(Debug)]
pub(super) struct AttentionScratch<T> {
    queries: Buffer<T>,
    scores: Buffer<f32>,
    weights: Buffer<T>,
    mixed: Buffer<f32>,
    key_steps: Vec<Step>,
    value_steps: Vec<Step>,
}

impl<T: Number> Default for AttentionScratch<T> {
    fn default() -> Self {
        Self {
            queries: Buffer::zeros(0),
            scores: Buffer::zeros(ROWS_MAX * CHUNK_TOKENS),
            weights: Buffer::zeros(ROWS_MAX * CHUNK_TOKENS),
            mixed: Buffer::zeros(0),
            key_steps: Vec::new(),
            value_steps: Vec::new(),
        }
    }
}

/// The running softmax of a row.
#[derive(Clone, Copy, Debug)]
struct Running {
    largest: f32,
    sum: f32,
}

/// Mixes the values for all queries; `mixed` is `[tokens, group, head_dim_padded]`.
pub(super) fn attend<T: Number>(
    engaged: &Engaged,
    queries: &Queries<'_, T>,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    mixed: &mut [T],
) {
    let width = queries.head_dim.next_multiple_of(PANEL);
    let mut first = 0;
    for mixed in mixed.chunks_mut(ROWS_MAX * width) {
        attend_block(engaged, queries, cache, scratch, (first, mixed));
        first += ROWS_MAX;
    }
}

/// As [`attend`] for up to [`ROWS_MAX`] queries, a query being a head of a token; `first` is the
/// first of them.
fn attend_block<T: Number>(
    engaged: &Engaged,
    queries: &Queries<'_, T>,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    (first, mixed): (usize, &mut [T]),
) {
    let width = queries.head_dim.next_multiple_of(PANEL);
    let rows = mixed.len() / width;
    let position = |row: usize| queries.position + (first + row) / queries.group;
    scratch.queries.resize(ROWS_MAX * width);
    scratch.mixed.resize(ROWS_MAX * width);
    scratch.mixed.fill(0.0);
    for (row, place) in scratch.queries.chunks_exact_mut(width).take(rows).enumerate() {
        let (token, head) = ((first + row) / queries.group, (first + row) % queries.group);
        let row = head * queries.padded_rows + queries.row + token;
        place.copy_from_slice(&queries.numbers[row * width..][..width]);
    }
    let mut running = [Running { largest: f32::NEG_INFINITY, sum: 0.0 }; ROWS_MAX];
    let end = position(rows - 1) + 1;
    let start = queries.window.map_or(0, |window| (position(0) + 1).saturating_sub(window));
    let mut chunk = start / CHUNK_TOKENS * CHUNK_TOKENS;
    while chunk < end {
        let blocks = &queries.blocks[chunk / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS)];
        let blocks = &blocks[..blocks.len().min(CHUNK_BLOCKS)];
        score(engaged, cache, scratch, (rows, width), blocks);
        let tokens = blocks.len() * BLOCK_TOKENS;
        for (row, running) in running[..rows].iter_mut().enumerate() {
            let last = position(row);
            let from = queries.window.map_or(0, |window| (last + 1).saturating_sub(window));
            let seen = from.saturating_sub(chunk).min(tokens)
                ..(last + 1).saturating_sub(chunk).min(tokens);
            let scores = &mut scratch.scores[row * CHUNK_TOKENS..][..tokens];
            let weights = &mut scratch.weights[row * CHUNK_TOKENS..][..tokens];
            let scale = 1.0 / (queries.head_dim as f32).sqrt();
            let factor = weigh(engaged, scores, weights, (seen, scale), running);
            if factor < 1.0 {
                let mixed = &mut scratch.mixed[row * width..][..width];
                lanes::multiply_by(engaged, mixed, factor);
            }
        }
        mix(engaged, cache, scratch, (rows, width), blocks);
        chunk += CHUNK_TOKENS;
    }
    for (row, (running, mixed)) in running.iter().zip(mixed.chunks_exact_mut(width)).enumerate() {
        let sums = &mut scratch.mixed[row * width..][..width];
        lanes::multiply_by(engaged, sums, 1.0 / running.sum);
        lanes::narrow(engaged, sums, mixed);
    }
}

/// The products of queries with the keys of some blocks.
fn score<T: Number>(
    engaged: &Engaged,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    (rows, width): (usize, usize),
    blocks: &[u32],
) {
    for (index, block) in blocks.iter().enumerate() {
        let start = *block as usize * block_numbers(width);
        scratch.key_steps.clear();
        let steps = (0..width / STEP)
            .map(|step| Step { left: step * STEP, right: start + step * STEP * BLOCK_TOKENS });
        scratch.key_steps.extend(steps);
        T::multiply(
            engaged,
            &mut Product {
                steps: &scratch.key_steps,
                left: &scratch.queries,
                left_stride: width,
                right: &cache.keys,
                right_columns: BLOCK_TOKENS,
                rows,
                sums: &mut scratch.scores[index * BLOCK_TOKENS..],
                sums_stride: CHUNK_TOKENS,
                adds: false,
            },
        );
    }
}

/// Turns the scores of one row into weights and goes on with its softmax; only the tokens `seen` are
/// attended to. Returns what earlier sums are to be multiplied by.
fn weigh<T: Number>(
    engaged: &Engaged,
    scores: &mut [f32],
    weights: &mut [T],
    (seen, scale): (std::ops::Range<usize>, f32),
    running: &mut Running,
) -> f32 {
    lanes::multiply_by(engaged, scores, scale);
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end.max(seen.start)..].fill(f32::NEG_INFINITY);
    let largest = lanes::largest(engaged, scores).max(running.largest);
    if largest == f32::NEG_INFINITY {
        weights.fill(T::default());
        return 1.0;
    }
    let sum = lanes::exponentials(engaged, scores, largest, weights);
    let factor = lanes::exponential(running.largest - largest);
    *running = Running { largest, sum: running.sum * factor + sum };
    factor
}

/// Adds the values of some blocks, each times its weight.
fn mix<T: Number>(
    engaged: &Engaged,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    (rows, width): (usize, usize),
    blocks: &[u32],
) {
    for column in (0..width).step_by(PANEL) {
        scratch.value_steps.clear();
        let steps = blocks.iter().enumerate().map(|(index, block)| Step {
            left: index * BLOCK_TOKENS,
            right: *block as usize * block_numbers(width) + column * T::PAIR,
        });
        scratch.value_steps.extend(steps);
        T::multiply(
            engaged,
            &mut Product {
                steps: &scratch.value_steps,
                left: &scratch.weights,
                left_stride: CHUNK_TOKENS,
                right: &cache.values,
                right_columns: width,
                rows,
                sums: &mut scratch.mixed[column..],
                sums_stride: width,
                adds: true,
            },
        );
    }
}
