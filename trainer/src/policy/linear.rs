//! A linear map with or without a bias: the part that every other part is made of.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::lora::{Adapter, Lora};

/// The master weights by their Hugging Face name, what low-rank adapters change of them, and the type
/// that is computed in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masters<'a> {
    pub(super) parameters: &'a BTreeMap<String, Tensor>,
    pub(super) adapters: Adapters<'a>,
    pub(super) kind: Kind,
}

/// How low-rank adapters take part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Adapters<'a> {
    /// Not at all.
    Off,
    /// Computed beside the weights, differentiable.
    Beside(&'a Lora),
    /// Added to the weights.
    Merged(&'a Lora),
}

impl Masters<'_> {
    /// The master tensor itself, f32.
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.parameters[name].shallow_clone()
    }

    /// The maps `MODULE.weight` of `modules` with their rows one below the other, cast to the compute
    /// type; with `MODULE.bias` if `biased`. Differentiable.
    pub(super) fn linear(&self, modules: &[String], biased: bool) -> Linear {
        let joined = |tensors: Vec<Tensor>| match &tensors[..] {
            [only] => only.to_kind(self.kind),
            several => Tensor::cat(several, 0).to_kind(self.kind),
        };
        let weight = |module: &String| {
            let weight = &self.parameters[&format!("{module}.weight")];
            match self.adapters {
                Adapters::Merged(lora) => lora.merged(module, weight),
                Adapters::Off | Adapters::Beside(_) => weight.shallow_clone(),
            }
        };
        let bias = |module: &String| self.tensor(&format!("{module}.bias"));
        let adapter = match self.adapters {
            Adapters::Beside(lora) => {
                let outputs =
                    |module: &String| self.parameters[&format!("{module}.weight")].size()[0];
                let blocks: Vec<(&str, i64)> =
                    modules.iter().map(|module| (module.as_str(), outputs(module))).collect();
                lora.beside(&blocks, self.kind)
            }
            Adapters::Off | Adapters::Merged(_) => None,
        };
        Linear {
            weight: joined(modules.iter().map(weight).collect()),
            bias: biased.then(|| joined(modules.iter().map(bias).collect())),
            adapter,
        }
    }
}

/// `x W^T + b`, and what an adapter adds.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[outputs, inputs]`, compute type.
    pub(super) weight: Tensor,
    /// `[outputs]`, compute type.
    pub(super) bias: Option<Tensor>,
    /// Only where adapters are trained: what rolls out has them merged.
    adapter: Option<Adapter>,
}

impl Linear {
    /// `[tokens, inputs]` to `[tokens, outputs]`.
    pub(crate) fn apply(&self, input: &Tensor) -> Tensor {
        let output = input.linear(&self.weight, self.bias.as_ref());
        match &self.adapter {
            Some(adapter) => output + adapter.apply(input),
            None => output,
        }
    }

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        Self {
            weight: deep_copy(&self.weight),
            bias: self.bias.as_ref().map(deep_copy),
            adapter: self.adapter.as_ref().map(Adapter::deep_copy),
        }
    }
}

/// The values of a tensor in storage of their own, outside the autograd graph.
pub(super) fn deep_copy(tensor: &Tensor) -> Tensor {
    tensor.detach().copy()
}
