//! Losses whose ratio is one of a whole sequence: GSPO and GMPO. Both are spread over the tokens, so
//! that a mean over sequences of each one's mean over tokens gives the loss of the paper.

use tch::{Kind, Tensor};

use super::objective::{ClipRange, PolicyInputs, PolicyLoss};

/// Largest logarithm of a sequence's ratio, as in veRL's `compute_policy_loss_gspo`.
const LOG_RATIO_MOST: f64 = 10.0;

/// GSPO (arXiv 2507.18071, in its token form): PPO's clip of
/// `r = sg(s) lp / sg(lp)`, where `s` is the exponential of a sequence's mean log-ratio: the ratio is
/// the sequence's, its gradient each token's own.
pub(super) fn sequence_ratio_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> PolicyLoss {
    let difference = inputs.log_probs - inputs.old_log_probs;
    let of_sequence = inputs.layout.spread(&inputs.layout.means(&difference)).detach();
    let log_ratio = inputs.log_probs - inputs.log_probs.detach() + of_sequence;
    let ratio = log_ratio.clamp_max(LOG_RATIO_MOST).exp();
    let plain = -(inputs.advantages * &ratio);
    let bounded = -(inputs.advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high));
    PolicyLoss {
        clipped: bounded.gt_tensor(&plain).to_kind(Kind::Float),
        losses: plain.maximum(&bounded),
        old_minus_new: -difference.detach(),
    }
}

/// GMPO (arXiv 2507.20673): minus a sequence's advantage times the geometric mean of its
/// ratios, each clipped in its logarithm to `-low..high` where that lowers the objective. The
/// sequence's advantage is the mean over its tokens, as in veRL's `compute_policy_loss_geo_mean`.
pub(super) fn geometric_mean_loss(inputs: &PolicyInputs<'_>, clip: ClipRange) -> PolicyLoss {
    let log_ratio = inputs.log_ratio();
    let sign = inputs.advantages.sign();
    let bounded = log_ratio.clamp(-clip.low, clip.high);
    let kept = (&sign * &log_ratio).minimum(&(&sign * &bounded)) * &sign;
    let clipped = kept.ne_tensor(&log_ratio).to_kind(Kind::Float) * sign.abs();
    let ratio = inputs.layout.means(&kept).exp();
    let losses: Tensor = -(inputs.layout.means(inputs.advantages) * ratio);
    PolicyLoss {
        losses: inputs.layout.spread(&losses),
        clipped,
        old_minus_new: -log_ratio.detach(),
    }
}
