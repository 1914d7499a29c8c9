//! Advantages, divergences and losses as functions of values: no model, no I/O, no state.
//!
//! Values recorded from Search-R1 (`tests/golden/algorithms.json`) and from veRL and ZeroSearch
//! (`tests/golden/algorithms-extended.json`) pin every formula.

mod aggregation;
mod clipped;
mod correction;
mod estimator;
mod gae;
mod group;
mod kl;
mod kl_controller;
mod layout;
mod likelihood;
mod loss;
mod objective;
mod returns;
mod sequence_ratio;
mod shaping;
mod soft_clip;
#[cfg(test)]
mod tests;
mod value;

pub use aggregation::{Aggregation, token_weights};
pub use correction::truncated_importance;
pub use estimator::{AdvantageEstimator, OutcomeEstimator, TokenEstimator};
pub use gae::{Discount, Estimates, GaeSteps, generalised_advantages};
pub use group::{
    GROUP_STD_EPSILON, Singleton, group_advantages, leave_one_out, length_weighted,
    rescaled_by_nonzero, uniform_groups,
};
pub use kl::{KlEstimator, kl_estimate};
pub use kl_controller::{KlTarget, adapted_coefficient};
pub use layout::TokenLayout;
pub use likelihood::{LikelihoodGate, likelihood_loss};
pub use loss::{ClipRange, PolicyInputs, TokenLosses};
pub use objective::{Objective, policy_loss};
pub use returns::{TooFewTokens, batch_centred, discounted_returns, whiten};
pub use shaping::{OverlongPenalty, overlong_penalty};
pub use value::value_loss;
