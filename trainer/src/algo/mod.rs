//! Advantages, divergences and losses as functions of values: no model, no I/O, no state.
//!
//! Golden values recorded from Search-R1's `core_algos` and `torch_functional` pin every formula
//! (`tests/golden/algorithms.json`).

mod advantage;
mod kl;
mod loss;
mod masked;
#[cfg(test)]
mod tests;

pub use advantage::{GROUP_STD_EPSILON, group_advantages};
pub use kl::{KlEstimator, kl_estimate};
pub use loss::{
    Aggregation, ClipRange, PolicyLoss, clipped_policy_loss, entropy_of_logits, token_weights,
};
pub use masked::{TooFewTokens, masked_mean, masked_whiten};
