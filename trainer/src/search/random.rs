//! A control for evaluation: answers every query with unrelated passages.
//!
//! A model that uses its passages does worse with these; a model that answers from memory does not.

use crate::stop::StopFlag;
use std::path::Path;
use std::time::Duration;

use shared::contract::passage::Passage;
use shared::contract::rows::{Rows, RowsError, passage_columns};
use shared::contract::splitmix;

use super::{SearchOutcome, SearchRequest, Searcher, SearcherError};

/// Draws passages by seed and query: a query gets the same passages in every run.
#[derive(Debug)]
pub struct RandomPassages {
    corpus: Vec<Passage>,
    seed: u64,
    ready: Vec<SearchOutcome>,
}

impl RandomPassages {
    /// Creates a searcher over `corpus`.
    ///
    /// # Errors
    /// An empty corpus.
    pub fn new(corpus: Vec<Passage>, seed: u64) -> Result<Self, SearcherError> {
        if corpus.is_empty() {
            return Err(SearcherError("the corpus to draw random passages from is empty".into()));
        }
        Ok(Self { corpus, seed, ready: Vec::new() })
    }

    /// Creates a searcher without a corpus, which finds nothing for any query.
    pub fn none() -> Self {
        Self { corpus: Vec::new(), seed: 0, ready: Vec::new() }
    }

    /// Reads the corpus from a file or a folder of parts, in all forms that the retriever reads.
    ///
    /// # Errors
    /// A file that cannot be read, a bad line, or an empty corpus.
    pub fn from_corpus(path: &Path, seed: u64) -> Result<Self, SearcherError> {
        let corpus: Result<Vec<Passage>, RowsError> = Rows::open(path, passage_columns)
            .and_then(|rows| rows.map(|row| Passage::from_row(&row?)).collect());
        Self::new(corpus.map_err(|error| SearcherError(error.to_string()))?, seed)
    }

    fn draw(&self, query: &str, top_k: usize) -> Vec<Passage> {
        // The server finds nothing for an empty query either.
        if query.is_empty() {
            return Vec::new();
        }
        let wanted = top_k.min(self.corpus.len());
        let mut state =
            query.bytes().fold(mix(self.seed), |state, byte| mix(state ^ u64::from(byte)));
        let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
        while chosen.len() < wanted {
            state = mix(state);
            let mut index = (state % self.corpus.len() as u64) as usize;
            // Take the next free passage: the loop then ends even if all passages are wanted.
            while chosen.contains(&index) {
                index = (index + 1) % self.corpus.len();
            }
            chosen.push(index);
        }
        chosen.into_iter().map(|index| self.corpus[index].clone()).collect()
    }
}

impl Searcher for RandomPassages {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        for request in requests {
            let passages = self.draw(&request.query, request.top_k);
            self.ready.push(SearchOutcome { ticket: request.ticket, result: Ok(passages) });
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        Ok(std::mem::take(&mut self.ready))
    }

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        self.poll().map(Some)
    }

    fn cancel(&mut self) {
        self.ready.clear();
    }
}

/// Mixes the bits: every input bit affects every output bit.
fn mix(mut value: u64) -> u64 {
    splitmix::next(&mut value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(size: usize) -> Vec<Passage> {
        (0..size).map(|n| Passage::new(format!("p{n}"), format!("\"T{n}\"\ntext {n}"))).collect()
    }

    fn ids(searcher: &mut RandomPassages, query: &str, top_k: usize) -> Vec<String> {
        let request = SearchRequest { ticket: 7, query: query.to_owned(), top_k };
        searcher.submit(vec![request]).unwrap();
        let outcome = searcher.poll().unwrap().pop().unwrap();
        assert_eq!(outcome.ticket, 7);
        outcome.result.unwrap().into_iter().map(|passage| passage.id).collect()
    }

    #[test]
    fn draws_depend_on_seed_and_query_only() {
        let mut first = RandomPassages::new(corpus(1000), 1).unwrap();
        let mut second = RandomPassages::new(corpus(1000), 1).unwrap();
        let mut other = RandomPassages::new(corpus(1000), 2).unwrap();
        ids(&mut first, "something before", 3);
        let drawn = ids(&mut first, "who is king", 3);
        assert_eq!(drawn, ids(&mut second, "who is king", 3));
        assert_ne!(drawn, ids(&mut second, "who is queen", 3));
        assert_ne!(drawn, ids(&mut other, "who is king", 3));
    }

    #[test]
    fn passages_are_distinct_and_spread_over_the_corpus() {
        let mut searcher = RandomPassages::new(corpus(50), 3).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..200 {
            let mut drawn = ids(&mut searcher, &format!("query {n}"), 5);
            seen.extend(drawn.clone());
            drawn.sort();
            drawn.dedup();
            assert_eq!(drawn.len(), 5);
        }
        assert!(seen.len() > 45, "{seen:?}");
        assert_eq!(ids(&mut searcher, "all", 80).len(), 50);
    }

    #[test]
    fn an_empty_query_finds_nothing_and_an_empty_corpus_is_refused() {
        let mut searcher = RandomPassages::new(corpus(5), 3).unwrap();
        assert!(ids(&mut searcher, "", 3).is_empty());
        assert!(RandomPassages::new(Vec::new(), 3).is_err());
    }

    #[test]
    fn a_bad_corpus_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        std::fs::write(&path, "{\"id\":\"a\",\"contents\":\"x\"}\n{\"id\":\"b\"}\n").unwrap();
        let message = RandomPassages::from_corpus(&path, 1).unwrap_err().to_string();
        assert!(message.contains("corpus.jsonl:2") && message.contains("contents"), "{message}");
    }

    #[test]
    fn without_a_corpus_nothing_is_found() {
        assert!(ids(&mut RandomPassages::none(), "who", 3).is_empty());
    }
}
