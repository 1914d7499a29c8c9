//! Engines turn token ids into sampled token ids and their log-probs.
//!
//! Invariant: tokens in, tokens out. An engine receives the tokens to append and keeps the context of
//! each sequence itself, in its KV cache. Nothing is tokenised again.

mod blocks;
mod builtin;
mod choice;
mod config;
mod counters;
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

pub use builtin::BuiltinEngine;
pub use choice::{RunnerChoice, RunnerKind, cached_number_bytes, runner};
pub use config::{BuiltinEngineConfig, cache_tokens};
pub use counters::EngineCounters;
pub use eager::eager_runner;
pub use external::{Dialect, ExternalEngine, ExternalEngineConfig};
pub use native::{Instructions, NativeConfig, NativeRunner, WeightFormat};
pub use runner::{BLOCK_TOKENS, Draw, Pass, Runner, Span};
pub use sample::Choice;

use tch::Device;

use crate::token::Tokenizer;

/// The name of one sequence (one episode) for as long as the engine knows it.
pub type SequenceId = u64;

/// The counters that decide each random draw, together with the token's position. A sample therefore
/// depends neither on the rest of the batch nor on timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SamplingKey {
    pub seed: u64,
    pub step: u64,
    pub prompt: u64,
    pub sample: u64,
}

/// Settings that choose the next token from its distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 chooses the most likely token.
    pub temperature: f32,
    /// In (0, 1]; 1 samples from the whole distribution.
    pub top_p: f32,
}

/// The strings that end a generation, besides the end-of-sequence token and the token limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRule {
    /// The generation ends as soon as the decoded text of its tokens contains one of these strings.
    pub stop_at: Vec<String>,
    /// Strings that are searched for only after the generation has ended otherwise. All tokens after
    /// the one that completes the first of these strings are dropped. This is the order of the
    /// reference, in which `</search>` wins over an earlier `</answer>`.
    pub cut_after: Vec<String>,
}

/// One turn of one sequence.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub sequence: SequenceId,
    /// Tokens to append to the sequence's context before sampling: first the prompt, later observations.
    pub append: Vec<u32>,
    /// The most tokens to sample in this turn; at least 1.
    pub max_new_tokens: usize,
    pub stop: StopRule,
    pub sampling: Sampling,
    pub key: SamplingKey,
}

/// The reason that ended a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A stop string was completed, or the generation was cut after this string.
    Tag(String),
    EndOfSequence,
    Length,
}

/// The tokens that one turn of one sequence sampled.
#[derive(Clone, Debug)]
pub struct Generation {
    pub sequence: SequenceId,
    /// Every sampled token that stays in the context, including the stop tokens.
    pub token_ids: Vec<u32>,
    /// The log-prob of each of `token_ids` at the sampling temperature, before top-p; same length.
    pub log_probs: Vec<f32>,
    pub stop: StopReason,
    pub policy_version: u64,
}

/// A model that samples the turns of many sequences concurrently.
pub trait Engine {
    /// Queues one turn. The engine knows a sequence from its first request until `release`.
    ///
    /// # Errors
    /// The sequence is already generating, its context is empty or too long, or a token is unknown.
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError>;
    /// Advances every running sequence by at most one token and returns the turns that ended. An engine
    /// outside this process waits a few milliseconds for its servers instead.
    ///
    /// # Errors
    /// The computation failed, a server refused a turn, or sampled tokens cannot be decoded.
    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError>;
    /// Returns the tokens that the running turn has sampled so far, if the engine can report them; empty
    /// between turns.
    fn partial_tokens(&self, _sequence: SequenceId) -> &[u32] {
        &[]
    }
    /// Forgets a sequence and frees its cache.
    fn release(&mut self, sequence: SequenceId);
    /// Returns `true` if no turn is queued or running.
    fn is_idle(&self) -> bool;
    /// Returns the longest context in tokens, prompt and sampled tokens together.
    fn max_context_tokens(&self) -> usize;
}

/// An error that stops an engine or refuses a request.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("sequence {sequence} needs {needed} tokens of context, the engine holds {limit}")]
    ContextTooLong { sequence: SequenceId, needed: usize, limit: usize },
    #[error("sequence {0} is already generating")]
    Busy(SequenceId),
    #[error("sequence {0} has an empty prompt")]
    EmptyPrompt(SequenceId),
    #[error(
        "sequence {sequence}: token {token} is not among the model's {vocabulary} tokens; the \
         tokenizer and the model do not belong together"
    )]
    UnknownToken { sequence: SequenceId, token: u32, vocabulary: u64 },
    #[error(
        "the engine sampled token {token}, which is not among the model's {vocabulary} tokens: it \
         serves another model than model.path"
    )]
    ForeignToken { token: u32, vocabulary: usize },
    #[error(
        "`rollout.runner` = \"{runner}\" computes on {computes_on}, but the model is on {device:?}; \
         accepted there: {accepted}"
    )]
    WrongDevice {
        runner: &'static str,
        computes_on: &'static str,
        device: Device,
        accepted: &'static str,
    },
    #[error(
        "`rollout.weights` requires `rollout.runner` = \"native\", which computes on the CPU only; \
         accepted elsewhere: \"auto\""
    )]
    WeightsWithoutNativeRunner,
    #[error("`rollout.runner` = \"fused\" cannot run: {0}; \"auto\" chooses a runner that can")]
    FusedUnavailable(String),
    #[error("cannot start {threads} threads for rollouts: {error}")]
    Threads { threads: usize, error: std::io::Error },
    #[error("a pass {0}")]
    InvalidPass(String),
    #[error("the runner drew {drawn} tokens, {requested} were requested")]
    DrawCount { drawn: usize, requested: usize },
    #[error("row {row} of a pass has logits that are not numbers: the weights are not finite")]
    LogitsNotFinite { row: usize },
    #[error("a kernel failed: {0}")]
    Kernel(String),
    /// An error of the servers of an external engine, or of their addresses.
    #[error("{0}")]
    Server(String),
    #[error("demonstration {0} has no further turn")]
    NoFurtherTurn(SequenceId),
    #[error("model computation failed: {0}")]
    Compute(#[from] tch::TchError),
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
}
