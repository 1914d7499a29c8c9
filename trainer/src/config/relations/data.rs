//! Checks of the keys for questions.

use super::{KeyConflict, conflict};
use crate::config::Config;

pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let data = &config.data;
    let mut conflicts = Vec::new();
    if data.leave_out_test && data.test.as_os_str().is_empty() {
        let reason = "needs `data.test`, whose questions are left out".to_owned();
        conflicts.push(conflict("data.leave_out_test", &true, reason, Some("false".to_owned())));
    }
    if data.curriculum && data.curriculum_hard >= data.curriculum_easy {
        let reason =
            format!("leaves no pass rate below `data.curriculum_easy` = {}", data.curriculum_easy);
        let nearest = Some("0.0".to_owned());
        conflicts.push(conflict("data.curriculum_hard", &data.curriculum_hard, reason, nearest));
    }
    let rollout = &config.rollout;
    for (key, value) in [
        ("rollout.max_staleness", rollout.max_staleness),
        ("rollout.carried_groups", rollout.carried_groups as u64),
    ] {
        if data.curriculum && value > 0 {
            let reason = format!(
                "needs the pass rates of all earlier steps, which `{key}` = {value} does not wait for"
            );
            conflicts.push(conflict("data.curriculum", &true, reason, Some("false".to_owned())));
        }
    }
    conflicts
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    #[track_caller]
    fn refused(settings: &[&str], parts: &[&str]) {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let error = Config::load(None, &Environment::new(), &settings).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn questions_are_left_out_of_what_there_is() {
        refused(&["data.leave_out_test=true"], &["data.leave_out_test", "needs `data.test`"]);
    }

    #[test]
    fn a_curriculum_knows_what_came_before() {
        let on = "data.curriculum=true";
        refused(
            &[on, "rollout.max_staleness=1"],
            &["data.curriculum", "`rollout.max_staleness` = 1"],
        );
        refused(&[on, "rollout.carried_groups=2"], &["`rollout.carried_groups` = 2"]);
        refused(
            &[on, "data.curriculum_hard=1.0"],
            &["data.curriculum_hard", "leaves no pass rate"],
        );
    }
}
