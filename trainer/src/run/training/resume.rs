//! From a checkpoint to a run between two steps, and back.

use std::path::{Path, PathBuf};

use tracing::info;

use super::divergence::KlWeight;
use super::questions::Position;
use crate::checkpoint::{self, CriticParts, Inputs, ResumeParts, SaveForm, TrainerState};
use crate::run::curriculum::PassRates;
use crate::run::learner::Learner;

/// File with the running pass rates of a curriculum.
const PASS_RATES_FILE: &str = "pass_rates.json";

/// Finds the newest checkpoint of `run_dir`.
///
/// # Errors
/// A checkpoint that is damaged, or of a run with another seed.
pub(super) fn latest(run_dir: &Path, seed: u64) -> anyhow::Result<Option<(PathBuf, TrainerState)>> {
    let Some((folder, state)) = checkpoint::latest(run_dir)? else { return Ok(None) };
    anyhow::ensure!(
        state.seed == seed,
        "{} was made with seed = {}, the configuration says {seed}: use another run_dir, or \
         training.resume = false",
        folder.display(),
        state.seed
    );
    info!(checkpoint = %folder.display(), step = state.step, "resuming");
    Ok(Some((folder, state)))
}

/// Restores weights, optimizers and critic from a checkpoint. The reference stays the model where training began.
///
/// # Errors
/// A checkpoint that is damaged, or of a run with other adapters or without a critic.
pub(super) fn restore(
    learner: &mut Learner,
    folder: &Path,
    state: TrainerState,
) -> anyhow::Result<()> {
    checkpoint::restore_policy(folder, &mut learner.model.policy)?;
    checkpoint::restore_moments(folder, state, &mut learner.optimizer)?;
    if let Some(critic) = learner.estimator.critic_mut() {
        let parameters = critic.model.network.trained_mut();
        checkpoint::restore_critic(folder, state, parameters, &mut critic.optimizer)?;
    }
    Ok(())
}

/// Returns the pass rates that a checkpoint keeps; none if it has none.
///
/// # Errors
/// A file that is damaged.
pub(super) fn pass_rates(folder: &Path) -> anyhow::Result<PassRates> {
    let rates = checkpoint::further(folder, PASS_RATES_FILE, PassRates::from_json)?;
    Ok(rates.unwrap_or_default())
}

/// Returns the position of `state`, for steps of `per_step` questions.
pub(super) fn position(state: TrainerState, per_step: usize) -> Position {
    let TrainerState { step, questions_drawn, .. } = state;
    let next_question = questions_drawn.unwrap_or(step * per_step as u64);
    Position { step, next_question, unfinished: Vec::new() }
}

/// Returns the state that a checkpoint keeps of a run at `position`. Unfinished groups are not saved: a resumed run
/// asks again from the first of them, so that no question is left out.
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
    pass_rates: Option<&PassRates>,
) -> anyhow::Result<()> {
    let further: Vec<(&str, Vec<u8>)> =
        pass_rates.map(|rates| (PASS_RATES_FILE, rates.to_json())).into_iter().collect();
    let critic = learner.estimator.critic();
    let parts = ResumeParts {
        optimizer: &learner.optimizer,
        critic: critic.map(|critic| CriticParts {
            parameters: critic.model.network.trained(),
            optimizer: &critic.optimizer,
        }),
        state,
        inputs,
        further: &further,
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
