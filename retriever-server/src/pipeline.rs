//! The stages of an admitted batch: equal queries are searched once, slices of them wait for their turn, the back
//! end ranks, rows become passages, and a re-ranker, if there is one, ranks those again. Each query ends with its
//! passages or with its own fault.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use tracing::error;

use crate::backend::{Backend, PassageSource, ReadRows};
use crate::corpus::pages::Pages;
use crate::corpus::store::PassageStore;
use crate::metrics::Stage;
use crate::pool::Pool;
use crate::query::{Answer, Hit, QueryAnswer, QueryBatch, QueryOutcome, SearchFault, cut};
use crate::rerank::Reranker;
use crate::ticket::{AbandonOnDrop, Ticket};
use crate::upstream::context;

/// The stages with the threads that run them.
#[derive(Debug)]
pub struct Pipeline {
    ranking: Ranking,
    /// The passages by their addresses, if they are here.
    pages: Option<Arc<Pages>>,
    max_query_bytes: usize,
    reranker: Option<Arc<Reranker>>,
}

/// The first stage, up to ranked passages.
#[derive(Debug)]
enum Ranking {
    /// Rows of an index of ours, with the store of their passages and the threads that read it.
    Rows { backend: Box<dyn Backend>, passages: Arc<PassageStore>, pool: Arc<Pool> },
    /// Passages of another service.
    Passages(Box<dyn PassageSource>),
}

impl Pipeline {
    /// Creates a pipeline without a re-ranker.
    pub fn new(
        backend: Box<dyn Backend>,
        passages: PassageStore,
        pool: Arc<Pool>,
        max_query_bytes: usize,
    ) -> Self {
        let passages = Arc::new(passages);
        let pages = Some(Arc::new(Pages::new(Arc::clone(&passages))));
        let ranking = Ranking::Rows { backend, passages, pool };
        Self { ranking, pages, max_query_bytes, reranker: None }
    }

    /// Creates a pipeline over the passages of another service, without a re-ranker.
    pub fn over_passages(source: Box<dyn PassageSource>, max_query_bytes: usize) -> Self {
        let ranking = Ranking::Passages(source);
        Self { ranking, pages: None, max_query_bytes, reranker: None }
    }

    /// Adds a re-ranker as the last stage.
    #[must_use]
    pub fn with_reranker(self, reranker: Option<Arc<Reranker>>) -> Self {
        Self { reranker, ..self }
    }

    /// Returns the passages by their addresses, unless another service has them.
    pub fn pages(&self) -> Option<&Arc<Pages>> {
        self.pages.as_ref()
    }

    /// Answers every query of the batch, in order.
    pub async fn answer(&self, batch: QueryBatch, ticket: Ticket) -> Vec<QueryAnswer> {
        let ticket = Arc::new(ticket);
        let _guard = AbandonOnDrop(Arc::clone(&ticket));
        let distinct = Distinct::of(&batch.queries, self.max_query_bytes);
        let answers = self.rank_in_turns(distinct.queries, batch.top_k, &ticket).await;
        distinct.slots.into_iter().map(|slot| answers[slot].clone()).collect()
    }

    /// Passes distinct queries through all stages, each slice of them in its turn. Slices that have their turn are
    /// worked on together.
    async fn rank_in_turns(
        &self,
        queries: Vec<String>,
        top_k: usize,
        ticket: &Arc<Ticket>,
    ) -> Vec<QueryAnswer> {
        let max_slice = ticket.max_slice().max(1);
        let mut slices = Vec::with_capacity(queries.len().div_ceil(max_slice).min(queries.len()));
        let mut rest = queries.into_iter();
        while rest.len() > 0 {
            let queries: Arc<[String]> = rest.by_ref().take(max_slice).collect();
            slices.push(async move {
                let count = queries.len();
                match ticket.turn(count).await {
                    Ok(turn) => {
                        let mut answers = self.rank(QueryBatch { queries, top_k }, turn).await;
                        // A back end that answers too few queries has failed the rest.
                        answers.resize(count, Err(SearchFault::Internal));
                        answers
                    }
                    Err(fault) => vec![Err(fault); count],
                }
            });
        }
        if slices.len() == 1 {
            return slices.swap_remove(0).await;
        }
        join_all(slices).await.into_iter().flatten().collect()
    }

    /// Passes distinct queries through all stages.
    async fn rank(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> Vec<QueryAnswer> {
        let Some(reranker) = &self.reranker else {
            return self.ranking.answer(batch, ticket).await;
        };
        let deep = QueryBatch { top_k: batch.top_k.max(reranker.depth()), ..batch.clone() };
        let answers = self.ranking.answer(deep, Arc::clone(&ticket)).await;
        let began = Instant::now();
        let ranked = reranker.rank_answers(batch, answers, Arc::clone(&ticket)).await;
        ticket.stage(Stage::Rerank, began);
        ranked
    }
}

impl Ranking {
    async fn answer(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> Vec<QueryAnswer> {
        let began = Instant::now();
        match self {
            Self::Rows { backend, passages, pool } => {
                // With one query, the stages of the request are those of the query.
                if batch.queries.len() == 1
                    && let Some(answer) = backend.search_and_read(
                        &batch,
                        &ticket,
                        reading(Arc::clone(passages), Arc::clone(&ticket), began),
                    )
                {
                    return answer.await;
                }
                let outcomes = backend.search(batch, Arc::clone(&ticket)).await;
                let began = ticket.stage(Stage::Search, began);
                let answers = read(Arc::clone(passages), pool, outcomes, Arc::clone(&ticket)).await;
                ticket.stage(Stage::Passages, began);
                answers
            }
            Self::Passages(source) => {
                let search = source.search(batch, Arc::clone(&ticket));
                let answers = context::within(ticket.observation(), search).await;
                ticket.stage(Stage::Search, began);
                answers
            }
        }
    }
}

/// Returns the function that reads the passages of the only query of a request, whose search began at `began`.
fn reading(passages: Arc<PassageStore>, ticket: Arc<Ticket>, began: Instant) -> ReadRows {
    Box::new(move |hits| {
        let began = ticket.stage(Stage::Search, began);
        let answer = read_all(&passages, &hits);
        ticket.stage(Stage::Passages, began);
        answer
    })
}

/// Replaces rows by passages. This runs on the pool, because a passage may be read from the disk.
async fn read(
    passages: Arc<PassageStore>,
    pool: &Pool,
    outcomes: Vec<QueryOutcome>,
    ticket: Arc<Ticket>,
) -> Vec<QueryAnswer> {
    let count = outcomes.len();
    let read = move |index: usize| -> QueryAnswer {
        let hits = outcomes[index].as_ref().map_err(|fault| *fault)?;
        if ticket.is_over() {
            return Err(SearchFault::DeadlineExceeded);
        }
        read_all(&passages, hits)
    };
    let answers = pool.map(count, read).await.into_iter();
    answers.map(|answer| answer.unwrap_or(Err(SearchFault::Internal))).collect()
}

fn read_all(passages: &PassageStore, hits: &[Hit]) -> QueryAnswer {
    hits.iter().map(|hit| read_one(passages, *hit)).collect()
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

/// The distinct queries of a request, each cut to the longest length, and for each query of the request the
/// position of its own among them. Rollouts of one question often
/// search for the same words in the same turn.
struct Distinct {
    queries: Vec<String>,
    slots: Vec<usize>,
}

impl Distinct {
    fn of(queries: &[String], max_query_bytes: usize) -> Self {
        if let [query] = queries {
            return Self { queries: vec![cut(query, max_query_bytes).to_owned()], slots: vec![0] };
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut distinct = Self { queries: Vec::new(), slots: Vec::with_capacity(queries.len()) };
        for query in queries {
            let query = cut(query, max_query_bytes);
            let next = distinct.queries.len();
            let index = *seen.entry(query).or_insert(next);
            if index == next {
                distinct.queries.push(query.to_owned());
            }
            distinct.slots.push(index);
        }
        distinct
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::contract::passage::Passage;

    use super::*;
    use crate::backend::{PassageFuture, SearchFuture};
    use crate::corpus::store::PassageWriter;

    /// A back end that returns row 0 for `first`, a row that does not exist for `beyond`, and no row for
    /// other queries. It gives no outcome for `forgotten` and the queries after it.
    #[derive(Debug)]
    struct Scripted;

    impl Backend for Scripted {
        fn search(&self, batch: QueryBatch, _ticket: Arc<Ticket>) -> SearchFuture<'_> {
            let outcome = |query: &String| -> QueryOutcome {
                match query.as_str() {
                    "first" => Ok(vec![Hit { row: 0, score: 2.0 }]),
                    "beyond" => Ok(vec![Hit { row: 9, score: 1.0 }]),
                    _ => Ok(Vec::new()),
                }
            };
            let answered = batch.queries.iter().take_while(|query| *query != "forgotten");
            let outcomes = answered.map(outcome).collect();
            Box::pin(async move { outcomes })
        }
    }

    async fn answer(queries: &[&str], limit: Duration) -> Vec<QueryAnswer> {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PassageWriter::create(folder.path()).unwrap();
        let contents = "only".to_owned();
        writer.add(&Passage { id: "p".to_owned(), contents, ..Passage::default() }).unwrap();
        writer.finish().unwrap();
        let passages = PassageStore::open(folder.path()).unwrap();
        let pool = Arc::new(Pool::start(2, 100).unwrap());
        let pipeline = Pipeline::new(Box::new(Scripted), passages, pool, 10);
        let queries = queries.iter().map(|query| (*query).to_owned()).collect();
        pipeline.answer(QueryBatch { queries, top_k: 3 }, Ticket::new(limit, None)).await
    }

    #[tokio::test]
    async fn a_fault_stays_in_its_slot() {
        let queries = ["first", "none", "beyond", "much too long", "first", "forgotten"];
        let answers = answer(&queries, Duration::from_hours(1)).await;
        let shapes: Vec<Result<usize, SearchFault>> =
            answers.into_iter().map(|answer| answer.map(|list| list.len())).collect();
        let expected =
            [Ok(1), Ok(0), Err(SearchFault::Internal), Ok(0), Ok(1), Err(SearchFault::Internal)];
        assert_eq!(shapes, expected);
    }

    #[tokio::test]
    async fn work_that_comes_too_late_is_a_fault_and_not_an_empty_list() {
        let answers = answer(&["first", "none"], Duration::ZERO).await;
        assert_eq!(
            answers,
            [Err(SearchFault::DeadlineExceeded), Err(SearchFault::DeadlineExceeded)]
        );
    }

    /// A service that finds one passage for `first`, refuses `second`, and nothing else.
    #[derive(Debug)]
    struct Service;

    impl PassageSource for Service {
        fn search(&self, batch: QueryBatch, _ticket: Arc<Ticket>) -> PassageFuture<'_> {
            let outcome = |query: &String| match query.as_str() {
                "first" => Ok(vec![Answer { passage: Passage::default(), score: 1.0 }]),
                "second" => Err(SearchFault::Refused),
                _ => Ok(Vec::new()),
            };
            let outcomes = batch.queries.iter().map(outcome).collect();
            Box::pin(async move { outcomes })
        }
    }

    #[tokio::test]
    async fn passages_of_a_service_need_no_store() {
        let pipeline = Pipeline::over_passages(Box::new(Service), 100);
        let queries = ["second", "first", "third", "second"].map(str::to_owned).into();
        let ticket = Ticket::new(Duration::from_hours(1), None);
        let answers = pipeline.answer(QueryBatch { queries, top_k: 3 }, ticket).await;
        let shapes: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(Vec::len)).collect();
        let refused = Err(&SearchFault::Refused);
        assert_eq!(shapes, [refused, Ok(1), Ok(0), refused]);
    }

    #[test]
    fn equal_queries_share_a_slot_and_long_ones_are_cut() {
        let queries = ["a", "b", "a", "longer than ten", "longer tha", "b"].map(str::to_owned);
        let distinct = Distinct::of(&queries, 10);
        assert_eq!(distinct.queries, ["a", "b", "longer tha"]);
        assert_eq!(distinct.slots, [0, 1, 0, 2, 2, 1]);
    }
}
