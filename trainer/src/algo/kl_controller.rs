//! A controller for the coefficient of a divergence that is subtracted from rewards.

/// Largest relative error that the controller corrects in one step.
const ERROR_BOUND: f64 = 0.2;

/// The target of the controller and its speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlTarget {
    /// Target divergence in nats per token.
    pub divergence: f64,
    /// Number of trajectories over which an error of 1 would change the coefficient by its own size.
    pub horizon: f64,
}

/// Returns the coefficient after a step with `trajectories` of mean divergence `measured`. The controller is that
/// of "Fine-Tuning Language Models from Human Preferences" (arXiv 1909.08593, section 2.2), as in Search-R1's
/// `AdaptiveKLController`.
pub fn adapted_coefficient(
    coefficient: f64,
    target: KlTarget,
    measured: f64,
    trajectories: usize,
) -> f64 {
    let error = (measured / target.divergence - 1.0).clamp(-ERROR_BOUND, ERROR_BOUND);
    coefficient * (1.0 + error * trajectories as f64 / target.horizon)
}
