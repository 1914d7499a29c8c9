//! Converts a quantised GGUF model file into a Hugging Face model folder: `model.safetensors`,
//! `config.json`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json`, and
//! `conversion.json`, which records the source.
//!
//! Owns the whole conversion from bytes to folder and needs neither libtorch nor Python. Refuses files
//! that it cannot convert exactly: architectures other than `llama`, `qwen2` and `qwen3`, metadata and tensors that
//! it does not know, tokenizers other than byte-level BPE with a known way of splitting text. Downloads nothing.
//!
//! Invariant: the output folder is either absent or whole. It is written under a temporary name
//! next to its target, flushed to disk, then renamed.

mod architecture;
mod cursor;
mod dequantize;
mod dtype;
mod error;
mod folder;
mod gguf;
mod metadata;
mod pre_tokenizer;
mod rope;
mod tokenizer;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use architecture::Architecture;
pub use dtype::Dtype;
pub use error::ConvertError;
pub use error::GgufError;
use folder::NewFolder;
use gguf::Gguf;

/// The converter's version. It is raised whenever the same input yields another output folder; a folder of an
/// older version is then converted again.
pub const CONVERTER_VERSION: u32 = 2;

const RECORD_FILE: &str = "conversion.json";

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `true` if the folder already existed, made by this converter from the same file.
    pub reused: bool,
    /// Number of tensors in `model.safetensors`.
    pub tensors: usize,
    /// Number of weights in all tensors together.
    pub parameters: usize,
    /// Size of each file of the folder, in bytes.
    pub file_bytes: BTreeMap<String, u64>,
    /// SHA-256 of the GGUF file, in lower-case hexadecimal digits.
    pub source_sha256: String,
}

/// The content of `conversion.json`, which shows whether a conversion must be repeated.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Record {
    converter_version: u32,
    source_sha256: String,
    dtype: Dtype,
    tensors: usize,
    parameters: usize,
    file_bytes: BTreeMap<String, u64>,
}

/// Converts the GGUF file `input` into the model folder `output`, with weights of type `dtype`.
///
/// Calls `progress` with the number of tensors written and their total, first with 0. If `output`
/// already holds this conversion, writes nothing, does not call `progress`, and reports it in the
/// summary. Replaces an older conversion in `output`.
///
/// # Errors
/// An `input` that cannot be read or is not a GGUF file that can be converted exactly; an existing `output`
/// that holds anything but an earlier conversion; an `output` that cannot be written. `output` then stays as it was.
pub fn convert_gguf(
    input: &Path,
    output: &Path,
    dtype: Dtype,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Summary, ConvertError> {
    let bytes = fs::read(input).map_err(|source| ConvertError::io("read", input, source))?;
    let source_sha256 = hex(&Sha256::digest(&bytes));
    if let Some(record) = current_record(output, &source_sha256, dtype) {
        return Ok(record.into_summary(true));
    }

    let in_input = |source| ConvertError::Gguf { path: input.to_path_buf(), source };
    let gguf = Gguf::parse(&bytes).map_err(in_input)?;
    let architecture = Architecture::read(&gguf).map_err(in_input)?;
    let plan = weights::plan(&gguf, &architecture, dtype).map_err(in_input)?;
    let tokenizer = tokenizer::read(&gguf.metadata, &architecture).map_err(in_input)?;

    let folder = NewFolder::create(output, &converted_files(output))?;
    folder.write_json("config.json", &architecture.config(plan.tied, plan.biases, dtype))?;
    folder.write_json("generation_config.json", &architecture.generation_config())?;
    folder.write_json("tokenizer.json", &tokenizer.file())?;
    folder.write_json("tokenizer_config.json", &tokenizer.config())?;
    let (tensors, parameters) = (plan.tensors.len(), plan.parameters());
    weights::write(plan, &folder.path("model.safetensors"), progress)?;
    let record = Record {
        converter_version: CONVERTER_VERSION,
        source_sha256,
        dtype,
        tensors,
        parameters,
        file_bytes: folder.file_bytes()?,
    };
    folder.write_json(RECORD_FILE, &record)?;
    folder.publish()?;
    Ok(record.into_summary(false))
}

impl Record {
    fn into_summary(self, reused: bool) -> Summary {
        Summary {
            reused,
            tensors: self.tensors,
            parameters: self.parameters,
            file_bytes: self.file_bytes,
            source_sha256: self.source_sha256,
        }
    }
}

/// Returns the record in `output` if it describes this conversion and the files have the recorded sizes.
/// If anything is unreadable or different, returns `None`: the conversion must be done.
fn current_record(output: &Path, source_sha256: &str, dtype: Dtype) -> Option<Record> {
    let text = fs::read_to_string(output.join(RECORD_FILE)).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    let same = record.converter_version == CONVERTER_VERSION
        && record.source_sha256 == source_sha256
        && record.dtype == dtype
        && record.file_bytes.iter().all(|(name, size)| {
            fs::metadata(output.join(name)).is_ok_and(|metadata| metadata.len() == *size)
        });
    same.then_some(record)
}

/// Returns the sizes of the files of an earlier conversion in `output`, by name; none if there was no conversion.
fn converted_files(output: &Path) -> BTreeMap<String, u64> {
    let path = output.join(RECORD_FILE);
    let record = fs::read(&path).ok();
    let Some(Ok(record)) = record.as_deref().map(serde_json::from_slice::<Record>) else {
        return BTreeMap::new();
    };
    let own_size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    record.file_bytes.into_iter().chain([(RECORD_FILE.to_owned(), own_size)]).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
