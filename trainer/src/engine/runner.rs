//! What computes a pass: the model over new tokens of many sequences, and a draw for each row that
//! asks for one.
//!
//! A runner owns weights and the pool of keys and values; it knows blocks, never sequences. Which
//! block holds what is its caller's to decide.

use std::fmt::Debug;
use std::ops::Range;

use super::sample::Choice;
use super::{EngineError, Sampling, SamplingKey};
use crate::policy::Weights;

/// Tokens of one block of the pool: as many as a matrix product computes columns at a time.
pub const BLOCK_TOKENS: usize = 32;

/// New tokens of several sequences that go through the model together: prefill chunks and decoded
/// tokens alike.
#[derive(Debug)]
pub struct Pass<'a> {
    /// `[rows]`
    pub ids: &'a [u32],
    /// `[rows]`, each token's place in its sequence.
    pub positions: &'a [u32],
    /// The rows of each sequence, one span behind the other; together all rows.
    pub spans: &'a [Span<'a>],
}

/// The new tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Its rows of the pass, at least one.
    pub rows: Range<usize>,
    /// Tokens of the sequence that are cached before this pass (row i of the span is token past + i).
    pub past: usize,
    /// The sequence's blocks in order; they hold at least past + rows tokens. Token t lies in
    /// `blocks[t / BLOCK_TOKENS]` at `t % BLOCK_TOKENS`.
    pub blocks: &'a [u32],
}

/// A row whose next token is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Of the pass; several draws may name one row: samples of one prompt.
    pub row: usize,
    /// How the token is chosen.
    pub sampling: Sampling,
    /// Whose draw it is.
    pub key: SamplingKey,
    /// Place of the drawn token in its sequence.
    pub position: u64,
}

/// A model with its weights and its pool of blocks. Another thread may take it over.
pub trait Runner: Debug + Send {
    /// Writes the keys and values of the pass into the pool and samples a token for each draw, in
    /// their order.
    ///
    /// # Errors
    /// The computation failed; what the pool holds of the pass is then unknown.
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError>;
    /// Copies a block of every layer.
    fn copy_block(&mut self, from: u32, to: u32);
    /// Takes new weights.
    fn set_weights(&mut self, weights: Weights);
}
