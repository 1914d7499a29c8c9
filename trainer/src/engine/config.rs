//! The bounds of the built-in engine.

use super::runner::BLOCK_TOKENS;

/// Bounds of the built-in engine.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinEngineConfig {
    /// The most sequences that hold a cache concurrently.
    pub max_sequences: usize,
    /// Longest context, prompt and sampled tokens together.
    pub max_context_tokens: usize,
    /// The most tokens of prompts and observations in one pass, in addition to one token for each
    /// running sequence.
    pub max_prefill_tokens: usize,
    /// Tokens that the KV cache holds, rounded down to whole blocks but never less than one longest
    /// context. 0 reserves as many as all sequences can use.
    pub cache_tokens: usize,
    /// `true` if common prefixes of prompts are computed once. Switched off only to measure the saving.
    pub share_prompts: bool,
}

impl BuiltinEngineConfig {
    /// Returns the number of blocks of [`BLOCK_TOKENS`] tokens in the KV cache.
    pub fn cache_blocks(&self) -> usize {
        let context = self.max_context_tokens.div_ceil(BLOCK_TOKENS);
        match self.cache_tokens {
            0 => context * self.max_sequences.max(1),
            tokens => (tokens / BLOCK_TOKENS).max(context),
        }
    }
}

/// Returns the tokens whose keys and values fit into `mib` MiB at `token_bytes` a token; 0 for 0 MiB,
/// otherwise at least 1.
pub fn cache_tokens(mib: usize, token_bytes: u64) -> usize {
    const MIB: u64 = 1024 * 1024;
    ((mib as u64 * MIB) / token_bytes.max(1)).max(u64::from(mib > 0)) as usize
}
