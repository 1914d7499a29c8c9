//! Engines turn token ids into sampled token ids and their log-probs.
//!
//! Invariant: tokens in, tokens out. An engine is handed the tokens to append and keeps the
//! context of each sequence itself (its key/value cache); nothing is ever tokenised again.

mod blocks;
mod builtin;
mod choice;
mod cuda;
mod eager;
mod external;
mod native;
mod prompts;
mod roster;
mod runner;
mod sample;
mod sequence;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

pub use builtin::{BuiltinEngine, BuiltinEngineConfig, EngineCounters, cache_tokens};
pub use choice::{RunnerChoice, RunnerKind, cached_number_bytes, runner};
pub use eager::eager_runner;
pub use external::{Dialect, ExternalEngine, ExternalEngineConfig};
pub use native::{Instructions, NativeConfig, NativeRunner, WeightFormat};
pub use runner::{BLOCK_TOKENS, Draw, Pass, Runner, Span};
pub use sample::Choice;

use crate::token::Tokenizer;

/// Names one sequence (one episode) for as long as it lives in the engine.
pub type SequenceId = u64;

/// The counters that, with a token's position, decide each random draw, so that a sample does not
/// depend on what else is in the batch or on timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SamplingKey {
    pub seed: u64,
    pub step: u64,
    pub prompt: u64,
    pub sample: u64,
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 chooses the most likely token.
    pub temperature: f32,
    /// In (0, 1]; 1 samples from the whole distribution.
    pub top_p: f32,
}

/// When a generation ends, besides the end-of-sequence token and the token limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRule {
    /// Ends as soon as the decoded text of this generation's tokens contains one of these.
    pub stop_at: Vec<String>,
    /// Looked for only once the generation has ended otherwise: what follows the token that
    /// completes the first of these is dropped (the order of the reference, which lets `</search>`
    /// win over an earlier `</answer>`).
    pub cut_after: Vec<String>,
}

/// One turn of one sequence.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub sequence: SequenceId,
    /// Appended to the sequence's context before sampling: the prompt at first, observations later.
    pub append: Vec<u32>,
    /// Limit of sampled tokens in this turn; at least 1.
    pub max_new_tokens: usize,
    pub stop: StopRule,
    pub sampling: Sampling,
    pub key: SamplingKey,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// One of the stop strings was completed (or cut after).
    Tag(String),
    EndOfSequence,
    Length,
}

/// What one turn of one sequence sampled.
#[derive(Clone, Debug)]
pub struct Generation {
    pub sequence: SequenceId,
    /// Every sampled token that stays in the context, the stop tokens included.
    pub token_ids: Vec<u32>,
    /// Log-prob of each of `token_ids` under the sampling distribution's temperature (before
    /// top-p), same length.
    pub log_probs: Vec<f32>,
    pub stop: StopReason,
    pub policy_version: u64,
}

/// Token ids in, token ids and log-probs out.
pub trait Engine {
    /// Queues one turn. A sequence is known from its first request until `release`.
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError>;
    /// Advances every running sequence by at most one token, or, where others compute, waits for
    /// them for a few milliseconds; returns the turns that ended.
    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError>;
    /// What the running turn of a sequence has sampled so far, where the engine tells; empty between turns.
    fn partial_tokens(&self, _sequence: SequenceId) -> &[u32] {
        &[]
    }
    /// Forgets a sequence and frees its cache.
    fn release(&mut self, sequence: SequenceId);
    /// True when no turn is queued or running.
    fn is_idle(&self) -> bool;
    /// Longest context in tokens, prompt and sampled tokens together.
    fn max_context_tokens(&self) -> usize;
}

/// Why an engine could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("sequence {sequence} needs {needed} tokens of context, the engine holds {limit}")]
    ContextTooLong { sequence: SequenceId, needed: usize, limit: usize },
    #[error("sequence {0} is already generating")]
    Busy(SequenceId),
    #[error("model computation failed: {0}")]
    Compute(#[from] tch::TchError),
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
    #[error("{0}")]
    Other(String),
}
