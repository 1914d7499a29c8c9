//! The inputs and results that all token losses share.

use tch::Tensor;

use super::layout::TokenLayout;

/// The distances below and above 1 at which a ratio is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    pub low: f64,
    pub high: f64,
}

/// The inputs of a policy loss, each `[tokens]`.
#[derive(Debug)]
pub struct PolicyInputs<'t> {
    /// Differentiable.
    pub log_probs: &'t Tensor,
    /// Log-probs under the policy before the step's first update.
    pub old_log_probs: &'t Tensor,
    pub advantages: &'t Tensor,
    /// The sequences that the tokens belong to.
    pub layout: &'t TokenLayout,
}

/// Per-token results, each `[tokens]`.
#[derive(Debug)]
pub struct TokenLosses {
    /// Differentiable in the new log-probs or values.
    pub losses: Tensor,
    /// 1 where the clipped term decided the loss, else 0.
    pub clipped: Tensor,
}

/// Largest magnitude of a log-ratio. It keeps the exponential finite (veRL clamps likewise).
const LOG_RATIO_BOUND: f64 = 20.0;

impl PolicyInputs<'_> {
    /// Returns the logarithm of new over old probability of each token, bounded.
    pub(super) fn log_ratio(&self) -> Tensor {
        (self.log_probs - self.old_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    }
}
