//! Low-rank adapters (LoRA, arXiv 2106.09685, section 4.1): a trained `s (x A^T) B^T` of small rank is added to
//! a frozen map `x W^T`.
//!
//! Owns the adapters' parameters, their initialisation and their merging; `adapter` computes with them. The base
//! weights never change here. Only A and B, magnitudes, and parameters that are trained whole have gradients.

use std::collections::BTreeMap;
use std::fmt;

use shared::contract::splitmix;
use tch::{Kind, Tensor};

use super::adapter::{Adapter, Block, EmbeddingAdapter, MatrixAdapter};
use super::adapter_keys::AdapterKeys;
use super::adapter_plan::{AdapterPlan, EMBEDDING, HEAD, weight_of};
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

    /// Returns `true` if no module is chosen.
    pub fn is_empty(self) -> bool {
        self.names().next().is_none()
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
    pub(super) keys: AdapterKeys,
    pub(super) plan: AdapterPlan,
    pub base: BaseName,
    /// Trained parameters, f32 leaves of the autograd graph: `MODULE.lora_A.weight`, `[rank, inputs]`, and
    /// `MODULE.lora_B.weight`, `[outputs, rank]`, of every adapted module (`lora_embedding_A` and `lora_embedding_B`
    /// of the embedding), with DoRA its `MODULE.lora_magnitude_vector`; and parameters that are trained whole, under
    /// their own names. In a critic also the value head.
    pub parameters: BTreeMap<String, Tensor>,
    /// Frozen weights that were saved with the adapters, f32, by their names in the file.
    pub(super) frozen: BTreeMap<String, Tensor>,
}

/// Returns the name of a module's A.
pub(super) fn down_name(module: &str) -> String {
    let part = if module == EMBEDDING { "lora_embedding_A" } else { "lora_A.weight" };
    format!("{module}.{part}")
}

/// Returns the name of a module's B.
pub(super) fn up_name(module: &str) -> String {
    let part = if module == EMBEDDING { "lora_embedding_B" } else { "lora_B.weight" };
    format!("{module}.{part}")
}

/// Returns the name of a module's magnitudes.
pub(super) fn magnitude_name(module: &str) -> String {
    format!("{module}.lora_magnitude_vector")
}

/// Returns the parameter of `model` that the frozen tensor `stored` of an adapter file replaces.
pub(super) fn parameter_of(stored: &str, model: &ModelConfig) -> String {
    let name = stored.replace(".base_layer.", ".");
    let is_tied = name == weight_of(HEAD) && model.tied_embeddings;
    if is_tied { weight_of(EMBEDDING) } else { name }
}

impl Lora {
    /// Creates adapters of one size that change nothing yet. `seed` decides the draws, separately for each module.
    pub fn new(model: &ModelConfig, config: AdapterConfig, base: BaseName, seed: u64) -> Self {
        let keys = AdapterKeys::uniform(config);
        let plan = keys.plan(model).expect("every family has the modules that can be targets");
        Self::planned(model, keys, plan, base, seed)
    }

    /// Creates adapters on the same linear modules of the layers as these, of the same sizes, that change nothing yet.
    /// Magnitudes, the head, the embedding and parameters that are trained whole are left out.
    #[must_use]
    pub fn another(&self, model: &ModelConfig, seed: u64) -> Self {
        let modules =
            self.plan.modules.iter().filter(|(name, _)| *name != EMBEDDING && *name != HEAD);
        let modules = modules.map(|(name, module)| (name.clone(), *module)).collect();
        let plan = AdapterPlan { modules, ..AdapterPlan::default() };
        Self::planned(model, self.keys.clone(), plan, self.base.clone(), seed)
    }

    /// Draws adapters of linear modules. A is random and B is zero. As in PEFT's `reset_lora_parameters`, A is uniform
    /// between the bounds of Kaiming's initialisation with a slope of the square root of 5, which are plus and minus
    /// `1 / sqrt(inputs)`.
    fn planned(
        model: &ModelConfig,
        keys: AdapterKeys,
        plan: AdapterPlan,
        base: BaseName,
        seed: u64,
    ) -> Self {
        let mut parameters = BTreeMap::new();
        for (index, (module, [outputs, inputs])) in adaptable_shapes(model).into_iter().enumerate()
        {
            let Some(adapted) = plan.modules.get(&module) else { continue };
            let mut state = splitmix::finalise(seed.wrapping_add(splitmix::INCREMENT))
                .wrapping_add(splitmix::finalise(index as u64));
            let bound = 1.0 / (inputs as f32).sqrt();
            let draws = splitmix::numbers(adapted.rank * inputs, &mut state);
            let values: Vec<f32> = draws.into_iter().map(|draw| draw * bound).collect();
            let rank = adapted.rank as i64;
            let down = Tensor::from_slice(&values).view([rank, inputs as i64]);
            let up = Tensor::zeros([outputs as i64, rank], (Kind::Float, tch::Device::Cpu));
            parameters.insert(down_name(&module), down);
            parameters.insert(up_name(&module), up);
        }
        Self { keys, plan, base, parameters, frozen: BTreeMap::new() }
    }

    /// Returns the sizes that the adapters have where no pattern says otherwise, and the kinds of modules that carry
    /// them in some layer.
    pub fn config(&self) -> AdapterConfig {
        AdapterConfig {
            rank: self.keys.rank,
            alpha: self.keys.alpha,
            rank_stabilised: self.keys.rank_stabilised,
            targets: self.plan.targets(),
        }
    }

    /// Returns `true` if both change the same parameters by the same rules.
    pub fn is_like(&self, other: &Self) -> bool {
        self.plan == other.plan
    }

    /// Returns `true` if the adapters surely change nothing: every trained parameter is an A, or a B of zeros.
    pub fn is_zero(&self) -> bool {
        let is_zero = |(name, tensor): (&String, &Tensor)| {
            name.ends_with(".lora_A.weight")
                || (name.ends_with(".lora_B.weight")
                    && tensor.count_nonzero(None::<i64>).int64_value(&[]) == 0)
        };
        tch::no_grad(|| self.parameters.iter().all(is_zero))
    }

    /// Copies the adapters into their own storage, outside the graph.
    #[must_use]
    pub fn deep_copy(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self {
            keys: self.keys.clone(),
            plan: self.plan.clone(),
            base: self.base.clone(),
            parameters: self.parameters.iter().map(copy).collect(),
            frozen: self.frozen.iter().map(copy).collect(),
        }
    }

    /// Returns the parameter `name` if it is trained whole.
    pub(super) fn whole(&self, name: &str) -> Option<&Tensor> {
        self.plan.whole.contains_key(name).then(|| &self.parameters[name])
    }

    /// Returns the change of the matrix of `module`, if it is adapted.
    fn matrix(&self, module: &str) -> Option<MatrixAdapter> {
        let adapted = self.plan.modules.get(module)?;
        let parameter = |name: String| self.parameters[&name].shallow_clone();
        Some(MatrixAdapter {
            down: parameter(down_name(module)),
            up: parameter(up_name(module)),
            scale: adapted.scale,
            magnitude: self.plan.dora.then(|| parameter(magnitude_name(module))),
        })
    }

    /// Returns the parameter `name` with its change, f32, differentiably: the one that is trained whole, or `W + s B A`,
    /// where `W` is `tensor`. If nothing changes it, this is `tensor` itself.
    pub(super) fn merged(&self, name: &str, tensor: &Tensor) -> Tensor {
        if let Some(whole) = self.whole(name) {
            return whole.shallow_clone();
        }
        let module = name.strip_suffix(".weight").unwrap_or(name);
        match self.matrix(module) {
            // The vocabulary is in the columns of the embedding's A and in the rows of its weight.
            Some(change) if module == EMBEDDING => change.merged(&tensor.tr()).tr().contiguous(),
            Some(change) => change.merged(tensor),
            None => tensor.shallow_clone(),
        }
    }

    /// Returns the adapter of the embedding, if it has one. `weight` is the frozen one.
    pub(super) fn of_embedding(&self, weight: &Tensor) -> Option<EmbeddingAdapter> {
        Some(EmbeddingAdapter::new(self.matrix(EMBEDDING)?, &weight.tr()))
    }

    /// Returns the adapter of the head, if it has one. With tied embeddings it may be that of the embedding.
    pub(super) fn of_head(&self) -> Option<MatrixAdapter> {
        if self.plan.shares_head {
            let MatrixAdapter { down, up, scale, magnitude } = self.matrix(EMBEDDING)?;
            return Some(MatrixAdapter { down: up.tr(), up: down.tr(), scale, magnitude });
        }
        self.matrix(HEAD)
    }

    /// Joins the adapters of `modules`, each given with its frozen weight, differentiably. Returns `None` if no module is
    /// adapted.
    pub(super) fn beside(&self, modules: &[(&str, &Tensor)], kind: Kind) -> Option<Adapter> {
        let blocks = modules.iter().map(|(module, weight)| match self.matrix(module) {
            Some(change) => Block::adapted(&change, weight, kind),
            None => Block::Plain { outputs: weight.size()[0] },
        });
        Adapter::of_blocks(blocks.collect())
    }
}
