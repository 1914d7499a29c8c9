//! Root-mean-square normalisation (arXiv 1910.07467, equation 4), in f32.

use tch::{Kind, Tensor};

/// A norm over the last dimension with a weight.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// `[width]`, or `[heads, width]` if every head has its own weight; f32.
    pub(crate) weight: Tensor,
    /// Added to the mean of the squares.
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    pub(super) fn new(weight: Tensor, epsilon: f64) -> Self {
        Self { weight, epsilon }
    }

    /// Normalises `[tokens, width]`. The result is f32 if the input is.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        input.rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)
    }

    /// Normalises each head of `[tokens, heads, width]` separately. The result is f32.
    pub(super) fn apply_to_heads(&self, input: &Tensor) -> Tensor {
        let width = self.weight.size()[1];
        let normed = input.to_kind(Kind::Float).rms_norm([width], None::<&Tensor>, self.epsilon);
        normed * &self.weight
    }

    /// Copies the weight into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self { weight: self.weight.detach().copy(), epsilon: self.epsilon }
    }
}
