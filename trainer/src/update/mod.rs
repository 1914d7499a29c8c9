//! Updates of weights from trajectories: micro-batches, gradients, AdamW.
//!
//! Invariant: the split of a batch into micro-batches does not change the weight of any token.

mod diagnosis;
mod fused;
mod micro_batch;
mod optimizer;
mod policy_update;
mod schedule;
mod sequence;
mod supervised;
#[cfg(test)]
mod tests;

pub use diagnosis::{
    NotFiniteAt, first_in, first_in_gradients, first_in_parameters, first_not_finite,
    largest_gradient,
};
pub use micro_batch::micro_batches;
pub use optimizer::{AdamW, AdamWConfig, MomentsStorage, clip_gradients};
pub use policy_update::{
    LikelihoodTerm, PolicyUpdateConfig, PolicyUpdateStatistics, policy_gradient, sequence_log_probs,
};
pub use schedule::warmed_up;
pub use sequence::TrainSequence;
pub use supervised::supervised_gradient;

/// The reason why an update was refused.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("the {quantity} of update {update} is {value}: the weights were not changed")]
    NotFinite { quantity: &'static str, update: u64, value: f64 },
}
