//! Grouped-query attention over blocks of cached keys and values.
//!
//! The softmax is computed over [`CHUNK_BLOCKS`] blocks at a time, with the running maximum and sum of
//! "Online normalizer calculation for softmax" (arXiv 1805.02867). Chunks begin at fixed positions of a
//! sequence, and blocks that a row does not attend to change none of its numbers. The result for a token
//! is therefore the same to the last bit whether the token came in a whole prompt, in a part, or alone.

use std::ops::Range;

use super::buffer::Buffer;
use super::cache::{HeadCache, block_numbers};
use super::kernel::{EngagedThread, Number, PANEL, Product, ROWS_MAX, STEP, Step, lanes};
use crate::engine::BLOCK_TOKENS;

/// Blocks whose scores are held at a time.
const CHUNK_BLOCKS: usize = 8;
const CHUNK_TOKENS: usize = CHUNK_BLOCKS * BLOCK_TOKENS;

/// The query heads of consecutive tokens of one sequence that share a key and value head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queries<'a, T> {
    /// `[group, padded rows, head_dim_padded]`, rotated.
    pub(super) numbers: &'a [T],
    pub(super) padded_rows: usize,
    pub(super) group: usize,
    pub(super) head_dim: usize,
    /// Row of the first of these tokens.
    pub(super) row: usize,
    /// Position of the first of these tokens in its sequence.
    pub(super) position: usize,
    pub(super) blocks: &'a [u32],
    /// Tokens that a token attends to, including itself; `None` for all.
    pub(super) window: Option<usize>,
}

impl<T> Queries<'_, T> {
    /// Returns the first position that the token at `position` attends to.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// The buffers in which a thread computes attention.
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

/// The running softmax of a row: the largest score so far, and the sum of exponentials relative to it.
#[derive(Clone, Copy, Debug)]
struct SoftmaxState {
    largest: f32,
    sum: f32,
}

/// The size of a block of queries, one row for each head of each token.
#[derive(Clone, Copy, Debug)]
struct QueryBlock {
    rows: usize,
    /// Numbers of a row, padded.
    width: usize,
}

/// Mixes the values for all queries; `mixed` is `[tokens, group, head_dim_padded]`.
pub(super) fn attend<T: Number>(
    engaged: &EngagedThread,
    queries: &Queries<'_, T>,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    mixed: &mut [T],
) {
    // Over the queries, as many at a time as one product computes.
    let width = queries.head_dim.next_multiple_of(PANEL);
    let mut first = 0;
    for mixed in mixed.chunks_mut(ROWS_MAX * width) {
        attend_block(engaged, queries, cache, scratch, first, mixed);
        first += ROWS_MAX;
    }
}

/// Computes [`attend`] for up to [`ROWS_MAX`] queries from `first` on. A query is one head of one token.
fn attend_block<T: Number>(
    engaged: &EngagedThread,
    queries: &Queries<'_, T>,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    first: usize,
    mixed: &mut [T],
) {
    let width = queries.head_dim.next_multiple_of(PANEL);
    let rows = mixed.len() / width;
    let block = QueryBlock { rows, width };
    let position = |row: usize| queries.position + (first + row) / queries.group;
    scratch.queries.resize(ROWS_MAX * width);
    scratch.mixed.resize(ROWS_MAX * width);
    scratch.mixed.fill(0.0);
    // Over the queries, the heads of a token next to each other: they read the same keys, so one product
    // serves all of them.
    for (row, query) in scratch.queries.chunks_exact_mut(width).take(rows).enumerate() {
        let (token, head) = ((first + row) / queries.group, (first + row) % queries.group);
        let row = head * queries.padded_rows + queries.row + token;
        query.copy_from_slice(&queries.numbers[row * width..][..width]);
    }
    let mut softmaxes = [SoftmaxState { largest: f32::NEG_INFINITY, sum: 0.0 }; ROWS_MAX];
    let scale = 1.0 / (queries.head_dim as f32).sqrt();
    let end = position(rows - 1) + 1;
    let start = queries.first_seen(position(0));
    // Over the chunks of the context that any of the rows attends to, first to last, each cached key and
    // value being read once for all rows.
    let mut chunk = start / CHUNK_TOKENS * CHUNK_TOKENS;
    while chunk < end {
        let blocks = &queries.blocks[chunk / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS)];
        let blocks = &blocks[..blocks.len().min(CHUNK_BLOCKS)];
        score(engaged, cache, scratch, block, blocks);
        let tokens = blocks.len() * BLOCK_TOKENS;
        // Over the rows, since each has its own softmax. The row's sums of earlier chunks are scaled down
        // when this chunk has a larger score than all before.
        for (row, softmax) in softmaxes[..rows].iter_mut().enumerate() {
            let last = position(row);
            let from = queries.first_seen(last);
            let seen = from.saturating_sub(chunk).min(tokens)
                ..(last + 1).saturating_sub(chunk).min(tokens);
            let scores = &mut scratch.scores[row * CHUNK_TOKENS..][..tokens];
            let weights = &mut scratch.weights[row * CHUNK_TOKENS..][..tokens];
            let factor = weigh(engaged, scores, weights, seen, scale, softmax);
            if factor < 1.0 {
                let mixed = &mut scratch.mixed[row * width..][..width];
                lanes::multiply_by(engaged, mixed, factor);
            }
        }
        mix(engaged, cache, scratch, block, blocks);
        chunk += CHUNK_TOKENS;
    }
    // Over the rows, whose sums are divided once at the end instead of each weight.
    for (row, (softmax, mixed)) in softmaxes.iter().zip(mixed.chunks_exact_mut(width)).enumerate() {
        let sums = &mut scratch.mixed[row * width..][..width];
        lanes::multiply_by(engaged, sums, 1.0 / softmax.sum);
        lanes::narrow(engaged, sums, mixed);
    }
}

/// Computes the products of the queries with the keys of some blocks.
fn score<T: Number>(
    engaged: &EngagedThread,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    QueryBlock { rows, width }: QueryBlock,
    blocks: &[u32],
) {
    // Over the blocks: the keys of one block are one panel of columns, and the steps of its product run
    // along the head's numbers.
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

/// Turns the scores of one row into weights and updates its softmax. Only the tokens of `seen` are
/// attended to. Returns the factor by which the sums of earlier chunks must be multiplied.
fn weigh<T: Number>(
    engaged: &EngagedThread,
    scores: &mut [f32],
    weights: &mut [T],
    seen: Range<usize>,
    scale: f32,
    softmax: &mut SoftmaxState,
) -> f32 {
    lanes::multiply_by(engaged, scores, scale);
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end.max(seen.start)..].fill(f32::NEG_INFINITY);
    let largest = lanes::largest(engaged, scores).max(softmax.largest);
    if largest == f32::NEG_INFINITY {
        weights.fill(T::default());
        return 1.0;
    }
    let sum = lanes::exponentials(engaged, scores, largest, weights);
    let factor = lanes::exponential(softmax.largest - largest);
    *softmax = SoftmaxState { largest, sum: softmax.sum * factor + sum };
    factor
}

/// Adds the values of some blocks, each multiplied by its weight.
fn mix<T: Number>(
    engaged: &EngagedThread,
    cache: &HeadCache<T>,
    scratch: &mut AttentionScratch<T>,
    QueryBlock { rows, width }: QueryBlock,
    blocks: &[u32],
) {
    // Over the panels of a head's numbers: the sums of one panel stay in registers while the steps of its
    // product run along the tokens of all blocks.
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
