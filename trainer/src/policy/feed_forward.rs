//! The gated feed-forward block: SwiGLU (arXiv 2002.05202, equation 6).

use tch::Tensor;

use super::config::ModelConfig;
use super::linear::{Linear, Masters};

/// Weights of one layer's block.
#[derive(Debug)]
pub(crate) struct FeedForward {
    /// Gate and up rows, stacked: `[2 * intermediate, hidden]`.
    pub(crate) gate_up: Linear,
    /// `[hidden, intermediate]`
    pub(crate) down: Linear,
}

impl FeedForward {
    /// Collects the weights of the module `prefix`, such as `model.layers.0.mlp`.
    pub(super) fn new(masters: Masters<'_>, config: &ModelConfig, prefix: &str) -> Self {
        let part = |name: &str| format!("{prefix}.{name}");
        let biased = config.biases.feed_forward;
        Self {
            gate_up: masters.linear(&[part("gate_proj"), part("up_proj")], biased),
            down: masters.linear(&[part("down_proj")], biased),
        }
    }

    /// Maps `[tokens, hidden]` to `[tokens, hidden]`, in the compute type.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        let gate_up = self.gate_up.apply(input).chunk(2, -1);
        self.down.apply(&(gate_up[0].silu() * &gate_up[1]))
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self { gate_up: self.gate_up.deep_copy(), down: self.down.deep_copy() }
    }
}
