//! Puts a finished folder in the place of an older one, in steps. Whichever step a killed process
//! came to, the old folder or the new one is in place, or stands under a name from which
//! [`super::recover`] puts it back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{AtomicError, failed, parent, remove_tree, sibling, sync_folder};

/// A replacement under way.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    new: &'a Path,
    target: &'a Path,
    /// Where the old folder waits to be removed.
    retired: PathBuf,
    /// Whether the file system is asked to exchange two names at once.
    exchanges: bool,
}

/// How far a replacement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The old folder is in place, if there is one.
    Ready,
    /// The new folder is in place, and the old one has the name that the new one had.
    Exchanged,
    /// The old folder is set aside, and none is in place.
    SetAside,
    /// The new folder is in place, and the old one, if there was one, is set aside.
    InPlace,
    /// That is on the disk.
    Synced,
    /// The old folder is gone.
    Done,
}

impl<'a> Replacement<'a> {
    pub(super) fn new(new: &'a Path, target: &'a Path) -> Result<Self, AtomicError> {
        Ok(Self { new, target, retired: sibling(target, "retired")?, exchanges: true })
    }

    /// Like one on a file system that cannot exchange names.
    #[cfg(test)]
    pub(super) fn without_exchange(self) -> Self {
        Self { exchanges: false, ..self }
    }

    /// All steps.
    pub(super) fn run(&self) -> Result<(), AtomicError> {
        let _old = self.lock_old()?;
        let mut step = Step::Ready;
        while step != Step::Done {
            step = self.next(step)?;
        }
        Ok(())
    }

    /// The next step.
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
        if !is_there(target)? {
            fs::rename(new, target).map_err(failed("rename to", target))?;
            return Ok(Step::InPlace);
        }
        if *exchanges {
            match renameat_with(CWD, *new, CWD, *target, RenameFlags::EXCHANGE) {
                Ok(()) => return Ok(Step::Exchanged),
                // What a kernel or a file system says that does not know it.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(error) => return Err(failed("exchange", target)(error.into())),
            }
        }
        fs::rename(target, retired).map_err(failed("retire", target))?;
        Ok(Step::SetAside)
    }

    /// Keeps other writers out of the old folder: once exchanged, it stands where they look for one
    /// under construction.
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

/// Whether there is anything of that name, be it a link that leads nowhere.
pub(super) fn is_there(path: &Path) -> Result<bool, AtomicError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(failed("look at", path)(error)),
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

    /// Every kill at every step, with and without an older folder, on either kind of file system.
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
                let left = usize::from(content(&target).is_some());
                let found = fs::read_dir(dir.path()).unwrap().count();
                assert!(found == left || (left == 0 && found == 1), "{context}");
                // Nothing is in the way of the next writer, or left over after it.
                build(&target, "next").commit().unwrap();
                assert_eq!(content(&target).as_deref(), Some("next"), "{context}");
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{context}");
            }
        }
    }

    #[test]
    fn what_a_living_writer_has_set_aside_is_left_to_it() {
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
    fn an_old_folder_that_somebody_writes_to_is_not_replaced() {
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
