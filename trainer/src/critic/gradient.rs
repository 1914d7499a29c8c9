//! The gradient of one critic update.

use tch::{Kind, Tensor};

use super::{Critic, valued_tokens};
use crate::algo::value_loss;
use crate::policy::{Decoder, MaskedTokens};
use crate::stop::{StopFlag, Stopped};
use crate::update::micro_batches;

/// One trajectory as the critic learns from it.
#[derive(Clone, Debug, PartialEq)]
pub struct CriticSequence {
    pub token_ids: Vec<u32>,
    /// True at the tokens that are valued, as long as `token_ids`.
    pub mask: Vec<bool>,
    /// Values before the first update of the step, one a valued token.
    pub old_values: Vec<f32>,
    /// What the values should have been, one a valued token.
    pub returns: Vec<f32>,
}

/// What the loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CriticUpdateConfig {
    /// How far a value may move from the old one before its loss no longer shrinks.
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

/// Adds the gradient of the mean value loss over all valued tokens of `sequences` to the critic's
/// parameters; the mean is the update's, however it is cut.
///
/// # Errors
/// [`Stopped`] between two micro-batches: the gradient is then that of a part and of no use.
pub fn critic_gradient(
    critic: &Critic,
    decoder: &Decoder,
    sequences: &[CriticSequence],
    config: &CriticUpdateConfig,
    stop: &StopFlag,
) -> Result<CriticStatistics, Stopped> {
    let valued: Vec<usize> = sequences.iter().map(|one| valued_tokens(&one.mask)).collect();
    let packed: Vec<MaskedTokens<'_>> =
        sequences.iter().map(|one| (&one.token_ids[..], &one.mask[..])).collect();
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
        let old_values = joined(|one| &one.old_values);
        let returns = joined(|one| &one.returns);
        let valued = critic.values(decoder, &weights, &members);
        let found = value_loss(&valued.values, &old_values, &returns, config.clip);
        let loss: Tensor = found.losses.sum(Kind::Float) / tokens as f64;
        statistics.value_loss += loss.double_value(&[]);
        valued.backward(&loss);
        statistics.clip_fraction +=
            found.clipped.sum(Kind::Float).double_value(&[]) / tokens as f64;
    }
    Ok(statistics)
}
