//! Compresses the passages of an existing index. It makes a copy of the index whose other files are
//! hard links, compresses the passages there and compares them with the old ones. Then the copy
//! replaces the index in one step.

use std::fs;
use std::path::Path;

use shared::machine::atomic_file::AtomicDir;

use super::manifest::{FileEntry, MANIFEST_FILE, Manifest, Verification};
use super::progress::Progress;
use super::{IndexError, dense, io_error};
use crate::corpus::compact::{self, COMPACT_FILE, DICTIONARY_FILE};
use crate::corpus::store::{OFFSETS_FILE, PASSAGES_FILE, PassageStore};

/// Returns `true` if the passages of an index are compressed.
pub(super) fn is_compact(manifest: &Manifest) -> bool {
    manifest.files.iter().any(|file| file.path == Path::new(COMPACT_FILE))
}

/// Compresses the passages of the index in the folder `index` and returns the new manifest. The other
/// files of the index do not change, including its vectors.
pub(super) fn compress(
    index: &Path,
    manifest: &Manifest,
    report: &mut dyn FnMut(Progress),
) -> Result<Manifest, IndexError> {
    let folder = AtomicDir::create(index)?;
    // Nothing may add vectors to a folder that is about to be replaced.
    let _locks = dense::lock_all(index)?;
    let is_of_lines = |path: &Path| [PASSAGES_FILE, OFFSETS_FILE].iter().any(|&name| path == name);
    for entry in manifest.files.iter().filter(|entry| is_of_lines(&entry.path)) {
        // A damaged file must not get a new, valid digest.
        entry.check(&index.join(&entry.path), Verification::Digests)?;
    }
    link_files(index, folder.path())?;
    // The link goes first: the new manifest must not overwrite the bytes of the old one.
    let linked = folder.path().join(MANIFEST_FILE);
    fs::remove_file(&linked).map_err(io_error(&linked))?;
    report(Progress::Compressing);
    compact::compress(folder.path())?;
    compact::compare(&PassageStore::open(index)?, &PassageStore::open(folder.path())?)?;
    report(Progress::Sealing);
    let mut files: Vec<FileEntry> =
        manifest.files.iter().filter(|entry| !is_of_lines(&entry.path)).cloned().collect();
    for name in [COMPACT_FILE, DICTIONARY_FILE, OFFSETS_FILE] {
        let path = folder.path().join(name);
        let entry = FileEntry::of_file(&path).map_err(io_error(&path))?;
        files.push(FileEntry { path: name.into(), ..entry });
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    let manifest = Manifest { files, ..manifest.clone() }.write(folder.path())?;
    folder.commit()?;
    Ok(manifest)
}

/// Links the files below `from` to the same names below `to`, or copies them where the file system has
/// no hard links.
fn link_files(from: &Path, to: &Path) -> Result<(), IndexError> {
    for entry in fs::read_dir(from).map_err(io_error(from))? {
        let entry = entry.map_err(io_error(from))?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(io_error(&old))?.is_dir() {
            fs::create_dir(&new).map_err(io_error(&new))?;
            link_files(&old, &new)?;
        } else if fs::hard_link(&old, &new).is_err() {
            fs::copy(&old, &new).map_err(io_error(&old))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
