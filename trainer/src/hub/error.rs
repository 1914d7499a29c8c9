//! Why a model could not be had from the hub.

use std::io;
use std::path::{Path, PathBuf};

/// Names the model or address, what came, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "model.path = {name} is no folder here, and the hub cannot be asked: HF_ENDPOINT = \
         {endpoint:?}: {reason}; accepted is http://host or https://host"
    )]
    Endpoint { name: String, endpoint: String, reason: String },
    #[error(
        "model.path = {name}: neither a folder here nor a model of the hub ({message}); with HF_TOKEN \
         private models are found too"
    )]
    NotFound { name: String, message: String },
    #[error(
        "model.path = {name}: the hub refuses access ({message}); accept the model's terms on its \
         page and set HF_TOKEN to a token that may read it"
    )]
    Gated { name: String, message: String },
    #[error(
        "model.path = {name}: the repository has no safetensors weights; accepted: \
         model.safetensors, or model.safetensors.index.json with its files, or adapter_config.json with \
         adapter_model.safetensors"
    )]
    NoWeights { name: String },
    #[error("model.path = {name}: HF_HUB_OFFLINE is set and {cache} has no whole copy of it")]
    Offline { name: String, cache: PathBuf },
    #[error(
        "model.path = {name} is no folder here, and {url} cannot be reached after {attempts} \
         attempts: {reason}"
    )]
    Unreachable { name: String, url: String, attempts: u32, reason: String },
    #[error("{url} answers with status {status}: {message}")]
    Status { url: String, status: u16, message: String },
    #[error("{url}: {reason}")]
    Answer { url: String, reason: String },
    #[error("{url}: what came has the digest {found}, the hub states {expected}; it was deleted")]
    Digest { url: String, found: String, expected: String },
}

/// Attaches action and path to an I/O error.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io { action, path, source }
}
