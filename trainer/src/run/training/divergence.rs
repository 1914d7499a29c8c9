//! The divergence from the reference where it is part of the reward, and the weight that a controller steers.

use tch::Tensor;

use crate::algo::{KlEstimator, KlTarget, adapted_coefficient, kl_estimate};

/// The term that the divergence from the reference belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Divergence {
    /// The loss; rewards stay as they are.
    InLoss,
    /// The reward of each token, which it lowers.
    InReward(KlEstimator),
}

/// The penalties of the trained tokens for their divergence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Penalties {
    /// One list per trajectory with one number per trained token.
    pub(crate) tokens: Vec<Vec<f64>>,
    /// Mean over trajectories of the mean divergence of their tokens, where it is in the reward.
    pub(crate) divergence: Option<f64>,
}

impl Penalties {
    /// Returns the penalties of trajectories that lose nothing.
    pub(crate) fn none(trained_tokens: &[usize]) -> Self {
        let tokens = trained_tokens.iter().map(|&tokens| vec![0.0; tokens]).collect();
        Self { tokens, divergence: None }
    }

    /// Returns `coefficient` times the estimated divergence of each trained token, from its log-probs under the
    /// policy that sampled and under the reference.
    pub(crate) fn new(
        estimator: KlEstimator,
        coefficient: f64,
        old_log_probs: &[Vec<f32>],
        reference_log_probs: &[Vec<f32>],
    ) -> Self {
        let divergences: Vec<Vec<f64>> = old_log_probs
            .iter()
            .zip(reference_log_probs)
            .map(|(old, reference)| {
                let [old, reference] = [old, reference].map(|values| Tensor::from_slice(values));
                let estimates = kl_estimate(estimator, &old, &reference);
                (0..estimates.numel() as i64)
                    .map(|token| estimates.double_value(&[token]))
                    .collect()
            })
            .collect();
        let means: Vec<f64> = divergences
            .iter()
            .filter(|tokens| !tokens.is_empty())
            .map(|tokens| tokens.iter().sum::<f64>() / tokens.len() as f64)
            .collect();
        let divergence = means.iter().sum::<f64>() / means.len().max(1) as f64;
        let tokens = divergences
            .into_iter()
            .map(|tokens| tokens.into_iter().map(|divergence| coefficient * divergence).collect())
            .collect();
        Self { tokens, divergence: Some(divergence) }
    }
}

/// The weight of the divergence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KlWeight {
    pub(crate) configured: f64,
    /// The weight after the controller's last move, if it has moved, before `scale`.
    pub(crate) adapted: Option<f64>,
    /// The target of the controller; a weight without one is fixed.
    pub(crate) target: Option<KlTarget>,
    /// Factor that the guard has set.
    pub(crate) scale: f64,
}

impl KlWeight {
    /// Returns the current weight.
    pub(crate) fn coefficient(&self) -> f64 {
        self.scale * self.unscaled()
    }

    fn unscaled(&self) -> f64 {
        match self.target {
            None => self.configured,
            Some(_) => self.adapted.unwrap_or(self.configured),
        }
    }

    /// Moves the weight to steer the divergence towards the target, after a step of `trajectories` trajectories.
    pub(crate) fn adapt(&mut self, penalties: &Penalties, trajectories: usize) {
        if let (Some(target), Some(divergence)) = (self.target, penalties.divergence) {
            let next = adapted_coefficient(self.unscaled(), target, divergence, trajectories);
            self.adapted = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_are_the_weighted_divergence_of_each_token() {
        let old = [vec![-1.0_f32, -2.0], vec![], vec![-0.5]];
        let reference = [vec![-1.5_f32, -1.0], vec![], vec![-2.5]];
        // Differences 0.5, -1 and 2; the trajectory without tokens has no mean.
        let penalties = Penalties::new(KlEstimator::K1, 0.1, &old, &reference);
        assert_eq!(penalties.tokens, [vec![0.1 * 0.5, -0.1], vec![], vec![0.1 * 2.0]]);
        assert_eq!(penalties.divergence, Some(0.875), "the mean of -0.25 and 2");
    }

    #[test]
    fn only_a_weight_with_a_target_moves() {
        let target = KlTarget { divergence: 0.1, horizon: 100.0 };
        let above = Penalties { tokens: Vec::new(), divergence: Some(1.0) };
        let mut fixed = KlWeight { configured: 0.5, adapted: None, target: None, scale: 1.0 };
        fixed.adapt(&above, 10);
        assert_eq!((fixed.coefficient(), fixed.adapted), (0.5, None));
        let mut steered = KlWeight { target: Some(target), ..fixed };
        assert!((steered.coefficient() - 0.5).abs() < 1e-12);
        // The error is bounded by 0.2: 0.5 * (1 + 0.2 * 10 / 100).
        steered.adapt(&above, 10);
        assert!((steered.coefficient() - 0.51).abs() < 1e-12);
        steered.scale = 10.0;
        assert!((steered.coefficient() - 5.1).abs() < 1e-12);
        // The factor stays outside of what the controller moves.
        steered.adapt(&above, 10);
        assert!((steered.coefficient() - 5.1 * 1.02).abs() < 1e-12);
    }
}
