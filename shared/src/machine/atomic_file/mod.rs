//! Files and folders that are either whole or absent: they are written under another name, synced to disk, then
//! renamed. A process that is killed half-way leaves the old state, never a partial one.

mod replacement;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use replacement::{Replacement, exists};

/// The reason why a file or folder could not be written.
#[derive(Debug, Error)]
pub enum AtomicError {
    /// An operation on a path failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The path of the operation.
        path: PathBuf,
        /// The error of the operation.
        source: io::Error,
    },
    /// Another process is writing the same folder.
    #[error("another process is writing {}", .0.display())]
    Busy(PathBuf),
    /// The path has no file name, such as `/` or `..`.
    #[error("{} names no file or folder", .0.display())]
    NoName(PathBuf),
}

/// Adds path and action to an I/O error.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AtomicError {
    let path = path.to_owned();
    move |source| AtomicError::Io { action, path, source }
}

/// Writes `bytes` to `path` and atomically replaces an existing file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), AtomicError> {
    let temporary = sibling(path, "partial")?;
    let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("rename to", path))?;
    sync_folder(parent(path))
}

/// Replaces the folder `target` by the folder `new`, whose content has been synced, and removes the old folder. If the
/// file system can exchange two names, `target` exists at all times. Otherwise the old folder is set aside for a
/// moment; [`recover`] restores it after a kill.
pub fn replace_folder(new: &Path, target: &Path) -> Result<(), AtomicError> {
    Replacement::new(new, target)?.run()
}

/// Restores the folder that a killed writer set aside and did not replace. Returns `true` if it did so. Does not
/// disturb a running writer.
pub fn recover(target: &Path) -> Result<bool, AtomicError> {
    let retired = sibling(target, "retired")?;
    if exists(target)? || !exists(&retired)? {
        return Ok(false);
    }
    let Writers::Gone(_lock) = lock_out_writers(target)? else { return Ok(false) };
    fs::rename(&retired, target).map_err(failed("restore", target))?;
    sync_folder(parent(target))?;
    Ok(true)
}

/// Removes the leftovers of killed writers next to `target`, if `target` exists. Does not disturb a running writer.
pub fn remove_leftovers(target: &Path) -> Result<(), AtomicError> {
    recover(target)?;
    if exists(target)?
        && let Writers::Gone(_lock) = lock_out_writers(target)?
    {
        remove_tree(&sibling(target, "partial")?)?;
        remove_retired(target)?;
    }
    Ok(())
}

/// Removes the old folder that `target` has replaced.
pub fn remove_retired(target: &Path) -> Result<(), AtomicError> {
    if exists(target)? { remove_tree(&sibling(target, "retired")?) } else { Ok(()) }
}

/// The state of a folder's writers.
enum Writers {
    /// A writer is running.
    Alive,
    /// No writer is running. While the lock is held, none can start on the leftovers, if there are any.
    Gone(Option<File>),
}

fn lock_out_writers(target: &Path) -> Result<Writers, AtomicError> {
    let temporary = sibling(target, "partial")?;
    match File::open(&temporary) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Ok(Writers::Gone(Some(lock))),
            Err(TryLockError::WouldBlock) => Ok(Writers::Alive),
            Err(TryLockError::Error(error)) => Err(failed("lock", &temporary)(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Writers::Gone(None)),
        Err(error) => Err(failed("open", &temporary)(error)),
    }
}

/// A folder under construction. It is removed if it is dropped without [`AtomicDir::commit`].
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    temporary: PathBuf,
    /// Holds the lock that keeps a second writer out; `None` once committed.
    lock: Option<File>,
}

impl AtomicDir {
    /// Starts a folder that will become `target`. Removes the leftovers of a killed writer, or restores the old
    /// folder.
    ///
    /// # Errors
    /// A running writer of the same folder, or a failed operation.
    pub fn create(target: &Path) -> Result<Self, AtomicError> {
        recover(target)?;
        let temporary = sibling(target, "partial")?;
        let parent = parent(target);
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
        fs::create_dir_all(&temporary).map_err(failed("create", &temporary))?;
        let lock = File::open(&temporary).map_err(failed("open", &temporary))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AtomicError::Busy(target.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &temporary)(error)),
        }
        // The other writer may have finished between our open and our lock. Then the name is gone or belongs to
        // another folder, and the locked folder is the other writer's finished work.
        if !same_file(&lock, &temporary) {
            return Err(AtomicError::Busy(target.to_owned()));
        }
        clear(&temporary)?;
        Ok(Self { target: target.to_owned(), temporary, lock: Some(lock) })
    }

    /// Returns the folder to write the content to.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs everything and replaces the target, as [`replace_folder`] does.
    pub fn commit(mut self) -> Result<(), AtomicError> {
        sync_tree(&self.temporary)?;
        let replacement = Replacement::new(&self.temporary, &self.target)?;
        replacement.run()?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Best effort: the next writer removes leftovers.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns `dir/.name.suffix` for `dir/name`. It is on the same file system, so a rename is atomic.
fn sibling(path: &Path, suffix: &str) -> Result<PathBuf, AtomicError> {
    let name = path.file_name().ok_or_else(|| AtomicError::NoName(path.to_owned()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    Ok(parent(path).join(hidden))
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn clear(folder: &Path) -> Result<(), AtomicError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() { remove_tree(&path)? } else { remove_file(&path)? }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), AtomicError> {
    fs::remove_file(path).map_err(failed("remove", path))
}

fn remove_tree(folder: &Path) -> Result<(), AtomicError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), AtomicError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(failed("sync", folder))
}

fn sync_tree(folder: &Path) -> Result<(), AtomicError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync_folder(&path)? }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_without_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        for content in ["one", "two"] {
            let building = AtomicDir::create(&target).unwrap();
            fs::create_dir(building.path().join("inner")).unwrap();
            fs::write(building.path().join("inner/file"), content).unwrap();
            building.commit().unwrap();
            assert_eq!(fs::read_to_string(target.join("inner/file")).unwrap(), content);
        }
        assert_eq!(names(dir.path()), ["index"]);
    }

    #[test]
    fn an_abandoned_folder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let building = AtomicDir::create(&dir.path().join("index")).unwrap();
        fs::write(building.path().join("file"), "half").unwrap();
        drop(building);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn leftovers_of_a_killed_writer_are_removed_and_a_running_one_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        fs::create_dir(dir.path().join(".index.partial")).unwrap();
        fs::write(dir.path().join(".index.partial/old"), "half").unwrap();
        let first = AtomicDir::create(&target).unwrap();
        assert!(names(first.path()).is_empty());
        assert!(matches!(AtomicDir::create(&target), Err(AtomicError::Busy(_))));
        first.commit().unwrap();
        assert_eq!(names(dir.path()), ["index"]);
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert!(matches!(AtomicDir::create(Path::new("/")), Err(AtomicError::NoName(_))));
    }
}
