//! The critic's loss.

use tch::{Kind, Tensor};

use super::loss::TokenLosses;

/// Returns half the squared error from the returns. A second candidate is the error of the value moved
/// by at most `clip` from the old one; the larger of the two counts:
/// `max((v - R)^2, (clip(v, old ± clip) - R)^2) / 2` (PPO2 of OpenAI Baselines; Search-R1's
/// `compute_value_loss`). All arguments are `[tokens]`.
pub fn value_loss(
    values: &Tensor,
    old_values: &Tensor,
    returns: &Tensor,
    clip: f64,
) -> TokenLosses {
    let bounded = values.maximum(&(old_values - clip)).minimum(&(old_values + clip));
    let plain = (values - returns).square();
    let limited = (bounded - returns).square();
    TokenLosses {
        clipped: limited.gt_tensor(&plain).to_kind(Kind::Float),
        losses: plain.maximum(&limited) * 0.5,
    }
}
