//! Per-token estimates of the divergence from a reference, computed from sampled tokens (Schulman,
//! "Approximating KL Divergence", 2020).

use tch::Tensor;

/// An estimator of the divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlEstimator {
    /// `lp - ref`
    K1,
    /// `|lp - ref|`
    Abs,
    /// `(lp - ref)^2 / 2`
    K2,
    /// `e^(ref - lp) - (ref - lp) - 1`, clamped to ±10 as in Search-R1's `kl_penalty`.
    K3,
    /// The value of K3 with the gradient of K2, which is that of the divergence itself (veRL's
    /// `kl_penalty` for names that end with a plus).
    K3Plus,
}

/// Returns the estimate for each token, differentiable in `log_probs`. Both tensors are `[tokens]`.
pub fn kl_estimate(estimator: KlEstimator, log_probs: &Tensor, reference: &Tensor) -> Tensor {
    let difference = log_probs - reference;
    match estimator {
        KlEstimator::K1 => difference,
        KlEstimator::Abs => difference.abs(),
        KlEstimator::K2 => difference.square() * 0.5,
        KlEstimator::K3 => third_estimate(&difference),
        KlEstimator::K3Plus => {
            let leading = difference.square() * 0.5;
            let value = third_estimate(&difference).detach();
            &leading - leading.detach() + value
        }
    }
}

fn third_estimate(difference: &Tensor) -> Tensor {
    // Beyond this bound the value is clamped anyway, but the exponential would overflow. The gradient would
    // be 0 times infinity, which is NaN.
    let difference = difference.clamp(-20.0, 20.0);
    (-&difference).exp().g_add(&(difference - 1.0)).clamp(-10.0, 10.0)
}
