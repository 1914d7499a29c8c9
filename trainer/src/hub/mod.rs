//! Models, adapters and data sets by name: downloads the needed files of a Hugging Face repository into the cache of
//! the hub's own clients.
//!
//! Invariant: a file appears under its name only once it is whole and has the digest stated by the hub. An
//! interrupted download resumes where it stopped.

mod cache;
mod client;
mod data_set;
mod error;

use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shared::contract::retry::RetryPolicy;
use tracing::{info, warn};

use self::cache::Cache;
use self::client::HubClient;
pub use self::data_set::{DataSetFile, DataSetPath, HUB_SCHEME, data_set_files, fetch_data_set};
pub use self::error::HubError;
use crate::config::Environment;
use crate::policy::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, DESCRIBING_FILES, INDEX_FILE, SINGLE_FILE, TEMPLATES_FOLDER,
};

/// The hub's address unless `HF_ENDPOINT` is set.
const ENDPOINT: &str = "https://huggingface.co";
const REVISION: &str = "main";

/// The kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepositoryKind {
    Model,
    DataSet,
}

impl RepositoryKind {
    /// Returns the word of the hub's interface for repositories of this kind.
    fn api_word(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::DataSet => "datasets",
        }
    }

    /// Returns what comes before the name in addresses of files.
    fn path_prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::DataSet => "datasets/",
        }
    }
}

/// A repository of some kind at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) kind: RepositoryKind,
    /// `org/name`.
    pub(crate) name: String,
    pub(crate) revision: String,
}

/// Writes what the user wrote, for messages.
impl std::fmt::Display for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, revision } = self;
        match kind {
            RepositoryKind::Model => write!(formatter, "model.path = {name}@{revision}"),
            RepositoryKind::DataSet => write!(formatter, "hf://{name}@{revision}"),
        }
    }
}

/// Returns `true` for a word of a repository's name or a revision.
fn is_word(word: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !word.is_empty() && !word.starts_with('.') && word.chars().all(is_letter)
}

/// A repository and a branch, tag or commit of it: `org/name` or `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    pub repository: String,
    pub revision: String,
}

impl ModelName {
    /// Parses a value of `model.path` as a name. Returns `None` for a path: an existing file, a file in an
    /// existing folder, or anything other than two words with a slash between them.
    pub fn parse(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let (repository, revision) = text.split_once('@').unwrap_or((text, REVISION));
        let (owner, name) = repository.split_once('/')?;
        let is_name = is_word(owner) && is_word(name) && is_word(revision);
        let is_path = path.symlink_metadata().is_ok() || Path::new(owner).is_dir();
        (is_name && !is_path)
            .then(|| Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}@{}", self.repository, self.revision)
    }
}

/// The hub's address, the access to it, and the cache.
#[derive(Clone)]
pub struct HubSettings {
    /// Scheme and host, without a trailing slash.
    pub endpoint: String,
    /// The access token; sent to the endpoint only.
    pub token: Option<String>,
    /// The folder of the cache.
    pub cache: PathBuf,
    /// If `true`, only the cache is used.
    pub offline: bool,
    /// Pauses between attempts, and the longest time that a download may make no progress.
    pub retry: RetryPolicy,
}

impl std::fmt::Debug for HubSettings {
    // The token stays out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, cache, offline, .. } = self;
        write!(formatter, "HubSettings {{ {endpoint}, {}, offline: {offline} }}", cache.display())
    }
}

impl HubSettings {
    /// Reads the variables of the hub's own clients: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_HUB_OFFLINE`; and the token that they save.
    pub fn from_environment(environment: &Environment) -> Self {
        let value = |name: &str| {
            environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
        };
        let home = PathBuf::from(value("HOME").unwrap_or("."));
        let hf_home = value("HF_HOME").map_or_else(
            || {
                let caches = value("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
                caches.join("huggingface")
            },
            PathBuf::from,
        );
        let token_path = value("HF_TOKEN_PATH").map_or(hf_home.join("token"), PathBuf::from);
        let saved = || std::fs::read_to_string(token_path).ok();
        let token = value("HF_TOKEN").map(str::to_owned).or_else(saved);
        let endpoint = value("HF_ENDPOINT").unwrap_or(ENDPOINT);
        let offline = value("HF_HUB_OFFLINE").map(str::to_ascii_lowercase);
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache: value("HF_HUB_CACHE").map_or(hf_home.join("hub"), PathBuf::from),
            offline: offline.is_some_and(|value| ["1", "true", "yes", "on"].contains(&&*value)),
            retry: RetryPolicy { deadline: Duration::from_mins(5), ..RetryPolicy::default() },
        }
    }
}

/// Returns the local folder of the model `name`, or of its adapters if the repository has no whole model.
/// Downloads the files that the cache lacks. If the hub cannot be reached, returns the newest complete copy in
/// the cache.
///
/// # Errors
/// A name, revision or token that the hub does not accept, a repository without safetensors, a
/// download that fails for good, or a file with another digest than the hub states.
pub fn fetch(name: &ModelName, settings: &HubSettings) -> Result<PathBuf, HubError> {
    let repository = Repository {
        kind: RepositoryKind::Model,
        name: name.repository.clone(),
        revision: name.revision.clone(),
    };
    let cache = Cache::new(&settings.cache, &repository);
    if settings.offline {
        return cache.whole_snapshot(&name.revision).ok_or_else(|| HubError::Offline {
            name: repository.to_string(),
            cache: settings.cache.clone(),
        });
    }
    let downloaded = block_on(download(&repository, settings, &cache))?;
    if let Err(HubError::Unreachable { url, reason, .. }) = &downloaded
        && let Some(folder) = cache.whole_snapshot(&name.revision)
    {
        warn!(url, reason, "the hub cannot be reached: using the copy in the cache");
        return Ok(folder);
    }
    downloaded
}

/// Runs the requests of one call.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, HubError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| HubError::Io { action: "start", path: "a runtime".into(), source })?;
    Ok(runtime.block_on(work))
}

async fn download(
    name: &Repository,
    settings: &HubSettings,
    cache: &Cache,
) -> Result<PathBuf, HubError> {
    let client = HubClient::new(name, settings)?;
    let repository = client.listing().await?;
    let has = |file: &str| repository.files.iter().any(|listed| listed == file);
    let mut wanted: Vec<String> = iter::once("config.json")
        .chain(DESCRIBING_FILES)
        .filter(|file| has(file))
        .map(str::to_owned)
        .collect();
    wanted.extend(repository.files.iter().filter(|file| is_named_template(file)).cloned());
    if has(SINGLE_FILE) {
        wanted.push(SINGLE_FILE.to_owned());
    } else if has(INDEX_FILE) {
        client.fetch(cache, &repository.commit, INDEX_FILE).await?;
        wanted.extend(shards(&cache.file(&repository.commit, INDEX_FILE))?);
    } else if has(ADAPTER_CONFIG_FILE) && has(ADAPTER_FILE) {
        wanted.extend([ADAPTER_CONFIG_FILE, ADAPTER_FILE].map(str::to_owned));
    } else {
        return Err(HubError::NoWeights { name: name.to_string() });
    }
    for file in &wanted {
        client.fetch(cache, &repository.commit, file).await?;
    }
    cache.name_revision(&name.revision, &repository.commit)?;
    let folder = cache.snapshot(&repository.commit);
    info!(model = %name, commit = repository.commit, folder = %folder.display(), "the model is in the cache");
    Ok(folder)
}

/// Returns `true` for a chat template with a name: a file directly in the folder of such templates.
fn is_named_template(file: &str) -> bool {
    let name = file.strip_prefix(TEMPLATES_FOLDER).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| {
        let is_template = Path::new(name).extension().is_some_and(|end| end == "jinja");
        cache::is_plain(name) && is_template
    })
}

/// Returns the files that an index of weights names, each once.
fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    let bytes = std::fs::read(index).map_err(error::io("read", index))?;
    let refuse = |reason: String| HubError::Answer { url: index.display().to_string(), reason };
    let index: Value = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    let named = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let mut files: Vec<String> = named.filter_map(Value::as_str).map(str::to_owned).collect();
    files.sort_unstable();
    files.dedup();
    match files.iter().find(|file| !cache::is_plain(file)) {
        Some(file) => Err(refuse(format!("{file:?} is not a plain file name"))),
        None => Ok(files),
    }
}
