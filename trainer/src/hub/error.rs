//! Errors in fetching models and data sets from the hub.

use std::io;
use std::path::{Path, PathBuf};

/// An error in fetching. The texts name the model, data set or address, the response, and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{name}: HF_ENDPOINT = {endpoint:?} is invalid: {reason}; accepted: http://host or https://host"
    )]
    Endpoint { name: String, endpoint: String, reason: String },
    #[error(
        "{name}: neither a local folder nor a repository of the hub ({message}); private ones need HF_TOKEN"
    )]
    NotFound { name: String, message: String },
    #[error(
        "{name}: the hub denies access ({message}); accept the terms on its page and set HF_TOKEN to a token \
         with access"
    )]
    Gated { name: String, message: String },
    #[error(
        "{name}: the repository has no safetensors weights; accepted: \
         model.safetensors, or model.safetensors.index.json with its files, or adapter_config.json with \
         adapter_model.safetensors (pickled *.bin files are not read, because they can run any code)"
    )]
    NoWeights { name: String },
    #[error("{name}: HF_HUB_OFFLINE is set, and {cache} has no complete copy of it")]
    Offline { name: String, cache: PathBuf },
    #[error(
        "{name}: not a local file or folder, and {url} could not be reached in {attempts} attempts: {reason}"
    )]
    Unreachable { name: String, url: String, attempts: u32, reason: String },
    #[error(
        "{name}: the data set has no file {path:?} and no folder of this name; it has {}",
        if known.is_empty() { "no files".to_owned() } else { known.join(", ") }
    )]
    NoFile { name: String, path: String, known: Vec<String> },
    #[error("{text:?} {reason}; accepted: hf://org/name/path or hf://org/name@revision/path")]
    DataSetName { text: String, reason: &'static str },
    #[error("{url} responded with status {status}: {message}")]
    Status { url: String, status: u16, message: String },
    #[error("{url}: {reason}")]
    Answer { url: String, reason: String },
    #[error(
        "{url}: the downloaded file has the digest {found}, expected {expected}; it was deleted"
    )]
    Digest { url: String, found: String, expected: String },
}

/// Attaches action and path to an I/O error.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io { action, path, source }
}
