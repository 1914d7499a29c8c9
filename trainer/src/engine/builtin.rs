//! The engine inside the trainer: sequences join and leave a running batch.
//!
//! A step is one pass of a [`Runner`]: the last token of every running sequence, and beside them
//! chunks of prompts and observations. What begins alike is computed once, and a turn goes on with
//! what the turns before it have computed. A sequence that waits for passages keeps its blocks and
//! costs nothing. Numbers depend on batch composition by rounding only; draws never do.

use serde::{Deserialize, Serialize};

use super::eager::eager_runner;
use super::roster::Roster;
use super::runner::{BLOCK_TOKENS, Pass, Runner, Span};
use super::{Engine, EngineError, GenerateRequest, Generation, SequenceId};
use crate::policy::{Decoder, Weights};
use crate::token::Tokenizer;

/// Bounds of the built-in engine.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinEngineConfig {
    /// Sequences that hold a cache at one time.
    pub max_sequences: usize,
    /// Longest context, prompt and sampled tokens together.
    pub max_context_tokens: usize,
    /// Tokens of prompts and observations in one pass, beside one of every running sequence.
    pub max_prefill_tokens: usize,
    /// Tokens that the pool of keys and values holds, in whole blocks and never less than one longest
    /// context; 0 for as many as all sequences can have.
    pub cache_tokens: usize,
    /// Whether what prompts have in common is computed once; off only to measure what that saves.
    pub share_prompts: bool,
}

impl BuiltinEngineConfig {
    /// Blocks of [`BLOCK_TOKENS`] in the pool.
    pub fn pool_blocks(&self) -> usize {
        let context = self.max_context_tokens.div_ceil(BLOCK_TOKENS);
        match self.cache_tokens {
            0 => context * self.max_sequences.max(1),
            tokens => (tokens / BLOCK_TOKENS).max(context),
        }
    }
}

/// Tokens that `mib` MiB of keys and values hold, at `token_bytes` a token; 0 of 0.
pub fn cache_tokens(mib: usize, token_bytes: u64) -> usize {
    const MIB: u64 = 1024 * 1024;
    ((mib as u64 * MIB) / token_bytes.max(1)).max(u64::from(mib > 0)) as usize
}

/// What the engine has computed since it was last asked.
///
/// Once all turns have ended, `prefill_tokens + shared_tokens + continued_tokens =
/// naive_prefill_tokens + recomputed_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineCounters {
    /// Tokens of prompts and observations that went through the model.
    pub prefill_tokens: u64,
    /// Tokens that would have, had every turn of every sequence computed its whole context.
    pub naive_prefill_tokens: u64,
    /// Prompt tokens that a sequence took over from another one.
    pub shared_tokens: u64,
    /// Tokens that a turn found computed by the turns before it.
    pub continued_tokens: u64,
    /// Tokens that were computed again since their cache had been given up.
    pub recomputed_tokens: u64,
    /// Sampled tokens that went through the model one a pass.
    pub decoded_tokens: u64,
    /// Caches that were given up because the pool was dry.
    pub preemptions: u64,
    /// Most blocks of the pool that were in use at one time.
    pub most_blocks: u64,
    /// Blocks of the pool.
    pub pool_blocks: u64,
}

/// Continuous batching over one set of weights.
#[derive(Debug)]
pub struct BuiltinEngine {
    runner: Box<dyn Runner>,
    roster: Roster,
    config: BuiltinEngineConfig,
    vocabulary: u64,
    policy_version: u64,
}

impl BuiltinEngine {
    /// `decoder` must hold positions for `config.max_context_tokens`.
    pub fn new(decoder: Decoder, weights: Weights, config: BuiltinEngineConfig) -> Self {
        let vocabulary = decoder.config.vocab_size as u64;
        let runner = eager_runner(decoder, weights, config.pool_blocks());
        Self::with_runner(runner, vocabulary, config)
    }

    /// Over a runner whose pool holds `config.pool_blocks()` and whose model knows `vocabulary` tokens.
    pub fn with_runner(
        runner: Box<dyn Runner>,
        vocabulary: u64,
        config: BuiltinEngineConfig,
    ) -> Self {
        let roster = Roster::new(config, config.pool_blocks());
        Self { runner, roster, config, vocabulary, policy_version: 0 }
    }

    /// Takes new weights between steps; cached keys and values of live sequences stay as they are.
    pub fn set_weights(&mut self, weights: Weights, policy_version: u64) {
        self.runner.set_weights(weights);
        self.roster.forget_prompts();
        self.policy_version = policy_version;
    }

    /// What has been computed since the last call.
    pub fn take_counters(&mut self) -> EngineCounters {
        self.roster.take_counters()
    }
}

impl Engine for BuiltinEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        let id = request.sequence;
        let held = self.roster.get(id);
        if held.is_some_and(|sequence| sequence.turn.is_some()) {
            return Err(EngineError::Busy(id));
        }
        let past = held.map_or(0, |sequence| sequence.tokens.len());
        let needed = past + request.append.len() + 1;
        let limit = self.config.max_context_tokens;
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: id, needed, limit });
        }
        if past + request.append.len() == 0 {
            return Err(EngineError::Other(format!("sequence {id} has an empty prompt")));
        }
        let vocabulary = self.vocabulary;
        if let Some(token) = request.append.iter().find(|&&token| u64::from(token) >= vocabulary) {
            return Err(EngineError::Other(format!(
                "sequence {id}: token {token} is not among the model's {vocabulary} tokens; the \
                 tokenizer and the model do not belong together"
            )));
        }
        self.roster.submit(request);
        Ok(())
    }

    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        let plan = self.roster.plan();
        for copy in &plan.copies {
            self.runner.copy_block(copy.from, copy.to);
        }
        if plan.spans.is_empty() {
            return Ok(Vec::new());
        }
        let spans: Vec<Span<'_>> = plan
            .spans
            .iter()
            .map(|span| Span {
                rows: span.rows.clone(),
                past: span.past,
                blocks: self.roster.blocks(span.sequence),
            })
            .collect();
        let pass = Pass { ids: &plan.ids, positions: &plan.positions, spans: &spans };
        let choices = self.runner.run(&pass, &plan.draws)?;
        if choices.len() != plan.draws.len() {
            let (found, wanted) = (choices.len(), plan.draws.len());
            let reason = format!("the runner drew {found} tokens, {wanted} were asked for");
            return Err(EngineError::Other(reason));
        }
        let drawn = self.roster.apply(plan, &choices);
        self.roster.collect(&drawn, tokenizer, self.policy_version)
    }

    fn partial_tokens(&self, sequence: SequenceId) -> &[u32] {
        let turn = self.roster.get(sequence).and_then(|sequence| sequence.turn.as_ref());
        turn.map_or(&[], |turn| &turn.token_ids)
    }

    fn release(&mut self, sequence: SequenceId) {
        self.roster.release(sequence);
    }

    fn is_idle(&self) -> bool {
        self.roster.is_idle()
    }

    fn max_context_tokens(&self) -> usize {
        self.config.max_context_tokens
    }
}
