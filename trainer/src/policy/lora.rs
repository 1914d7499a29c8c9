//! Low-rank adapters (LoRA, arXiv 2106.09685, section 4.1): a trained `s (x A^T) B^T` of small rank is added to
//! a frozen map `x W^T`.
//!
//! Owns the adapters' parameters, their initialisation, their computation and their merging. The base weights
//! never change here, and no gradient of their size ever exists: only A and B have gradients.

use std::collections::BTreeMap;
use std::fmt;

use shared::contract::splitmix;
use tch::{Kind, Tensor};

use super::config::ModelConfig;
use super::parameters::adaptable_shapes;

/// Modules that can carry an adapter, by the names that all families share.
pub const LORA_MODULES: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The subset of [`LORA_MODULES`] that carries adapters in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoraTargets([bool; LORA_MODULES.len()]);

impl LoraTargets {
    /// The word for all modules.
    pub const ALL_WORD: &'static str = "all-linear";
    pub const ALL: Self = Self([true; LORA_MODULES.len()]);

    /// Selects the modules with these names.
    ///
    /// # Errors
    /// Returns the first name that is not in [`LORA_MODULES`].
    pub fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        let mut chosen = [false; LORA_MODULES.len()];
        for name in names {
            let index = LORA_MODULES.iter().position(|&module| module == name).ok_or(name)?;
            chosen[index] = true;
        }
        Ok(Self(chosen))
    }

    /// Returns the chosen names, in the order of [`LORA_MODULES`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        LORA_MODULES.into_iter().zip(self.0).filter_map(|(name, chosen)| chosen.then_some(name))
    }

    /// Returns `true` if the module `name` is chosen. The name may include the module's parents.
    pub fn contains(self, name: &str) -> bool {
        let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
        self.names().any(|module| module == last)
    }
}

impl fmt::Display for LoraTargets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return formatter.write_str(Self::ALL_WORD);
        }
        formatter.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// Sizes of the adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Number of rows of A and of columns of B.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// `true` if the scale divides by the square root of the rank instead of the rank (arXiv 2312.03732,
    /// equation 4).
    pub rank_stabilised: bool,
    pub targets: LoraTargets,
}

impl AdapterConfig {
    /// Returns the factor of `(x A^T) B^T`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

impl fmt::Display for AdapterConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, alpha, rank_stabilised, targets } = self;
        write!(
            formatter,
            "rank = {rank}, alpha = {alpha}, rslora = {rank_stabilised}, targets = \"{targets}\""
        )
    }
}

/// The model that adapters belong to, in the terms of PEFT's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseName {
    /// A path, or `org/name` on the hub.
    pub name: String,
    /// Branch, tag or commit on the hub.
    pub revision: Option<String>,
}

/// The adapters of a model with frozen weights.
#[derive(Debug)]
pub struct Lora {
    pub config: AdapterConfig,
    pub base: BaseName,
    /// Trained parameters, f32 leaves of the autograd graph: `MODULE.lora_A.weight`, `[rank, inputs]`, and
    /// `MODULE.lora_B.weight`, `[outputs, rank]`, of every adapted module. In a critic also the value head.
    pub parameters: BTreeMap<String, Tensor>,
}

/// Returns the name of a module's A.
pub(super) fn down_name(module: &str) -> String {
    format!("{module}.lora_A.weight")
}

/// Returns the name of a module's B.
pub(super) fn up_name(module: &str) -> String {
    format!("{module}.lora_B.weight")
}

impl Lora {
    /// Creates adapters that change nothing yet: A is random and B is zero. As in PEFT's
    /// `reset_lora_parameters`, A is uniform between the bounds of Kaiming's initialisation with a slope of the
    /// square root of 5, which are plus and minus `1 / sqrt(inputs)`. `seed` decides the draws, separately for
    /// each module.
    pub fn new(model: &ModelConfig, config: AdapterConfig, base: BaseName, seed: u64) -> Self {
        let mut parameters = BTreeMap::new();
        for (index, (module, [outputs, inputs])) in adaptable_shapes(model).into_iter().enumerate()
        {
            if !config.targets.contains(&module) {
                continue;
            }
            let mut state = splitmix::finalise(seed.wrapping_add(splitmix::INCREMENT))
                .wrapping_add(splitmix::finalise(index as u64));
            let bound = 1.0 / (inputs as f32).sqrt();
            let draws = splitmix::numbers(config.rank * inputs, &mut state);
            let values: Vec<f32> = draws.into_iter().map(|draw| draw * bound).collect();
            let rank = config.rank as i64;
            let down = Tensor::from_slice(&values).view([rank, inputs as i64]);
            let up = Tensor::zeros([outputs as i64, rank], (Kind::Float, tch::Device::Cpu));
            parameters.insert(down_name(&module), down);
            parameters.insert(up_name(&module), up);
        }
        Self { config, base, parameters }
    }

    /// Returns `true` if the adapters change nothing.
    pub fn is_zero(&self) -> bool {
        tch::no_grad(|| {
            let mut ups =
                self.parameters.iter().filter(|(name, _)| name.ends_with("lora_B.weight"));
            ups.all(|(_, up)| up.count_nonzero(None::<i64>).int64_value(&[]) == 0)
        })
    }

    /// Copies the adapters into their own storage, outside the graph.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        let parameters = self.parameters.iter().map(copy).collect();
        Self { config: self.config, base: self.base.clone(), parameters }
    }

    /// Returns A and B of `module`, if it is adapted.
    fn of_module(&self, module: &str) -> Option<(&Tensor, &Tensor)> {
        let down = self.parameters.get(&down_name(module))?;
        Some((down, &self.parameters[&up_name(module)]))
    }

    /// Returns the merged weight `W + s B A` of `module` in f32, where `W` is `weight`. If the module is not
    /// adapted, this is `weight` itself.
    pub(super) fn merged(&self, module: &str, weight: &Tensor) -> Tensor {
        match self.of_module(module) {
            Some((down, up)) => {
                let mut merged = up.matmul(&(down * self.config.scale()));
                let _ = merged.g_add_(weight);
                merged
            }
            None => weight.shallow_clone(),
        }
    }

    /// Joins the adapters of `modules`, each given with its number of outputs, differentiably. Returns `None` if
    /// no module is adapted.
    pub(super) fn beside(&self, modules: &[(&str, i64)], kind: Kind) -> Option<Adapter> {
        let adapted: Vec<Option<(&Tensor, &Tensor)>> =
            modules.iter().map(|(module, _)| self.of_module(module)).collect();
        let downs: Vec<&Tensor> = adapted.iter().flatten().map(|(down, _)| *down).collect();
        let down = match &downs[..] {
            [] => return None,
            [only] => only.to_kind(kind),
            several => Tensor::cat(several, 0).to_kind(kind),
        };
        let mut adapted_blocks = 0;
        let mut blocks = Vec::with_capacity(modules.len());
        for (adapted, &(_, outputs)) in adapted.into_iter().zip(modules) {
            blocks.push(match adapted {
                Some((_, up)) => Block::Adapted { index: adapted_blocks, up: up.to_kind(kind) },
                None => Block::Plain { outputs },
            });
            adapted_blocks += usize::from(adapted.is_some());
        }
        Some(Adapter { down, blocks, adapted: adapted_blocks, scale: self.config.scale() })
    }
}

/// The adapters of maps with stacked rows.
#[derive(Debug)]
pub(super) struct Adapter {
    /// A of every adapted block, stacked: `[adapted * rank, inputs]`, compute type.
    down: Tensor,
    /// One block per map.
    blocks: Vec<Block>,
    /// Number of adapted blocks.
    adapted: usize,
    scale: f64,
}

/// One of several joined maps.
#[derive(Debug)]
enum Block {
    /// A map with an adapter: its index among the adapted blocks, and B, `[outputs, rank]`, compute type.
    Adapted { index: usize, up: Tensor },
    /// A map without an adapter.
    Plain { outputs: i64 },
}

impl Adapter {
    /// Computes `s (x A^T) B^T`: `[tokens, inputs]` to `[tokens, outputs of all blocks]`.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        let inner = input.linear(&self.down, None::<&Tensor>) * self.scale;
        let inner = inner.chunk(self.adapted as i64, -1);
        let part = |block: &Block| match block {
            Block::Adapted { index, up } => inner[*index].linear(up, None::<&Tensor>),
            Block::Plain { outputs } => {
                Tensor::zeros([input.size()[0], *outputs], (input.kind(), input.device()))
            }
        };
        let parts: Vec<Tensor> = self.blocks.iter().map(part).collect();
        match &parts[..] {
            [only] => only.shallow_clone(),
            several => Tensor::cat(several, -1),
        }
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        let copy = |block: &Block| match block {
            Block::Adapted { index, up } => {
                Block::Adapted { index: *index, up: up.detach().copy() }
            }
            Block::Plain { outputs } => Block::Plain { outputs: *outputs },
        };
        Self {
            down: self.down.detach().copy(),
            blocks: self.blocks.iter().map(copy).collect(),
            adapted: self.adapted,
            scale: self.scale,
        }
    }
}
