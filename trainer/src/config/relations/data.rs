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
    conflicts
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    #[track_caller]
    fn refused(settings: &[&str], parts: &[&str]) {
        let settings: Vec<String> =
            settings.iter().map(|setting| (*setting).to_owned()).collect();
        let error = Config::load(None, &Environment::new(), &settings).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn questions_are_left_out_of_what_there_is() {
        refused(&["data.leave_out_test=true"], &["data.leave_out_test", "needs `data.test`"]);
    }
}
