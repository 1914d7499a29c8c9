//! One turn of one sequence: the tokens sampled so far, when it ends, and the choice of the next.

use tch::{Kind, Tensor};

use super::sample::{Choice, choose};
use super::{EngineError, GenerateRequest, StopReason, StopRule};
use crate::token::Tokenizer;

/// The generation that a sequence is in.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) request: GenerateRequest,
    pub(super) token_ids: Vec<u32>,
    pub(super) log_probs: Vec<f32>,
}

/// Tokens decoded before those that a stop string may lie in, since some tokenizers write a token
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

    /// Why the turn is over after its last token, if it is.
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
        // A token is at least one byte of text: these hold any stop string that the last completes.
        let longest = stop.stop_at.iter().map(String::len).max().unwrap_or(0);
        let start = self.token_ids.len().saturating_sub(longest + STOP_CONTEXT_TOKENS);
        let text = tokenizer.decode(&self.token_ids[start..])?;
        if let Some(tag) = stop.stop_at.iter().find(|tag| text.contains(tag.as_str())) {
            return Ok(Some(StopReason::Tag(tag.clone())));
        }
        let full = context_is_full || self.token_ids.len() >= self.request.max_new_tokens;
        Ok(full.then_some(StopReason::Length))
    }

    /// Applies the cut of a turn that no stop string ended; returns the tokens dropped.
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

/// Two samples of one prompt: the same counters but for the sample, and the same tokens.
pub(super) fn shares_prompt(one: &GenerateRequest, other: &GenerateRequest) -> bool {
    one.key.prompt == other.key.prompt
        && one.key.step == other.key.step
        && one.append == other.append
}

/// Chooses a token for each row of `[rows, vocab]` logits.
pub(super) fn choose_rows(logits: &Tensor, turns: &[(&Turn, u64)]) -> Vec<Choice> {
    let vocab = logits.size()[1] as usize;
    let temperatures: Vec<f32> = turns
        .iter()
        .map(|(turn, _)| turn.request.sampling.temperature)
        .map(|temperature| if temperature > 0.0 { temperature } else { 1.0 })
        .collect();
    let temperatures = Tensor::from_slice(&temperatures).to_device(logits.device()).unsqueeze(1);
    let log_probs = (logits / temperatures).log_softmax(-1, Kind::Float);
    let probabilities = host_values(&log_probs.exp());
    let log_probs = host_values(&log_probs);
    turns
        .iter()
        .zip(log_probs.chunks(vocab).zip(probabilities.chunks(vocab)))
        .map(|((turn, position), (log_probs, probabilities))| {
            let Turn { request, .. } = turn;
            choose(log_probs, probabilities, request.sampling, request.key, *position)
        })
        .collect()
}

fn host_values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.to_device(tch::Device::Cpu).contiguous().copy_data(&mut values, tensor.numel());
    values
}
