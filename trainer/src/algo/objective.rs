//! Which policy loss, and what all of them read and return.

use tch::Tensor;

use super::clipped::{clipped_policy_loss, plain_policy_loss};
use super::layout::TokenLayout;
use super::sequence_ratio::{geometric_mean_loss, sequence_ratio_loss};
use super::soft_clip::{clipped_weight_loss, soft_gate_loss};

/// How far a ratio may leave 1 before it is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    pub low: f64,
    pub high: f64,
}

/// A policy loss with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// PPO's, which GRPO, RLOO, Dr.GRPO, DAPO and REINFORCE++ share; `dual` bounds what a negative
    /// advantage can cost.
    Clipped { clip: ClipRange, dual: Option<f64> },
    /// GSPO's ratio of whole sequences.
    SequenceRatio { clip: ClipRange },
    /// CISPO's clipped weights.
    ClippedWeight { clip: ClipRange },
    /// SAPO's soft gates, with a steepness for positive and one for negative advantages.
    SoftGate { positive: f64, negative: f64 },
    /// GMPO's geometric mean of ratios.
    GeometricMean { clip: ClipRange },
    /// REINFORCE's and GPG's: no ratio at all.
    Plain,
}

/// What a policy loss is computed from, each `[tokens]`.
#[derive(Debug)]
pub struct PolicyInputs<'t> {
    /// Differentiable.
    pub log_probs: &'t Tensor,
    /// Of the policy before the step's first update.
    pub old_log_probs: &'t Tensor,
    pub advantages: &'t Tensor,
    /// Sequences that the tokens belong to.
    pub layout: &'t TokenLayout,
}

/// Per-token results, each `[tokens]`.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Differentiable in the new log-probs.
    pub losses: Tensor,
    /// 1 where a ratio was clipped to its loss, else 0.
    pub clipped: Tensor,
    /// `old - new`: its mean estimates the divergence from the policy that sampled.
    pub old_minus_new: Tensor,
}

/// Largest magnitude of a log-ratio, so that its exponential stays finite (veRL clamps likewise).
const LOG_RATIO_BOUND: f64 = 20.0;

impl PolicyInputs<'_> {
    /// Logarithm of new over old probability of each token, bounded.
    pub(super) fn log_ratio(&self) -> Tensor {
        (self.log_probs - self.old_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    }
}

impl Objective {
    /// Whether the loss is one of whole sequences, so that only a mean over sequences of each one's
    /// mean over tokens keeps its meaning.
    pub fn is_of_sequences(self) -> bool {
        matches!(
            self,
            Self::SequenceRatio { .. } | Self::SoftGate { .. } | Self::GeometricMean { .. }
        )
    }
}

/// The loss of each token; `importance` (`[tokens]`, without gradient) weighs it, see
/// [`super::truncated_importance`].
pub fn policy_loss(
    objective: Objective,
    inputs: &PolicyInputs<'_>,
    importance: Option<&Tensor>,
) -> PolicyLoss {
    let mut loss = match objective {
        Objective::Clipped { clip, dual } => clipped_policy_loss(inputs, clip, dual),
        Objective::SequenceRatio { clip } => sequence_ratio_loss(inputs, clip),
        Objective::ClippedWeight { clip } => clipped_weight_loss(inputs, clip),
        Objective::SoftGate { positive, negative } => soft_gate_loss(inputs, positive, negative),
        Objective::GeometricMean { clip } => geometric_mean_loss(inputs, clip),
        Objective::Plain => plain_policy_loss(inputs),
    };
    if let Some(importance) = importance {
        let weights = match objective {
            // One ratio for the whole sequence takes one weight: the geometric mean as well.
            Objective::GeometricMean { .. } => {
                inputs.layout.spread(&inputs.layout.means(&importance.log()).exp())
            }
            _ => importance.shallow_clone(),
        };
        loss.losses *= weights;
    }
    loss
}
