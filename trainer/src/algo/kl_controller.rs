//! The coefficient of a divergence that is taken off the rewards: fixed, or steered towards a target.

/// Largest relative error that one step of the controller answers to.
const ERROR_BOUND: f64 = 0.2;

/// Towards what and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlTarget {
    /// Divergence wished for, in nats per token.
    pub divergence: f64,
    /// Trajectories over which an error of 1 would change the coefficient by its own size.
    pub horizon: f64,
}

/// The coefficient after a step with `trajectories` of mean divergence `found`: the controller of
/// "Fine-Tuning Language Models from Human Preferences" (arXiv 1909.08593, section 2.2) as in
/// Search-R1's `AdaptiveKLController`.
pub fn adapted_coefficient(
    coefficient: f64,
    target: KlTarget,
    found: f64,
    trajectories: usize,
) -> f64 {
    let error = (found / target.divergence - 1.0).clamp(-ERROR_BOUND, ERROR_BOUND);
    coefficient * (1.0 + error * trajectories as f64 / target.horizon)
}
