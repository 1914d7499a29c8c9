//! The modules of a model that a set of adapters changes, by PEFT's rules.
//!
//! Sources: `check_target_module_exists` and `BaseTuner._check_tied_modules` of `peft/tuners/tuners_utils.py`,
//! `get_pattern_key` and `_set_trainable` of `peft/utils/other.py`, version 0.21.2.

use std::collections::BTreeMap;

use super::adapter_keys::{AdapterKeys, Selection, TrainedBiases, WrongKey};
use super::config::ModelConfig;
use super::expression::Expression;
use super::lora::{AdapterConfig, LORA_MODULES, LoraTargets};
use super::parameters::{adaptable_shapes, expected_shapes};

/// Input embeddings. Models with tied embeddings use them as the output head.
pub(super) const EMBEDDING: &str = "model.embed_tokens";
pub(super) const HEAD: &str = "lm_head";
/// The names by which PEFT finds modules that may be tied.
const TIED_NAMES: [&str; 2] = ["embed_tokens", HEAD];

/// The adapter of one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AdaptedModule {
    pub(super) rank: usize,
    /// Factor of the product of B and A.
    pub(super) scale: f64,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

/// Everything that a set of adapters changes in one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AdapterPlan {
    /// Modules with an A and a B, by name. The embedding's inputs are the vocabulary.
    pub(super) modules: BTreeMap<String, AdaptedModule>,
    /// Parameters that are trained whole, with their shapes.
    pub(super) whole: BTreeMap<String, Vec<usize>>,
    /// `true` if every adapted module has a magnitude as well (DoRA, arXiv 2402.09353).
    pub(super) dora: bool,
    /// `true` if the changes of the embedding apply to the head as well.
    pub(super) shares_head: bool,
}

impl AdapterPlan {
    /// Returns `true` if a model with tied embeddings has another head than its embedding under these adapters.
    pub(super) fn separates_head(&self) -> bool {
        let changes = |module: &str| {
            self.modules.contains_key(module) || self.whole.contains_key(&weight_of(module))
        };
        !self.shares_head && (changes(EMBEDDING) || changes(HEAD))
    }

    /// Returns the names among [`LORA_MODULES`] that carry adapters in some layer.
    pub(super) fn targets(&self) -> LoraTargets {
        let carries = |target: &&str| {
            self.modules.keys().any(|module| module.rsplit('.').next() == Some(*target))
        };
        LoraTargets::from_names(LORA_MODULES.into_iter().filter(carries))
            .expect("names of the list are on the list")
    }
}

/// Returns the name of a module's weight.
pub(super) fn weight_of(module: &str) -> String {
    format!("{module}.weight")
}

/// A compiled choice of modules.
enum Matcher<'k> {
    AllLinear,
    Names(&'k [String]),
    Expression(Expression),
}

impl<'k> Matcher<'k> {
    fn new(key: &str, selection: &'k Selection) -> Result<Self, WrongKey> {
        Ok(match selection {
            Selection::AllLinear => Self::AllLinear,
            Selection::Names(names) => Self::Names(names),
            Selection::Expression(text) => Self::Expression(compiled(key, text)?),
        })
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Self::AllLinear => module != EMBEDDING && module != HEAD,
            Self::Names(names) => names.iter().any(|name| is_end(module, name)),
            Self::Expression(expression) => expression.matches(module),
        }
    }
}

/// Returns `true` if `module` is `name` or ends in a dot and `name`.
fn is_end(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn compiled(key: &str, text: &str) -> Result<Expression, WrongKey> {
    Expression::whole(text).map_err(|reason| {
        WrongKey::new(key, format!("regular expressions of Python ({text:?}: {reason})"))
    })
}

/// The compiled rules of one description.
struct Rules<'k> {
    keys: &'k AdapterKeys,
    targets: Matcher<'k>,
    excluded: Option<Matcher<'k>>,
    saved: Vec<Expression>,
    /// For the name before a layer's index, up to the index.
    layers: Vec<Expression>,
    ranks: Vec<(Expression, usize)>,
    alphas: Vec<(Expression, f64)>,
}

impl<'k> Rules<'k> {
    fn new(keys: &'k AdapterKeys) -> Result<Self, WrongKey> {
        let excluded = keys.excluded.as_ref();
        let saved =
            |name: &String| compiled("modules_to_save", &format!(r"(^|.*\.){name}($|\..*)"));
        let layers = |name: &String| compiled("layers_pattern", &format!(r"(?:|.*?\.){name}"));
        Ok(Self {
            keys,
            targets: Matcher::new("target_modules", &keys.targets)?,
            excluded: excluded.map(|all| Matcher::new("exclude_modules", all)).transpose()?,
            saved: keys.saved.iter().map(saved).collect::<Result<_, _>>()?,
            layers: keys.layers_patterns.iter().map(layers).collect::<Result<_, _>>()?,
            ranks: patterns("rank_pattern", &keys.ranks)?,
            alphas: patterns("alpha_pattern", &keys.alphas)?,
        })
    }

    fn is_target(&self, module: &str) -> bool {
        let is_excluded = self.excluded.as_ref().is_some_and(|all| all.matches(module));
        if is_excluded || self.saved.iter().any(|saved| saved.matches(module)) {
            return false;
        }
        let Matcher::Names(names) = &self.targets else { return self.targets.matches(module) };
        // A full name holds in whatever layer it is.
        let is_named = |name: &String| is_end(module, name);
        names.iter().any(|name| name == module)
            || (names.iter().any(is_named) && self.is_in_layers(module))
    }

    fn is_in_layers(&self, module: &str) -> bool {
        let Some(layers) = &self.keys.layers else { return true };
        layer_of(module, &self.layers).is_some_and(|layer| layers.contains(&layer))
    }

    /// Returns rank and scale of a module.
    fn sizes(&self, module: &str) -> (usize, f64) {
        let rank = first(&self.ranks, module).unwrap_or(self.keys.rank);
        let alpha = first(&self.alphas, module).unwrap_or(self.keys.alpha);
        let config = AdapterConfig {
            rank,
            alpha,
            rank_stabilised: self.keys.rank_stabilised,
            targets: LoraTargets::ALL,
        };
        (rank, config.scale())
    }

    /// Returns `true` if the module of `parameter`, or one around it, is trained whole.
    fn is_whole(&self, parameter: &str) -> bool {
        let around = parameter.match_indices('.').map(|(end, _)| &parameter[..end]);
        let is_saved = |module: &str| self.keys.saved.iter().any(|name| module.ends_with(name));
        around.into_iter().any(is_saved)
    }

    /// Returns `true` if the embedding or the head is trained whole, or has adapters.
    fn asks_for_tied(&self) -> bool {
        let is_tied = |name: &String| TIED_NAMES.contains(&name.rsplit('.').next().unwrap_or(name));
        let by_target = match &self.targets {
            Matcher::AllLinear => false,
            Matcher::Names(names) => names.iter().any(is_tied),
            Matcher::Expression(expression) => {
                TIED_NAMES.iter().any(|name| expression.matches(name))
            }
        };
        self.saves_tied() || by_target
    }

    fn saves_tied(&self) -> bool {
        let is_tied = |name: &String| TIED_NAMES.contains(&name.rsplit('.').next().unwrap_or(name));
        self.keys.saved.iter().any(is_tied)
    }
}

fn patterns<T: Copy>(key: &str, entries: &[(String, T)]) -> Result<Vec<(Expression, T)>, WrongKey> {
    let pattern =
        |(text, value): &(String, T)| Ok((compiled(key, &format!(r"(.*\.)?({text})"))?, *value));
    entries.iter().map(pattern).collect()
}

fn first<T: Copy>(patterns: &[(Expression, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.matches(module)).map(|&(_, value)| value)
}

/// Returns the index of a module's layer: the first number with a name before it that matches one of `before`, or with
/// two names before it.
fn layer_of(module: &str, before: &[Expression]) -> Option<usize> {
    let parts: Vec<&str> = module.split('.').collect();
    let numbered = |position: usize| parts.get(position)?.parse::<usize>().ok();
    if before.is_empty() {
        return (2..parts.len() - 1).find_map(numbered);
    }
    before.iter().find_map(|before| {
        (1..parts.len() - 1).find_map(|position| {
            let index = numbered(position)?;
            before.matches(&parts[..position].join(".")).then_some(index)
        })
    })
}

impl AdapterKeys {
    /// Finds what these adapters change in a model.
    ///
    /// # Errors
    /// Returns a key that is no expression, or that names nothing in this model.
    pub(super) fn plan(&self, model: &ModelConfig) -> Result<AdapterPlan, WrongKey> {
        let rules = Rules::new(self)?;
        let shares_head = model.tied_embeddings && self.ties && rules.asks_for_tied();
        let mut plan = AdapterPlan { dora: self.dora, shares_head, ..AdapterPlan::default() };
        let (vocabulary, hidden) = (model.vocab_size as usize, model.hidden_size as usize);
        let mut candidates = adaptable_shapes(model);
        candidates.push((EMBEDDING.to_owned(), [hidden, vocabulary]));
        candidates.push((HEAD.to_owned(), [vocabulary, hidden]));
        // What is shared is kept with the embedding.
        let shares_adapters = shares_head && !rules.saves_tied();
        for (module, [outputs, inputs]) in candidates {
            let is_adapted = match module.as_str() {
                EMBEDDING if shares_adapters => true,
                HEAD if shares_adapters => false,
                module => rules.is_target(module),
            };
            if is_adapted {
                let (rank, scale) = rules.sizes(&module);
                plan.modules.insert(module, AdaptedModule { rank, scale, outputs, inputs });
            }
        }
        if plan.modules.is_empty() {
            let accepted = "a choice of linear modules, lm_head or embed_tokens of this model";
            return Err(WrongKey::new("target_modules", accepted));
        }
        if shares_adapters && self.dora {
            return Err(WrongKey::new("use_dora", "false, with ensure_weight_tying"));
        }
        let mut parameters = expected_shapes(model);
        if model.tied_embeddings {
            parameters.push((weight_of(HEAD), vec![vocabulary, hidden]));
        }
        for (name, shape) in parameters {
            let is_bias = name.strip_suffix(".bias").is_some_and(|module| match self.biases {
                TrainedBiases::None => false,
                TrainedBiases::All => true,
                TrainedBiases::OfAdapted => plan.modules.contains_key(module),
            });
            let is_whole = match name.strip_suffix(".weight") {
                Some(EMBEDDING) if shares_head => rules.saves_tied(),
                Some(HEAD) if shares_head => false,
                _ => rules.is_whole(&name),
            };
            if is_whole
                && name.strip_suffix(".weight").is_some_and(|own| plan.modules.contains_key(own))
            {
                let accepted = "modules that target_modules does not name";
                return Err(WrongKey::new("modules_to_save", accepted));
            }
            if is_bias || is_whole {
                plan.whole.insert(name, shape);
            }
        }
        Ok(plan)
    }
}
