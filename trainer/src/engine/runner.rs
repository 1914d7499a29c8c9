//! The interface of runners, which compute a pass: the model over new tokens of many sequences, and the
//! requested draws.
//!
//! A runner owns weights and the KV cache. It knows blocks but no sequences: its caller assigns blocks to
//! sequences.

use std::fmt::Debug;
use std::ops::Range;

use super::sample::Choice;
use super::{EngineError, Sampling, SamplingKey};
use crate::policy::Weights;

/// Tokens of one block of the KV cache: as many as a matrix product computes columns at a time.
pub const BLOCK_TOKENS: usize = 32;

/// New tokens of several sequences that go through the model together: prefill chunks and decoded
/// tokens alike.
#[derive(Debug)]
pub struct Pass<'a> {
    /// `[rows]`
    pub ids: &'a [u32],
    /// `[rows]`, each token's position in its sequence.
    pub positions: &'a [u32],
    /// The rows of each sequence. The spans follow each other and cover all rows.
    pub spans: &'a [Span<'a>],
}

/// The new tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// The span's rows of the pass, at least one.
    pub rows: Range<usize>,
    /// Tokens of the sequence that are cached before this pass. Row i of the span is token past + i.
    pub past: usize,
    /// The sequence's blocks in order, enough for at least past + rows tokens. Token t is in
    /// `blocks[t / BLOCK_TOKENS]` at `t % BLOCK_TOKENS`.
    pub blocks: &'a [u32],
}

/// A request for the next token after a row.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// The row of the pass. Several draws may name one row: samples of one prompt.
    pub row: usize,
    /// The settings that choose the token.
    pub sampling: Sampling,
    /// The counters of the draw's sample.
    pub key: SamplingKey,
    /// The drawn token's position in its sequence.
    pub position: u64,
}

/// A model with its weights and its KV cache. It may move to another thread.
pub trait Runner: Debug + Send {
    /// Writes the keys and values of the pass into the cache and samples a token for each draw, in order.
    ///
    /// # Errors
    /// The computation failed. The cached keys and values of the pass are then undefined.
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError>;
    /// Copies a block in every layer.
    fn copy_block(&mut self, from: u32, to: u32);
    /// Replaces the weights.
    fn set_weights(&mut self, weights: Weights);
}
