//! Conflicts between what a run keeps and what it does.

use super::super::choice::GuardAction;
use super::super::sections::Config;
use super::{KeyConflict, conflict};

/// Returns all conflicts between settings of checkpoints and of the guard, and the rest.
pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let mut conflicts = Vec::new();
    let checkpoint = &config.checkpoint;
    if checkpoint.keep_best > 0 {
        let reason = if checkpoint.keep_last == 0 {
            Some("chooses among checkpoints, and `checkpoint.keep_last` = 0 keeps all")
        } else if config.training.eval_every_steps == 0 {
            Some("needs evaluations, and `training.eval_every_steps` = 0 makes none")
        } else {
            None
        };
        if let Some(reason) = reason {
            let (value, reason) = (&checkpoint.keep_best, reason.to_owned());
            let nearest = Some("0".to_owned());
            conflicts.push(conflict("checkpoint.keep_best", value, reason, nearest));
        }
    }
    let guard = &config.guard;
    if guard.action != GuardAction::RollBack {
        return conflicts;
    }
    if guard.kl_factor > 1.0 && config.training.kl_coefficient <= 0.0 {
        conflicts.push(conflict(
            "guard.kl_factor",
            &guard.kl_factor,
            "multiplies `training.kl_coefficient` = 0".to_owned(),
            Some("1.0".to_owned()),
        ));
    }
    if guard.kl_factor <= 1.0 && guard.learning_rate_factor >= 1.0 {
        conflicts.push(conflict(
            "guard.learning_rate_factor",
            &guard.learning_rate_factor,
            "repeats the same collapse: the run returns with neither a lower rate nor a higher `guard.kl_factor`"
                .to_owned(),
            Some("0.5".to_owned()),
        ));
    }
    conflicts
}
