//! Checks of rewards.

use super::{Config, KeyConflict, conflict, has_http_scheme, quoted};

/// Returns the conflicts between keys of rewards.
pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let mut conflicts = Vec::new();
    let reward = &config.reward;
    let abstains = !reward.abstentions.trim().is_empty();
    if abstains && reward.abstention_score <= reward.wrong_answer_score {
        let reason = format!(
            "is not above `reward.wrong_answer_score` = {:?}, so that guessing is never worse than abstaining",
            reward.wrong_answer_score
        );
        conflicts.push(conflict("reward.abstention_score", &reward.abstention_score, reason, None));
    }
    for (key, url) in
        [("reward_http.url", &config.reward_http.url), ("judge.url", &config.judge.url)]
    {
        if !url.is_empty() && !has_http_scheme(url) {
            let reason = "does not begin with http:// or https://".to_owned();
            conflicts.push(conflict(
                key,
                &quoted(url),
                reason,
                Some(quoted(&format!("http://{url}"))),
            ));
        }
    }
    if !config.judge.url.is_empty() && config.judge.model.is_empty() {
        let reason = "names no model, and `judge.url` is set".to_owned();
        conflicts.push(conflict("judge.model", &quoted(""), reason, None));
    }
    conflicts
}
