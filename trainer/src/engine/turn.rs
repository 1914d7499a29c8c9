//! One turn of one sequence: the tokens sampled so far, and the decision when it ends.

use super::sample::Choice;
use super::{EngineError, GenerateRequest, StopReason, StopRule};
use crate::token::Tokenizer;

/// The current generation of a sequence.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) request: GenerateRequest,
    pub(super) token_ids: Vec<u32>,
    pub(super) log_probs: Vec<f32>,
}

/// Tokens decoded before those that can contain a stop string. Some tokenizers write a token
/// differently at the start of a text.
const STOP_CONTEXT_TOKENS: usize = 4;

impl Turn {
    pub(super) fn new(request: GenerateRequest) -> Self {
        Self { request, token_ids: Vec::new(), log_probs: Vec::new() }
    }

    pub(super) fn push(&mut self, choice: Choice) -> u32 {
        self.token_ids.push(choice.token);
        self.log_probs.push(choice.log_prob);
        choice.token
    }

    /// Returns why the last token ends the turn, or `None` if the turn continues.
    pub(super) fn stop_reason(
        &self,
        tokenizer: &Tokenizer,
        context_is_full: bool,
    ) -> Result<Option<StopReason>, EngineError> {
        let Some(&last) = self.token_ids.last() else { return Ok(None) };
        if tokenizer.is_end(last) {
            return Ok(Some(StopReason::EndOfSequence));
        }
        let stop = &self.request.stop;
        // A token is at least one byte of text, so these tokens hold any stop string that the last one completes.
        let longest = stop.stop_at.iter().map(String::len).max().unwrap_or(0);
        let start = self.token_ids.len().saturating_sub(longest + STOP_CONTEXT_TOKENS);
        let text = tokenizer.decode(&self.token_ids[start..])?;
        if let Some(tag) = stop.stop_at.iter().find(|tag| text.contains(tag.as_str())) {
            return Ok(Some(StopReason::Tag(tag.clone())));
        }
        let full = context_is_full || self.token_ids.len() >= self.request.max_new_tokens;
        Ok(full.then_some(StopReason::Length))
    }

    /// Cuts a turn that no stop string ended; returns its reason and the number of dropped tokens.
    pub(super) fn finish(
        &mut self,
        tokenizer: &Tokenizer,
        stop: StopReason,
    ) -> Result<(StopReason, usize), EngineError> {
        if matches!(stop, StopReason::Tag(_)) {
            return Ok((stop, 0));
        }
        let StopRule { cut_after, .. } = &self.request.stop;
        for tag in cut_after {
            for kept in 1..=self.token_ids.len() {
                if tokenizer.decode(&self.token_ids[..kept])?.contains(tag.as_str()) {
                    let dropped = self.token_ids.len() - kept;
                    self.token_ids.truncate(kept);
                    self.log_probs.truncate(kept);
                    return Ok((StopReason::Tag(tag.clone()), dropped));
                }
            }
        }
        Ok((stop, 0))
    }
}
