//! A folder that appears under its name only once it is whole. Owns the temporary folder next to the
//! target, the flush to disk, and the exchange with an older model folder.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use super::error::ConvertError;

/// The file whose access rights all files get.
const FIRST_FILE: &str = "config.json";

/// A folder under construction; dropping it before it is published removes it.
#[derive(Debug)]
pub(super) struct NewFolder {
    temporary: PathBuf,
    target: PathBuf,
    parent: PathBuf,
}

impl NewFolder {
    /// Creates an empty folder that will be published at `target`. Of what is there, only an earlier conversion is
    /// replaced: `converted` has the sizes of its files, by name.
    pub(super) fn create(
        target: &Path,
        converted: &BTreeMap<String, u64>,
    ) -> Result<Self, ConvertError> {
        if !replaceable(target, converted)
            .map_err(|source| ConvertError::io("look at", target, source))?
        {
            return Err(ConvertError::OutputTaken(target.to_path_buf()));
        }
        let Some(name) = target.file_name() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder name");
            return Err(ConvertError::io("create", target, source));
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(|e| ConvertError::io("create", &parent, e))?;
        let name = name.to_string_lossy();
        let temporary = parent.join(format!(".{name}.new-{}", std::process::id()));
        remove_if_present(&temporary)?;
        fs::create_dir(&temporary).map_err(|e| ConvertError::io("create", &temporary, e))?;
        Ok(Self { temporary, target: target.to_path_buf(), parent })
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

    /// Returns the sizes of the files written so far, in bytes.
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

    /// Flushes every file and renames the folder to its target.
    pub(super) fn publish(self) -> Result<(), ConvertError> {
        self.flush().map_err(|source| ConvertError::io("flush", &self.temporary, source))?;
        let failed = |source| ConvertError::io("replace", &self.target, source);
        let aside = self.temporary.with_extension("old");
        remove_if_present(&aside)?;
        let replaced = match fs::rename(&self.target, &aside) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        if let Err(error) = fs::rename(&self.temporary, &self.target) {
            if replaced {
                // Best effort: the first error is the one to report.
                let _ = fs::rename(&aside, &self.target);
            }
            return Err(failed(error));
        }
        File::open(&self.parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        remove_if_present(&aside)
    }

    /// Flushes all files. Also sets their permissions to those of the first file, because the safetensors
    /// writer makes its file readable by the owner only.
    fn flush(&self) -> io::Result<()> {
        let permissions = fs::metadata(self.path(FIRST_FILE))?.permissions();
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
        // After `publish` the folder no longer exists. Otherwise, a leftover folder is harmless: ignore errors.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Returns `true` if the target does not exist or has nothing but files of an earlier conversion. A file may be shorter
/// than that conversion made it, because it is damaged, but a longer one is somebody's own.
fn replaceable(target: &Path, converted: &BTreeMap<String, u64>) -> io::Result<bool> {
    let entries = match fs::read_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let size = entry.file_name().to_str().and_then(|name| converted.get(name).copied());
        if size.is_none_or(|size| {
            !entry.path().is_file()
                || fs::metadata(entry.path()).is_ok_and(|found| found.len() > size)
        }) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remove_if_present(path: &Path) -> Result<(), ConvertError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ConvertError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
