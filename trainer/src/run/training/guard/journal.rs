//! `guard.json` of a run: every return to a healthy checkpoint, written before it happens. A run that opens its folder
//! does what the journal says, whether it was killed in between or not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shared::machine::atomic_file;

use super::vitals::Alarm;

const FILE: &str = "guard.json";
/// Folder of the rows of steps that were undone.
const FOLDER: &str = "guard";

/// One return to a healthy checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollback {
    /// The step that showed the collapse.
    pub(crate) step: u64,
    /// The step that the run returned to; 0 is its beginning.
    pub(crate) to_step: u64,
    pub(crate) alarms: Vec<Alarm>,
    /// The error of an update that was refused, if that was the reason.
    #[serde(default)]
    pub(crate) refused: Option<String>,
    /// Factor of the configured learning rates from then on.
    pub(crate) learning_rate_scale: f64,
    /// Factor of the divergence's weight from then on.
    pub(crate) kl_scale: f64,
}

impl Rollback {
    /// Returns the reason in words.
    pub(crate) fn reason(&self) -> String {
        let alarms = self.alarms.iter().map(Alarm::in_words);
        alarms.chain(self.refused.clone()).collect::<Vec<_>>().join(", ")
    }
}

/// The returns of a run, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) rollbacks: Vec<Rollback>,
}

impl Journal {
    /// Reads the journal of a run; a run without one has not returned.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub(crate) fn read(run_dir: &Path) -> anyhow::Result<Self> {
        let path = run_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the journal.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn write(&self, run_dir: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        Ok(atomic_file::write(&run_dir.join(FILE), &text)?)
    }

    /// Removes the journal of a run that begins anew.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn remove(run_dir: &Path) -> anyhow::Result<()> {
        let path = run_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the factors of learning rates and of the divergence's weight.
    pub(crate) fn scales(&self) -> (f64, f64) {
        self.rollbacks.last().map_or((1.0, 1.0), |last| (last.learning_rate_scale, last.kl_scale))
    }

    /// Returns `true` if a checkpoint after `step`, made after `rollbacks` returns, still belongs to the run: no later
    /// return went back before it.
    pub(crate) fn is_current(&self, step: u64, rollbacks: u64) -> bool {
        self.rollbacks.iter().skip(rollbacks as usize).all(|later| step <= later.to_step)
    }

    /// Returns the file that keeps the rows undone by the last return of a run with this journal.
    pub(crate) fn undone_rows(&self, run_dir: &Path) -> PathBuf {
        run_dir.join(FOLDER).join(format!("rollback-{}.jsonl", self.rollbacks.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollback(step: u64, to_step: u64, learning_rate_scale: f64) -> Rollback {
        let alarms = vec![Alarm { figure: "kl".to_owned(), value: 2.0, limit: 1.0 }];
        Rollback { step, to_step, alarms, refused: None, learning_rate_scale, kl_scale: 1.0 }
    }

    #[test]
    fn a_checkpoint_is_current_unless_a_later_return_went_back_before_it() {
        let journal = Journal { rollbacks: vec![rollback(9, 4, 0.5), rollback(7, 2, 0.25)] };
        let table = [
            // Step, returns before it, and the judgement.
            ((2, 0), true),
            ((4, 0), false),
            ((6, 0), false),
            ((6, 1), false),
            ((2, 1), true),
            ((6, 2), true),
            ((6, 3), true),
        ];
        for ((step, rollbacks), expected) in table {
            assert_eq!(journal.is_current(step, rollbacks), expected, "{step}, {rollbacks}");
        }
        assert!(Journal::default().is_current(9, 0));
        assert_eq!(journal.scales(), (0.25, 1.0));
        assert_eq!(Journal::default().scales(), (1.0, 1.0));
    }

    #[test]
    fn the_journal_comes_back_and_can_be_removed() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(run.path()).unwrap(), Journal::default());
        let journal = Journal { rollbacks: vec![rollback(9, 4, 0.5)] };
        journal.write(run.path()).unwrap();
        assert_eq!(Journal::read(run.path()).unwrap(), journal);
        assert_eq!(journal.rollbacks[0].reason(), "kl 2.0000 is above 1.0000");
        fs::write(run.path().join(FILE), "{").unwrap();
        assert!(
            Journal::read(run.path()).unwrap_err().to_string().contains("guard.json is damaged")
        );
        Journal::remove(run.path()).unwrap();
        Journal::remove(run.path()).unwrap();
        assert_eq!(Journal::read(run.path()).unwrap(), Journal::default());
    }
}
