//! Linear maps with or without a bias, the building block of all other parts.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::lora::{Adapter, Lora};

/// The master weights by their Hugging Face name, the adapters on top of them, and the compute type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masters<'a> {
    pub(super) parameters: &'a BTreeMap<String, Tensor>,
    pub(super) adapters: Adapters<'a>,
    pub(super) kind: Kind,
}

/// The part that low-rank adapters take in computing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Adapters<'a> {
    /// Adapters are not used.
    Off,
    /// Computed separately and added to the output, differentiably.
    Beside(&'a Lora),
    /// Added to the weights.
    Merged(&'a Lora),
}

impl Masters<'_> {
    /// Returns the master tensor itself, f32.
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        self.parameters[name].shallow_clone()
    }

    /// Stacks the rows of the maps `MODULE.weight` of `modules` and casts them to the compute type,
    /// differentiably. Includes `MODULE.bias` if `biased`.
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

/// The linear map `x W^T + b`, plus the output of an adapter.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[outputs, inputs]`, compute type.
    pub(super) weight: Tensor,
    /// `[outputs]`, compute type.
    pub(super) bias: Option<Tensor>,
    /// Set only where adapters are trained. Rollouts use merged weights.
    adapter: Option<Adapter>,
}

impl Linear {
    /// Maps `[tokens, inputs]` to `[tokens, outputs]`.
    pub(crate) fn apply(&self, input: &Tensor) -> Tensor {
        let output = input.linear(&self.weight, self.bias.as_ref());
        match &self.adapter {
            Some(adapter) => output + adapter.apply(input),
            None => output,
        }
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self {
            weight: self.weight.detach().copy(),
            bias: self.bias.as_ref().map(|bias| bias.detach().copy()),
            adapter: self.adapter.as_ref().map(Adapter::deep_copy),
        }
    }
}
