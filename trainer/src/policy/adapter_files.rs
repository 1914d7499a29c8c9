//! Adapters in PEFT's layout: `adapter_config.json` names the base model and the sizes, and
//! `adapter_model.safetensors` holds A and B of every module.
//!
//! Refuses adapters that compute anything other than `x W^T + s (x A^T) B^T`, the same in every layer.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::checkpoint_files::{WeightsError, read_tensor, write_file};
use super::config::ModelConfig;
use super::lora::{AdapterConfig, BaseName, LORA_MODULES, Lora, LoraTargets, down_name, up_name};
use super::parameters::adaptable_shapes;

pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The prefix that PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";
/// Keys that can select another computation, with the values that do not.
const PLAIN_KEYS: [(&str, &[&str]); 19] = [
    ("peft_type", &["\"LORA\""]),
    ("bias", &["\"none\""]),
    ("use_dora", &["false"]),
    ("lora_bias", &["false"]),
    ("fan_in_fan_out", &["false"]),
    ("rank_pattern", &["{}"]),
    ("alpha_pattern", &["{}"]),
    ("modules_to_save", &["[]"]),
    ("layers_to_transform", &[]),
    ("layer_replication", &[]),
    ("exclude_modules", &["[]"]),
    ("alora_invocation_tokens", &[]),
    ("arrow_config", &[]),
    ("kasa_config", &[]),
    ("use_bdlora", &["false"]),
    ("use_qalora", &["false"]),
    ("target_parameters", &["[]"]),
    ("trainable_token_indices", &["[]", "{}"]),
    // Other initialisations change the base weights.
    ("init_lora_weights", &["true", "false", "\"gaussian\"", "\"orthogonal\""]),
];

/// A folder of adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFolder {
    pub folder: PathBuf,
    pub config: AdapterConfig,
    pub base: BaseName,
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
        let Some(adapters) = AdapterFolder::find(folder)? else {
            return Ok(Self { base: folder.to_owned(), adapters: None });
        };
        let named = Path::new(&adapters.base.name);
        let base = match base {
            Some(base) => Some(base.to_owned()),
            None => [named.to_owned(), folder.join(named)].into_iter().find(|path| path.is_dir()),
        };
        let refuse = |found: String, accepted: &str| WeightsError::Adapter {
            path: folder.join(ADAPTER_CONFIG_FILE),
            key: "base_model_name_or_path".to_owned(),
            found,
            accepted: accepted.to_owned(),
        };
        let Some(base) = base else {
            let accepted = "an existing model folder, unless model.base names one";
            return Err(refuse(format!("{:?}", adapters.base.name), accepted));
        };
        if base.join(ADAPTER_CONFIG_FILE).is_file() {
            let found = format!("{}, which holds adapters itself", base.display());
            return Err(refuse(found, "a folder with a complete model"));
        }
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
        let (config, base) =
            read_keys(&keys).map_err(|WrongKey { key, accepted }| WeightsError::Adapter {
                path,
                key: key.to_owned(),
                found: keys.get(key).map_or_else(|| "missing".to_owned(), Value::to_string),
                accepted,
            })?;
        Ok(Some(Self { folder: folder.to_owned(), config, base }))
    }

    /// Reads the adapters of a model with this configuration, in f32 on the CPU.
    ///
    /// # Errors
    /// Fails on a missing file or tensor, a wrong shape or type, or a tensor that belongs to no adapted module.
    pub fn read(&self, model: &ModelConfig) -> Result<Lora, WeightsError> {
        let path = self.folder.join(ADAPTER_FILE);
        let bytes =
            fs::read(&path).map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| WeightsError::Format { path: path.clone(), source })?;
        let mut parameters = std::collections::BTreeMap::new();
        let rank = self.config.rank;
        for (module, [outputs, inputs]) in adaptable_shapes(model) {
            if !self.config.targets.contains(&module) {
                continue;
            }
            for (name, shape) in
                [(down_name(&module), vec![rank, inputs]), (up_name(&module), vec![outputs, rank])]
            {
                let tensor = read_tensor(&file, &path, &format!("{PREFIX}{name}"), shape)?;
                parameters.insert(name, tensor.to_kind(Kind::Float));
            }
        }
        let wanted = |name: &str| {
            name.strip_prefix(PREFIX).is_some_and(|name| parameters.contains_key(name))
        };
        if let Some(name) = file.names().into_iter().filter(|name| !wanted(name)).min() {
            return Err(WeightsError::Adapter {
                path,
                key: "a tensor".to_owned(),
                found: name.to_owned(),
                accepted: format!("A and B of {} in the model's layers", self.config.targets),
            });
        }
        Ok(Lora { config: self.config, base: self.base.clone(), parameters })
    }
}

/// A key whose value is not accepted.
struct WrongKey {
    key: &'static str,
    accepted: String,
}

impl WrongKey {
    fn new(key: &'static str, accepted: impl Into<String>) -> Self {
        Self { key, accepted: accepted.into() }
    }
}

/// Reads the sizes and the base.
fn read_keys(keys: &Map<String, Value>) -> Result<(AdapterConfig, BaseName), WrongKey> {
    for (key, accepted) in PLAIN_KEYS {
        let value = keys.get(key).unwrap_or(&Value::Null);
        if !value.is_null() && !accepted.contains(&value.to_string().as_str()) {
            return Err(WrongKey::new(key, [accepted, &["null"]].concat().join(", ")));
        }
    }
    let rank = keys.get("r").and_then(Value::as_u64).filter(|&rank| rank > 0);
    let rank = rank.ok_or_else(|| WrongKey::new("r", "an integer of at least 1"))?;
    let alpha = keys.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| *alpha > 0.0);
    let name = keys.get("base_model_name_or_path").and_then(Value::as_str);
    let base = BaseName {
        name: name
            .ok_or_else(|| WrongKey::new("base_model_name_or_path", "a path or a name on the hub"))?
            .to_owned(),
        revision: keys.get("revision").and_then(Value::as_str).map(str::to_owned),
    };
    let config = AdapterConfig {
        rank: rank as usize,
        alpha: alpha.ok_or_else(|| WrongKey::new("lora_alpha", "a number above 0"))?,
        rank_stabilised: match keys.get("use_rslora") {
            None | Some(Value::Null) => false,
            Some(&Value::Bool(flag)) => flag,
            Some(_) => return Err(WrongKey::new("use_rslora", "true or false")),
        },
        targets: targets(keys.get("target_modules")).ok_or_else(|| {
            let (all, modules) = (LoraTargets::ALL_WORD, LORA_MODULES.join(", "));
            WrongKey::new("target_modules", format!("\"{all}\", or a list of {modules}"))
        })?,
    };
    Ok((config, base))
}

fn targets(value: Option<&Value>) -> Option<LoraTargets> {
    match value? {
        Value::String(word) if word == LoraTargets::ALL_WORD => Some(LoraTargets::ALL),
        Value::Array(names) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            // A name may include the module's parents.
            let last = |name| str::rsplit_once(name, '.').map_or(name, |(_, last)| last);
            LoraTargets::from_names(names?.into_iter().map(last)).ok()
        }
        _ => None,
    }
}

/// Writes `lora` into `folder`. Syncs nothing: the caller makes the whole folder durable.
///
/// # Errors
/// Fails if a file cannot be written.
pub fn write_adapters(folder: &Path, lora: &Lora) -> Result<(), WeightsError> {
    let AdapterConfig { rank, alpha, rank_stabilised, targets } = lora.config;
    // PEFT expects an integral alpha to be written as an integer.
    let alpha = if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) };
    let keys = json!({
        "base_model_name_or_path": lora.base.name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "revision": lora.base.revision,
        "target_modules": targets.names().collect::<Vec<_>>(),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": rank_stabilised,
    });
    let path = folder.join(ADAPTER_CONFIG_FILE);
    let text = format!("{keys:#}\n");
    fs::write(&path, text).map_err(|source| WeightsError::Write { path, source })?;
    let named: Vec<(String, &Tensor)> =
        lora.parameters.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)).collect();
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
