//! PPO's clipped loss, with clip-higher and dual clip, and the loss without a ratio.

use tch::{Kind, Tensor};

use super::loss::{ClipRange, PolicyInputs, TokenLosses};

/// Computes PPO's clipped objective (arXiv 1707.06347, equation 7), negated: `max(-A r, -A clip(r))` with
/// `r = e^(new - old)`. A `clip.high` above `clip.low` is DAPO's clip-higher (arXiv 2503.14476,
/// section 3.1). With `dual` = c, a token of negative advantage costs at most `-c A` (dual clip, arXiv
/// 1912.09729).
pub(super) fn clipped_policy_loss(
    inputs: &PolicyInputs<'_>,
    clip: ClipRange,
    dual: Option<f64>,
) -> TokenLosses {
    let ratio = inputs.log_ratio().exp();
    let plain = -(inputs.advantages * &ratio);
    let bounded = -(inputs.advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high));
    let clipped = bounded.gt_tensor(&plain).to_kind(Kind::Float);
    let mut losses = plain.maximum(&bounded);
    if let Some(most) = dual {
        let limit = inputs.advantages * -most;
        losses = losses.minimum(&limit).where_self(&inputs.advantages.lt(0.0), &losses);
    }
    TokenLosses { losses, clipped }
}

/// Computes the loss of REINFORCE (Williams 1992) and GPG (arXiv 2504.02546): `-A lp`. No ratio changes its
/// gradient.
pub(super) fn plain_policy_loss(inputs: &PolicyInputs<'_>) -> TokenLosses {
    let losses = -(inputs.advantages * inputs.log_probs);
    let clipped: Tensor = inputs.log_probs.detach().zeros_like();
    TokenLosses { losses, clipped }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::algo::TokenLayout;

    fn loss(new: f32, old: f32, advantage: f32, dual: Option<f64>) -> f64 {
        let [new, old, advantage] = [new, old, advantage].map(|value| Tensor::from_slice(&[value]));
        let layout = TokenLayout::new(&[1], Device::Cpu);
        let inputs = PolicyInputs {
            log_probs: &new,
            old_log_probs: &old,
            advantages: &advantage,
            layout: &layout,
        };
        clipped_policy_loss(&inputs, ClipRange { low: 0.2, high: 0.2 }, dual)
            .losses
            .double_value(&[0])
    }

    #[test]
    fn an_extreme_ratio_stays_finite() {
        assert!(loss(0.0, -200.0, -1.0, None).is_finite());
    }

    #[test]
    fn the_second_clip_bounds_what_a_bad_token_costs() {
        let ratio = f64::from(3.0_f32.exp());
        assert!((loss(3.0, 0.0, -2.0, None) - 2.0 * ratio).abs() < 1e-4);
        assert!((loss(3.0, 0.0, -2.0, Some(3.0)) - 6.0).abs() < 1e-6);
        // A good token's gain is not bounded, and neither is a ratio within the bound.
        assert!((loss(3.0, 0.0, 2.0, Some(3.0)) + 2.4).abs() < 1e-6);
        assert!((loss(0.5, 0.0, -2.0, Some(3.0)) - loss(0.5, 0.0, -2.0, None)).abs() < 1e-9);
    }
}
