//! Losses that keep a gradient where PPO's clip has none: CISPO and SAPO.

use tch::{Kind, Tensor};

use super::objective::{ClipRange, PolicyInputs, PolicyLoss};

/// CISPO (MiniMax-M1, arXiv 2506.13585): `-sg(clip(r)) A lp`: the ratio is a bounded weight,
/// and every token keeps its gradient.
pub(super) fn clipped_weight_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> PolicyLoss {
    let log_ratio = inputs.log_ratio();
    let ratio = log_ratio.exp().detach();
    let weight = ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    PolicyLoss {
        clipped: weight.ne_tensor(&ratio).to_kind(Kind::Float),
        losses: -(weight * inputs.advantages * inputs.log_probs),
        old_minus_new: -log_ratio.detach(),
    }
}

/// SAPO (arXiv 2511.20347): `-A (4 / t) sigmoid(t (r - 1))` with the steepness `t` =
/// `positive` where the advantage is above 0 and `negative` elsewhere; the gate falls off smoothly on
/// both sides of `r` = 1, where its slope is 1.
pub(super) fn soft_gate_loss(
    inputs: &PolicyInputs<'_>,
    positive: f64,
    negative: f64,
) -> PolicyLoss {
    let log_ratio = inputs.log_ratio();
    let ratio = log_ratio.exp();
    let steepness: Tensor = inputs.advantages.gt(0.0).to_kind(Kind::Float) * (positive - negative);
    let steepness = steepness + negative;
    let gate = (&steepness * (ratio - 1.0)).sigmoid() * 4.0 / steepness;
    let clipped = log_ratio.zeros_like();
    PolicyLoss { losses: -(inputs.advantages * gate), clipped, old_minus_new: -log_ratio.detach() }
}
