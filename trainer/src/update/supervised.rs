//! The supervised warm start: likelihood of what demonstrations let the model write.

use tch::{Kind, Tensor};

use super::micro_batch::{TrainSequence, micro_batches};
use crate::policy::{Decoder, Policy, token_statistics};
use crate::stop::{StopFlag, Stopped};

/// Adds the gradient of the mean negative log-likelihood of the trained tokens to the parameters;
/// returns that mean. Observation and prompt tokens carry no loss.
///
/// # Errors
/// [`Stopped`] between two micro-batches: the gradient is then that of a part and of no use.
pub fn supervised_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    tokens_per_micro_batch: usize,
    stop: &StopFlag,
) -> Result<f64, Stopped> {
    let trained: usize = sequences.iter().map(TrainSequence::trained_tokens).sum();
    let lengths: Vec<usize> = sequences.iter().map(|one| one.token_ids.len()).collect();
    let mut total = 0.0;
    for batch in micro_batches(&lengths, tokens_per_micro_batch) {
        stop.check()?;
        let packed: Vec<_> = batch.iter().map(|&index| sequences[index].packed()).collect();
        let statistics = token_statistics(decoder, &policy.weights(), &packed, 1.0, false);
        let loss: Tensor = -statistics.log_probs.sum(Kind::Float) / trained.max(1) as f64;
        total += loss.double_value(&[]);
        if statistics.log_probs.numel() > 0 {
            loss.backward();
        }
    }
    Ok(total)
}
