//! The guard against collapse: judges the figures of each step, and decides when a run returns to its last healthy
//! checkpoint. A state machine without input or output; `journal` keeps what it decided.
//!
//! Invariant: a decision depends only on the figures of the steps, so a run that was killed and resumes decides the same.
//! Invariant: a checkpoint is healthy only after a step that was played with its weights raised no alarm. The figures of
//! its own step are those of the weights before.

mod journal;
mod vitals;

pub(crate) use journal::{Journal, Rollback};
pub(crate) use vitals::{Alarm, Limits, Vitals};

use serde::{Deserialize, Serialize};

use self::vitals::Baseline;
use crate::config::GuardAction;

/// Name of the file in the folder of a checkpoint's state.
pub(super) const STATE_FILE: &str = "guard.json";

/// The settings of the guard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuardSettings {
    pub(crate) action: GuardAction,
    /// Steps with an alarm, one after the other, that make a collapse.
    pub(crate) patience_steps: u64,
    /// Healthy steps whose mean is what later steps are compared with.
    pub(crate) baseline_steps: u64,
    pub(crate) limits: Limits,
    /// Steps between an update and the first rollout that shows it, in addition to one.
    pub(crate) delay_steps: u64,
    pub(crate) learning_rate_factor: f64,
    pub(crate) kl_factor: f64,
    pub(crate) max_rollbacks: u64,
    /// Steps of the whole run.
    pub(crate) steps: u64,
}

/// The state of the guard between two steps, which a checkpoint keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardState {
    /// The step of the last healthy checkpoint; 0 is the model that the run began with.
    pub(crate) healthy: u64,
    /// Steps of later checkpoints, whose weights have not been judged yet.
    pub(crate) unjudged: Vec<u64>,
    /// Steps with an alarm since the last one without.
    alarmed_steps: u64,
    baseline: Baseline,
    /// Rollbacks of the run until then.
    pub(crate) rollbacks: u64,
}

/// The judgement of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) alarms: Vec<Alarm>,
    /// The run is to return to its last healthy checkpoint.
    pub(crate) is_collapse: bool,
}

impl GuardState {
    /// Returns the state of a guard that begins at a checkpoint, which counts as healthy.
    pub(crate) fn beginning_at(step: u64) -> Self {
        Self { healthy: step, ..Self::default() }
    }

    /// Judges `step`, which counts from 1, by its figures.
    pub(crate) fn observe(
        &mut self,
        settings: &GuardSettings,
        step: u64,
        vitals: &Vitals,
    ) -> Verdict {
        if settings.action == GuardAction::Off {
            return Verdict { alarms: Vec::new(), is_collapse: false };
        }
        let is_known = self.baseline.steps() >= settings.baseline_steps;
        let alarms = settings.limits.alarms(vitals, is_known.then_some(&self.baseline));
        if alarms.is_empty() {
            self.alarmed_steps = 0;
            if !is_known {
                self.baseline.add(vitals);
            }
            let is_shown = |saved: &u64| saved + 1 + settings.delay_steps <= step;
            let shown = self.unjudged.iter().copied().filter(is_shown).max();
            self.healthy = self.healthy.max(shown.unwrap_or(0));
            self.unjudged.retain(|saved| !is_shown(saved));
        } else {
            self.alarmed_steps += 1;
        }
        // Nothing comes after the last step that could show whether an alarm lasts.
        let patience = if step >= settings.steps { 1 } else { settings.patience_steps };
        let is_collapse =
            settings.action == GuardAction::RollBack && self.alarmed_steps >= patience;
        Verdict { alarms, is_collapse }
    }

    /// Notes that the weights after `step` are saved.
    pub(crate) fn note_saved(&mut self, step: u64) {
        if step > self.healthy && !self.unjudged.contains(&step) {
            self.unjudged.push(step);
        }
    }

    /// Returns the steps of the checkpoints that the run may return to.
    pub(crate) fn pinned(&self) -> Vec<u64> {
        [&[self.healthy], &self.unjudged[..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> GuardSettings {
        GuardSettings {
            action: GuardAction::RollBack,
            patience_steps: 2,
            baseline_steps: 2,
            limits: Limits { max_kl: 1.0, ..Limits::default() },
            delay_steps: 0,
            learning_rate_factor: 0.5,
            kl_factor: 1.0,
            max_rollbacks: 3,
            steps: 100,
        }
    }

    fn kl(kl: f64) -> Vitals {
        Vitals { kl, ..Vitals::default() }
    }

    #[test]
    fn a_collapse_takes_as_many_alarms_as_the_patience_has_steps() {
        let (settings, mut guard) = (settings(), GuardState::default());
        let collapses: Vec<bool> = [0.1, 2.0, 0.1, 2.0, 2.0]
            .into_iter()
            .zip(1..)
            .map(|(value, step)| guard.observe(&settings, step, &kl(value)).is_collapse)
            .collect();
        assert_eq!(collapses, [false, false, false, false, true]);
        let mut last = GuardState::default();
        assert!(last.observe(&settings, 100, &kl(2.0)).is_collapse, "no step follows the last one");
    }

    #[test]
    fn only_warning_and_being_off_never_return() {
        for (action, alarms) in [(GuardAction::Warn, 1), (GuardAction::Off, 0)] {
            let (settings, mut guard) =
                (GuardSettings { action, ..settings() }, GuardState::default());
            for step in 1..9 {
                let verdict = guard.observe(&settings, step, &kl(2.0));
                assert_eq!((verdict.alarms.len(), verdict.is_collapse), (alarms, false));
            }
        }
    }

    #[test]
    fn a_checkpoint_is_healthy_when_a_step_with_its_weights_was() {
        let (mut settings, mut guard) = (settings(), GuardState::default());
        guard.observe(&settings, 1, &kl(0.1));
        guard.note_saved(1);
        assert_eq!(guard.healthy, 0, "step 1 was played with the weights of the beginning");
        guard.observe(&settings, 2, &kl(2.0));
        guard.note_saved(2);
        assert_eq!(guard.pinned(), [0, 1, 2]);
        guard.observe(&settings, 3, &kl(0.1));
        assert_eq!(guard.healthy, 2, "an alarm that does not last is none");
        assert_eq!(guard.pinned(), [2]);
        // Rollouts that run ahead show weights later.
        settings.delay_steps = 2;
        guard.note_saved(3);
        guard.observe(&settings, 5, &kl(0.1));
        assert_eq!(guard.healthy, 2);
        guard.observe(&settings, 6, &kl(0.1));
        assert_eq!(guard.healthy, 3);
    }

    #[test]
    fn the_state_reads_back_to_the_same_bits() {
        let (settings, mut guard) = (settings(), GuardState::default());
        let entropy = 2.430_220_902_488_943_3e-8;
        guard.observe(&settings, 1, &Vitals { entropy, ..kl(0.1) });
        guard.note_saved(1);
        let text = serde_json::to_vec(&guard).unwrap();
        assert_eq!(serde_json::from_slice::<GuardState>(&text).unwrap(), guard);
    }
}
