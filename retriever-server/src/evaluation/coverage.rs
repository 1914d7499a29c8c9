//! Counts of the queries and judgements that an evaluation uses, and of those that it cannot use.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::judgements::{Judgements, Relevance};
use super::queries::EvaluationQuery;

/// The counts of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// The number of queries.
    pub queries: usize,
    /// The number of queries with a relevant passage.
    pub queries_with_relevant_passages: usize,
    /// The number of queries with answers.
    pub queries_with_answers: usize,
    /// The number of judged queries that are not in the query file.
    pub judged_queries_not_asked: usize,
    /// The number of passages that are judged for one of the queries.
    pub judged_passages: usize,
    /// The number of these passages that are not in the index. Relevant ones lower recall and nDCG,
    /// because no search can find them.
    pub judged_passages_not_in_index: usize,
}

impl Coverage {
    /// Counts. `is_missing` returns `true` for a judged passage that is not in the index.
    pub fn new(
        queries: &[EvaluationQuery],
        judgements: &Judgements,
        is_missing: impl Fn(&str) -> bool,
    ) -> Self {
        let ids: BTreeSet<&str> = queries.iter().map(|query| query.id.as_str()).collect();
        let judged = judged_passages(queries, judgements);
        let relevant = |query: &&EvaluationQuery| {
            judgements.queries.get(&query.id).is_some_and(|judged| judged.relevant_count() > 0)
        };
        let not_asked = judgements.queries.keys().filter(|id| !ids.contains(id.as_str()));
        let has_answers = |query: &&EvaluationQuery| !query.answers.is_empty();
        Self {
            queries: queries.len(),
            queries_with_relevant_passages: queries.iter().filter(relevant).count(),
            queries_with_answers: queries.iter().filter(has_answers).count(),
            judged_queries_not_asked: not_asked.count(),
            judged_passages: judged.len(),
            judged_passages_not_in_index: judged.iter().filter(|id| is_missing(id)).count(),
        }
    }
}

/// Returns the passages that are judged for one of the queries.
pub fn judged_passages<'a>(
    queries: &[EvaluationQuery],
    judgements: &'a Judgements,
) -> BTreeSet<&'a str> {
    let judged = queries.iter().filter_map(|query| judgements.queries.get(&query.id));
    judged.flat_map(Relevance::passages).collect()
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queries, queries_with_relevant_passages, queries_with_answers, .. } = self;
        writeln!(
            formatter,
            "{queries} queries, {queries_with_relevant_passages} with relevant passages, \
             {queries_with_answers} with answers"
        )?;
        if self.judged_queries_not_asked > 0 {
            let count = self.judged_queries_not_asked;
            writeln!(formatter, "judged queries that are not in the query file, ignored: {count}")?;
        }
        if self.judged_passages_not_in_index > 0 {
            let (missing, judged) = (self.judged_passages_not_in_index, self.judged_passages);
            writeln!(
                formatter,
                "judged passages that are not in the index: {missing} of {judged}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_judgements_are_counted() {
        let query = |id: &str, answers: usize| EvaluationQuery {
            id: id.to_owned(),
            text: "text".to_owned(),
            answers: vec!["answer".to_owned(); answers],
            gold_ids: Vec::new(),
        };
        let grades = |grades: &[(&str, i32)]| {
            Relevance::new(grades.iter().map(|&(id, grade)| (id.to_owned(), grade)))
        };
        let queries = [query("1", 1), query("2", 0), query("3", 0)];
        let judgements = Judgements {
            queries: [
                ("1", grades(&[("a", 1), ("gone", 2)])),
                ("2", grades(&[("a", 0)])),
                ("other", grades(&[("x", 1)])),
            ]
            .into_iter()
            .map(|(id, judged)| (id.to_owned(), judged))
            .collect(),
        };
        let coverage = Coverage::new(&queries, &judgements, |id| id == "gone" || id == "x");
        let expected = Coverage {
            queries: 3,
            queries_with_relevant_passages: 1,
            queries_with_answers: 1,
            judged_queries_not_asked: 1,
            judged_passages: 2,
            judged_passages_not_in_index: 1,
        };
        assert_eq!(coverage, expected);
        let text = coverage.to_string();
        for line in [
            "3 queries, 1 with relevant passages, 1 with answers\n",
            "judged queries that are not in the query file, ignored: 1\n",
            "judged passages that are not in the index: 1 of 2\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
