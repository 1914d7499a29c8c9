//! A point of all series: the numbers of one step, each under the name that every tracker shows.

use std::time::SystemTime;

use serde_json::Value;

use crate::eval::EvalResult;
use crate::track::StepMetrics;

/// The numbers of one step, from training or from an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The step, from 1; 0 is an evaluation before the first one.
    pub step: u64,
    /// `true` for an evaluation, which comes after the training point of its step.
    pub is_evaluation: bool,
    pub time: SystemTime,
    /// Names and numbers. Numbers that could not be computed are left out.
    pub values: Vec<(String, f64)>,
}

impl Point {
    /// Makes the point of a training step. Names are the keys of `metrics.jsonl`, with a slash below a group.
    pub fn of_step(metrics: &StepMetrics) -> Self {
        let row = serde_json::to_value(metrics).unwrap_or_default();
        let mut values = Vec::new();
        flatten("train", &row, &mut values);
        values.retain(|(name, _)| name != "train/step");
        Self { step: metrics.step, is_evaluation: false, time: SystemTime::now(), values }
    }

    /// Makes the point of an evaluation after `step` steps.
    pub fn of_evaluation(step: u64, result: &EvalResult) -> Self {
        let figures = [
            ("eval/em", result.em().value()),
            ("eval/sub_em", result.sub_em().value()),
            ("eval/f1", result.f1().value),
            ("eval/searches_per_question", result.searches_per_question()),
            ("eval/answered", result.answered().value()),
        ];
        let values = figures.into_iter().filter(|(_, value)| value.is_finite());
        let values = values.map(|(name, value)| (name.to_owned(), value)).collect();
        Self { step, is_evaluation: true, time: SystemTime::now(), values }
    }

    /// Returns the position in the order in which points are made.
    pub(super) fn position(&self) -> u64 {
        2 * self.step + u64::from(self.is_evaluation)
    }

    /// Returns the milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        unix_ms(self.time)
    }
}

/// Returns the milliseconds from 1970 to `time`.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Collects the numbers of `value`, which is called `name`.
fn flatten(name: &str, value: &Value, into: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => into.extend(number.as_f64().map(|it| (name.to_owned(), it))),
        Value::Object(members) => {
            for (key, member) in members {
                flatten(&format!("{name}/{key}"), member, into);
            }
        }
        // `null` is a number that could not be computed.
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracking::tests::row;

    #[test]
    fn a_point_has_every_number_of_a_row_once() {
        let mut metrics = row(7);
        metrics.kl = f64::NAN;
        let point = Point::of_step(&metrics);
        assert_eq!((point.step, point.position()), (7, 14));
        let value = |name: &str| {
            let found: Vec<f64> =
                point.values.iter().filter(|(it, _)| it == name).map(|(_, value)| *value).collect();
            found
        };
        assert_eq!(value("train/em"), [metrics.em]);
        assert_eq!(value("train/seconds/rollout"), [metrics.seconds.rollout]);
        assert_eq!(value("train/algorithm/uniform_groups"), [0.0]);
        assert!(value("train/kl").is_empty() && value("train/step").is_empty());
    }
}
