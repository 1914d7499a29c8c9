//! A forward pass over packed sequences, and a separate backward pass from the gradient of the loss.
//!
//! The separation has two uses. Work after the hidden states can be cut into chunks. And a pass can keep only
//! each layer's input and compute the layer again in the backward pass (activation checkpointing, arXiv
//! 1604.06174, section 4).

use tch::{Kind, Tensor};

use super::attention::PackedCausalAttention;
use super::decoder::{Decoder, PassTokens, Weights};
use super::packing::{MaskedTokens, Packing};

/// The hidden states before the targets of packed sequences.
#[derive(Debug)]
pub(crate) struct PackedPass<'m> {
    decoder: &'m Decoder,
    weights: &'m Weights,
    /// Hidden state before each target, `[targets, hidden]`, in the compute type, outside the graph.
    pub(crate) hidden: Tensor,
    /// Ids of the targets, in packing order, `[targets]`, i64.
    pub(crate) targets: Tensor,
    ids: Tensor,
    tokens: PassTokens,
    attention: PackedCausalAttention,
    kept: Kept,
}

/// The data kept for the backward pass.
#[derive(Debug)]
enum Kept {
    Nothing,
    /// The hidden states with their whole graph.
    Graph(Tensor),
    /// The input of each layer and, as the last entry, of the final norm, outside any graph.
    Inputs(Vec<Tensor>),
}

impl<'m> PackedPass<'m> {
    /// Runs a forward pass that supports [`Self::backward`].
    pub(crate) fn with_gradients(
        decoder: &'m Decoder,
        weights: &'m Weights,
        sequences: &[MaskedTokens<'_>],
    ) -> Self {
        let mut pass = Self::start(decoder, weights, sequences);
        if decoder.recomputes_layers {
            let mut inputs = Vec::with_capacity(decoder.config.layers.len() + 1);
            pass.hidden = tch::no_grad(|| pass.forward(|input| inputs.push(input.shallow_clone())));
            pass.kept = Kept::Inputs(inputs);
        } else {
            let hidden = pass.forward(|_| {});
            pass.hidden = hidden.detach();
            pass.kept = Kept::Graph(hidden);
        }
        pass
    }

    /// Runs a forward pass without gradients.
    pub(crate) fn without_gradients(
        decoder: &'m Decoder,
        weights: &'m Weights,
        sequences: &[MaskedTokens<'_>],
    ) -> Self {
        let mut pass = Self::start(decoder, weights, sequences);
        pass.hidden = tch::no_grad(|| pass.forward(|_| {}));
        pass
    }

    fn start(decoder: &'m Decoder, weights: &'m Weights, sequences: &[MaskedTokens<'_>]) -> Self {
        let packing = Packing::new(sequences);
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(weights.device());
        let read = Some(tensor(&packing.predictors));
        Self {
            decoder,
            weights,
            hidden: Tensor::new(),
            targets: tensor(&packing.targets),
            ids: tensor(&packing.ids),
            tokens: decoder.pass_tokens(&tensor(&packing.positions), read),
            attention: packing.attention,
            kept: Kept::Nothing,
        }
    }

    /// Computes the hidden states. Calls `see` with the input of each layer and of the final norm.
    fn forward(&mut self, mut see: impl FnMut(&Tensor)) -> Tensor {
        let mut residual = self.weights.embed(&self.ids);
        for layer in 0..self.decoder.config.layers.len() {
            see(&residual);
            residual = self.layer(layer, &residual);
        }
        see(&residual);
        self.weights.finish(&residual)
    }

    fn layer(&mut self, layer: usize, residual: &Tensor) -> Tensor {
        self.decoder.layer(self.weights, layer, residual, &self.tokens, &mut self.attention)
    }

    /// Propagates `gradient`, the gradient of the loss by [`Self::hidden`], to the gradients of the parameters.
    pub(crate) fn backward(mut self, gradient: &Tensor) {
        let mut inputs = match std::mem::replace(&mut self.kept, Kept::Nothing) {
            Kept::Nothing => return,
            Kept::Graph(hidden) => return flow(&hidden, gradient),
            Kept::Inputs(inputs) => inputs,
        };
        let layers = self.decoder.config.layers.len();
        let mut gradient = gradient.shallow_clone();
        // From the final norm back to the first layer: each is computed again from its kept input, which is
        // freed before the next one.
        while let Some(input) = inputs.pop() {
            let layer = inputs.len();
            let input = input.detach().set_requires_grad(true);
            let output = if layer == layers {
                self.weights.finish(&input)
            } else {
                self.layer(layer, &input)
            };
            flow(&output, &gradient);
            gradient = input.grad();
        }
        flow(&self.weights.embed(&self.ids), &gradient);
    }
}

/// Propagates `gradient`, the gradient of the loss by `output`, through the graph of `output`.
pub(super) fn flow(output: &Tensor, gradient: &Tensor) {
    if output.requires_grad() {
        (output * gradient.detach()).sum(Kind::Float).backward();
    }
}
