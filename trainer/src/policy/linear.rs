//! Linear maps with or without a bias, the building block of all other parts.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::adapter::Adapter;
use super::lora::Lora;

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
    /// Returns a master tensor, f32: the frozen one, or the one that is trained in its place. Merged adapters are in it.
    pub(super) fn tensor(&self, name: &str) -> Tensor {
        let frozen = &self.parameters[name];
        match self.adapters {
            Adapters::Off => frozen.shallow_clone(),
            Adapters::Beside(lora) => lora.whole(name).unwrap_or(frozen).shallow_clone(),
            Adapters::Merged(lora) => lora.merged(name, frozen),
        }
    }

    /// Stacks the rows of the maps `MODULE.weight` of `modules` and casts them to the compute type,
    /// differentiably. Includes `MODULE.bias` if `biased`.
    pub(super) fn linear(&self, modules: &[String], biased: bool) -> Linear {
        let joined = |tensors: &[Tensor]| match tensors {
            [only] => only.to_kind(self.kind),
            several => Tensor::cat(several, 0).to_kind(self.kind),
        };
        let weights: Vec<Tensor> =
            modules.iter().map(|module| self.tensor(&format!("{module}.weight"))).collect();
        let bias = |module: &String| self.tensor(&format!("{module}.bias"));
        let adapter = match self.adapters {
            Adapters::Beside(lora) => {
                let blocks: Vec<(&str, &Tensor)> =
                    modules.iter().map(String::as_str).zip(&weights).collect();
                lora.beside(&blocks, self.kind)
            }
            Adapters::Off | Adapters::Merged(_) => None,
        };
        Linear {
            bias: biased.then(|| joined(&modules.iter().map(bias).collect::<Vec<_>>())),
            weight: joined(&weights),
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
        let apart = self.adapter.as_ref().is_some_and(Adapter::scales_output);
        let bias = self.bias.as_ref();
        let output = input.linear(&self.weight, bias.filter(|_| !apart));
        let output = match &self.adapter {
            Some(adapter) => adapter.add_to(&output, input),
            None => output,
        };
        match bias.filter(|_| apart) {
            Some(bias) => output + bias,
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
