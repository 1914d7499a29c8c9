//! Files of data sets by their name on the hub: `hf://org/name@revision/path`, a file or a folder of files.

use std::fmt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::cache::Cache;
use super::client::{HubClient, Listing};
use super::error::HubError;
use super::{HubSettings, REVISION, Repository, RepositoryKind, block_on, is_word};

/// The beginning of names of data sets.
pub const HUB_SCHEME: &str = "hf://";
/// The hub's own clients write the kind of the repository first.
const KIND: &str = "datasets/";
/// Files that a message about a missing one names.
const NAMED: usize = 8;

/// A file or folder of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSetPath {
    repository: Repository,
    /// The path within the repository, without slashes around it.
    path: String,
}

/// A file that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSetFile {
    /// The path within the repository.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// `true` if the cache has the whole file.
    pub is_cached: bool,
}

impl DataSetPath {
    /// Parses a value that begins with `hf://`. Returns `None` for anything else.
    ///
    /// # Errors
    /// A name that is not of this form.
    pub fn parse(text: &str) -> Option<Result<Self, HubError>> {
        let rest = text.strip_prefix(HUB_SCHEME)?;
        let rest = rest.strip_prefix(KIND).unwrap_or(rest);
        let refuse = |reason| Err(HubError::DataSetName { text: text.to_owned(), reason });
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let [owner, name, path @ ..] = &parts[..] else {
            return Some(refuse("has no name of the form org/name"));
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, REVISION));
        if ![*owner, name, revision].into_iter().all(is_word) {
            return Some(refuse(
                "has a name or revision with other marks than letters, digits, - _ .",
            ));
        }
        if path.is_empty() {
            return Some(refuse("names no file or folder of the data set"));
        }
        if path.iter().any(|part| *part == "." || *part == "..") {
            return Some(refuse("has a path that leaves the data set"));
        }
        let repository = Repository {
            kind: RepositoryKind::DataSet,
            name: format!("{owner}/{name}"),
            revision: revision.to_owned(),
        };
        Some(Ok(Self { repository, path: path.join("/") }))
    }

    /// Returns the files of a listing that the path names.
    fn files(&self, listing: &Listing) -> Result<Vec<String>, HubError> {
        let folder = format!("{}/", self.path);
        let is_inside = |file: &str| file.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let is_named =
            |file: &&String| (**file == self.path || file.starts_with(&folder)) && is_inside(file);
        let files: Vec<String> = listing.files.iter().filter(is_named).cloned().collect();
        if files.is_empty() {
            let mut known: Vec<String> = listing.files.iter().take(NAMED).cloned().collect();
            if listing.files.len() > NAMED {
                known.push("…".to_owned());
            }
            let (name, path) = (self.repository.to_string(), self.path.clone());
            return Err(HubError::NoFile { name, path, known });
        }
        Ok(files)
    }
}

impl fmt::Display for DataSetPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.repository, self.path)
    }
}

/// Returns the local path of a file or folder of a data set, after downloading what the cache lacks. If the hub cannot
/// be reached, returns the newest copy in the cache.
///
/// # Errors
/// A name, revision, path or token that the hub does not accept, a download that fails for good, or a file with another
/// digest than the hub states.
pub fn fetch_data_set(path: &DataSetPath, settings: &HubSettings) -> Result<PathBuf, HubError> {
    let cache = Cache::new(&settings.cache, &path.repository);
    if settings.offline {
        return cached(path, &cache).ok_or_else(|| HubError::Offline {
            name: path.to_string(),
            cache: settings.cache.clone(),
        });
    }
    let downloaded = block_on(download(path, settings, &cache))?;
    if let Err(HubError::Unreachable { url, reason, .. }) = &downloaded
        && let Some(copy) = cached(path, &cache)
    {
        warn!(url, reason, "the hub cannot be reached: using the copy in the cache");
        return Ok(copy);
    }
    downloaded
}

/// Returns the files that a path names, with their sizes. Downloads nothing.
///
/// # Errors
/// Those of [`fetch_data_set`] before it downloads.
pub fn data_set_files(
    path: &DataSetPath,
    settings: &HubSettings,
) -> Result<Vec<DataSetFile>, HubError> {
    let cache = Cache::new(&settings.cache, &path.repository);
    block_on(async {
        let client = HubClient::new(&path.repository, settings)?;
        let listing = client.listing().await?;
        let mut files = Vec::new();
        for file in path.files(&listing)? {
            let size = client.size(&listing.commit, &file).await?;
            let is_cached = cache.file(&listing.commit, &file).is_file();
            files.push(DataSetFile { file, size, is_cached });
        }
        Ok(files)
    })?
}

/// Returns the copy of an earlier download. A folder counts only if nothing of it is missing, which its list says.
fn cached(path: &DataSetPath, cache: &Cache) -> Option<PathBuf> {
    let snapshot = cache.last_snapshot(&path.repository.revision)?;
    let copy = snapshot.join(&path.path);
    let is_whole = |folder: &Path| folder.is_dir() && whole_mark(&snapshot, path).is_file();
    (copy.is_file() || is_whole(&copy)).then_some(copy)
}

/// Returns the file that says that a folder was downloaded whole. It is beside the snapshots, which hold nothing but the
/// repository's own files.
fn whole_mark(snapshot: &Path, path: &DataSetPath) -> PathBuf {
    let commit = snapshot.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{commit}-{}", path.path.replace('/', "--"));
    snapshot.join("../../.whole").join(name)
}

async fn download(
    path: &DataSetPath,
    settings: &HubSettings,
    cache: &Cache,
) -> Result<PathBuf, HubError> {
    let client = HubClient::new(&path.repository, settings)?;
    let listing = client.listing().await?;
    for file in path.files(&listing)? {
        client.fetch(cache, &listing.commit, &file).await?;
    }
    cache.name_revision(&path.repository.revision, &listing.commit)?;
    let snapshot = cache.snapshot(&listing.commit);
    let copy = snapshot.join(&path.path);
    if copy.is_dir() {
        let mark = whole_mark(&snapshot, path);
        let folder = mark.parent().unwrap_or(&mark);
        let failed = |source| HubError::Io { action: "write", path: mark.clone(), source };
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&mark, b""))
            .map_err(failed)?;
    }
    info!(data_set = %path, copy = %copy.display(), "the data set is in the cache");
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_sets_are_told_from_paths() {
        let parsed = |text: &str| DataSetPath::parse(text).unwrap().unwrap().to_string();
        assert_eq!(parsed("hf://org/set/nq/train.jsonl"), "hf://org/set@main/nq/train.jsonl");
        assert_eq!(parsed("hf://datasets/org/set@v1/part_aa"), "hf://org/set@v1/part_aa");
        assert!(DataSetPath::parse("data/train.jsonl").is_none());
        for (text, fault) in [
            ("hf://org", "no name of the form org/name"),
            ("hf://org/set", "names no file or folder"),
            ("hf://org/set@a b/x", "other marks than letters"),
            ("hf://org/set/../x", "leaves the data set"),
        ] {
            let error = DataSetPath::parse(text).unwrap().unwrap_err().to_string();
            assert!(error.contains(fault) && error.contains("accepted: hf://org"), "{error}");
        }
    }
}
