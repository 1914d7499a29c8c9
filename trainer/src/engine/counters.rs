//! Counts of the work that the built-in engine did and saved.

use serde::{Deserialize, Serialize};

/// The work of the engine since the counters were last taken.
///
/// Once all turns have ended, `prefill_tokens + shared_tokens + continued_tokens =
/// naive_prefill_tokens + recomputed_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineCounters {
    /// Tokens of prompts and observations that went through the model.
    pub prefill_tokens: u64,
    /// Tokens that would have gone through the model if every turn had computed its whole context.
    pub naive_prefill_tokens: u64,
    /// Prompt tokens whose cache a sequence took over from another sequence.
    pub shared_tokens: u64,
    /// Tokens that earlier turns of the same sequence had already computed.
    pub continued_tokens: u64,
    /// Tokens that were computed again because their cache had been released.
    pub recomputed_tokens: u64,
    /// Sampled tokens that went through the model, one in each pass.
    pub decoded_tokens: u64,
    /// Caches that were released because no block was free.
    pub preemptions: u64,
    /// The most blocks of the KV cache that were in use at one time.
    pub most_blocks: u64,
    /// Blocks of the KV cache.
    pub pool_blocks: u64,
}
