//! Losses with one ratio per sequence: GSPO and GMPO. Both are spread over the tokens. The mean over
//! sequences of each one's token mean is then the loss of the paper.

use tch::{Kind, Tensor};

use super::loss::{ClipRange, PolicyInputs, TokenLosses};

/// Largest logarithm of a sequence's ratio, as in veRL's `compute_policy_loss_gspo`.
const LOG_RATIO_MOST: f64 = 10.0;

/// Computes GSPO (arXiv 2507.18071, in its token form): PPO's clip of `r = sg(s) lp / sg(lp)`, where `s` is
/// the exponential of a sequence's mean log-ratio. The value of the ratio is the sequence's; its gradient
/// is each token's own.
pub(super) fn sequence_ratio_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> TokenLosses {
    let difference = inputs.log_probs - inputs.old_log_probs;
    let sequence_log_ratio = inputs.layout.spread(&inputs.layout.means(&difference)).detach();
    let log_ratio = inputs.log_probs - inputs.log_probs.detach() + sequence_log_ratio;
    let ratio = log_ratio.clamp_max(LOG_RATIO_MOST).exp();
    let plain = -(inputs.advantages * &ratio);
    let bounded = -(inputs.advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high));
    TokenLosses {
        clipped: bounded.gt_tensor(&plain).to_kind(Kind::Float),
        losses: plain.maximum(&bounded),
    }
}

/// Computes GMPO (arXiv 2507.20673): minus a sequence's advantage times the geometric mean of its ratios.
/// The logarithm of each ratio is clipped to `-low..high` where that lowers the objective. The sequence's
/// advantage is the mean over its tokens, as in veRL's `compute_policy_loss_geo_mean`.
pub(super) fn geometric_mean_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> TokenLosses {
    let log_ratio = inputs.log_ratio();
    let sign = inputs.advantages.sign();
    let bounded = log_ratio.clamp(-clip.low, clip.high);
    let kept = (&sign * &log_ratio).minimum(&(&sign * &bounded)) * &sign;
    let clipped = kept.ne_tensor(&log_ratio).to_kind(Kind::Float) * sign.abs();
    let ratio = inputs.layout.means(&kept).exp();
    let losses: Tensor = -(inputs.layout.means(inputs.advantages) * ratio);
    TokenLosses { losses: inputs.layout.spread(&losses), clipped }
}
