//! The supervised warm start, on the model's own parts of demonstrations.

use tch::{Kind, Tensor};

use super::micro_batch::micro_batches;
use super::sequence::TrainSequence;
use crate::policy::{Decoder, MaskedTokens, Policy, ScoredPass};
use crate::stop::{StopFlag, Stopped};

/// Adds the gradient of the mean negative log-likelihood of the trained tokens to the parameters and returns that
/// mean. Observation and prompt tokens carry no loss.
///
/// # Errors
/// Returns [`Stopped`] between two micro-batches. The gradient is then incomplete and of no use.
pub fn supervised_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    tokens_per_micro_batch: usize,
    stop: &StopFlag,
) -> Result<f64, Stopped> {
    let trained: usize = sequences.iter().map(TrainSequence::trained_tokens).sum();
    let packed: Vec<MaskedTokens<'_>> = sequences.iter().map(TrainSequence::packed).collect();
    let weights = policy.weights();
    let mut total = 0.0;
    for batch in micro_batches(&packed, tokens_per_micro_batch) {
        stop.check()?;
        let members: Vec<_> = batch.iter().map(|&index| packed[index]).collect();
        let scored = ScoredPass::new(decoder, &weights, &members, 1.0);
        let log_probs = &scored.statistics.log_probs;
        let loss: Tensor = -log_probs.sum(Kind::Float) / trained.max(1) as f64;
        total += loss.double_value(&[]);
        scored.backward(&loss);
    }
    Ok(total)
}
