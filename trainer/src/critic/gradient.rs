//! The gradient of one critic update.

use tch::{Kind, Tensor};

use super::{Critic, valued_tokens};
use crate::algo::value_loss;
use crate::policy::{Decoder, MaskedTokens};
use crate::stop::{StopFlag, Stopped};
use crate::update::micro_batches;

/// One trajectory as the critic's training example.
#[derive(Clone, Debug, PartialEq)]
pub struct CriticSequence {
    pub token_ids: Vec<u32>,
    /// True at the valued tokens, as long as `token_ids`.
    pub mask: Vec<bool>,
    /// Values before the first update of the step, one per valued token.
    pub old_values: Vec<f32>,
    /// Targets of the values, one per valued token.
    pub returns: Vec<f32>,
}

/// The constants of a critic update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CriticUpdateConfig {
    /// Largest distance from the old value within which moving towards the return lowers the loss.
    pub clip: f64,
    pub tokens_per_micro_batch: usize,
}

/// Means over the valued tokens of one update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CriticStatistics {
    pub value_loss: f64,
    pub clip_fraction: f64,
    pub tokens: usize,
}

/// Adds the gradient of the mean value loss over all valued tokens of `sequences` to the critic's parameters. The
/// mean is over the whole update and does not depend on the micro-batches.
///
/// # Errors
/// Returns [`Stopped`] between two micro-batches. The gradient is then incomplete and of no use.
pub fn critic_gradient(
    critic: &Critic,
    decoder: &Decoder,
    sequences: &[CriticSequence],
    config: &CriticUpdateConfig,
    stop: &StopFlag,
) -> Result<CriticStatistics, Stopped> {
    let valued: Vec<usize> =
        sequences.iter().map(|sequence| valued_tokens(&sequence.mask)).collect();
    let packed: Vec<MaskedTokens<'_>> =
        sequences.iter().map(|sequence| (&sequence.token_ids[..], &sequence.mask[..])).collect();
    let weights = critic.network.weights();
    let tokens: usize = valued.iter().sum();
    let mut statistics = CriticStatistics { tokens, ..CriticStatistics::default() };
    for batch in micro_batches(&packed, config.tokens_per_micro_batch) {
        if batch.iter().all(|&index| valued[index] == 0) {
            continue;
        }
        stop.check()?;
        let members: Vec<_> = batch.iter().map(|&index| packed[index]).collect();
        let joined = |part: fn(&CriticSequence) -> &Vec<f32>| {
            let values: Vec<f32> =
                batch.iter().flat_map(|&index| part(&sequences[index])).copied().collect();
            Tensor::from_slice(&values).to_device(critic.network.compute.device)
        };
        let old_values = joined(|sequence| &sequence.old_values);
        let returns = joined(|sequence| &sequence.returns);
        let valued = critic.values(decoder, &weights, &members);
        let token_losses = value_loss(&valued.values, &old_values, &returns, config.clip);
        let loss: Tensor = token_losses.losses.sum(Kind::Float) / tokens as f64;
        statistics.value_loss += loss.double_value(&[]);
        valued.backward(&loss);
        statistics.clip_fraction +=
            token_losses.clipped.sum(Kind::Float).double_value(&[]) / tokens as f64;
    }
    Ok(statistics)
}
