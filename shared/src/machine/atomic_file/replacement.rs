//! The replacement of an old folder by a finished one, in steps. Whichever step a killed process reached, either the
//! old or the new folder is in place, or [`super::recover`] can restore the old one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{AtomicError, failed, parent, remove_tree, sibling, sync_folder};

/// A replacement in progress.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    new: &'a Path,
    target: &'a Path,
    /// Path of the old folder until it is removed.
    retired: PathBuf,
    /// `true` to try an atomic exchange of the two names.
    exchanges: bool,
}

/// The progress of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The old folder is in place, if there is one.
    Ready,
    /// The new folder is in place, and the old one has the name that the new one had.
    Exchanged,
    /// The old folder is set aside, and no folder is in place.
    SetAside,
    /// The new folder is in place, and the old one, if there was one, is set aside.
    InPlace,
    /// The new state is on the disk.
    Synced,
    /// The old folder is gone.
    Done,
}

impl<'a> Replacement<'a> {
    pub(super) fn new(new: &'a Path, target: &'a Path) -> Result<Self, AtomicError> {
        Ok(Self { new, target, retired: sibling(target, "retired")?, exchanges: true })
    }

    /// Simulates a file system that cannot exchange names.
    #[cfg(test)]
    pub(super) fn without_exchange(self) -> Self {
        Self { exchanges: false, ..self }
    }

    /// Runs all steps.
    pub(super) fn run(&self) -> Result<(), AtomicError> {
        let _old = self.lock_old()?;
        let mut step = Step::Ready;
        while step != Step::Done {
            step = self.next(step)?;
        }
        Ok(())
    }

    /// Does the work that follows `step`, and returns the step reached.
    pub(super) fn next(&self, step: Step) -> Result<Step, AtomicError> {
        let Self { new, target, retired, .. } = self;
        match step {
            Step::Ready => {
                remove_tree(retired)?;
                self.begin()
            }
            Step::Exchanged => {
                fs::rename(new, retired).map_err(failed("retire", new))?;
                Ok(Step::InPlace)
            }
            Step::SetAside => {
                fs::rename(new, target).map_err(failed("rename to", target))?;
                Ok(Step::InPlace)
            }
            Step::InPlace => {
                sync_folder(parent(target))?;
                Ok(Step::Synced)
            }
            Step::Synced | Step::Done => {
                remove_tree(retired)?;
                Ok(Step::Done)
            }
        }
    }

    fn begin(&self) -> Result<Step, AtomicError> {
        let Self { new, target, retired, exchanges } = self;
        if !exists(target)? {
            fs::rename(new, target).map_err(failed("rename to", target))?;
            return Ok(Step::InPlace);
        }
        if *exchanges {
            match renameat_with(CWD, *new, CWD, *target, RenameFlags::EXCHANGE) {
                Ok(()) => return Ok(Step::Exchanged),
                // Errors of kernels and file systems without support for the exchange.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(error) => return Err(failed("exchange", target)(error.into())),
            }
        }
        fs::rename(target, retired).map_err(failed("retire", target))?;
        Ok(Step::SetAside)
    }

    /// Locks the old folder against other writers: after the exchange it has the name of a folder under
    /// construction.
    fn lock_old(&self) -> Result<Option<File>, AtomicError> {
        let target = self.target;
        match File::open(target) {
            Ok(old) => match old.try_lock() {
                Ok(()) => Ok(Some(old)),
                Err(TryLockError::WouldBlock) => Err(AtomicError::Busy(target.to_owned())),
                Err(TryLockError::Error(error)) => Err(failed("lock", target)(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", target)(error)),
        }
    }
}

/// Returns `true` if the path exists, even as a broken link.
pub(super) fn exists(path: &Path) -> Result<bool, AtomicError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(failed("examine", path)(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AtomicDir, recover, remove_leftovers};
    use super::*;

    fn content(target: &Path) -> Option<String> {
        fs::read_to_string(target.join("file")).ok()
    }

    fn build(target: &Path, content: &str) -> AtomicDir {
        let building = AtomicDir::create(target).unwrap();
        fs::write(building.path().join("file"), content).unwrap();
        building
    }

    /// Simulates a kill at every step, with and without an old folder, on both kinds of file systems.
    #[test]
    fn a_kill_at_any_step_leaves_the_old_folder_or_the_new_one() {
        for (old, exchanges, expected) in [
            (Some("old"), true, &[Step::Exchanged, Step::InPlace, Step::Synced, Step::Done][..]),
            (Some("old"), false, &[Step::SetAside, Step::InPlace, Step::Synced, Step::Done]),
            (None, true, &[Step::InPlace, Step::Synced, Step::Done]),
        ] {
            for steps in 0..=expected.len() {
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("index");
                if let Some(old) = old {
                    build(&target, old).commit().unwrap();
                }
                let mut building = build(&target, "new");
                let new = building.path().to_owned();
                let replacement = Replacement::new(&new, &target).unwrap();
                let replacement =
                    if exchanges { replacement } else { replacement.without_exchange() };
                let mut step = Step::Ready;
                for &next in &expected[..steps] {
                    step = replacement.next(step).unwrap();
                    assert_eq!(step, next, "{old:?}, exchange {exchanges}");
                }
                // A killed process holds no lock and removes nothing.
                building.lock = None;
                drop(building);

                let context = format!("{old:?}, exchange {exchanges}, killed after {step:?}");
                let is_new = steps > 0 && step != Step::SetAside;
                let is_set_aside = step == Step::SetAside;
                assert_eq!(content(&target).is_none(), is_set_aside || (old.is_none() && !is_new));
                assert_eq!(recover(&target).unwrap(), is_set_aside, "{context}");
                assert_eq!(content(&target).as_deref(), if is_new { Some("new") } else { old });
                assert!(!recover(&target).unwrap(), "{context}");
                remove_leftovers(&target).unwrap();
                let expected_count = usize::from(content(&target).is_some());
                let count = fs::read_dir(dir.path()).unwrap().count();
                assert!(
                    count == expected_count || (expected_count == 0 && count == 1),
                    "{context}"
                );
                // The next writer succeeds and leaves nothing behind.
                build(&target, "next").commit().unwrap();
                assert_eq!(content(&target).as_deref(), Some("next"), "{context}");
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{context}");
            }
        }
    }

    #[test]
    fn a_folder_that_a_running_writer_set_aside_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        build(&target, "old").commit().unwrap();
        let building = build(&target, "new");
        let replacement = Replacement::new(building.path(), &target).unwrap().without_exchange();
        assert_eq!(replacement.next(Step::Ready).unwrap(), Step::SetAside);
        assert!(!recover(&target).unwrap());
        remove_leftovers(&target).unwrap();
        assert_eq!(replacement.next(Step::SetAside).unwrap(), Step::InPlace);
        assert_eq!(content(&target).as_deref(), Some("new"));
    }

    #[test]
    fn an_old_folder_with_a_running_writer_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index");
        build(&target, "old").commit().unwrap();
        let held = File::open(&target).unwrap();
        held.try_lock().unwrap();
        let refused = build(&target, "new").commit();
        assert!(matches!(refused, Err(AtomicError::Busy(path)) if path == target));
        assert_eq!(content(&target).as_deref(), Some("old"));
        drop(held);
        build(&target, "new").commit().unwrap();
        assert_eq!(content(&target).as_deref(), Some("new"));
    }
}
