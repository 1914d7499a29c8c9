//! LLDS, a term that preserves the likelihood of good trajectories.

use tch::{Kind, Tensor};

use super::layout::TokenLayout;

/// The span that must have lost likelihood as a whole before the losses of its tokens count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikelihoodGate {
    /// The token's action: the tokens sampled between two observations.
    Action,
    /// The whole trajectory.
    Response,
}

/// Computes LLDS ("On GRPO Collapse in Search-R1", arXiv 2512.04220): the loss in each token's log-prob since the
/// old policy, `max(0, old - new)`. It counts if the token's span (see [`LikelihoodGate`]) has lost likelihood as
/// a whole and its trajectory's advantage is not negative; else it is 0. The result is `[tokens]` and
/// differentiable in `log_probs`; gates carry no gradient. The caller divides the sum by all trained tokens of
/// the update.
///
/// `spans` assigns tokens to spans. `preserved` is 1 at the tokens of trajectories to preserve.
pub fn likelihood_loss(
    log_probs: &Tensor,
    old_log_probs: &Tensor,
    preserved: &Tensor,
    spans: &TokenLayout,
) -> Tensor {
    let lost = old_log_probs - log_probs;
    let open = spans.spread(&spans.sums(&lost.detach()).gt(0.0).to_kind(Kind::Float));
    lost.relu() * open * preserved
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Two actions of one trajectory and one of another. The second action has gained as a whole.
    #[test]
    fn only_losses_of_spans_that_lost_count() {
        let new = Tensor::from_slice(&[-2.0_f32, -1.0, -3.0, -0.5, -4.0]).set_requires_grad(true);
        let old = Tensor::from_slice(&[-1.0_f32, -1.5, -2.5, -2.0, -1.0]);
        let preserved = Tensor::from_slice(&[1.0_f32, 1.0, 1.0, 1.0, 0.0]);
        let losses_and_gradient = |spans: &[usize]| {
            let spans = TokenLayout::new(spans, Device::Cpu);
            let losses = likelihood_loss(&new, &old, &preserved, &spans);
            losses.sum(Kind::Float).backward();
            let mut gradient = new.grad();
            let values = Vec::<f32>::try_from(&gradient).unwrap();
            let _ = gradient.zero_();
            (Vec::<f32>::try_from(losses).unwrap(), values)
        };
        // The first action lost 1 and gained 0.5; the second lost 0.5 and gained 1.5.
        let (losses, gradient) = losses_and_gradient(&[2, 2, 1]);
        assert_eq!(losses, [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(gradient, [-1.0, 0.0, 0.0, 0.0, 0.0]);
        // The whole trajectory gained 0.5, so nothing counts.
        assert_eq!(losses_and_gradient(&[4, 1]).0, [0.0; 5]);
    }
}
