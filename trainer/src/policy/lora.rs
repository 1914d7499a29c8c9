//! Low-rank adapters (LoRA, arXiv 2106.09685, section 4.1): beside a frozen map `x W^T` a trained
//! `s (x A^T) B^T` of small rank.
//!
//! Owns: the adapters' parameters, how they begin, how they are computed and merged. The weights of the
//! base never change here, and no gradient of their size ever exists: only A and B have one.

use std::collections::BTreeMap;
use std::fmt;

use shared::splitmix;
use tch::{Kind, Tensor};

use super::config::ModelConfig;
use super::linear::deep_copy;
use super::parameters::adaptable_shapes;

/// Modules that can carry an adapter, by the names that all families share.
pub const LORA_MODULES: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Which of [`LORA_MODULES`] carry adapters, in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoraTargets([bool; LORA_MODULES.len()]);

impl LoraTargets {
    /// The word for all of them.
    pub const ALL_WORD: &'static str = "all-linear";
    pub const ALL: Self = Self([true; LORA_MODULES.len()]);

    /// The modules of these names.
    ///
    /// # Errors
    /// The first name that is none of [`LORA_MODULES`].
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        let mut chosen = [false; LORA_MODULES.len()];
        for name in names {
            let place = LORA_MODULES.iter().position(|&module| module == name).ok_or(name)?;
            chosen[place] = true;
        }
        Ok(Self(chosen))
    }

    /// The chosen names, in the order of [`LORA_MODULES`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        LORA_MODULES.into_iter().zip(self.0).filter_map(|(name, chosen)| chosen.then_some(name))
    }

    /// Whether the module `name` is chosen; its name may have its parents' before it.
    pub fn contains(self, name: &str) -> bool {
        let last = name.rsplit('.').next().unwrap_or(name);
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
pub struct LoraConfig {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Divides by the square root of the rank instead of the rank (arXiv 2312.03732, equation 4).
    pub rank_stabilised: bool,
    pub targets: LoraTargets,
}

impl LoraConfig {
    /// What `(x A^T) B^T` is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}

impl fmt::Display for LoraConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, alpha, rank_stabilised, targets } = self;
        write!(
            formatter,
            "rank = {rank}, alpha = {alpha}, rslora = {rank_stabilised}, targets = \"{targets}\""
        )
    }
}

/// The model that adapters belong to, as PEFT's files name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseName {
    /// A path, or `org/name` on the hub.
    pub name: String,
    /// Branch, tag or commit on the hub.
    pub revision: Option<String>,
}

/// What is trained of a model whose weights are frozen.
#[derive(Debug)]
pub struct Lora {
    pub config: LoraConfig,
    pub base: BaseName,
    /// `MODULE.lora_A.weight`, `[rank, inputs]`, and `MODULE.lora_B.weight`, `[outputs, rank]`, of every
    /// adapted module, and a critic's value head: f32 leaves of the autograd graph.
    pub parameters: BTreeMap<String, Tensor>,
}

/// Name of a module's A.
pub(super) fn down_name(module: &str) -> String {
    format!("{module}.lora_A.weight")
}

/// Name of a module's B.
pub(super) fn up_name(module: &str) -> String {
    format!("{module}.lora_B.weight")
}

impl Lora {
    /// New adapters that change nothing yet: A is drawn evenly between the bounds of Kaiming's
    /// initialisation with a slope of the square root of 5, which are plus and minus
    /// `1 / sqrt(inputs)`, as PEFT's `reset_lora_parameters` does; B is zero. `seed` decides the draws,
    /// for each module apart.
    pub fn new(model: &ModelConfig, config: LoraConfig, base: BaseName, seed: u64) -> Self {
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

    /// Whether the adapters change anything.
    pub fn is_zero(&self) -> bool {
        tch::no_grad(|| {
            let mut ups =
                self.parameters.iter().filter(|(name, _)| name.ends_with("lora_B.weight"));
            ups.all(|(_, up)| up.count_nonzero(None::<i64>).int64_value(&[]) == 0)
        })
    }

    /// Storage of its own, outside the graph.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), deep_copy(tensor));
        let parameters = self.parameters.iter().map(copy).collect();
        Self { config: self.config, base: self.base.clone(), parameters }
    }

    /// A and B of `module`, if it is adapted.
    fn of_module(&self, module: &str) -> Option<(&Tensor, &Tensor)> {
        let down = self.parameters.get(&down_name(module))?;
        Some((down, self.parameters.get(&up_name(module))?))
    }

    /// The weight `W + s B A` of `module`, where `W` is `weight`, in f32: a tensor of its own if the
    /// module is adapted.
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

    /// What is computed beside the joined maps of `modules`, each with its number of outputs; nothing
    /// where none of them is adapted. Differentiable.
    pub(super) fn beside(&self, modules: &[(&str, i64)], kind: Kind) -> Option<Adapter> {
        let adapted: Vec<Option<(&Tensor, &Tensor)>> =
            modules.iter().map(|(module, _)| self.of_module(module)).collect();
        let downs: Vec<&Tensor> = adapted.iter().flatten().map(|(down, _)| *down).collect();
        let down = match &downs[..] {
            [] => return None,
            [only] => only.to_kind(kind),
            several => Tensor::cat(several, 0).to_kind(kind),
        };
        let mut place = 0;
        let mut blocks = Vec::with_capacity(modules.len());
        for (adapted, &(_, outputs)) in adapted.into_iter().zip(modules) {
            blocks.push(match adapted {
                Some((_, up)) => Block::Adapted { place, up: up.to_kind(kind) },
                None => Block::Plain { outputs },
            });
            place += usize::from(adapted.is_some());
        }
        Some(Adapter { down, blocks, adapted: place, scale: self.config.scale() })
    }
}

/// The adapters of maps whose rows lie one below the other.
#[derive(Debug)]
pub(super) struct Adapter {
    /// A of every adapted block, one below the other: `[adapted * rank, inputs]`, compute type.
    down: Tensor,
    /// One a map.
    blocks: Vec<Block>,
    /// Blocks that are adapted.
    adapted: usize,
    scale: f64,
}

/// One of several joined maps.
#[derive(Debug)]
enum Block {
    /// B, `[outputs, rank]`, compute type, and which of the adapted blocks it is.
    Adapted {
        place: usize,
        up: Tensor,
    },
    Plain {
        outputs: i64,
    },
}

impl Adapter {
    /// `s (x A^T) B^T`: `[tokens, inputs]` to `[tokens, outputs of all blocks]`.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        let inner = input.linear(&self.down, None::<&Tensor>) * self.scale;
        let inner = inner.chunk(self.adapted as i64, -1);
        let part = |block: &Block| match block {
            Block::Adapted { place, up } => inner[*place].linear(up, None::<&Tensor>),
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

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        let copy = |block: &Block| match block {
            Block::Adapted { place, up } => Block::Adapted { place: *place, up: deep_copy(up) },
            Block::Plain { outputs } => Block::Plain { outputs: *outputs },
        };
        Self {
            down: deep_copy(&self.down),
            blocks: self.blocks.iter().map(copy).collect(),
            adapted: self.adapted,
            scale: self.scale,
        }
    }
}
