//! The objective of a configuration in one line, because coefficients that are on by default are easily forgotten.

use super::choice::{KlPlacement, PolicyLossKind};
use super::problem::counted;
use super::sections::Config;
use crate::algo::Aggregation;

impl Config {
    /// Returns the effective objective: advantage, loss, its other terms, and the updates of a step.
    pub fn objective_in_words(&self) -> String {
        let (training, algorithm) = (&self.training, &self.algorithm);
        let mut parts = vec![format!("advantage {}", algorithm.advantage)];
        let clip = format!("1 - {} to 1 + {}", training.clip_low, training.clip_high);
        parts.push(match algorithm.policy_loss {
            PolicyLossKind::Clip | PolicyLossKind::Gspo | PolicyLossKind::Cispo => {
                format!("loss {}, ratio from {clip}", algorithm.policy_loss)
            }
            PolicyLossKind::Gmpo => {
                let (low, high) = (training.clip_low, training.clip_high);
                format!("loss gmpo, log-ratio from -{low} to {high}")
            }
            PolicyLossKind::Sapo => {
                let (positive, negative) = (algorithm.sapo_positive, algorithm.sapo_negative);
                format!("loss sapo, steepness {positive} and {negative}")
            }
            PolicyLossKind::Reinforce => "loss reinforce".to_owned(),
        });
        parts.push(match training.loss_aggregation {
            Aggregation::SequenceMeanTokenSumNorm => {
                format!("{} over {} tokens", training.loss_aggregation, self.norm_tokens())
            }
            aggregation => aggregation.to_string(),
        });
        if training.kl_coefficient > 0.0 {
            let (weight, estimator) = (training.kl_coefficient, training.kl_estimator);
            parts.push(match algorithm.kl_placement {
                KlPlacement::Loss => format!("+ {weight} divergence ({estimator}) in the loss"),
                KlPlacement::Reward => format!(
                    "- {weight} divergence ({estimator}, {}) in the reward",
                    algorithm.kl_controller
                ),
            });
        }
        for (weight, sign, term) in [
            (training.entropy_coefficient, "-", "entropy"),
            (algorithm.likelihood_coefficient, "+", "lost likelihood (LLDS)"),
        ] {
            if weight > 0.0 {
                parts.push(format!("{sign} {weight} {term}"));
            }
        }
        if algorithm.importance_most > 0.0 {
            parts.push(format!("importance weights of at most {}", algorithm.importance_most));
        }
        let per_update = self.update_trajectories();
        let updates = counted(self.step_updates() as u64, "update");
        parts.push(format!("{updates} of {per_update} trajectories per step"));
        parts.join("; ")
    }

    /// Returns the number of trajectories of a step.
    pub fn step_trajectories(&self) -> usize {
        self.training.prompts_per_step.saturating_mul(self.training.group_size)
    }

    /// Returns the number of trajectories of an update; a step's last update may have fewer.
    pub fn update_trajectories(&self) -> usize {
        match self.training.trajectories_per_update {
            0 => self.step_trajectories(),
            limit => limit,
        }
    }

    /// Returns the number of updates of a step that trains on all its trajectories.
    pub fn step_updates(&self) -> usize {
        let parts = self.step_trajectories().div_ceil(self.update_trajectories().max(1));
        parts.saturating_mul(self.training.epochs_per_step)
    }
}
