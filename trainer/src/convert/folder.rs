//! A folder that appears under its name only when it is whole. Owns the temporary folder beside the
//! final place, the flushing to disk and the exchange with an older model folder.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use super::error::ConvertError;

/// What makes a folder one that may be replaced by a new conversion.
const MARK_FILE: &str = "config.json";

/// A folder in the making; removed when it is dropped unpublished.
#[derive(Debug)]
pub(super) struct NewFolder {
    temporary: PathBuf,
    place: PathBuf,
    parent: PathBuf,
}

impl NewFolder {
    /// Starts an empty folder that will be published at `place`.
    pub(super) fn create(place: &Path) -> Result<Self, ConvertError> {
        if !replaceable(place).map_err(|source| ConvertError::io("look at", place, source))? {
            return Err(ConvertError::OutputTaken(place.to_path_buf()));
        }
        let Some(name) = place.file_name() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path names no folder");
            return Err(ConvertError::io("create", place, source));
        };
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(|e| ConvertError::io("create", &parent, e))?;
        let name = name.to_string_lossy();
        let temporary = parent.join(format!(".{name}.new-{}", std::process::id()));
        remove_if_there(&temporary)?;
        fs::create_dir(&temporary).map_err(|e| ConvertError::io("create", &temporary, e))?;
        Ok(Self { temporary, place: place.to_path_buf(), parent })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Writes `content` as indented JSON with a final line feed.
    pub(super) fn write_json<T: Serialize>(
        &self,
        name: &str,
        content: &T,
    ) -> Result<(), ConvertError> {
        let path = self.path(name);
        let write = || {
            let mut text = serde_json::to_vec_pretty(content)?;
            text.push(b'\n');
            File::create_new(&path)?.write_all(&text)
        };
        write().map_err(|source| ConvertError::io("write", &path, source))
    }

    /// Sizes of the files written so far, in bytes.
    pub(super) fn file_bytes(&self) -> Result<BTreeMap<String, u64>, ConvertError> {
        let list = || {
            let mut sizes = BTreeMap::new();
            for entry in fs::read_dir(&self.temporary)? {
                let entry = entry?;
                sizes.insert(
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.metadata()?.len(),
                );
            }
            Ok(sizes)
        };
        list().map_err(|source| ConvertError::io("list", &self.temporary, source))
    }

    /// Flushes every file and moves the folder to its place.
    pub(super) fn publish(self) -> Result<(), ConvertError> {
        self.flush().map_err(|source| ConvertError::io("flush", &self.temporary, source))?;
        let failed = |source| ConvertError::io("replace", &self.place, source);
        let aside = self.temporary.with_extension("old");
        remove_if_there(&aside)?;
        let replaced = match fs::rename(&self.place, &aside) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        if let Err(error) = fs::rename(&self.temporary, &self.place) {
            if replaced {
                // Best effort: the first error is the one to report.
                let _ = fs::rename(&aside, &self.place);
            }
            return Err(failed(error));
        }
        File::open(&self.parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        remove_if_there(&aside)
    }

    /// Also gives all files the access rights of the first: the safetensors writer makes its file
    /// readable to the owner alone.
    fn flush(&self) -> io::Result<()> {
        let permissions = fs::metadata(self.path(MARK_FILE))?.permissions();
        for entry in fs::read_dir(&self.temporary)? {
            let path = entry?.path();
            fs::set_permissions(&path, permissions.clone())?;
            File::open(&path)?.sync_all()?;
        }
        File::open(&self.temporary)?.sync_all()
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Gone already after `publish`; otherwise a leftover is harmless, so errors are too.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Nothing, an empty folder or a model folder may be replaced.
fn replaceable(place: &Path) -> io::Result<bool> {
    match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
        Ok(mut entries) => Ok(entries.next().is_none() || place.join(MARK_FILE).is_file()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), ConvertError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ConvertError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
