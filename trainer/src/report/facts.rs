//! Models, data, times and configuration of a run.

use std::fmt::Write as _;

use serde_json::Value;

use super::markup::{duration, escape};
use super::{RunRecord, guard};
use crate::track::StepMetrics;

/// Parses a JSON object into dotted names and plain values, in the parser's order.
pub(super) fn flattened(text: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    let mut facts = Vec::new();
    flatten_into(&mut facts, "", &serde_json::from_str(text)?);
    Ok(facts)
}

fn flatten_into(facts: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                flatten_into(facts, &join(key), value);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            facts.push((name.to_owned(), items.join(", ")));
        }
        scalar => facts.push((name.to_owned(), plain(scalar))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the last section: models, data, times, configuration.
pub(super) fn section(record: &RunRecord) -> String {
    let mut html = String::from("<section><h2>The run</h2><div class=columns>");
    let mut facts: Vec<(String, String)> = Vec::new();
    for (_, result) in &record.evaluations {
        facts.push((format!("Model “{}”", result.name), result.model.clone()));
    }
    facts.extend(record.facts.iter().cloned());
    if let Some(peak) = record.metrics.iter().map(|row| row.peak_memory_mib).max() {
        facts.push(("Peak memory in training".to_owned(), format!("{peak} MiB")));
    }
    if !facts.is_empty() {
        let _ = write!(html, "<div><h3>Models and data</h3>{}</div>", table(&facts));
    }
    let phases: Vec<(String, String)> =
        record.phases.iter().map(|phase| (phase.name.clone(), duration(phase.seconds))).collect();
    if !phases.is_empty() {
        let total: f64 = record.phases.iter().map(|phase| phase.seconds).sum();
        let total = [("Total".to_owned(), duration(total))];
        let rows = [&phases[..], &total].concat();
        let _ = write!(html, "<div><h3>Time of each command</h3>{}</div>", table(&rows));
    }
    let steps = step_times(&record.metrics);
    if !steps.is_empty() {
        let _ = write!(html, "<div><h3>Time of the training steps</h3>{}</div>", table(&steps));
    }
    for (title, rows) in [
        ("Returns of the guard", record.returns.clone()),
        ("Alarms of the guard", guard::alarms(&record.metrics)),
    ] {
        if !rows.is_empty() {
            let _ = write!(html, "<div><h3>{title}</h3>{}</div>", table(&rows));
        }
    }
    html.push_str("</div>");
    if let Some(config) = &record.config {
        let _ = write!(
            html,
            "<details><summary>Resolved configuration</summary><pre>{}</pre></details>",
            escape(config)
        );
    }
    html.push_str("</section>");
    html
}

fn table(rows: &[(String, String)]) -> String {
    let mut html = String::from("<table class=facts>");
    for (name, value) in rows {
        let (name, value) = (escape(name), escape(value));
        let _ = write!(html, "<tr><th scope=row>{name}</th><td>{value}</td></tr>");
    }
    html.push_str("</table>");
    html
}

fn step_times(metrics: &[StepMetrics]) -> Vec<(String, String)> {
    let sum = |part: fn(&StepMetrics) -> f64| metrics.iter().map(part).sum::<f64>();
    let total = sum(|row| row.seconds.total);
    if total <= 0.0 {
        return Vec::new();
    }
    let rollout = sum(|row| row.seconds.rollout);
    let search = sum(|row| row.seconds.search);
    let generation = sum(|row| row.seconds.generation);
    let log_probs = sum(|row| row.seconds.log_probs);
    let update = sum(|row| row.seconds.update);
    let other = (total - rollout - log_probs - update).max(0.0);
    let shown = |name: &str, seconds: f64| {
        (name.to_owned(), format!("{} ({:.0} %)", duration(seconds), 100.0 * seconds / total))
    };
    vec![
        shown("Rollout", rollout),
        shown("Rollout: generating", generation),
        shown("Rollout: waiting for passages", search),
        shown("Log-probs", log_probs),
        shown("Update", update),
        shown("Other", other),
        shown("All steps", total),
    ]
}
