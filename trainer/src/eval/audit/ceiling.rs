//! The ceiling of exact match that follows from an audit, for all questions of a set or for those that an evaluation
//! asked.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::statistics::Proportion;
use super::file::{AnswerClass, Audit, AuditError, AuditRow, AuditedSet};

/// Numbers of passages for which the ceiling of a single search is stated.
const CUTOFFS: [usize; 7] = [1, 3, 5, 10, 20, 50, 100];

/// The most that exact match can reach by answers that stand in the corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Number of questions.
    pub questions: usize,
    /// Questions with an accepted answer in the corpus.
    pub in_corpus: usize,
    /// Questions of [`AnswerClass::Beyond`].
    pub beyond: usize,
    /// Number of passages that each retriever was asked for.
    pub depth: usize,
    pub retrievers: Vec<RetrieverCeiling>,
}

/// The most that exact match can reach by what one search for the question itself returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieverCeiling {
    pub name: String,
    /// Numbers of passages, each with the number of questions that have an answer among so many.
    pub within: Vec<(usize, usize)>,
    /// Questions with an answer in a passage of this retriever and nowhere in the corpus: it serves another corpus.
    pub not_in_corpus: usize,
}

impl Ceiling {
    /// Returns the ceiling of one audited set.
    pub fn of_set(audit: &Audit, set: &AuditedSet) -> Self {
        Self::of_rows(audit, &set.rows.iter().collect::<Vec<_>>())
    }

    /// Returns the ceiling of the questions with these ids and texts, wherever the audit has them.
    ///
    /// # Errors
    /// [`AuditError::OtherQuestions`] if a question has no row.
    pub fn of_questions<'q>(
        audit: &Audit,
        asked: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Result<Self, AuditError> {
        let rows: HashMap<(&str, &str), &AuditRow> = audit
            .sets
            .iter()
            .flat_map(|set| &set.rows)
            .map(|row| ((row.id.as_str(), row.question.as_str()), row))
            .collect();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (id, question) in asked {
            match rows.get(&(id, question)) {
                Some(row) => found.push(*row),
                None => missing.push(id),
            }
        }
        match missing.first() {
            None => Ok(Self::of_rows(audit, &found)),
            Some(id) => Err(AuditError::OtherQuestions {
                missing: missing.len(),
                asked: missing.len() + found.len(),
                id: (*id).to_owned(),
            }),
        }
    }

    fn of_rows(audit: &Audit, rows: &[&AuditRow]) -> Self {
        let count =
            |holds: &dyn Fn(&AuditRow) -> bool| rows.iter().filter(|row| holds(row)).count();
        let retrievers = audit.retrievers.iter().enumerate().map(|(index, retriever)| {
            let rank = |row: &AuditRow| row.ranks.get(index).copied().flatten();
            let cutoffs = CUTOFFS.into_iter().filter(|&cutoff| cutoff < audit.depth);
            RetrieverCeiling {
                name: retriever.name.clone(),
                within: cutoffs
                    .chain([audit.depth])
                    .map(|k| (k, count(&|row| rank(row).is_some_and(|rank| rank <= k))))
                    .collect(),
                not_in_corpus: count(&|row| row.passages == 0 && rank(row).is_some()),
            }
        });
        Self {
            questions: rows.len(),
            in_corpus: count(&|row| row.passages > 0),
            beyond: count(&|row| row.class == AnswerClass::Beyond),
            depth: audit.depth,
            retrievers: retrievers.collect(),
        }
    }

    /// Returns the share of questions with an accepted answer in the corpus.
    pub fn share(&self) -> Proportion {
        Proportion { successes: self.in_corpus, total: self.questions }
    }
}
