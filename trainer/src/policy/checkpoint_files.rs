//! Weights in Hugging Face safetensors files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::config::{ModelConfig, ModelConfigError};
use super::parameters::expected_shapes;

/// Why a model folder was refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Config(#[from] ModelConfigError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a safetensors file: {source}")]
    Format { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("{path}: tensor {name} is missing")]
    Missing { path: PathBuf, name: String },
    #[error("{path}: tensor {name} has shape {found:?}, config.json asks for {expected:?}")]
    Shape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{path}: tensor {name} is stored as {dtype:?}; accepted: F32, F16, BF16")]
    Dtype { path: PathBuf, name: String, dtype: Dtype },
}

/// Reads `folder/model.safetensors`, every tensor checked against the configuration.
///
/// # Errors
/// A missing file or tensor, a wrong shape, or a type other than F32, F16 and BF16.
pub fn read_weights(
    folder: &Path,
    config: &ModelConfig,
) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let path = folder.join("model.safetensors");
    let bytes =
        std::fs::read(&path).map_err(|source| WeightsError::Read { path: path.clone(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| WeightsError::Format { path: path.clone(), source })?;
    let mut weights = BTreeMap::new();
    for (name, expected) in expected_shapes(config) {
        let view = file
            .tensor(&name)
            .map_err(|_| WeightsError::Missing { path: path.clone(), name: name.clone() })?;
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
        weights.insert(name, Tensor::from_data_size(view.data(), &shape, kind));
    }
    Ok(weights)
}

/// Writes `folder/model.safetensors` with every tensor cast to `kind`: f16, bf16, or else f32. The
/// file is not synced: the caller makes the whole folder durable at once.
///
/// # Errors
/// The file system's.
pub fn write_weights(
    folder: &Path,
    parameters: &BTreeMap<String, Tensor>,
    kind: Kind,
) -> Result<(), WeightsError> {
    let path = folder.join("model.safetensors");
    let (dtype, width) = match kind {
        Kind::Half => (Dtype::F16, 2),
        Kind::BFloat16 => (Dtype::BF16, 2),
        _ => (Dtype::F32, 4),
    };
    let kind = if dtype == Dtype::F32 { Kind::Float } else { kind };
    let mut buffers = Vec::with_capacity(parameters.len());
    for (name, tensor) in parameters {
        let stored = tch::no_grad(|| tensor.to_kind(kind).to_device(tch::Device::Cpu).contiguous());
        let mut bytes = vec![0_u8; stored.numel() * width];
        stored.copy_data_u8(&mut bytes, stored.numel());
        let shape: Vec<usize> = stored.size().iter().map(|&size| size as usize).collect();
        buffers.push((name.as_str(), shape, bytes));
    }
    let format = |source| WeightsError::Format { path: path.clone(), source };
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(format)?;
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &path).map_err(format)
}
