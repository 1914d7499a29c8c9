//! Evaluations of several sets: one row for each set, method and turn limit, and averages over the sets.

use serde::{Deserialize, Serialize};

use super::result::EvalResult;
use super::sets::{Coverage, coverage};
use super::statistics::{Interval, Mean, Proportion};
use super::table::aligned;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub value: f64,
    pub interval: Interval,
}

impl From<Proportion> for Figure {
    fn from(share: Proportion) -> Self {
        Self { value: share.value(), interval: share.interval() }
    }
}

impl From<Mean> for Figure {
    fn from(mean: Mean) -> Self {
        Self { value: mean.value, interval: mean.interval() }
    }
}

/// One set, asked by one method with one turn limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteRow {
    /// The name of the model with its method.
    pub entry: String,
    pub set: String,
    /// Turns that may search, at most; 0 for methods that do not.
    pub max_turns: usize,
    pub questions: usize,
    /// Number of questions of the published set with this name, if they are more.
    pub published_questions: Option<usize>,
    /// Exact match, with Wilson's interval.
    pub em: Figure,
    /// The answer contains a golden answer; with Wilson's interval.
    pub sub_em: Figure,
    /// Mean F1, with the interval of the normal approximation.
    pub f1: Figure,
    /// Mean number of searches for each question.
    pub searches: f64,
    /// Share of questions with a golden answer in a passage that the model saw.
    pub answer_in_passages: Figure,
    /// Share of episodes that ended with an answer.
    pub finished: Figure,
    /// Share of questions with a golden answer in the corpus, if an audit was given.
    pub ceiling: Option<Figure>,
    pub seconds: f64,
}

/// The averages of one method with one turn limit over all sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteAverage {
    pub entry: String,
    pub max_turns: usize,
    pub sets: usize,
    pub questions: usize,
    pub macro_average: Averages,
    pub micro_average: Averages,
}

/// Averages of exact match, containment and F1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    pub em: Figure,
    pub sub_em: Figure,
    pub f1: Figure,
}

/// The summary of an evaluation of several sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    pub name: String,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    pub rows: Vec<SuiteRow>,
    pub averages: Vec<SuiteAverage>,
}

impl SuiteRow {
    /// Summarises the evaluation of one set.
    pub fn of(result: &EvalResult) -> Self {
        let set = result.set.clone().unwrap_or_else(|| result.name.clone());
        let published_questions = match coverage(&set, result.questions) {
            Ok(Coverage::Part(published)) => Some(published.questions),
            _ => None,
        };
        Self {
            entry: result.name.clone(),
            set,
            max_turns: result.max_turns.unwrap_or(0),
            questions: result.questions,
            published_questions,
            em: result.em().into(),
            sub_em: result.sub_em().into(),
            f1: result.f1().into(),
            searches: result.searches_per_question(),
            answer_in_passages: result.answer_in_passages().into(),
            finished: result.finished().into(),
            ceiling: result.ceiling.as_ref().map(|ceiling| ceiling.share().into()),
            seconds: result.seconds,
        }
    }
}

impl Suite {
    /// Summarises evaluations, which stay in their order.
    pub fn of(name: &str, temperature: f64, results: &[EvalResult]) -> Self {
        let mut groups: Vec<(String, usize, Vec<&EvalResult>)> = Vec::new();
        for result in results {
            let turns = result.max_turns.unwrap_or(0);
            match groups.iter_mut().find(|(name, limit, _)| *name == result.name && *limit == turns)
            {
                Some((_, _, group)) => group.push(result),
                None => groups.push((result.name.clone(), turns, vec![result])),
            }
        }
        let averages = groups.into_iter().map(|(entry, max_turns, group)| SuiteAverage {
            entry,
            max_turns,
            sets: group.len(),
            questions: group.iter().map(|result| result.rows.len()).sum(),
            macro_average: macro_averages(&group),
            micro_average: micro_averages(&group),
        });
        Self {
            name: name.to_owned(),
            temperature,
            averages: averages.collect(),
            rows: results.iter().map(SuiteRow::of).collect(),
        }
    }

    /// Returns the rows and the averages as two tables.
    pub fn to_text(&self) -> String {
        let mut rows = vec![words(&[
            "model",
            "set",
            "turns",
            "questions",
            "EM",
            "95 % interval",
            "sub-EM",
            "F1",
            "ceiling",
            "searches",
            "in passages",
            "finished",
        ])];
        rows.extend(self.rows.iter().map(SuiteRow::cells));
        let mut averages = vec![words(&[
            "model",
            "turns",
            "sets",
            "questions",
            "macro EM",
            "95 % interval",
            "macro sub-EM",
            "macro F1",
            "micro EM",
            "95 % interval",
            "micro F1",
        ])];
        averages.extend(self.averages.iter().map(SuiteAverage::cells));
        let mut text = format!("{}\n{}", aligned(&rows, 2), aligned(&averages, 1));
        for row in &self.rows {
            if let Some(note) = row.note() {
                text.push_str(&note);
                text.push('\n');
            }
        }
        text
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl SuiteRow {
    /// Returns the cells of the table, in the order of its columns.
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.entry.clone(),
            self.set.clone(),
            self.max_turns.to_string(),
            self.questions.to_string(),
            share(self.em),
            between(self.em.interval),
            share(self.sub_em),
            share(self.f1),
            self.ceiling.map_or_else(|| "–".to_owned(), share),
            format!("{:.2}", self.searches),
            share(self.answer_in_passages),
            share(self.finished),
        ]
    }

    /// Says that the set is a part of the published one.
    pub fn note(&self) -> Option<String> {
        let published = self.published_questions?;
        Some(format!(
            "{}: {} of the {published} questions that results are published for",
            self.set, self.questions
        ))
    }
}

impl SuiteAverage {
    /// Returns the cells of the table, in the order of its columns.
    pub fn cells(&self) -> Vec<String> {
        let (per_set, pooled) = (self.macro_average, self.micro_average);
        vec![
            self.entry.clone(),
            self.max_turns.to_string(),
            self.sets.to_string(),
            self.questions.to_string(),
            share(per_set.em),
            between(per_set.em.interval),
            share(per_set.sub_em),
            share(per_set.f1),
            share(pooled.em),
            between(pooled.em.interval),
            share(pooled.f1),
        ]
    }
}

fn share(figure: Figure) -> String {
    format!("{:.3}", figure.value)
}

fn between(interval: Interval) -> String {
    format!("{:.3} to {:.3}", interval.low, interval.high)
}

/// Returns the means of the sets' figures. Their interval is that of a sum of independent means.
fn macro_averages(group: &[&EvalResult]) -> Averages {
    let average = |measure: &dyn Fn(&EvalResult) -> Mean| -> Figure {
        let means: Vec<Mean> = group.iter().map(|result| measure(result)).collect();
        let count = means.len() as f64;
        let variance: f64 =
            means.iter().map(|mean| mean.standard_error * mean.standard_error).sum();
        let value = means.iter().map(|mean| mean.value).sum::<f64>() / count;
        Mean { value, standard_error: variance.sqrt() / count }.into()
    };
    let of_outcomes = |outcome: fn(&super::EvalRow) -> bool| {
        average(&move |result| {
            let outcomes = result.rows.iter().map(|row| f64::from(u8::from(outcome(row))));
            Mean::from_values(&outcomes.collect::<Vec<_>>())
        })
    };
    Averages {
        em: of_outcomes(|row| row.em),
        sub_em: of_outcomes(|row| row.sub_em),
        f1: average(&EvalResult::f1),
    }
}

/// Returns the figures of all questions together.
fn micro_averages(group: &[&EvalResult]) -> Averages {
    let rows = || group.iter().flat_map(|result| &result.rows);
    Averages {
        em: Proportion::from_outcomes(rows().map(|row| row.em)).into(),
        sub_em: Proportion::from_outcomes(rows().map(|row| row.sub_em)).into(),
        f1: Mean::from_values(&rows().map(|row| row.f1).collect::<Vec<_>>()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::result;
    use super::*;

    fn of_set(name: &str, set: &str, turns: usize, right: usize, total: usize) -> EvalResult {
        let (set, max_turns) = (Some(set.to_owned()), Some(turns));
        EvalResult { set, max_turns, ..result(name, right, total) }
    }

    #[track_caller]
    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-12, "{actual} is not {expected}");
    }

    #[test]
    fn averages_are_those_of_the_rows() {
        let results = [
            of_set("grpo", "nq", 4, 10, 100),
            of_set("grpo", "bamboogle", 4, 50, 125),
            of_set("grpo", "nq", 1, 5, 100),
            of_set("direct", "nq", 0, 1, 100),
        ];
        let suite = Suite::of("test", 0.0, &results);
        let named: Vec<(&str, usize, usize)> = suite
            .averages
            .iter()
            .map(|average| (average.entry.as_str(), average.max_turns, average.sets))
            .collect();
        assert_eq!(named, [("grpo", 4, 2), ("grpo", 1, 1), ("direct", 0, 1)]);
        let SuiteAverage { macro_average, micro_average, questions, .. } = &suite.averages[0];
        assert_eq!(*questions, 225);
        close(macro_average.em.value, 0.25);
        close(micro_average.em.value, 60.0 / 225.0);
        close(macro_average.f1.value, 0.25);
        // Two sets: the variance of the mean is a quarter of the sum of the variances, unbiased.
        let variance = 0.1 * 0.9 / 99.0 + 0.4 * 0.6 / 124.0;
        let half = 1.959_963_984_540_054 * f64::sqrt(variance) / 2.0;
        assert!((macro_average.em.interval.high - 0.25 - half).abs() < 1e-9);
        assert_eq!(micro_average.em.interval, Proportion { successes: 60, total: 225 }.interval());
    }

    #[test]
    fn tables_state_turns_and_parts_of_published_sets() {
        let results = [of_set("grpo", "nq", 4, 10, 100), of_set("grpo", "bamboogle", 4, 50, 125)];
        let suite = Suite::of("test", 0.0, &results);
        let text = suite.to_text();
        let row = "grpo   nq             4        100  0.100  0.055 to 0.174   0.100  0.100        –      1.50";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("nq: 100 of the 3610 questions"), "{text}");
        assert!(!text.contains("bamboogle: "), "{text}");
        let json = serde_json::to_string(&suite).unwrap();
        let read: Suite = serde_json::from_str(&json).unwrap();
        assert_eq!((read.rows.len(), read.rows[1].set.as_str()), (2, "bamboogle"));
        close(read.averages[0].macro_average.em.value, 0.25);
    }
}
