//! The choice of a policy loss.

use tch::Tensor;

use super::clipped::{clipped_policy_loss, plain_policy_loss};
use super::loss::{ClipRange, PolicyInputs, TokenLosses};
use super::sequence_ratio::{geometric_mean_loss, sequence_ratio_loss};
use super::soft_clip::{clipped_weight_loss, soft_gate_loss};

/// A policy loss with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// PPO's clipped loss, shared by GRPO, RLOO, Dr.GRPO, DAPO and REINFORCE++. `dual` bounds the cost
    /// of a negative advantage.
    Clipped { clip: ClipRange, dual: Option<f64> },
    /// GSPO's ratio of whole sequences.
    SequenceRatio { clip: ClipRange },
    /// CISPO's clipped weights.
    ClippedWeight { clip: ClipRange },
    /// SAPO's soft gates, with one steepness for positive and one for negative advantages.
    SoftGate { positive: f64, negative: f64 },
    /// GMPO's geometric mean of ratios.
    GeometricMean { clip: ClipRange },
    /// The loss of REINFORCE and GPG, without a ratio.
    Plain,
}

/// Returns the loss of each token. `importance` (`[tokens]`, without gradient) weights it, see
/// [`super::truncated_importance`].
pub fn policy_loss(
    objective: Objective,
    inputs: &PolicyInputs<'_>,
    importance: Option<&Tensor>,
) -> TokenLosses {
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
            // A sequence with one ratio gets one weight, the geometric mean of its tokens' weights.
            Objective::GeometricMean { .. } => {
                inputs.layout.spread(&inputs.layout.means(&importance.log()).exp())
            }
            _ => importance.shallow_clone(),
        };
        loss.losses *= weights;
    }
    loss
}
