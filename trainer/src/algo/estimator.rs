//! The choice of an estimator of advantages, by its input.

/// A rule that turns rewards into advantages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdvantageEstimator {
    /// One advantage per trajectory, which all its tokens share.
    Outcome(OutcomeEstimator),
    /// One advantage per token.
    Token(TokenEstimator),
}

/// An estimator that reads one score per trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeEstimator {
    /// The distance from the group's mean, in units of its standard deviation.
    Grpo,
    /// The distance from the group's mean.
    DrGrpo,
    /// The distance from the mean of the others in the group.
    Rloo,
    /// The distance from the group's mean, weighted by length.
    Opo,
    /// The distance from the group's mean, scaled by the share of scores that are not 0.
    Gpg,
    /// The score.
    Reinforce,
    /// The distance from the mean of the step.
    ReinforceBaseline,
    /// The distance from the group's mean, whitened over the step.
    ReinforcePlusPlusBaseline,
}

/// An estimator that reads one reward per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEstimator {
    /// The discounted return, whitened over the step.
    ReinforcePlusPlus,
    /// Generalised advantage estimation from a critic: PPO.
    Gae,
}

impl AdvantageEstimator {
    /// Returns `true` if a trajectory is compared with others of its question.
    pub fn compares_groups(self) -> bool {
        match self {
            Self::Outcome(outcome) => outcome.compares_groups(),
            Self::Token(_) => false,
        }
    }

    /// Returns `true` if the advantages need the values of a critic.
    pub fn has_critic(self) -> bool {
        self == Self::Token(TokenEstimator::Gae)
    }
}

impl OutcomeEstimator {
    /// Returns `true` if a trajectory is compared with others of its question.
    pub fn compares_groups(self) -> bool {
        match self {
            Self::Grpo
            | Self::DrGrpo
            | Self::Rloo
            | Self::Opo
            | Self::Gpg
            | Self::ReinforcePlusPlusBaseline => true,
            Self::Reinforce | Self::ReinforceBaseline => false,
        }
    }
}
