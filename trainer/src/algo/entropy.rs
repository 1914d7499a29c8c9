//! How spread out a distribution is.

use tch::{Kind, Tensor};

/// Entropy in nats of the softmax of `[.., vocab]` logits, `[..]`.
pub fn entropy_of_logits(logits: &Tensor) -> Tensor {
    let log_probs = logits.log_softmax(-1, Kind::Float);
    -(log_probs.exp() * log_probs).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
}
