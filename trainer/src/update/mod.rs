//! From trajectories to new weights: micro-batches, gradients, AdamW.
//!
//! Invariant: every trained token weighs the same however the batch is cut into micro-batches.

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

/// Why an update was refused.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("the {what} of update {update} is {value}: the weights were left as they were")]
    NotFinite { what: &'static str, update: u64, value: f64 },
}
