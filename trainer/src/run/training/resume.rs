//! From a checkpoint to a run between two steps, and back.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::divergence::KlWeight;
use super::guard::{GuardState, Journal, STATE_FILE};
use super::in_flight::{self, InFlight};
use super::questions::Position;
use crate::checkpoint::{
    self, CheckpointError, CriticParts, Inputs, ResumeParts, SaveForm, StateFiles, TrainerState,
};
use crate::run::curriculum::PassRates;
use crate::run::learner::Learner;
use crate::run::manifest::Manifest;

/// File with the running pass rates of a curriculum.
pub(super) const PASS_RATES_FILE: &str = "pass_rates.json";

/// A checkpoint that a run may resume from.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    pub(super) folder: PathBuf,
    pub(super) state: TrainerState,
    /// The state of the guard; a checkpoint made without one begins it.
    pub(super) guard: GuardState,
    /// What was in flight; read when the checkpoint is restored, as is what follows.
    pub(super) in_flight: Option<InFlight>,
    pub(super) pass_rates: PassRates,
}

/// The checkpoints of a run, the newest first, and the first fault of those that are damaged.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    whole: Vec<Candidate>,
    fault: Option<anyhow::Error>,
}

impl Candidates {
    /// Finds the checkpoints of `run_dir` that belong to the run. Tells of each one that is damaged, and removes those
    /// that the guard has undone.
    ///
    /// # Errors
    /// The newest readable checkpoint if it is of a run with another seed or other inputs; and the file system's.
    pub(super) fn find(
        run_dir: &Path,
        seed: u64,
        manifest: &Manifest,
        journal: &Journal,
    ) -> anyhow::Result<Self> {
        checkpoint::remove_leftovers(run_dir)?;
        let mut candidates = Self::default();
        for found in checkpoint::newest_first(run_dir)? {
            let guard = guard_state(&found.folder, found.step);
            let rollbacks = guard.as_ref().map_or(0, |guard| guard.rollbacks);
            if !journal.is_current(found.step, rollbacks) {
                info!(checkpoint = %found.folder.display(), "removed: the guard has undone its steps");
                checkpoint::remove(&found.folder)?;
                continue;
            }
            let checked = found.state.map_err(anyhow::Error::new).and_then(|state| {
                check_seed(&found.folder, state, seed)?;
                manifest.check_resumed(run_dir, &found.folder)?;
                Ok((state, guard?))
            });
            match checked {
                Ok((state, guard)) => {
                    let folder = found.folder;
                    candidates.whole.push(Candidate {
                        folder,
                        state,
                        guard,
                        ..Candidate::default()
                    });
                }
                Err(error) if is_damage(&error) => candidates.tell(&found.folder, error),
                Err(error) if candidates.whole.is_empty() => return Err(error),
                // An older checkpoint may be of a run that began in the same folder before this one.
                Err(_) => {}
            }
        }
        Ok(candidates)
    }

    /// Restores the newest checkpoint that is whole; `None` if there is none because the run has only begun.
    ///
    /// # Errors
    /// A checkpoint of a run with other settings; and the first damage, if no checkpoint is whole.
    pub(super) fn restore(mut self, learner: &mut Learner) -> anyhow::Result<Option<Candidate>> {
        for mut candidate in std::mem::take(&mut self.whole) {
            match candidate.restore(learner) {
                Ok(()) => {
                    let Candidate { folder, state, .. } = &candidate;
                    info!(checkpoint = %folder.display(), step = state.step, "resuming");
                    return Ok(Some(candidate));
                }
                Err(error) if is_damage(&error) => self.tell(&candidate.folder, error),
                Err(error) => return Err(error),
            }
        }
        match self.fault {
            None => Ok(None),
            Some(fault) => Err(fault
                .context("no checkpoint of the run is whole: training.resume = false begins anew")),
        }
    }

    fn tell(&mut self, folder: &Path, error: anyhow::Error) {
        let checkpoint = folder.display();
        warn!(%checkpoint, error = %format!("{error:#}"), "damaged: the checkpoint before is used");
        self.fault.get_or_insert(error);
    }
}

impl Candidate {
    /// Restores the learner, and reads what else the checkpoint holds.
    fn restore(&mut self, learner: &mut Learner) -> anyhow::Result<()> {
        restore(learner, &self.folder, self.state)?;
        self.in_flight = checkpoint::further(&self.folder, in_flight::FILE, InFlight::decode)?;
        let rates = checkpoint::further(&self.folder, PASS_RATES_FILE, PassRates::from_json)?;
        self.pass_rates = rates.unwrap_or_default();
        Ok(())
    }
}

fn check_seed(folder: &Path, state: TrainerState, seed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        state.seed == seed,
        "{} was made with seed = {}, the configuration says {seed}: use another run_dir, or \
         training.resume = false",
        folder.display(),
        state.seed
    );
    Ok(())
}

/// Returns `true` if an earlier checkpoint may help.
fn is_damage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CheckpointError>().is_some_and(CheckpointError::is_damage)
}

fn guard_state(folder: &Path, step: u64) -> anyhow::Result<GuardState> {
    let state = checkpoint::further(folder, STATE_FILE, |bytes| serde_json::from_slice(bytes))?;
    Ok(state.unwrap_or_else(|| GuardState::beginning_at(step)))
}

/// Restores weights, optimizers and critic from a checkpoint. The reference stays the model where training began.
///
/// # Errors
/// A checkpoint that is damaged, or of a run with other adapters or without a critic.
fn restore(learner: &mut Learner, folder: &Path, state: TrainerState) -> anyhow::Result<()> {
    checkpoint::restore_policy(folder, &mut learner.model.policy)?;
    checkpoint::restore_moments(folder, state, &mut learner.optimizer)?;
    if let Some(critic) = learner.estimator.critic_mut() {
        let parameters = critic.model.network.trained_mut();
        checkpoint::restore_critic(folder, state, parameters, &mut critic.optimizer)?;
    }
    Ok(())
}

/// Returns the position of `state`, for steps of `per_step` questions.
pub(super) fn position(state: TrainerState, per_step: usize) -> Position {
    let TrainerState { step, questions_drawn, .. } = state;
    let next_question = questions_drawn.unwrap_or(step * per_step as u64);
    Position { step, next_question, unfinished: Vec::new() }
}

/// Returns the state that a checkpoint keeps of a run at `position`. Its next question is the first of the unfinished
/// groups, which are kept in another file: a run that cannot use that file asks again from there.
pub(super) fn state(
    seed: u64,
    per_step: usize,
    position: &Position,
    learner: &Learner,
    kl_weight: &KlWeight,
) -> TrainerState {
    let unfinished = position.unfinished.iter().map(|group| group.position).min();
    let next_question = unfinished.unwrap_or(position.next_question);
    let as_planned = position.step * per_step as u64;
    TrainerState {
        step: position.step,
        updates: learner.optimizer.updates,
        seed,
        questions_drawn: (next_question != as_planned).then_some(next_question),
        critic_updates: learner.estimator.critic().map_or(0, |critic| critic.optimizer.updates),
        kl_coefficient_bits: kl_weight.adapted.map(f64::to_bits),
    }
}

/// Writes a checkpoint.
///
/// # Errors
/// The file system's.
pub(super) fn save(
    folder: &Path,
    form: SaveForm,
    learner: &Learner,
    state: TrainerState,
    inputs: &Inputs,
    files: &StateFiles,
) -> anyhow::Result<()> {
    let critic = learner.estimator.critic();
    let parts = ResumeParts {
        optimizer: &learner.optimizer,
        critic: critic.map(|critic| CriticParts {
            parameters: critic.model.network.trained(),
            optimizer: &critic.optimizer,
        }),
        state,
        inputs,
        files,
    };
    let (policy, place) = (&learner.model.policy, &learner.model.place);
    Ok(checkpoint::save(folder, policy, place, form, Some(parts))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_follows_the_plan_unless_the_state_says_otherwise() {
        let state = TrainerState { step: 3, ..TrainerState::default() };
        assert_eq!(position(state, 4).next_question, 12);
        let drawn = TrainerState { questions_drawn: Some(9), ..state };
        assert_eq!(position(drawn, 4).next_question, 9);
    }
}
