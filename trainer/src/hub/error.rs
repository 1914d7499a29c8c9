//! Errors in fetching a model from the hub.

use std::io;
use std::path::{Path, PathBuf};

/// An error in fetching a model. The texts name the model or address, the response, and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "model.path = {name} is not a local folder, and HF_ENDPOINT = {endpoint:?} is invalid: {reason}; \
         accepted: http://host or https://host"
    )]
    Endpoint { name: String, endpoint: String, reason: String },
    #[error(
        "model.path = {name}: neither a local folder nor a model of the hub ({message}); private models \
         need HF_TOKEN"
    )]
    NotFound { name: String, message: String },
    #[error(
        "model.path = {name}: the hub denies access ({message}); accept the model's terms on its page and \
         set HF_TOKEN to a token with access"
    )]
    Gated { name: String, message: String },
    #[error(
        "model.path = {name}: the repository has no safetensors weights; accepted: \
         model.safetensors, or model.safetensors.index.json with its files, or adapter_config.json with \
         adapter_model.safetensors (pickled *.bin files are not read, because they can run any code)"
    )]
    NoWeights { name: String },
    #[error(
        "model.path = {name}: HF_HUB_OFFLINE is set, and {cache} has no complete copy of the model"
    )]
    Offline { name: String, cache: PathBuf },
    #[error(
        "model.path = {name} is not a local folder, and {url} could not be reached in {attempts} attempts: \
         {reason}"
    )]
    Unreachable { name: String, url: String, attempts: u32, reason: String },
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
