//! What the guard against collapse saw and did.

use std::path::Path;

use serde_json::Value;

use super::{ReportError, read_if_present};
use crate::track::StepMetrics;

/// Longest list of alarms to show.
const ALARMS_MAX: usize = 20;

/// Reads the returns of a run from its `guard.json`.
///
/// # Errors
/// A file that cannot be read or is no JSON.
pub(super) fn returns(run_dir: &Path) -> Result<Vec<(String, String)>, ReportError> {
    let path = run_dir.join("guard.json");
    let Some(text) = read_if_present(&path)? else { return Ok(Vec::new()) };
    let journal: Value =
        serde_json::from_str(&text).map_err(|source| ReportError::Manifest { path, source })?;
    let returns = journal["rollbacks"].as_array().cloned().unwrap_or_default();
    Ok(returns.iter().map(in_words).collect())
}

fn in_words(entry: &Value) -> (String, String) {
    let alarms = entry["alarms"].as_array().into_iter().flatten();
    let alarms = alarms.map(|alarm| {
        let figure = alarm["figure"].as_str().unwrap_or_default();
        format!("{figure} {}, limit {}", alarm["value"], alarm["limit"])
    });
    let refused = entry["refused"].as_str().map(str::to_owned);
    let reason = alarms.chain(refused).collect::<Vec<_>>().join("; ");
    let name = format!("After step {} back to step {}", entry["step"], entry["to_step"]);
    let (rate, kl) = (&entry["learning_rate_scale"], &entry["kl_scale"]);
    (
        name,
        format!("{reason}. From then on learning rate × {rate}, weight of the divergence × {kl}"),
    )
}

/// Returns the steps with alarms, and the alarms.
pub(super) fn alarms(metrics: &[StepMetrics]) -> Vec<(String, String)> {
    let alarmed = metrics.iter().filter(|row| !row.guard.alarms.is_empty());
    let rows = alarmed.map(|row| (format!("Step {}", row.step), row.guard.alarms.join("; ")));
    rows.take(ALARMS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_are_told_with_their_reasons() {
        let run = tempfile::tempdir().unwrap();
        assert!(returns(run.path()).unwrap().is_empty());
        let text = r#"{"rollbacks": [{"step": 9, "to_step": 4, "alarms": [{"figure": "kl",
            "value": 2.5, "limit": 2.0}], "refused": null, "learning_rate_scale": 0.5,
            "kl_scale": 1.0}]}"#;
        std::fs::write(run.path().join("guard.json"), text).unwrap();
        let told = returns(run.path()).unwrap();
        assert_eq!(told[0].0, "After step 9 back to step 4");
        assert!(told[0].1.starts_with("kl 2.5, limit 2.0. From then on learning rate × 0.5"));
        std::fs::write(run.path().join("guard.json"), "{").unwrap();
        assert!(returns(run.path()).unwrap_err().to_string().contains("guard.json"));
    }
}
