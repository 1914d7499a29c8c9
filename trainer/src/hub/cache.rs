//! The cache on disk, in the layout of the hub's own clients. `blobs` holds files named by their digest,
//! `snapshots` a folder of links to them for every commit, and `refs` the commit of each branch.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};
use shared::contract::digest::Digest;
use shared::machine::atomic_file;

use super::error::{HubError, io as failed};
use super::{Repository, RepositoryKind};
use crate::policy::{ADAPTER_CONFIG_FILE, ADAPTER_FILE, INDEX_FILE, SINGLE_FILE};

/// The part of the cache that belongs to one repository.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(root: &Path, repository: &Repository) -> Self {
        let folder = match repository.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::DataSet => "datasets",
        };
        let name = format!("{folder}--{}", repository.name.replace('/', "--"));
        Self { folder: root.join(&name), locks: root.join(".locks").join(name) }
    }

    /// Returns the folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Returns the path of a file of a commit. The file exists only once it is whole.
    pub(super) fn file(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot(commit).join(file)
    }

    /// Returns the path of the file with this digest.
    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest)
    }

    /// Returns the path of the part of that file received so far.
    pub(super) fn incomplete(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{digest}.incomplete"))
    }

    /// Waits until no other process downloads the file with this digest, and keeps others from downloading it
    /// until the result is dropped.
    pub(super) fn lock(&self, digest: &str) -> Result<File, HubError> {
        let blobs = self.folder.join("blobs");
        for folder in [&blobs, &self.locks] {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        let path = self.locks.join(format!("{digest}.lock"));
        let file = File::create(&path).map_err(failed("create", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }

    /// Links a whole file into the folder of `commit`.
    pub(super) fn link(&self, commit: &str, file: &str, digest: &str) -> Result<(), HubError> {
        let path = self.file(commit, file);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        // A file in a folder of the repository is deeper.
        let blob = format!("{}../../blobs/{digest}", "../".repeat(file.matches('/').count()));
        match symlink(&blob, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The link points to a blob that has been deleted.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                symlink(&blob, &path).map_err(failed("link", &path))
            }
            linked => linked.map_err(failed("link", &path)),
        }
    }

    /// Records that `revision` refers to `commit`.
    pub(super) fn name_revision(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let folder = self.folder.join("refs");
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(revision);
        atomic_file::write(&path, commit.as_bytes())
            .map_err(|error| failed("write", &path)(io::Error::other(error.to_string())))
    }

    /// Returns the folder of the last download of `revision`, which may not be whole.
    pub(super) fn last_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let named = fs::read_to_string(self.folder.join("refs").join(revision));
        let commit = named.unwrap_or_else(|_| revision.to_owned());
        let commit = commit.trim();
        is_plain(commit).then(|| self.snapshot(commit))
    }

    /// Returns the folder of the last whole download of a model's `revision`, if there is one.
    pub(super) fn whole_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let folder = self.last_snapshot(revision)?;
        let has = |file: &str| folder.join(file).is_file();
        let has_shards = || {
            let index = folder.join(INDEX_FILE);
            super::shards(&index).is_ok_and(|files| files.iter().all(|file| has(file)))
        };
        let is_model = has("config.json") && (has(SINGLE_FILE) || has_shards());
        let is_adapter = has(ADAPTER_CONFIG_FILE) && has(ADAPTER_FILE);
        (is_model || is_adapter).then_some(folder)
    }
}

/// Returns `true` for a plain file name, without a path.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != ".."
}

/// Returns the digest of a file in the form of `expected`: SHA-256 (64 digits, large files) or git's blob
/// name (40 digits). Returns `None` for any other form, which cannot be checked against the content.
pub(super) fn digest_like(expected: &str, path: &Path) -> Result<Option<String>, HubError> {
    if !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    match expected.len() {
        64 => Digest::of_file(path)
            .map(|digest| Some(digest.to_string()))
            .map_err(failed("read", path)),
        40 => git_name(path).map(Some).map_err(failed("read", path)),
        _ => Ok(None),
    }
}

/// Returns git's name of a file: the SHA-1 of the word `blob`, the length and the content.
fn git_name(path: &Path) -> io::Result<String> {
    use std::fmt::Write as _;

    let mut file = File::open(path)?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", file.metadata()?.len()));
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
