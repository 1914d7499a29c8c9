//! The way of an admitted batch: equal queries are searched once, the back end ranks, rows become
//! passages. Each query ends with its passages or with its own fault.

use std::collections::HashMap;
use std::sync::Arc;

use shared::passage::Passage;
use tracing::error;

use crate::backend::{Backend, Hit, SearchFault};
use crate::corpus::store::PassageStore;
use crate::pool::{JobLost, Pool};
use crate::query::QueryBatch;
use crate::ticket::{AbandonOnDrop, Ticket};

/// A passage with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The passage as it is stored.
    pub passage: Passage,
    /// The back end's score.
    pub score: f32,
}

/// Passages of one query, best first, or why there are none.
pub type QueryAnswer = Result<Vec<Answer>, SearchFault>;

/// Back end, passages and threads.
#[derive(Debug)]
pub struct Pipeline {
    backend: Box<dyn Backend>,
    passages: Arc<PassageStore>,
    pool: Arc<Pool>,
    max_query_bytes: usize,
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(
        backend: Box<dyn Backend>,
        passages: PassageStore,
        pool: Arc<Pool>,
        max_query_bytes: usize,
    ) -> Self {
        Self { backend, passages: Arc::new(passages), pool, max_query_bytes }
    }

    /// Answers every query of the batch, in order.
    pub async fn answer(&self, batch: QueryBatch, ticket: Ticket) -> Vec<QueryAnswer> {
        let ticket = Arc::new(ticket);
        let _guard = AbandonOnDrop(Arc::clone(&ticket));
        let distinct = Distinct::of(&batch.queries, self.max_query_bytes);
        let unique = QueryBatch { queries: distinct.queries.into(), top_k: batch.top_k };
        let outcomes = self.backend.search(unique, Arc::clone(&ticket)).await;
        let answers = self.read(outcomes, ticket).await;
        distinct
            .places
            .into_iter()
            .map(|place| match place {
                Place::At(index) => answers
                    .get(index)
                    .cloned()
                    // A back end that answers too few queries has failed the rest.
                    .unwrap_or(Err(SearchFault::Internal)),
                Place::Refused(fault) => Err(fault),
            })
            .collect()
    }

    /// Replaces rows by passages. On the pool, as a passage may have to come from the disk.
    async fn read(
        &self,
        outcomes: Vec<Result<Vec<Hit>, SearchFault>>,
        ticket: Arc<Ticket>,
    ) -> Vec<QueryAnswer> {
        let passages = Arc::clone(&self.passages);
        let count = outcomes.len();
        let read = move |index: usize| -> QueryAnswer {
            let hits = outcomes[index].as_ref().map_err(|fault| *fault)?;
            if ticket.is_over() {
                return Err(SearchFault::DeadlineExceeded);
            }
            hits.iter().map(|hit| read_one(&passages, *hit)).collect()
        };
        let answers = self.pool.map(count, read).await.into_iter();
        answers.map(|answer| answer.unwrap_or_else(|JobLost| Err(SearchFault::Internal))).collect()
    }
}

fn read_one(passages: &PassageStore, hit: Hit) -> Result<Answer, SearchFault> {
    match passages.get(hit.row) {
        Ok(passage) => Ok(Answer { passage, score: hit.score }),
        Err(fault) => {
            error!(%fault, row = hit.row, "a passage could not be read");
            Err(SearchFault::Internal)
        }
    }
}

/// Where a query of the request finds its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Among the distinct queries.
    At(usize),
    /// Nowhere.
    Refused(SearchFault),
}

/// The queries that are searched: each text once. Rollouts of one question often search for the
/// same words in the same turn.
struct Distinct {
    queries: Vec<String>,
    places: Vec<Place>,
}

impl Distinct {
    fn of(queries: &[String], max_query_bytes: usize) -> Self {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut distinct = Self { queries: Vec::new(), places: Vec::with_capacity(queries.len()) };
        for query in queries {
            if query.len() > max_query_bytes {
                distinct.places.push(Place::Refused(SearchFault::QueryTooLong));
                continue;
            }
            let next = distinct.queries.len();
            let index = *seen.entry(query).or_insert(next);
            if index == next {
                distinct.queries.push(query.clone());
            }
            distinct.places.push(Place::At(index));
        }
        distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_queries_share_a_place_and_long_ones_have_none() {
        let queries = ["a", "b", "a", "longer than ten", "b"].map(str::to_owned);
        let distinct = Distinct::of(&queries, 10);
        assert_eq!(distinct.queries, ["a", "b"]);
        let refused = Place::Refused(SearchFault::QueryTooLong);
        let expected = [Place::At(0), Place::At(1), Place::At(0), refused, Place::At(1)];
        assert_eq!(distinct.places, expected);
    }
}
