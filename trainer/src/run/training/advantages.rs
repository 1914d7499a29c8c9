//! From rewards, log-probs and values to the advantages of trained tokens.

use super::TrainingRun;
use super::collecting::Collected;
use crate::algo::{
    AdvantageEstimator, Discount, GaeSteps, OutcomeEstimator, Singleton, TokenEstimator,
    batch_centred, discounted_returns, generalised_advantages, group_advantages, kl_estimate,
    leave_one_out, length_weighted, rescaled_by_nonzero, whiten,
};
use crate::config::{Compat, KlPlacement};
use crate::critic::CriticSequence;
use crate::stop::StopFlag;
use crate::update::TrainSequence;

/// The trajectories of a step that are trained on, with what their advantages are made of.
pub(super) struct TrainBatch {
    pub(super) sequences: Vec<TrainSequence>,
    /// One a sequence.
    scores: Vec<f64>,
    /// The question that each sequence answers.
    groups: Vec<usize>,
    /// What the critic learns, one a sequence; empty without a critic.
    pub(super) for_critic: Vec<CriticSequence>,
    /// Mean over trajectories of the mean divergence of their tokens, where it is in the reward.
    pub(super) divergence: Option<f64>,
}

impl TrainBatch {
    /// What there is to train on: trajectories with a reward, without groups of one reward where they
    /// are to be left out.
    pub(super) fn of(collected: &Collected, without_uniform: bool) -> Self {
        let mut batch = Self {
            sequences: Vec::new(),
            scores: Vec::new(),
            groups: Vec::new(),
            for_critic: Vec::new(),
            divergence: None,
        };
        let played = collected.trajectories.iter().zip(&collected.rewards).zip(&collected.scores);
        for ((trajectory, reward), &score) in played {
            let left_out = without_uniform && collected.uniform.contains(&trajectory.prompt);
            if reward.is_some() && !left_out {
                batch.sequences.push(TrainSequence::of(trajectory));
                batch.scores.push(score);
                batch.groups.push(trajectory.prompt);
            }
        }
        batch
    }
}

/// All advantages of a trajectory's tokens are one.
fn at_every_token(sequences: &[TrainSequence], advantages: &[f64]) -> Vec<Vec<f64>> {
    sequences
        .iter()
        .zip(advantages)
        .map(|(sequence, &advantage)| vec![advantage; sequence.trained_tokens()])
        .collect()
}

/// Whitened over all tokens of the step; a step of fewer than two tokens is left as it is.
fn whitened(rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let all: Vec<Vec<bool>> = rows.iter().map(|row| vec![true; row.len()]).collect();
    whiten(&rows, &all).unwrap_or(rows)
}

impl TrainingRun<'_> {
    /// Fills in the advantages, and what the critic is to learn.
    ///
    /// # Errors
    /// A stop between two passes of the critic.
    pub(super) fn with_advantages(
        &self,
        mut batch: TrainBatch,
        stop: &StopFlag,
    ) -> anyhow::Result<TrainBatch> {
        let penalties = self.divergence_penalties(&mut batch);
        let estimator = self.config.algorithm.advantage;
        let mut advantages = match estimator {
            AdvantageEstimator::Token(TokenEstimator::Gae) => {
                self.estimate_with_critic(&mut batch, &penalties, stop)?
            }
            AdvantageEstimator::Token(TokenEstimator::ReinforcePlusPlus) => {
                let returns = |index: usize| {
                    let mut rewards: Vec<f64> =
                        penalties[index].iter().map(|penalty| -penalty).collect();
                    if let Some(last) = rewards.last_mut() {
                        *last += batch.scores[index];
                    }
                    discounted_returns(&rewards, self.config.algorithm.gamma)
                };
                whitened((0..batch.sequences.len()).map(returns).collect())
            }
            AdvantageEstimator::Outcome(outcome) => {
                self.outcome_advantages(outcome, &batch, &penalties)
            }
        };
        for (index, group) in batch.groups.iter().enumerate() {
            // What is left of a group that lost all others to failed searches has nothing to be
            // compared with: its raw score would only pull towards itself.
            let alone = batch.groups.iter().filter(|&other| other == group).count() < 2;
            if alone && estimator.compares_groups() {
                advantages[index].fill(0.0);
            }
        }
        for (sequence, advantages) in batch.sequences.iter_mut().zip(advantages) {
            sequence.advantages = advantages.into_iter().map(|value| value as f32).collect();
        }
        Ok(batch)
    }

    /// One advantage a trajectory, from the sum of its tokens' rewards.
    fn outcome_advantages(
        &self,
        estimator: OutcomeEstimator,
        batch: &TrainBatch,
        penalties: &[Vec<f64>],
    ) -> Vec<Vec<f64>> {
        let scores: Vec<f64> = batch
            .scores
            .iter()
            .zip(penalties)
            .map(|(score, penalties)| score - penalties.iter().sum::<f64>())
            .collect();
        let groups = &batch.groups;
        let centred = || group_advantages(&scores, groups, false);
        let of_trajectories = match estimator {
            OutcomeEstimator::Grpo => {
                group_advantages(&scores, groups, self.config.training.normalise_by_std)
            }
            OutcomeEstimator::DrGrpo | OutcomeEstimator::ReinforcePlusPlusBaseline => centred(),
            OutcomeEstimator::Rloo => leave_one_out(&scores, groups, Singleton::Zero),
            OutcomeEstimator::Opo => {
                let tokens: Vec<usize> =
                    batch.sequences.iter().map(TrainSequence::trained_tokens).collect();
                length_weighted(&scores, &tokens, groups)
            }
            OutcomeEstimator::Gpg => rescaled_by_nonzero(&scores, groups),
            OutcomeEstimator::ReinforceBaseline => batch_centred(&scores),
            OutcomeEstimator::Reinforce => scores.clone(),
        };
        let of_tokens = at_every_token(&batch.sequences, &of_trajectories);
        if estimator == OutcomeEstimator::ReinforcePlusPlusBaseline {
            whitened(of_tokens)
        } else {
            of_tokens
        }
    }

    /// What each trained token's reward loses for its divergence from the reference; zeros where the
    /// divergence is in the loss.
    fn divergence_penalties(&self, batch: &mut TrainBatch) -> Vec<Vec<f64>> {
        if self.config.algorithm.kl_placement == KlPlacement::Loss {
            let none = |one: &TrainSequence| vec![0.0; one.trained_tokens()];
            return batch.sequences.iter().map(none).collect();
        }
        let coefficient = self.kl_coefficient();
        let estimator = self.config.training.kl_estimator;
        let (mut means, mut penalties) = (Vec::new(), Vec::new());
        for sequence in &batch.sequences {
            let (Some(old), Some(reference)) =
                (&sequence.old_log_probs, &sequence.reference_log_probs)
            else {
                penalties.push(vec![0.0; sequence.trained_tokens()]);
                continue;
            };
            let [old, reference] = [old, reference].map(|values| tch::Tensor::from_slice(values));
            let found = kl_estimate(estimator, &old, &reference);
            let found: Vec<f64> =
                (0..found.numel() as i64).map(|token| found.double_value(&[token])).collect();
            if !found.is_empty() {
                means.push(found.iter().sum::<f64>() / found.len() as f64);
            }
            penalties.push(found.into_iter().map(|divergence| coefficient * divergence).collect());
        }
        batch.divergence = Some(means.iter().sum::<f64>() / means.len().max(1) as f64);
        penalties
    }

    /// GAE. The critic values sampled tokens, and after Search-R1's manner all tokens after the prompt.
    fn estimate_with_critic(
        &self,
        batch: &mut TrainBatch,
        penalties: &[Vec<f64>],
        stop: &StopFlag,
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let Some(critic) = &self.critic else {
            anyhow::bail!("algorithm.advantage = \"gae\" has been started without a critic");
        };
        let algorithm = &self.config.algorithm;
        let discount = Discount { gamma: algorithm.gamma, lambda: algorithm.lambda };
        let (masks, steps): (Vec<Vec<bool>>, GaeSteps) = match self.config.compat {
            Compat::None => {
                (batch.sequences.iter().map(|one| one.mask.clone()).collect(), GaeSteps::Masked)
            }
            Compat::SearchR1 => {
                (batch.sequences.iter().map(TrainSequence::response_mask).collect(), GaeSteps::All)
            }
        };
        let packed: Vec<(&[u32], &[bool])> = batch
            .sequences
            .iter()
            .zip(&masks)
            .map(|(sequence, mask)| (&sequence.token_ids[..], &mask[..]))
            .collect();
        let budget = self.config.update.tokens_per_micro_batch;
        let values = critic.model.sequence_values(&self.loaded.decoder, &packed, budget, stop)?;
        let (mut advantages, mut for_critic) = (Vec::new(), Vec::new());
        for (index, sequence) in batch.sequences.iter().enumerate() {
            let rewards =
                valued_rewards(sequence, &masks[index], &penalties[index], batch.scores[index]);
            let of_tokens: Vec<f64> = values[index].iter().map(|&value| f64::from(value)).collect();
            let all = vec![true; rewards.len()];
            let found = generalised_advantages(&rewards, &of_tokens, &all, discount, steps);
            advantages.push(found.advantages);
            for_critic.push(CriticSequence {
                token_ids: sequence.token_ids.clone(),
                mask: masks[index].clone(),
                old_values: values[index].clone(),
                returns: found.returns.into_iter().map(|value| value as f32).collect(),
            });
        }
        batch.for_critic = for_critic;
        let advantages = whitened(advantages);
        Ok(batch
            .sequences
            .iter()
            .zip(&masks)
            .zip(advantages)
            .map(|((sequence, mask), advantages)| of_trained(sequence, mask, &advantages))
            .collect())
    }
}

/// Rewards of the tokens that are valued: each trained token's penalty, and the score at the last one.
fn valued_rewards(
    sequence: &TrainSequence,
    valued: &[bool],
    penalties: &[f64],
    score: f64,
) -> Vec<f64> {
    let mut penalties = penalties.iter();
    let mut rewards: Vec<f64> = sequence
        .mask
        .iter()
        .zip(valued)
        .skip(1)
        .filter(|&(_, &valued)| valued)
        .map(|(&sampled, _)| if sampled { -penalties.next().unwrap_or(&0.0) } else { 0.0 })
        .collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Of one number a valued token those of the trained tokens.
fn of_trained(sequence: &TrainSequence, valued: &[bool], numbers: &[f64]) -> Vec<f64> {
    sequence
        .mask
        .iter()
        .zip(valued)
        .skip(1)
        .filter(|&(_, &valued)| valued)
        .zip(numbers)
        .filter_map(|((&sampled, _), &number)| sampled.then_some(number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt of two tokens, one sampled, two observed, one sampled, one observed.
    fn sequence() -> TrainSequence {
        TrainSequence {
            token_ids: (0..7).collect(),
            mask: vec![false, false, true, false, false, true, false],
            advantages: Vec::new(),
            weight: 0.0,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: vec![0.0; 2],
        }
    }

    #[test]
    fn the_score_falls_to_the_last_valued_token() {
        let sequence = sequence();
        let of = |mask: &[bool]| valued_rewards(&sequence, mask, &[0.25, 0.5], 1.0);
        assert_eq!(of(&sequence.mask), [-0.25, 0.5]);
        let response = sequence.response_mask();
        assert_eq!(response, [false, false, true, true, true, true, true]);
        assert_eq!(of(&response), [-0.25, 0.0, 0.0, -0.5, 1.0]);
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(of_trained(&sequence, &response, &numbers), [1.0, 4.0]);
        assert_eq!(of_trained(&sequence, &sequence.mask, &numbers[..2]), [1.0, 2.0]);
    }

    #[test]
    fn a_step_of_one_token_is_not_whitened() {
        assert_eq!(whitened(vec![vec![3.0], vec![]]), vec![vec![3.0], vec![]]);
        let found = whitened(vec![vec![1.0, 0.0]]);
        assert!((found[0][0] - 0.5_f64.sqrt()).abs() < 1e-6, "{found:?}");
    }
}
