//! Sizes of a model, from its `config.json` and the headers of its safetensors files alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::SafeTensorError;
use serde::Deserialize;
use serde_json::Value;

use super::checkpoint_files::{WeightsError, stored_name, weight_files};
use super::config::ModelConfig;
use super::lora::LoraTargets;
use super::parameters::{adaptable_shapes, expected_shapes};

/// Longest accepted header in bytes, the limit of the safetensors library itself.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// One tensor of a header.
#[derive(Debug, Deserialize)]
pub(super) struct StoredTensor {
    #[serde(default)]
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// Offsets of the first byte and of the byte after the last, from the end of the header.
    pub(super) data_offsets: (u64, u64),
    /// Offset of the first byte in the file.
    #[serde(skip)]
    pub(super) start: u64,
}

impl ModelConfig {
    /// Counts the numbers in all tensors of the model.
    pub fn parameter_count(&self) -> u64 {
        expected_shapes(self).iter().map(|(_, shape)| numbers(shape)).fold(0, u64::saturating_add)
    }

    /// Counts the numbers in the matrices of the layers. They are multiplied with every token; only the
    /// vocabulary's head is not included.
    pub fn layer_matrix_count(&self) -> u64 {
        self.matrices(|_| true)
    }

    /// Counts the numbers in layer matrices that are joined for computing (query, key and value; gate and up).
    pub fn joined_matrix_count(&self) -> u64 {
        const JOINED: [&str; 5] = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"];
        self.matrices(|name| JOINED.iter().any(|part| name.contains(part)))
    }

    /// Counts the numbers in the layer matrices among `targets`.
    pub fn target_count(&self, targets: LoraTargets) -> u64 {
        self.matrices(|name| targets.contains(name.strip_suffix(".weight").unwrap_or(name)))
    }

    /// Counts the numbers in adapters of this rank on `targets`: one row of A and one column of B per rank.
    pub fn adapter_count(&self, rank: usize, targets: LoraTargets) -> u64 {
        let adapted = adaptable_shapes(self).into_iter().filter(|(name, _)| targets.contains(name));
        adapted.map(|(_, [outputs, inputs])| (rank * (outputs + inputs)) as u64).sum()
    }

    /// Returns the bytes of one token's keys and values in all layers, at `width` bytes per number.
    pub fn cached_token_bytes(&self, width: u64) -> u64 {
        let row = [self.layers.len(), self.key_value_heads as usize, self.head_dim as usize];
        2 * width * numbers(&row)
    }

    /// Counts the numbers in the embedding matrix. The head has as many.
    pub fn vocabulary_count(&self) -> u64 {
        numbers(&[self.vocab_size as usize, self.hidden_size as usize])
    }

    fn matrices(&self, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let shapes = expected_shapes(self);
        let matrices = shapes.iter().filter(|(name, shape)| {
            name.starts_with("model.layers.") && shape.len() == 2 && is_wanted(name)
        });
        matrices.map(|(_, shape)| numbers(shape)).fold(0, u64::saturating_add)
    }
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, &size| product.saturating_mul(size as u64))
}

/// Returns the stored bytes of the tensors in `folder` that the model needs. Reads only headers, and checks that
/// every tensor exists with the shape that `config` requires.
///
/// # Errors
/// Fails on a missing file or tensor, a wrong shape, or a file that is not a safetensors file.
pub fn stored_bytes(folder: &Path, config: &ModelConfig) -> Result<u64, WeightsError> {
    let files = weight_files(folder)?;
    let mut stored = BTreeMap::new();
    for path in &files {
        stored.extend(read_header(path)?);
    }
    let mut total = 0;
    for (name, expected) in expected_shapes(config) {
        let path = files.first().cloned().unwrap_or_else(|| folder.to_owned());
        let found = stored_name(&name, |name| stored.contains_key(name));
        let Some(tensor) = found.and_then(|name| stored.get(name)) else {
            return Err(WeightsError::missing(&path, &name, stored.keys()));
        };
        if tensor.shape != expected {
            let found = tensor.shape.clone();
            return Err(WeightsError::Shape { path, name, found, expected });
        }
        let (first, end) = tensor.data_offsets;
        total += end.saturating_sub(first);
    }
    Ok(total)
}

/// Reads the tensors of a safetensors file without their bytes.
pub(super) fn read_header(path: &Path) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let failed = |source| WeightsError::Read { path: path.to_owned(), source };
    let refuse = |source| WeightsError::Format { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return Err(refuse(SafeTensorError::HeaderTooLarge));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let parse = |error| refuse(SafeTensorError::InvalidHeaderDeserialization(error));
    let entries: BTreeMap<String, Value> = serde_json::from_slice(&header).map_err(parse)?;
    let data_bytes = file.metadata().map_err(failed)?.len().saturating_sub(8 + length);
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let mut tensor: StoredTensor = serde_json::from_value(entry).map_err(parse)?;
        let (first, end) = tensor.data_offsets;
        // A number takes at least one byte, so the size of the file bounds the claimed shape.
        if end > data_bytes || end.saturating_sub(first) < numbers(&tensor.shape) {
            return Err(refuse(SafeTensorError::InvalidOffset(name)));
        }
        tensor.start = 8 + length + first;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}
