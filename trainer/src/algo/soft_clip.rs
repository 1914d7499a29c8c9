//! Losses that keep a gradient where PPO's clip has none: CISPO and SAPO.

use tch::{Kind, Tensor};

use super::loss::{ClipRange, PolicyInputs, TokenLosses};

/// Computes CISPO (MiniMax-M1, arXiv 2506.13585), `-sg(clip(r)) A lp`. The ratio is a bounded weight, and
/// every token keeps its gradient.
pub(super) fn clipped_weight_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> TokenLosses {
    let ratio = inputs.log_ratio().exp().detach();
    let weight = ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    TokenLosses {
        clipped: weight.ne_tensor(&ratio).to_kind(Kind::Float),
        losses: -(weight * inputs.advantages * inputs.log_probs),
    }
}

/// Computes SAPO (arXiv 2511.20347), `-A (4 / t) sigmoid(t (r - 1))`. The steepness `t` is `positive` where
/// the advantage is above 0 and `negative` elsewhere. The gate falls off smoothly on both sides of
/// `r` = 1, where its slope is 1.
pub(super) fn soft_gate_loss(
    inputs: &PolicyInputs<'_>,
    positive: f64,
    negative: f64,
) -> TokenLosses {
    let ratio = inputs.log_ratio().exp();
    let clipped = ratio.zeros_like();
    let steepness: Tensor = inputs.advantages.gt(0.0).to_kind(Kind::Float) * (positive - negative);
    let steepness = steepness + negative;
    let gate = (&steepness * (ratio - 1.0)).sigmoid() * 4.0 / steepness;
    TokenLosses { losses: -(inputs.advantages * gate), clipped }
}
