//! The critic's loss.

use tch::{Kind, Tensor};

/// Per-token results, each `[tokens]`.
#[derive(Debug)]
pub struct ValueLoss {
    /// Differentiable in the values.
    pub losses: Tensor,
    /// 1 where the clipped term was the larger one, else 0.
    pub clipped: Tensor,
}

/// Half the squared error from the returns, or that of the value moved by at most `clip` from the old
/// one if it is larger: `max((v - R)^2, (clip(v, old ± clip) - R)^2) / 2` (PPO2 of OpenAI Baselines;
/// Search-R1's `compute_value_loss`). All arguments are `[tokens]`.
pub fn value_loss(values: &Tensor, old_values: &Tensor, returns: &Tensor, clip: f64) -> ValueLoss {
    let bounded = values.maximum(&(old_values - clip)).minimum(&(old_values + clip));
    let plain = (values - returns).square();
    let limited = (bounded - returns).square();
    ValueLoss {
        clipped: limited.gt_tensor(&plain).to_kind(Kind::Float),
        losses: plain.maximum(&limited) * 0.5,
    }
}
