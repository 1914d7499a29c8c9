//! The checkpoints that a run keeps: the last ones, the best ones, and those that it may return to.
//!
//! Invariant: a checkpoint is renamed before its files are removed, so a killed process leaves none that is half there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{CheckpointError, io};

/// The end of the name of a checkpoint that is being removed.
const REMOVED: &str = ".removed";

/// The numbers of checkpoints that a run keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Checkpoints to keep, counted from the newest; 0 keeps all.
    pub last: usize,
    /// Further checkpoints to keep: those with the highest scores.
    pub best: usize,
}

impl Retention {
    /// Returns which of `steps` to remove. `scores` holds the scores of steps that have one; of equal scores, the
    /// later step is better. Steps in `pinned` are kept in any case.
    pub fn superfluous(
        self,
        steps: &BTreeSet<u64>,
        scores: &BTreeMap<u64, f64>,
        pinned: &[u64],
    ) -> Vec<u64> {
        if self.last == 0 {
            return Vec::new();
        }
        let mut kept: BTreeSet<u64> = steps.iter().rev().take(self.last).copied().collect();
        let mut scored: Vec<(f64, u64)> = scores
            .iter()
            .filter(|(step, score)| steps.contains(step) && !score.is_nan())
            .map(|(&step, &score)| (score, step))
            .collect();
        scored.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        kept.extend(scored.iter().rev().take(self.best).map(|&(_, step)| step));
        kept.extend(pinned);
        steps.difference(&kept).copied().collect()
    }
}

/// Removes a checkpoint. After a kill, [`remove_leftovers`] removes the rest.
///
/// # Errors
/// The file system's.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    let mut name = OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(REMOVED);
    let removed = folder.with_file_name(name);
    remove_tree(&removed)?;
    fs::rename(folder, &removed).map_err(io("remove", folder))?;
    remove_tree(&removed)
}

/// Removes what killed processes have left of checkpoints that they removed.
///
/// # Errors
/// The file system's.
pub fn remove_leftovers(run_dir: &Path) -> Result<(), CheckpointError> {
    let Ok(entries) = fs::read_dir(run_dir.join("checkpoints")) else { return Ok(()) };
    let left: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(".step-") && name.ends_with(REMOVED)
        })
        .collect();
    left.iter().try_for_each(|path| remove_tree(path))
}

fn remove_tree(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_the_best_and_the_pinned_are_kept() {
        let steps: BTreeSet<u64> = [2, 4, 6, 8, 10, 12].into();
        let scores: BTreeMap<u64, f64> =
            [(2, 0.4), (4, 0.7), (6, 0.4), (8, f64::NAN), (10, 0.1), (99, 1.0)].into();
        let superfluous = |last, best, pinned: &[u64]| {
            Retention { last, best }.superfluous(&steps, &scores, pinned)
        };
        assert!(superfluous(0, 2, &[]).is_empty(), "0 keeps all");
        assert_eq!(superfluous(1, 0, &[]), [2, 4, 6, 8, 10]);
        assert_eq!(superfluous(2, 1, &[]), [2, 6, 8]);
        assert_eq!(superfluous(2, 2, &[]), [2, 8], "of two equal scores, the later step is kept");
        assert_eq!(superfluous(2, 2, &[2]), [8]);
        assert!(superfluous(9, 0, &[]).is_empty());
    }

    #[test]
    fn a_removed_checkpoint_leaves_nothing_even_after_a_kill() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("checkpoints/step-4");
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::write(folder.join("state/trainer_state.json"), "{}").unwrap();
        // A killed process has left the half of an earlier one of the same name, and of another.
        for left in [".step-4.removed", ".step-2.removed"] {
            fs::create_dir(run.path().join("checkpoints").join(left)).unwrap();
            fs::write(run.path().join("checkpoints").join(left).join("file"), "half").unwrap();
        }
        remove(&folder).unwrap();
        remove_leftovers(run.path()).unwrap();
        assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 0);
    }
}
