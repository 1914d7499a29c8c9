//! What a configuration trains, in one line: coefficients that are on by default are easily forgotten.

use super::choice::{KlPlacement, LossAggregation, PolicyLossKind};
use super::sections::Config;

impl Config {
    /// The effective objective: advantage, loss, its other terms, and the updates of a step.
    pub fn objective_in_words(&self) -> String {
        let (grpo, algorithm) = (&self.grpo, &self.algorithm);
        let mut parts = vec![format!("advantage {}", algorithm.advantage)];
        let clip = format!("1 - {} to 1 + {}", grpo.clip_low, grpo.clip_high);
        parts.push(match algorithm.policy_loss {
            PolicyLossKind::Clip | PolicyLossKind::Gspo | PolicyLossKind::Cispo => {
                format!("loss {}, ratio from {clip}", algorithm.policy_loss)
            }
            PolicyLossKind::Gmpo => {
                let (low, high) = (grpo.clip_low, grpo.clip_high);
                format!("loss gmpo, log-ratio from -{low} to {high}")
            }
            PolicyLossKind::Sapo => {
                let (positive, negative) = (algorithm.sapo_positive, algorithm.sapo_negative);
                format!("loss sapo, steepness {positive} and {negative}")
            }
            PolicyLossKind::Reinforce => "loss reinforce".to_owned(),
        });
        parts.push(match grpo.loss_aggregation {
            LossAggregation::SeqMeanTokenSumNorm => {
                format!("{} over {} tokens", grpo.loss_aggregation, self.norm_tokens())
            }
            aggregation => aggregation.to_string(),
        });
        if grpo.kl_coefficient > 0.0 {
            let (weight, estimator) = (grpo.kl_coefficient, grpo.kl_estimator);
            parts.push(match algorithm.kl_placement {
                KlPlacement::Loss => format!("+ {weight} divergence ({estimator}) in the loss"),
                KlPlacement::Reward => format!(
                    "- {weight} divergence ({estimator}, {}) in the reward",
                    algorithm.kl_controller
                ),
            });
        }
        for (weight, sign, what) in [
            (grpo.entropy_coefficient, "-", "entropy"),
            (algorithm.likelihood_coefficient, "+", "lost likelihood (LLDS)"),
        ] {
            if weight > 0.0 {
                parts.push(format!("{sign} {weight} {what}"));
            }
        }
        if algorithm.importance_most > 0.0 {
            parts.push(format!(
                "corrected for the sampler by at most {}",
                algorithm.importance_most
            ));
        }
        let trajectories = grpo.prompts_per_step * grpo.group_size;
        let per_update = match grpo.trajectories_per_update {
            0 => trajectories,
            limit => limit,
        };
        let updates = trajectories.div_ceil(per_update.max(1)) * grpo.epochs_per_step;
        parts.push(format!("{updates} updates of {per_update} trajectories a step"));
        parts.join("; ")
    }
}
