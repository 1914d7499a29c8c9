//! Weights in Hugging Face safetensors files: one file, or several with an index of the file of each tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::config_keys::ModelConfigError;
use super::parameters::expected_shapes;

/// Size in bytes above which a model is written in several files. It is the default of transformers before
/// version 5, which every loader accepts.
pub const SHARD_BYTES_MAX: usize = 5_000_000_000;

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
/// The command that converts pickled weights. Tensors that share memory are copied, since the format has no aliases.
pub(super) const PICKLES_HINT: &str = "in its folder, convert it once: python3 -c \"import glob, torch; \
from safetensors.torch import save_file; w = {}; [w.update(torch.load(f, map_location='cpu', weights_only=True)) for f \
in sorted(glob.glob('*model*.bin'))]; save_file({k: v.clone().contiguous() for k, v in w.items()}, \
('adapter_' if glob.glob('adapter_model.bin') else '') + 'model.safetensors', {'format': 'pt'})\"";
/// Weights as older versions of transformers write them, whole or in several files.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
/// The part of a tensor's name that a model saved without its output head lacks.
const BASE_PREFIX: &str = "model.";
/// Ends of the names of tensors that need no warning: a head that is tied or read apart, and tables that old files of
/// Llama hold and that are computed.
const IDLE_TENSORS: [&str; 2] = ["lm_head.weight", ".rotary_emb.inv_freq"];
/// Files of a model folder that describe generation and the tokenizer. Each is optional.
pub(crate) const DESCRIBING_FILES: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer.model",
];

/// Folder of a model's chat templates that have names.
pub(crate) const TEMPLATES_FOLDER: &str = "additional_chat_templates";

/// The reason why a model folder was refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Config(#[from] ModelConfigError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a safetensors file: {source}")]
    Format { path: PathBuf, source: SafeTensorError },
    #[error("{path} is not an index of safetensors files: {reason}")]
    Index { path: PathBuf, reason: String },
    #[error("{path}: {key} is {found}; accepted: {accepted}")]
    Adapter { path: PathBuf, key: String, found: String, accepted: String },
    #[error(
        "{path} is a pickle, which can run any code when it is read; accepted: safetensors files; {hint}"
    )]
    Pickled { path: PathBuf, hint: &'static str },
    #[error("{path} is missing, which says in which file each tensor is; the folder has {shard:?}")]
    NoIndex { path: PathBuf, shard: String },
    #[error("{path}: tensor {name} is missing{}", similar_name(similar.as_deref()))]
    Missing { path: PathBuf, name: String, similar: Option<String> },
    #[error("{path}: tensor {name} has shape {found:?}, config.json requires {expected:?}")]
    Shape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{path}: tensor {name} is stored as {dtype:?}; accepted: F32, F16, BF16")]
    Dtype { path: PathBuf, name: String, dtype: Dtype },
}

impl WeightsError {
    /// Makes the error for a tensor that is not among those of a file. A name with something in front of it is named:
    /// wrappers such as `torch.compile` and multi-modal models write such names.
    pub(super) fn missing<'n>(
        path: &Path,
        name: &str,
        mut stored: impl Iterator<Item = impl AsRef<str> + 'n>,
    ) -> Self {
        let similar = stored.find(|stored| stored.as_ref().ends_with(&format!(".{name}")));
        let similar = similar.map(|similar| similar.as_ref().to_owned());
        Self::Missing { path: path.to_owned(), name: name.to_owned(), similar }
    }
}

fn similar_name(name: Option<&str>) -> String {
    name.map(|name| format!("; there is {name}, under which it is not looked for"))
        .unwrap_or_default()
}

/// `model.safetensors.index.json`. Its metadata are written for others and never read.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    #[serde(skip_deserializing)]
    metadata: IndexMetadata,
    /// File of each tensor, in the folder of the index.
    weight_map: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize)]
struct IndexMetadata {
    /// Bytes of all tensors.
    total_size: u64,
}

/// The files in which a folder keeps its tensors.
enum Location {
    Single(PathBuf),
    Shards { index: PathBuf, weight_map: BTreeMap<String, String> },
}

impl Location {
    /// Finds the single file if it exists, else the index. Transformers looks in the same order.
    fn find(folder: &Path) -> Result<Self, WeightsError> {
        let single = folder.join(SINGLE_FILE);
        let index = folder.join(INDEX_FILE);
        if single.is_file() {
            return Ok(Self::Single(single));
        }
        if !index.is_file() {
            let pickle =
                PICKLES.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
            return match (pickle, a_shard(folder)) {
                (Some(path), _) => Err(WeightsError::Pickled { path, hint: PICKLES_HINT }),
                (None, Some(shard)) => Err(WeightsError::NoIndex { path: index, shard }),
                (None, None) => Ok(Self::Single(single)),
            };
        }
        let bytes = std::fs::read(&index)
            .map_err(|source| WeightsError::Read { path: index.clone(), source })?;
        let refuse = |reason: String| WeightsError::Index { path: index.clone(), reason };
        let Index { weight_map, .. } =
            serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        let beside =
            |file: &&String| Path::new(file).file_name().is_none_or(|name| name != file.as_str());
        if let Some(elsewhere) = weight_map.values().find(beside) {
            let reason = format!("it names {elsewhere:?}; accepted: files in the same folder");
            return Err(refuse(reason));
        }
        Ok(Self::Shards { index, weight_map })
    }

    /// Returns the file that holds the tensor `name`.
    fn file_of(&self, name: &str) -> Result<PathBuf, WeightsError> {
        match self {
            Self::Single(path) => Ok(path.clone()),
            Self::Shards { index, weight_map } => {
                let stored = stored_name(name, |name| weight_map.contains_key(name));
                match stored.and_then(|name| weight_map.get(name)) {
                    Some(file) => Ok(index.with_file_name(file)),
                    None => Err(WeightsError::missing(index, name, weight_map.keys())),
                }
            }
        }
    }
}

/// Returns the first of the files in which a large model is kept, if the folder has one.
fn a_shard(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("model-") && name.ends_with(".safetensors")).min()
}

/// Returns the name under which the tensor `name` is stored, if it is. A model that was saved without its output head
/// lacks the prefix; transformers adds it to such names.
pub(super) fn stored_name(name: &str, is_stored: impl Fn(&str) -> bool) -> Option<&str> {
    let bare = name.strip_prefix(BASE_PREFIX);
    [Some(name), bare].into_iter().flatten().find(|name| is_stored(name))
}

/// Returns the safetensors files of a model folder, in order. For a folder without any, returns the path of the
/// missing one.
///
/// # Errors
/// Fails if the index cannot be read, or if the weights are pickled.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    Ok(match Location::find(folder)? {
        Location::Single(path) => vec![path],
        Location::Shards { weight_map, .. } => {
            let files: BTreeSet<String> = weight_map.into_values().collect();
            files.into_iter().map(|file| folder.join(file)).collect()
        }
    })
}

/// Reads the weights of `folder` as f32 tensors on `device` and checks each against the configuration. Holds one
/// file at a time in memory besides the tensors. Skips tensors that the model does not use, with a warning.
///
/// # Errors
/// Fails on a missing file or tensor, a wrong shape, or a type other than F32, F16 and BF16.
pub fn read_weights(
    folder: &Path,
    config: &ModelConfig,
    device: Device,
) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let location = Location::find(folder)?;
    let mut wanted: BTreeMap<PathBuf, Vec<(String, Vec<usize>)>> = BTreeMap::new();
    for (name, shape) in expected_shapes(config) {
        wanted.entry(location.file_of(&name)?).or_default().push((name, shape));
    }
    let mut weights = BTreeMap::new();
    let mut unused = Vec::new();
    for (path, tensors) in wanted {
        let bytes = std::fs::read(&path)
            .map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| WeightsError::Format { path: path.clone(), source })?;
        let mut names: BTreeSet<&str> = file.names().into_iter().collect();
        for (name, shape) in tensors {
            let stored = stored_name(&name, |name| file.tensor(name).is_ok()).unwrap_or(&name);
            names.remove(stored);
            let stored = read_tensor(&file, &path, stored, shape)?;
            weights.insert(name, stored.to_device(device).to_kind(Kind::Float));
        }
        unused.extend(names.into_iter().filter(|name| is_doubtful(name)).map(str::to_owned));
    }
    if let Some(first) = unused.first() {
        tracing::warn!(
            folder = %folder.display(),
            tensors = unused.len(),
            first,
            "the model does not use some of its stored tensors: is config.json the right one?"
        );
    }
    Ok(weights)
}

/// Returns `true` if a model that does not use the tensor may be the wrong one.
pub(super) fn is_doubtful(name: &str) -> bool {
    !IDLE_TENSORS.iter().any(|end| name.ends_with(end))
}

/// Reads a tensor in its stored type.
pub(super) fn read_tensor(
    file: &SafeTensors<'_>,
    path: &Path,
    name: &str,
    expected: Vec<usize>,
) -> Result<Tensor, WeightsError> {
    let (path, name) = (path.to_owned(), name.to_owned());
    let Ok(view) = file.tensor(&name) else {
        return Err(WeightsError::missing(&path, &name, file.names().into_iter()));
    };
    if view.shape() != expected {
        let found = view.shape().to_vec();
        return Err(WeightsError::Shape { path, name, found, expected });
    }
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        dtype => return Err(WeightsError::Dtype { path, name, dtype }),
    };
    let shape: Vec<i64> = expected.iter().map(|&size| size as i64).collect();
    Ok(Tensor::from_data_size(view.data(), &shape, kind))
}

/// Writes the weights into `folder`, cast to `kind`: f16, bf16, or else f32. Weights of up to `shard_bytes_max`
/// bytes become one file. Larger ones become several with an index; each holds at most that many bytes of tensors,
/// or one tensor. Syncs nothing: the caller makes the whole folder durable.
///
/// # Errors
/// Fails if a file cannot be written.
pub fn write_weights(
    folder: &Path,
    parameters: &BTreeMap<String, Tensor>,
    kind: Kind,
    shard_bytes_max: usize,
) -> Result<(), WeightsError> {
    let (dtype, width) = match kind {
        Kind::Half => (Dtype::F16, 2),
        Kind::BFloat16 => (Dtype::BF16, 2),
        _ => (Dtype::F32, 4),
    };
    let shards = split(parameters, width, shard_bytes_max);
    if let [all] = &shards[..] {
        return write_file(&folder.join(SINGLE_FILE), all, dtype);
    }
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        write_file(&folder.join(&name), shard, dtype)?;
        weight_map.extend(shard.iter().map(|(tensor, _)| ((*tensor).to_owned(), name.clone())));
    }
    let total: usize = parameters.values().map(|tensor| tensor.numel() * width).sum();
    let index = Index { metadata: IndexMetadata { total_size: total as u64 }, weight_map };
    let path = folder.join(INDEX_FILE);
    let text = serde_json::to_vec_pretty(&index)
        .map_err(|error| WeightsError::Index { path: path.clone(), reason: error.to_string() })?;
    std::fs::write(&path, text).map_err(|source| WeightsError::Write { path, source })
}

/// Splits the parameters, in order, where the next one would not fit. Returns at least one part.
fn split(
    parameters: &BTreeMap<String, Tensor>,
    width: usize,
    shard_bytes_max: usize,
) -> Vec<Vec<(&str, &Tensor)>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for (name, tensor) in parameters {
        let bytes = tensor.numel() * width;
        if filled > 0 && filled + bytes > shard_bytes_max {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        shards.last_mut().expect("there is always one shard").push((name.as_str(), tensor));
    }
    shards
}

pub(super) fn write_file(
    path: &Path,
    tensors: &[(&str, &Tensor)],
    dtype: Dtype,
) -> Result<(), WeightsError> {
    let (kind, width) = match dtype {
        Dtype::F16 => (Kind::Half, 2),
        Dtype::BF16 => (Kind::BFloat16, 2),
        _ => (Kind::Float, 4),
    };
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let stored = tch::no_grad(|| tensor.to_kind(kind).to_device(Device::Cpu).contiguous());
        let mut bytes = vec![0_u8; stored.numel() * width];
        stored.copy_data_u8(&mut bytes, stored.numel());
        let shape: Vec<usize> = stored.size().iter().map(|&size| size as usize).collect();
        buffers.push((*name, shape, bytes));
    }
    let format = |source| WeightsError::Format { path: path.to_owned(), source };
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .map_err(format)?;
    // Loaders require this entry.
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(format)
}
