//! Scores of back ends, computed from the measures of single queries, and a table that compares back
//! ends.

use std::fmt::Write;

use serde::ser::{Serialize, SerializeMap, Serializer};
use shared::contract::passage::Passage;

use super::answers::first_with_answer;
use super::judgements::Judgements;
use super::metrics::{ndcg, recall, reciprocal_rank};
use super::queries::EvaluationQuery;

/// The cut-off of nDCG and of the reciprocal rank.
pub const RANK_CUTOFF: usize = 10;

/// The two-sided 95 % quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// A mean over queries.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Score {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % interval, from the standard error and the normal distribution. `None`
    /// for a single query, which has no spread.
    pub half_width_95: Option<f64>,
    /// The number of queries.
    pub queries: usize,
}

impl Score {
    /// Computes the mean of the values of single queries. Returns `None` without values.
    pub fn from_values(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let half_width = || Z_95 * (squares / (count - 1.0) / count).sqrt();
        let half_width_95 = (values.len() > 1).then(half_width);
        Some(Self { mean, half_width_95, queries: values.len() })
    }
}

/// The scores with the names of their measures, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(pub Vec<(String, Score)>);

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, score) in &self.0 {
            map.serialize_entry(name, score)?;
        }
        map.end()
    }
}

/// The measures of single queries for one back end. Scores of judged passages are means over the queries
/// with a relevant passage; scores of answers are means over the queries with answers.
#[derive(Debug)]
pub struct Tally<'a> {
    judgements: &'a Judgements,
    cutoffs: &'a [usize],
    /// The values of single queries, by measure.
    columns: Vec<(String, Vec<f64>)>,
}

impl<'a> Tally<'a> {
    /// Starts without queries. `cutoffs` are those of recall and of answers.
    pub fn new(judgements: &'a Judgements, cutoffs: &'a [usize]) -> Self {
        let names = [format!("nDCG@{RANK_CUTOFF}"), format!("MRR@{RANK_CUTOFF}")];
        let at = |measure: &str| -> Vec<String> {
            cutoffs.iter().map(|cutoff| format!("{measure}@{cutoff}")).collect()
        };
        let names = names.into_iter().chain(at("recall")).chain(at("answer"));
        Self { judgements, cutoffs, columns: names.map(|name| (name, Vec::new())).collect() }
    }

    /// Adds the measures of the passages that were found for a query.
    pub fn add(&mut self, query: &EvaluationQuery, passages: &[Passage]) {
        let cutoffs = self.cutoffs;
        let relevance = self.judgements.queries.get(&query.id);
        if let Some(relevance) = relevance.filter(|relevance| relevance.relevant_count() > 0) {
            let ranking: Vec<&str> = passages.iter().map(|passage| passage.id.as_str()).collect();
            let recalls = cutoffs.iter().map(|&cutoff| recall(&ranking, relevance, cutoff));
            let ndcg = ndcg(&ranking, relevance, RANK_CUTOFF);
            let reciprocal = reciprocal_rank(&ranking, relevance, RANK_CUTOFF);
            self.add_from(0, [ndcg, reciprocal].into_iter().chain(recalls));
        }
        if !query.answers.is_empty() {
            let texts = passages.iter().map(|passage| passage.contents.as_str());
            let first = first_with_answer(texts, &query.answers);
            let is_hit = |cutoff| first.is_some_and(|first| first < cutoff);
            let hits = cutoffs.iter().map(|&cutoff| f64::from(u8::from(is_hit(cutoff))));
            self.add_from(2 + cutoffs.len(), hits);
        }
    }

    /// Adds one value to each measure, beginning with number `first`.
    fn add_from(&mut self, first: usize, values: impl Iterator<Item = f64>) {
        for ((_, column), value) in self.columns.iter_mut().skip(first).zip(values) {
            column.push(value);
        }
    }

    /// Returns the scores of all measures that have values.
    pub fn finish(self) -> Scores {
        let score = |(name, values): (String, Vec<f64>)| Some((name, Score::from_values(&values)?));
        Scores(self.columns.into_iter().filter_map(score).collect())
    }
}

/// The results of one back end.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BackendScores {
    /// The name of the back end in the configuration.
    pub backend: String,
    /// The scores by measure.
    pub scores: Scores,
    /// The time to answer all queries in batches, including reading passages, divided by their number.
    pub ms_per_query: f64,
}

/// Returns a table with a line per measure and a column per back end.
pub fn table(backends: &[BackendScores]) -> String {
    const NAME: usize = 14;
    const COLUMN: usize = 18;
    let mut table = format!("{:<NAME$}", "");
    for backend in backends {
        // Writing to a string cannot fail.
        let _ = write!(table, "{:>COLUMN$}", backend.backend);
    }
    let measures = backends.first().map_or(&[][..], |backend| &backend.scores.0);
    for (row, (name, _)) in measures.iter().enumerate() {
        let _ = write!(table, "\n{name:<NAME$}");
        for backend in backends {
            let cell = backend.scores.0.get(row).map_or_else(String::new, |(_, score)| {
                let spread = score.half_width_95.map(|half| format!(" ± {half:.4}"));
                format!("{:.4}{}", score.mean, spread.unwrap_or_default())
            });
            let _ = write!(table, "{cell:>COLUMN$}");
        }
    }
    let _ = write!(table, "\n{:<NAME$}", "ms per query");
    for backend in backends {
        let _ = write!(table, "{:>COLUMN$.3}", backend.ms_per_query);
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: &str, answers: &[&str], gold_ids: &[&str]) -> EvaluationQuery {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        EvaluationQuery {
            id: id.to_owned(),
            text: String::new(),
            answers: owned(answers),
            gold_ids: owned(gold_ids),
        }
    }

    #[test]
    fn a_score_is_the_mean_over_the_queries_that_can_be_measured() {
        let queries = [
            query("both", &["oslo"], &["p1"]),
            query("gold", &[], &["p1", "p9"]),
            query("answer", &["bergen"], &[]),
            query("neither", &[], &[]),
        ];
        let passages = [Passage::new("p0", "Bergen"), Passage::new("p1", "Oslo")];
        let judgements = Judgements::from_gold_passages(&queries);
        let mut tally = Tally::new(&judgements, &[1, 2]);
        for query in &queries {
            tally.add(query, &passages);
        }
        let scores = tally.finish();
        let mean = |name: &str| {
            let score = scores.0.iter().find(|(measure, _)| measure == name).unwrap().1;
            (format!("{:.4}", score.mean), score.queries)
        };
        // The passage has rank 2: 1 / log2(3). With a second relevant passage that is not found, the
        // ideal is 1 + 1 / log2(3).
        let gain = 1.0 / 3_f64.log2();
        let ndcg = f64::midpoint(gain, gain / (1.0 + gain));
        assert_eq!(mean("nDCG@10"), (format!("{ndcg:.4}"), 2));
        assert_eq!(mean("MRR@10"), ("0.5000".to_owned(), 2));
        assert_eq!(mean("recall@1"), ("0.0000".to_owned(), 2));
        assert_eq!(mean("recall@2"), ("0.7500".to_owned(), 2));
        assert_eq!(mean("answer@1"), ("0.5000".to_owned(), 2));
        assert_eq!(mean("answer@2"), ("1.0000".to_owned(), 2));
    }

    #[test]
    fn the_interval_is_that_of_the_mean() {
        let score = Score::from_values(&[0.0, 1.0, 1.0, 0.0]).unwrap();
        // The four values have a variance of 1/3.
        let expected = Z_95 * (1.0_f64 / 12.0).sqrt();
        assert!((score.half_width_95.unwrap() - expected).abs() < 1e-12, "{score:?}");
        assert!((score.mean - 0.5).abs() < 1e-12 && score.queries == 4);
        assert_eq!(Score::from_values(&[1.0]).unwrap().half_width_95, None);
        assert_eq!(Score::from_values(&[]), None);
    }

    #[test]
    fn the_table_has_a_column_per_back_end() {
        let backend = |name: &str, mean| BackendScores {
            backend: name.to_owned(),
            scores: Scores(vec![(
                "MRR@10".to_owned(),
                Score { mean, half_width_95: Some(0.01), queries: 3 },
            )]),
            ms_per_query: 0.25,
        };
        let text = table(&[backend("bm25", 0.5), backend("dense", 0.75)]);
        let expected = "                            bm25             dense\n\
                        MRR@10           0.5000 ± 0.0100   0.7500 ± 0.0100\n\
                        ms per query               0.250             0.250\n";
        assert_eq!(text, expected);
    }
}
