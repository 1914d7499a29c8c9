//! Policy losses per token, and the weights by which tokens add up to one number.

use tch::{Kind, Tensor};

/// How far a ratio may leave 1 before it is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    pub low: f64,
    pub high: f64,
}

/// Per-token results, each `[tokens]`.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Differentiable in the new log-probs.
    pub losses: Tensor,
    /// 1 where the clipped term was the larger one, else 0.
    pub clipped: Tensor,
    /// `old - new`: its mean estimates the divergence from the policy that sampled.
    pub old_minus_new: Tensor,
}

/// Largest magnitude of a log-ratio, so that its exponential stays finite (veRL clamps likewise).
const LOG_RATIO_BOUND: f64 = 20.0;

/// PPO's clipped objective (arXiv 1707.06347, equation 7), negated: `max(-A r, -A clip(r))` with
/// `r = e^(new - old)`. All arguments are `[tokens]`.
pub fn clipped_policy_loss(
    log_probs: &Tensor,
    old_log_probs: &Tensor,
    advantages: &Tensor,
    clip: ClipRange,
) -> PolicyLoss {
    let log_ratio = (log_probs - old_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND);
    let ratio = log_ratio.exp();
    let plain = -(advantages * &ratio);
    let bounded = -(advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high));
    let clipped = bounded.gt_tensor(&plain).to_kind(Kind::Float);
    let old_minus_new = -log_ratio.detach();
    PolicyLoss { losses: plain.maximum(&bounded), clipped, old_minus_new }
}

/// How per-token losses become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Mean over all trained tokens of the update (DAPO, arXiv 2503.14476).
    TokenMean,
    /// Mean over trajectories of each one's token mean (GRPO's paper).
    SequenceMeanTokenMean,
    /// Mean over trajectories of each one's token sum.
    SequenceMeanTokenSum,
}

/// The weight of each token of each trajectory, given the trained tokens of every trajectory of the
/// update; the weighted sum of the per-token losses is the loss. The normaliser is the whole
/// update's, so that micro-batches of different sizes add up to the same gradient.
pub fn token_weights(aggregation: Aggregation, tokens_of_trajectories: &[usize]) -> Vec<f64> {
    let trajectories = tokens_of_trajectories.len().max(1) as f64;
    let tokens = tokens_of_trajectories.iter().sum::<usize>().max(1) as f64;
    tokens_of_trajectories
        .iter()
        .map(|&own| match aggregation {
            Aggregation::TokenMean => 1.0 / tokens,
            Aggregation::SequenceMeanTokenMean => 1.0 / (trajectories * own.max(1) as f64),
            Aggregation::SequenceMeanTokenSum => 1.0 / trajectories,
        })
        .collect()
}

/// Entropy in nats of the softmax of `[.., vocab]` logits, `[..]`.
pub fn entropy_of_logits(logits: &Tensor) -> Tensor {
    let log_probs = logits.log_softmax(-1, Kind::Float);
    -(log_probs.exp() * log_probs).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_aggregation() {
        let close = |weights: Vec<f64>, expected: [f64; 2]| {
            for (weight, expected) in weights.iter().zip(expected) {
                assert!((weight - expected).abs() < 1e-12, "{weights:?}");
            }
        };
        close(token_weights(Aggregation::TokenMean, &[1, 3]), [0.25, 0.25]);
        close(token_weights(Aggregation::SequenceMeanTokenMean, &[1, 4]), [0.5, 0.125]);
        close(token_weights(Aggregation::SequenceMeanTokenSum, &[1, 4]), [0.5, 0.5]);
    }

    #[test]
    fn an_extreme_ratio_stays_finite() {
        let clip = ClipRange { low: 0.2, high: 0.2 };
        let one = |value: f32| Tensor::from_slice(&[value]);
        let loss = clipped_policy_loss(&one(0.0), &one(-200.0), &one(-1.0), clip);
        assert!(loss.losses.double_value(&[0]).is_finite());
    }
}
