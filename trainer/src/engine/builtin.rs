//! The engine inside the trainer: sequences join and leave a running batch.
//!
//! Each step is one pass of a [`Runner`]. The pass holds the last token of every running sequence and
//! chunks of prompts and observations. Common prefixes are computed once, and a turn continues on the
//! cache of the turns before it. A sequence that waits for passages keeps its blocks and costs
//! nothing. Results depend on the batch by rounding only; random draws never depend on it.

use super::config::BuiltinEngineConfig;
use super::counters::EngineCounters;
use super::eager::eager_runner;
use super::roster::Roster;
use super::runner::{Pass, Runner, Span};
use super::{Engine, EngineError, GenerateRequest, Generation, SequenceId};
use crate::policy::{Decoder, Weights};
use crate::token::Tokenizer;

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
    /// Creates an engine on tensor operations. `decoder` must hold positions for
    /// `config.max_context_tokens`.
    pub fn new(decoder: Decoder, weights: Weights, config: BuiltinEngineConfig) -> Self {
        let vocabulary = decoder.config.vocab_size as u64;
        let runner = eager_runner(decoder, weights, config.cache_blocks());
        Self::with_runner(runner, vocabulary, config)
    }

    /// Creates an engine on a runner whose cache has `config.cache_blocks()` blocks and whose model has
    /// `vocabulary` tokens.
    pub fn with_runner(
        runner: Box<dyn Runner>,
        vocabulary: u64,
        config: BuiltinEngineConfig,
    ) -> Self {
        let roster = Roster::new(config, config.cache_blocks());
        Self { runner, roster, config, vocabulary, policy_version: 0 }
    }

    /// Replaces the weights between steps. Cached keys and values of live sequences stay as they are.
    pub fn set_weights(&mut self, weights: Weights, policy_version: u64) {
        self.runner.set_weights(weights);
        self.roster.forget_prompts();
        self.policy_version = policy_version;
    }

    /// Returns the counters since the last call and resets them.
    pub fn take_counters(&mut self) -> EngineCounters {
        self.roster.take_counters()
    }
}

impl Engine for BuiltinEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        let id = request.sequence;
        let known = self.roster.get(id);
        if known.is_some_and(|sequence| sequence.turn.is_some()) {
            return Err(EngineError::Busy(id));
        }
        let past = known.map_or(0, |sequence| sequence.tokens.len());
        let needed = past + request.append.len() + 1;
        let limit = self.config.max_context_tokens;
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: id, needed, limit });
        }
        if past + request.append.len() == 0 {
            return Err(EngineError::EmptyPrompt(id));
        }
        let vocabulary = self.vocabulary;
        let unknown = request.append.iter().find(|&&token| u64::from(token) >= vocabulary);
        if let Some(&token) = unknown {
            return Err(EngineError::UnknownToken { sequence: id, token, vocabulary });
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
        let (drawn, requested) = (choices.len(), plan.draws.len());
        if drawn != requested {
            return Err(EngineError::DrawCount { drawn, requested });
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
