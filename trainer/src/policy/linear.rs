//! A linear map with or without a bias: the part that every other part is made of.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

/// The master weights by their Hugging Face name, and the type that is computed in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masters<'a> {
    pub(super) parameters: &'a BTreeMap<String, Tensor>,
    pub(super) kind: Kind,
}

impl Masters<'_> {
    /// The master tensor itself, f32.
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.parameters[name].shallow_clone()
    }

    /// The maps `MODULE.weight` of `modules` with their rows one below the other, cast to the compute
    /// type; with `MODULE.bias` if `biased`. Differentiable.
    pub(super) fn linear(&self, modules: &[String], biased: bool) -> Linear {
        let joined = |suffix: &str| {
            let named = |module: &String| &self.parameters[&format!("{module}.{suffix}")];
            match modules {
                [only] => named(only).to_kind(self.kind),
                several => {
                    let tensors: Vec<&Tensor> = several.iter().map(named).collect();
                    Tensor::cat(&tensors, 0).to_kind(self.kind)
                }
            }
        };
        Linear { weight: joined("weight"), bias: biased.then(|| joined("bias")) }
    }
}

/// `x W^T + b`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[outputs, inputs]`, compute type.
    pub(super) weight: Tensor,
    /// `[outputs]`, compute type.
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `[tokens, inputs]` to `[tokens, outputs]`.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        input.linear(&self.weight, self.bias.as_ref())
    }

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        Self { weight: deep_copy(&self.weight), bias: self.bias.as_ref().map(deep_copy) }
    }
}

/// The values of a tensor in storage of their own, outside the autograd graph.
pub(super) fn deep_copy(tensor: &Tensor) -> Tensor {
    tensor.detach().copy()
}
