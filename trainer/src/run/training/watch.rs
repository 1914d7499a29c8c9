//! The guard at work in a run: it judges every step, and writes down a return before the run makes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use shared::machine::atomic_file;
use tracing::{error, warn};

use super::failure::{Collapsed, Returning, checkpoint_folder, kept_in_words};
use super::guard::{Alarm, GuardSettings, GuardState, Journal, Rollback, STATE_FILE, Vitals};
use crate::checkpoint::StateFiles;
use crate::config::GuardAction;
use crate::track::StepMetrics;

/// The guard of a run.
#[derive(Debug)]
pub(super) struct Watch {
    run_dir: PathBuf,
    settings: GuardSettings,
    state: GuardState,
    journal: Journal,
    /// The collapse that the last step showed.
    collapse: Option<Collapse>,
}

#[derive(Debug)]
struct Collapse {
    step: u64,
    alarms: Vec<Alarm>,
    refused: Option<String>,
}

impl Watch {
    /// Begins or resumes the watch of a run after `step` steps with the `state` of its checkpoint.
    pub(super) fn new(
        run_dir: PathBuf,
        settings: GuardSettings,
        mut state: GuardState,
        step: u64,
        journal: Journal,
    ) -> Self {
        // The run has returned to this checkpoint because it was healthy.
        let is_returned = journal.rollbacks.last().is_some_and(|last| last.to_step == step);
        // A run that only warned may have kept other checkpoints.
        let may_lack = settings.action == GuardAction::RollBack;
        let is_there = |saved: u64| checkpoint_folder(&run_dir, saved).is_dir();
        // A run that only warned has noted none.
        let has_none = state.healthy == 0 && state.unjudged.is_empty();
        let is_gone = has_none || (state.healthy > 0 && !is_there(state.healthy));
        if is_returned || (may_lack && is_gone) {
            state.healthy = step;
        }
        state.unjudged.retain(|&saved| saved > state.healthy && (!may_lack || is_there(saved)));
        state.rollbacks = journal.rollbacks.len() as u64;
        Self { run_dir, settings, state, journal, collapse: None }
    }

    /// Returns the factors of learning rates and of the divergence's weight.
    pub(super) fn scales(&self) -> (f64, f64) {
        self.journal.scales()
    }

    /// Judges a step, and notes the alarms in its row.
    pub(super) fn observe(&mut self, metrics: &mut StepMetrics) {
        metrics.guard.rollbacks = self.state.rollbacks;
        let vitals = Vitals::from(&*metrics);
        let verdict = self.state.observe(&self.settings, metrics.step, &vitals);
        metrics.guard.alarms = verdict.alarms.iter().map(Alarm::in_words).collect();
        if !verdict.alarms.is_empty() {
            let alarms = metrics.guard.alarms.join(", ");
            warn!(step = metrics.step, %alarms, "the run may be collapsing");
        }
        if verdict.is_collapse {
            let (step, alarms) = (metrics.step, verdict.alarms);
            self.collapse = Some(Collapse { step, alarms, refused: None });
        }
    }

    /// Takes an update that was refused because a number was not finite for a collapse, if the guard acts on them.
    pub(super) fn observe_refusal(&mut self, step: u64, reason: &anyhow::Error) -> bool {
        if !self.may_return() {
            return false;
        }
        let refused = Some(format!("{reason:#}"));
        self.collapse = Some(Collapse { step, alarms: Vec::new(), refused });
        true
    }

    /// Returns the steps of checkpoints that must be kept, because the run may return to them.
    pub(super) fn pinned(&self) -> Vec<u64> {
        if self.may_return() { self.state.pinned() } else { Vec::new() }
    }

    fn may_return(&self) -> bool {
        self.settings.action == GuardAction::RollBack
    }

    /// Notes that a checkpoint of `step` is about to be written, and adds the guard's part of its state.
    ///
    /// # Errors
    /// None that a state of numbers can have.
    pub(super) fn save(&mut self, step: u64, files: &mut StateFiles) -> anyhow::Result<()> {
        if self.may_return() {
            self.state.note_saved(step);
        }
        let is_off = self.settings.action == GuardAction::Off;
        if !is_off || self.state.rollbacks > 0 {
            files.insert(STATE_FILE.to_owned(), serde_json::to_vec_pretty(&self.state)?);
        }
        Ok(())
    }

    /// Ends the run if its last step showed a collapse: writes the rows that are undone and the decision, in this
    /// order. Whoever opens the run next, even after a kill, does what the decision says.
    ///
    /// # Errors
    /// [`Returning`] or [`Collapsed`]; and the file system's.
    pub(super) fn act(&mut self) -> anyhow::Result<()> {
        let Some(Collapse { step, alarms, refused }) = self.collapse.take() else { return Ok(()) };
        let to_step = self.state.healthy;
        let rollbacks = self.journal.rollbacks.len() as u64;
        let (learning_rate, kl) = self.scales();
        let rollback = Rollback {
            step,
            to_step,
            alarms,
            refused,
            learning_rate_scale: learning_rate * self.settings.learning_rate_factor,
            kl_scale: kl * self.settings.kl_factor,
        };
        let reason = rollback.reason();
        if rollbacks >= self.settings.max_rollbacks {
            let saved = (to_step > 0).then_some(to_step);
            let kept = kept_in_words(&self.run_dir, saved, "healthy");
            return Err(Collapsed { step, reason, rollbacks, kept }.into());
        }
        error!(step, to_step, %reason, "the run has collapsed and returns to its last healthy checkpoint");
        self.journal.rollbacks.push(rollback);
        keep_undone_rows(&self.run_dir, &self.journal.undone_rows(&self.run_dir), to_step)?;
        self.journal.write(&self.run_dir)?;
        Err(Returning { to_step, reason }.into())
    }
}

/// Copies the rows of the steps after `step` to `path`.
fn keep_undone_rows(run_dir: &Path, path: &Path, step: u64) -> anyhow::Result<()> {
    let metrics = run_dir.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics)
        .with_context(|| format!("cannot read {}", metrics.display()))?;
    let is_undone = |line: &&str| {
        let row = serde_json::from_str::<serde_json::Value>(line).ok();
        row.and_then(|row| row["step"].as_u64()).is_some_and(|number| number > step)
    };
    let undone: Vec<&str> = text.lines().filter(is_undone).collect();
    let folder = path.parent().unwrap_or(run_dir);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(atomic_file::write(path, (undone.join("\n") + "\n").as_bytes())?)
}
