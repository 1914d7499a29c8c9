//! The term that keeps the likelihood of good trajectories: LLDS.

use tch::{Kind, Tensor};

use super::layout::TokenLayout;

/// Which part of a trajectory must have become less likely for its tokens to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikelihoodGate {
    /// The action that a token belongs to: what was sampled between two observations.
    Action,
    /// The whole trajectory.
    Response,
}

/// LLDS ("On GRPO Collapse in Search-R1", arXiv 2512.04220): what each token's log-prob has lost since
/// the old policy, `max(0, old - new)`, if the span that it belongs to (see [`LikelihoodGate`]) has lost
/// likelihood as a whole and its trajectory's advantage is not negative; else 0. `[tokens]`,
/// differentiable in `log_probs`; gates carry no gradient. The sum is divided by all trained tokens of
/// the update.
///
/// `spans` are the tokens of each span; `preserved` is 1 at tokens of trajectories to preserve.
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

    /// Two actions of one trajectory and one of another: the second action has gained as a whole.
    #[test]
    fn only_losses_of_spans_that_lost_count() {
        let new = Tensor::from_slice(&[-2.0_f32, -1.0, -3.0, -0.5, -4.0]).set_requires_grad(true);
        let old = Tensor::from_slice(&[-1.0_f32, -1.5, -2.5, -2.0, -1.0]);
        let preserved = Tensor::from_slice(&[1.0_f32, 1.0, 1.0, 1.0, 0.0]);
        let of = |spans: &[usize]| {
            let spans = TokenLayout::new(spans, Device::Cpu);
            let losses = likelihood_loss(&new, &old, &preserved, &spans);
            losses.sum(Kind::Float).backward();
            let mut gradient = new.grad();
            let found = Vec::<f32>::try_from(&gradient).unwrap();
            let _ = gradient.zero_();
            (Vec::<f32>::try_from(losses).unwrap(), found)
        };
        // The first action lost 1 and gained 0.5; the second lost 0.5 and gained 1.5.
        assert_eq!(of(&[2, 2, 1]), (vec![1.0, 0.0, 0.0, 0.0, 0.0], vec![-1.0, 0.0, 0.0, 0.0, 0.0]));
        // The whole trajectory gained 0.5: nothing is held.
        assert_eq!(of(&[4, 1]).0, [0.0; 5]);
    }
}
