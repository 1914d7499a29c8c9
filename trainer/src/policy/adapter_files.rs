//! Adapters in PEFT's layout: `adapter_config.json` names the base model and the sizes, and
//! `adapter_model.safetensors` holds A and B of every module, magnitudes, and what is trained whole.
//!
//! Invariant: every tensor of the file is used, or the file is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::adapter_keys::{AdapterKeys, WrongKey};
use super::adapter_plan::{AdapterPlan, EMBEDDING, HEAD, weight_of};
use super::checkpoint_files::{PICKLES_HINT, WeightsError, read_tensor, write_file};
use super::config::ModelConfig;
use super::lora::{BaseName, Lora, down_name, magnitude_name, up_name};

pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The prefix that PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";
/// The file that older versions of PEFT write instead.
const ADAPTER_PICKLE: &str = "adapter_model.bin";
/// A folder of adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFolder {
    pub folder: PathBuf,
    /// The model that they belong to, if the folder names it or it is found otherwise.
    pub base: Option<BaseName>,
    keys: AdapterKeys,
    /// The keys as read, for messages.
    source: Map<String, Value>,
}

/// The location of a model's weights: a model folder, and optionally adapters on top of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPlace {
    /// Configuration and weights.
    pub base: PathBuf,
    pub adapters: Option<AdapterFolder>,
}

impl ModelPlace {
    /// Finds the model of `folder`. If `folder` holds adapters, the base is the folder that they name, relative
    /// to the working directory or to `folder`. `base` overrides that name.
    ///
    /// # Errors
    /// Fails if the adapters are of another kind or their base does not exist.
    pub fn find(folder: &Path, base: Option<&Path>) -> Result<Self, WeightsError> {
        let Some(mut adapters) = AdapterFolder::find(folder)? else {
            return Ok(Self { base: folder.to_owned(), adapters: None });
        };
        let named = adapters.base.as_ref().map(|base| PathBuf::from(&base.name));
        let beside = |named: PathBuf| {
            let here = folder.join(&named);
            [named, here].into_iter().find(|path| path.is_dir())
        };
        let found = base.map(Path::to_owned).or_else(|| named.and_then(beside));
        let refuse = |found: String, accepted: &str| WeightsError::Adapter {
            path: folder.join(ADAPTER_CONFIG_FILE),
            key: "base_model_name_or_path".to_owned(),
            found,
            accepted: accepted.to_owned(),
        };
        let Some(base) = found else {
            let accepted = "an existing model folder, unless model.base names one";
            let found = adapters.source.get("base_model_name_or_path").unwrap_or(&Value::Null);
            return Err(refuse(found.to_string(), accepted));
        };
        if base.join(ADAPTER_CONFIG_FILE).is_file() {
            let found = format!("{}, which holds adapters itself", base.display());
            return Err(refuse(found, "a folder with a complete model"));
        }
        adapters.base.get_or_insert_with(|| base_name(&base));
        Ok(Self { base, adapters: Some(adapters) })
    }

    /// Returns the folder that has the file `name`. The adapters' folder comes first; PEFT may leave the
    /// tokenizer with the base.
    pub fn folder_with(&self, name: &str) -> &Path {
        match &self.adapters {
            Some(adapters) if adapters.folder.join(name).is_file() => &adapters.folder,
            _ => &self.base,
        }
    }
}

impl ModelPlace {
    /// Returns the subfolder `name`, if there is one; the one of the adapters comes first.
    pub fn subfolder(&self, name: &str) -> Option<PathBuf> {
        let adapters = self.adapters.iter().map(|adapters| &adapters.folder);
        adapters.chain([&self.base]).map(|folder| folder.join(name)).find(|folder| folder.is_dir())
    }
}

impl AdapterFolder {
    /// Reads the description of the adapters in `folder`, or returns `None` if it holds none.
    ///
    /// # Errors
    /// Fails if the file cannot be read or the adapters are of another kind.
    pub fn find(folder: &Path) -> Result<Option<Self>, WeightsError> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes =
            fs::read(&path).map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        let keys: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            let accepted = "adapter_config.json as PEFT writes it".to_owned();
            let (key, found) = ("the file".to_owned(), format!("not a JSON object ({error})"));
            WeightsError::Adapter { path: path.clone(), key, found, accepted }
        })?;
        let (described, base) =
            AdapterKeys::read(&keys, &bytes).map_err(|wrong| refused(path, &keys, wrong))?;
        Ok(Some(Self { folder: folder.to_owned(), base, keys: described, source: keys }))
    }

    /// Returns the rank where no pattern says otherwise.
    pub fn rank(&self) -> usize {
        self.keys.rank
    }

    /// Checks that the adapters fit a model with this configuration, without reading them.
    ///
    /// # Errors
    /// Fails on a key that names nothing in this model.
    pub fn check(&self, model: &ModelConfig) -> Result<(), WeightsError> {
        self.plan(model).map(drop)
    }

    fn plan(&self, model: &ModelConfig) -> Result<AdapterPlan, WeightsError> {
        let path = self.folder.join(ADAPTER_CONFIG_FILE);
        self.keys.plan(model).map_err(|wrong| refused(path, &self.source, wrong))
    }

    /// Reads the adapters of a model with this configuration, in f32 on the CPU.
    ///
    /// # Errors
    /// Fails on a missing file or tensor, a wrong shape or type, or a tensor that belongs to no adapted module.
    pub fn read(&self, model: &ModelConfig) -> Result<Lora, WeightsError> {
        let plan = self.plan(model)?;
        let path = self.folder.join(ADAPTER_FILE);
        let pickle = self.folder.join(ADAPTER_PICKLE);
        if !path.is_file() && pickle.is_file() {
            return Err(WeightsError::Pickled { path: pickle, hint: PICKLES_HINT });
        }
        let bytes =
            fs::read(&path).map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| WeightsError::Format { path: path.clone(), source })?;
        let mut stored = StoredTensors { file, path, unread: BTreeSet::new() };
        stored.unread = stored.file.names().into_iter().map(str::to_owned).collect();
        let mut parameters = BTreeMap::new();
        for (name, shape) in trained_shapes(&plan) {
            let tensor = stored.take(&stored_name(&plan, &name), shape)?;
            parameters.insert(name, tensor);
        }
        let frozen = stored.take_frozen(&plan, model)?;
        stored.drop_shared(&plan, &parameters)?;
        if let Some(name) = stored.unread.first() {
            return Err(WeightsError::Adapter {
                path: stored.path,
                key: "a tensor".to_owned(),
                found: name.clone(),
                accepted: format!("tensors that {ADAPTER_CONFIG_FILE} asks for in this model"),
            });
        }
        let unknown = || BaseName { name: String::new(), revision: None };
        let base = self.base.clone().unwrap_or_else(unknown);
        Ok(Lora { keys: self.keys.clone(), plan, base, parameters, frozen })
    }
}

fn refused(path: PathBuf, keys: &Map<String, Value>, wrong: WrongKey) -> WeightsError {
    let WrongKey { key, accepted } = wrong;
    let found = keys.get(&key).map_or_else(|| "missing".to_owned(), Value::to_string);
    WeightsError::Adapter { path, key, found, accepted }
}

/// Lists the trained parameters of a plan with their shapes.
fn trained_shapes(plan: &AdapterPlan) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    for (module, adapted) in &plan.modules {
        shapes.push((down_name(module), vec![adapted.rank, adapted.inputs]));
        shapes.push((up_name(module), vec![adapted.outputs, adapted.rank]));
        if plan.dora {
            shapes.push((magnitude_name(module), vec![adapted.outputs]));
        }
    }
    shapes.extend(plan.whole.iter().map(|(name, shape)| (name.clone(), shape.clone())));
    shapes
}

/// Returns the name of a trained parameter in the file, without the prefix. The bias of a module with an adapter is
/// that of the layer below.
fn stored_name(plan: &AdapterPlan, name: &str) -> String {
    match name.strip_suffix(".bias") {
        Some(module) if plan.modules.contains_key(module) => format!("{module}.base_layer.bias"),
        _ => name.to_owned(),
    }
}

/// The tensors of an adapter file that have not been read yet.
struct StoredTensors<'f> {
    file: SafeTensors<'f>,
    path: PathBuf,
    unread: BTreeSet<String>,
}

impl StoredTensors<'_> {
    fn take(&mut self, name: &str, shape: Vec<usize>) -> Result<Tensor, WeightsError> {
        let name = format!("{PREFIX}{name}");
        let tensor = read_tensor(&self.file, &self.path, &name, shape)?;
        self.unread.remove(&name);
        Ok(tensor.to_kind(Kind::Float))
    }

    /// Reads frozen embeddings and heads. PEFT saves them with adapters of these modules, or if their size was changed.
    fn take_frozen(
        &mut self,
        plan: &AdapterPlan,
        model: &ModelConfig,
    ) -> Result<BTreeMap<String, Tensor>, WeightsError> {
        let shape = vec![model.vocab_size as usize, model.hidden_size as usize];
        let mut frozen = BTreeMap::new();
        for module in [HEAD, EMBEDDING] {
            for name in [weight_of(module), format!("{module}.base_layer.weight")] {
                let is_shared = module == HEAD && plan.whole.contains_key(&weight_of(EMBEDDING));
                if (plan.shares_head && is_shared)
                    || !self.unread.contains(&format!("{PREFIX}{name}"))
                {
                    continue;
                }
                let tensor = self.take(&name, shape.clone())?;
                frozen.insert(name, tensor);
            }
        }
        Ok(frozen)
    }

    /// Drops what PEFT saves of a head that shares the changes of the embedding.
    fn drop_shared(
        &mut self,
        plan: &AdapterPlan,
        parameters: &BTreeMap<String, Tensor>,
    ) -> Result<(), WeightsError> {
        if !plan.shares_head {
            return Ok(());
        }
        for (name, original) in shared_copies(parameters) {
            if !self.unread.contains(&format!("{PREFIX}{name}")) {
                continue;
            }
            let shape = original.size().into_iter().map(|size| size as usize).collect();
            if self.take(&name, shape)? != original {
                return Err(WeightsError::Adapter {
                    path: self.path.clone(),
                    key: "a tensor".to_owned(),
                    found: format!("{PREFIX}{name}, other than that of the embedding"),
                    accepted: "the same numbers, since ensure_weight_tying is true".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Returns what PEFT saves under the head's name if the head shares the changes of the embedding.
fn shared_copies(parameters: &BTreeMap<String, Tensor>) -> Vec<(String, Tensor)> {
    let turned = |name: String| parameters.get(&name).map(Tensor::tr);
    let whole = parameters.get(&weight_of(EMBEDDING)).map(Tensor::shallow_clone);
    let copies = [
        (down_name(HEAD), turned(up_name(EMBEDDING))),
        (up_name(HEAD), turned(down_name(EMBEDDING))),
        (weight_of(HEAD), whole),
    ];
    copies.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect()
}

/// Writes `lora` into `folder`. Syncs nothing: the caller makes the whole folder durable.
///
/// # Errors
/// Fails if a file cannot be written.
pub fn write_adapters(folder: &Path, lora: &Lora) -> Result<(), WeightsError> {
    let path = folder.join(ADAPTER_CONFIG_FILE);
    let text = lora.keys.written(&lora.base);
    fs::write(&path, text).map_err(|source| WeightsError::Write { path, source })?;
    let mut tensors: BTreeMap<String, Tensor> = lora
        .parameters
        .iter()
        .map(|(name, tensor)| (stored_name(&lora.plan, name), tensor.shallow_clone()))
        .collect();
    tensors.extend(lora.frozen.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
    if lora.plan.shares_head {
        tensors.extend(shared_copies(&lora.parameters));
    }
    let named: Vec<(String, &Tensor)> =
        tensors.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)).collect();
    let named: Vec<(&str, &Tensor)> =
        named.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    write_file(&folder.join(ADAPTER_FILE), &named, Dtype::F32)
}

/// Returns the name under which others find the model folder `base`. In the cache of the hub's clients
/// (`models--ORG--NAME/snapshots/COMMIT`) this is the model's name and commit, else the absolute path.
pub fn base_name(base: &Path) -> BaseName {
    let parts: Vec<&str> = base.iter().rev().take(3).filter_map(|part| part.to_str()).collect();
    if let [commit, "snapshots", repository] = parts[..]
        && let Some((owner, name)) =
            repository.strip_prefix("models--").and_then(|name| name.split_once("--"))
    {
        return BaseName { name: format!("{owner}/{name}"), revision: Some(commit.to_owned()) };
    }
    let whole = fs::canonicalize(base).unwrap_or_else(|_| base.to_owned());
    BaseName { name: whole.to_string_lossy().into_owned(), revision: None }
}
