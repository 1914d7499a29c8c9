//! Correction for a sampler whose probabilities differ from the trainer's.

use tch::Tensor;

/// Returns the weights of truncated importance sampling, `min(e^(old - sampler), most)`. They correct each
/// token's loss for a sampler that computed another log-prob than the trainer ("Your Efficient RL Framework
/// Secretly Brings You Off-Policy RL Training", Yao et al. 2025; veRL's `rollout_is`). `[tokens]`, without
/// gradient.
pub fn truncated_importance(old_log_probs: &Tensor, sampler: &Tensor, most: f64) -> Tensor {
    // Clamping before the exponential keeps it finite.
    (old_log_probs - sampler).clamp(-20.0, 20.0).exp().clamp_max(most).detach()
}
