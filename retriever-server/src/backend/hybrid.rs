//! The `hybrid` back end: queries two others concurrently and fuses their lists. A query fails if
//! either of them fails it, because half an answer would look like a whole one.

use std::sync::Arc;

use super::fuse::{FusionConfig, Weighed, fuse};
use super::{Backend, SearchFuture};
use crate::pool::Pool;
use crate::query::{Hit, QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;

/// Two back ends with the fusion of their lists.
#[derive(Debug)]
pub struct HybridBackend {
    components: [Box<dyn Backend>; 2],
    fusion: FusionConfig,
    pool: Arc<Pool>,
}

impl HybridBackend {
    /// Combines `components`, which must search the same corpus.
    pub fn new(components: [Box<dyn Backend>; 2], fusion: FusionConfig, pool: Arc<Pool>) -> Self {
        Self { components, fusion, pool }
    }
}

impl Backend for HybridBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        let fusion = self.fusion;
        Box::pin(async move {
            let QueryBatch { queries, top_k } = batch;
            let count = queries.len();
            let deep = QueryBatch { queries, top_k: top_k.max(fusion.depth) };
            let [first, second] = &self.components;
            let (first, second) = tokio::join!(
                first.search(deep.clone(), Arc::clone(&ticket)),
                second.search(deep, ticket)
            );
            let join =
                move |index: usize| join(first.get(index), second.get(index), &fusion, top_k);
            let outcomes = self.pool.map(count, join).await.into_iter();
            outcomes.map(|outcome| outcome.unwrap_or(Err(SearchFault::Internal))).collect()
        })
    }
}

/// Fuses the two outcomes of one query. A back end that answers too few queries has failed the rest.
fn join(
    first: Option<&QueryOutcome>,
    second: Option<&QueryOutcome>,
    fusion: &FusionConfig,
    top_k: usize,
) -> QueryOutcome {
    let [first_weight, second_weight] = fusion.weights;
    let lists = [
        Weighed { hits: hits(first)?, weight: first_weight },
        Weighed { hits: hits(second)?, weight: second_weight },
    ];
    Ok(fuse(&lists, fusion.method, top_k))
}

fn hits(outcome: Option<&QueryOutcome>) -> Result<&[Hit], SearchFault> {
    match outcome {
        Some(Ok(hits)) => Ok(hits),
        Some(Err(fault)) => Err(*fault),
        None => Err(SearchFault::Internal),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::fuse::Fusion;

    /// A back end that returns the rows from `first` on and fails queries that contain `fails`. It gives
    /// no outcome for `forgotten` and the queries after it.
    #[derive(Debug)]
    struct Scripted {
        first: u32,
        fails: &'static str,
    }

    impl Backend for Scripted {
        fn search(&self, batch: QueryBatch, _ticket: Arc<Ticket>) -> SearchFuture<'_> {
            let rows = self.first..self.first + batch.top_k as u32;
            let hits: Vec<Hit> =
                rows.map(|row| Hit { row, score: 1.0 / (row - self.first + 1) as f32 }).collect();
            let outcome = |query: &String| {
                let failed = query.contains(self.fails);
                if failed { Err(SearchFault::DeadlineExceeded) } else { Ok(hits.clone()) }
            };
            let kept = batch.queries.iter().take_while(|query| *query != "forgotten");
            let outcomes = kept.map(outcome).collect();
            Box::pin(async move { outcomes })
        }
    }

    async fn search(queries: &[&str], depth: usize) -> Vec<QueryOutcome> {
        let components: [Box<dyn Backend>; 2] = [
            Box::new(Scripted { first: 0, fails: "one" }),
            Box::new(Scripted { first: 2, fails: "other" }),
        ];
        let method = Fusion::ReciprocalRank { k: 60.0 };
        let fusion = FusionConfig { method, weights: [1.0, 1.0], depth };
        let pool = Arc::new(Pool::start(2, 100).unwrap());
        let hybrid = HybridBackend::new(components, fusion, pool);
        let queries = queries.iter().map(|query| (*query).to_owned()).collect();
        let ticket = Arc::new(Ticket::new(Duration::from_hours(1), None));
        hybrid.search(QueryBatch { queries, top_k: 2 }, ticket).await
    }

    #[tokio::test]
    async fn a_query_fails_if_either_back_end_failed_it() {
        let outcomes = search(&["fine", "one", "other", "fine", "forgotten"], 3).await;
        let late = Err(SearchFault::DeadlineExceeded);
        assert_eq!([&outcomes[1], &outcomes[2]], [&late, &late]);
        assert_eq!(outcomes[4], Err(SearchFault::Internal));
        assert_eq!(outcomes[0], outcomes[3]);
        assert_eq!(outcomes[0].as_ref().unwrap().len(), 2);
    }

    /// Row 2 is third in one list and first in the other, so it is the best of both. That shows only if
    /// the lists are longer than the request asks for.
    #[tokio::test]
    async fn each_back_end_is_asked_deeper_than_the_request() {
        let best = |outcomes: Vec<QueryOutcome>| outcomes[0].as_ref().unwrap()[0].row;
        assert_eq!(best(search(&["fine"], 3).await), 2);
        assert_eq!(best(search(&["fine"], 1).await), 0);
    }
}
