//! From scores, penalties and values to the advantages of trained tokens, as functions of values.

use std::collections::BTreeMap;

use crate::algo::{
    Discount, GaeSteps, OutcomeEstimator, Singleton, batch_centred, discounted_returns,
    generalised_advantages, group_advantages, leave_one_out, length_weighted, rescaled_by_nonzero,
    whiten,
};

/// An estimator of advantages with its constants. The critic belongs to the one that has one: `C` is its settings,
/// the critic itself, or its values of a step.
#[derive(Clone, Debug)]
pub(crate) enum Estimator<C> {
    /// One advantage per trajectory, from its score less its penalties.
    Outcome {
        estimator: OutcomeEstimator,
        /// For [`OutcomeEstimator::Grpo`]: divides by the standard deviation of the group.
        normalise_by_std: bool,
    },
    /// The discounted return of each token, whitened over the step.
    ReinforcePlusPlus { gamma: f64 },
    /// Generalised advantage estimation, whitened over the step: PPO.
    Gae { discount: Discount, steps: GaeSteps, critic: C },
}

impl<C> Estimator<C> {
    /// Returns the critic, if there is one.
    pub(crate) fn critic(&self) -> Option<&C> {
        match self {
            Self::Gae { critic, .. } => Some(critic),
            Self::Outcome { .. } | Self::ReinforcePlusPlus { .. } => None,
        }
    }

    /// Returns the critic, if there is one.
    pub(crate) fn critic_mut(&mut self) -> Option<&mut C> {
        match self {
            Self::Gae { critic, .. } => Some(critic),
            Self::Outcome { .. } | Self::ReinforcePlusPlus { .. } => None,
        }
    }

    /// Returns the same estimator with something else for its critic.
    pub(crate) fn map_critic<D>(&self, map: impl FnOnce(&C) -> D) -> Estimator<D> {
        let mapped =
            self.try_map_critic(|_, critic| Ok::<D, std::convert::Infallible>(map(critic)));
        match mapped {
            Ok(estimator) => estimator,
            Err(never) => match never {},
        }
    }

    /// Returns the same estimator with something else for its critic, which is made from the tokens that are steps
    /// and the critic.
    ///
    /// # Errors
    /// Those of `map`.
    pub(crate) fn try_map_critic<D, E>(
        &self,
        map: impl FnOnce(GaeSteps, &C) -> Result<D, E>,
    ) -> Result<Estimator<D>, E> {
        Ok(match self {
            Self::Outcome { estimator, normalise_by_std } => {
                let (estimator, normalise_by_std) = (*estimator, *normalise_by_std);
                Estimator::Outcome { estimator, normalise_by_std }
            }
            Self::ReinforcePlusPlus { gamma } => Estimator::ReinforcePlusPlus { gamma: *gamma },
            Self::Gae { discount, steps, critic } => {
                let (discount, steps) = (*discount, *steps);
                Estimator::Gae { discount, steps, critic: map(steps, critic)? }
            }
        })
    }
}

/// The critic's values of a step, with one entry per trajectory.
pub(crate) type Values = Vec<Valued>;

/// The tokens of a trajectory that have a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Valued {
    /// `true` at the tokens that are valued; the very first token never is.
    pub(crate) mask: Vec<bool>,
    /// One value per valued token, before the critic's update.
    pub(crate) values: Vec<f32>,
}

/// The rewards of a step, from which advantages are estimated. Each list has one entry per trajectory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepRewards<'a> {
    pub(crate) scores: &'a [f64],
    /// The question that each trajectory answers.
    pub(crate) groups: &'a [usize],
    /// `true` at the sampled tokens.
    pub(crate) masks: &'a [&'a [bool]],
    /// The penalty of each trained token for its divergence.
    pub(crate) penalties: &'a [Vec<f64>],
}

/// The targets of a step's updates, with one list per trajectory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    /// One advantage per trained token.
    pub(crate) advantages: Vec<Vec<f32>>,
    /// One return per valued token, which the critic learns; no list without a critic.
    pub(crate) returns: Vec<Vec<f32>>,
}

/// Targets the advantages of a step's trained tokens.
pub(crate) fn advantages(step: &StepRewards<'_>, estimator: &Estimator<Values>) -> Targets {
    let (advantages, returns) = match estimator {
        Estimator::Outcome { estimator, normalise_by_std } => {
            (outcome_advantages(step, *estimator, *normalise_by_std), Vec::new())
        }
        Estimator::ReinforcePlusPlus { gamma } => (return_advantages(step, *gamma), Vec::new()),
        Estimator::Gae { discount, steps, critic } => {
            gae_advantages(step, *discount, *steps, critic)
        }
    };
    Targets { advantages: in_f32(&advantages), returns: in_f32(&returns) }
}

fn in_f32(rows: &[Vec<f64>]) -> Vec<Vec<f32>> {
    rows.iter().map(|row| row.iter().map(|&value| value as f32).collect()).collect()
}

/// Returns the advantage of each trajectory at each of its trained tokens.
fn outcome_advantages(
    step: &StepRewards<'_>,
    estimator: OutcomeEstimator,
    normalise_by_std: bool,
) -> Vec<Vec<f64>> {
    let StepRewards { groups, penalties, .. } = *step;
    // The sum of a trajectory's token rewards.
    let scores: Vec<f64> = step
        .scores
        .iter()
        .zip(penalties)
        .map(|(score, penalties)| score - penalties.iter().sum::<f64>())
        .collect();
    let tokens: Vec<usize> = penalties.iter().map(Vec::len).collect();
    let of_trajectories = match estimator {
        OutcomeEstimator::Grpo => group_advantages(&scores, groups, normalise_by_std),
        OutcomeEstimator::DrGrpo | OutcomeEstimator::ReinforcePlusPlusBaseline => {
            group_advantages(&scores, groups, false)
        }
        OutcomeEstimator::Rloo => leave_one_out(&scores, groups, Singleton::Zero),
        OutcomeEstimator::Opo => length_weighted(&scores, &tokens, groups),
        OutcomeEstimator::Gpg => rescaled_by_nonzero(&scores, groups),
        OutcomeEstimator::ReinforceBaseline => batch_centred(&scores),
        OutcomeEstimator::Reinforce => scores,
    };
    let mut rows: Vec<Vec<f64>> = of_trajectories
        .into_iter()
        .zip(&tokens)
        .map(|(advantage, &tokens)| vec![advantage; tokens])
        .collect();
    if estimator == OutcomeEstimator::ReinforcePlusPlusBaseline {
        rows = whitened(rows);
    }
    if estimator.compares_groups() {
        zero_lone_trajectories(&mut rows, groups);
    }
    rows
}

/// Sets the advantages of trajectories without another one of their group to 0. If failed searches took all the
/// others of a group, its raw score would only pull towards itself.
fn zero_lone_trajectories(advantages: &mut [Vec<f64>], groups: &[usize]) {
    let mut members: BTreeMap<usize, usize> = BTreeMap::new();
    for &group in groups {
        *members.entry(group).or_default() += 1;
    }
    for (advantages, group) in advantages.iter_mut().zip(groups) {
        if members[group] < 2 {
            advantages.fill(0.0);
        }
    }
}

/// REINFORCE++: returns the discounted return of each trained token, whitened over the step.
fn return_advantages(step: &StepRewards<'_>, gamma: f64) -> Vec<Vec<f64>> {
    let returns = step.penalties.iter().zip(step.scores).map(|(penalties, score)| {
        let mut rewards: Vec<f64> = penalties.iter().map(|penalty| -penalty).collect();
        if let Some(last) = rewards.last_mut() {
            *last += score;
        }
        discounted_returns(&rewards, gamma)
    });
    whitened(returns.collect())
}

/// GAE: returns the whitened advantages of the trained tokens and the returns of the valued ones.
fn gae_advantages(
    step: &StepRewards<'_>,
    discount: Discount,
    steps: GaeSteps,
    valued: &[Valued],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let StepRewards { scores, masks, penalties, .. } = *step;
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    for (index, Valued { mask, values }) in valued.iter().enumerate() {
        let rewards = valued_rewards(masks[index], mask, &penalties[index], scores[index]);
        let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        // Only valued tokens are in these lists, so that all of them are steps.
        let all = vec![true; rewards.len()];
        let estimates = generalised_advantages(&rewards, &values, &all, discount, steps);
        advantages.push(estimates.advantages);
        returns.push(estimates.returns);
    }
    // Search-R1 whitens over all valued tokens, before those that were not sampled are left out.
    let advantages = whitened(advantages)
        .iter()
        .zip(masks.iter().zip(valued))
        .map(|(advantages, (mask, valued))| at_trained_tokens(mask, &valued.mask, advantages))
        .collect();
    (advantages, returns)
}

/// Whitens over all tokens of the step; a step of fewer than two tokens is left as it is.
fn whitened(rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let all: Vec<Vec<bool>> = rows.iter().map(|row| vec![true; row.len()]).collect();
    whiten(&rows, &all).unwrap_or(rows)
}

/// Returns the rewards of the valued tokens: each trained token's penalty, and the score at the last one.
fn valued_rewards(mask: &[bool], valued: &[bool], penalties: &[f64], score: f64) -> Vec<f64> {
    let mut penalties = penalties.iter();
    let mut rewards: Vec<f64> = valued_tokens(mask, valued)
        .map(|is_sampled| {
            let penalty = is_sampled.then(|| {
                penalties.next().expect("every sampled token after the first has a penalty")
            });
            penalty.map_or(0.0, |penalty| -penalty)
        })
        .collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Keeps the numbers at trained tokens, of one number per valued token.
fn at_trained_tokens(mask: &[bool], valued: &[bool], numbers: &[f64]) -> Vec<f64> {
    valued_tokens(mask, valued)
        .zip(numbers)
        .filter_map(|(is_sampled, &number)| is_sampled.then_some(number))
        .collect()
}

/// Returns for each valued token whether it was sampled. The very first token has no context and no value.
fn valued_tokens(mask: &[bool], valued: &[bool]) -> impl Iterator<Item = bool> {
    mask.iter().zip(valued).skip(1).filter(|&(_, &valued)| valued).map(|(&sampled, _)| sampled)
}

#[cfg(test)]
mod tests;
