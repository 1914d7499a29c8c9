//! The back ends over engines of other machines: queries become vectors here, where the engine searches vectors,
//! and are sent in requests of several. A query that the engine failed is asked again within its deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use shared::contract::retry::{Backoff, RetryPolicy};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::{PassageFuture, PassageSource};
use crate::encode::{EncodeError, Encoder, Role};
use crate::engine::{Engine, EngineConfig, EngineError, Queries, Search};
use crate::pool::Pool;
use crate::query::{QueryAnswer, QueryBatch, SearchFault};
use crate::ticket::Ticket;

/// The most queries of a request to the engine.
const REQUEST_QUERIES: usize = 32;
/// The most requests on their way, of all batches.
const MAX_REQUESTS: usize = 16;
/// The least time for one attempt. A shorter one would only add load.
const MIN_ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// An engine with the encoder of its queries.
#[derive(Debug)]
pub struct EngineSource {
    engine: Arc<dyn Engine>,
    ef: usize,
    /// The encoder, for an engine that searches vectors. Batches take turns in it.
    encoder: Option<(Arc<Encoder>, Arc<Mutex<()>>)>,
    pool: Arc<Pool>,
    requests: Semaphore,
}

/// Queries as the engine takes them.
enum Prepared {
    Words(Vec<String>),
    Vectors(Vec<Vec<f32>>),
}

impl Prepared {
    /// Returns the queries at these positions.
    fn at(&self, positions: &[usize]) -> Self {
        match self {
            Self::Words(texts) => {
                Self::Words(positions.iter().map(|&n| texts[n].clone()).collect())
            }
            Self::Vectors(vectors) => {
                Self::Vectors(positions.iter().map(|&n| vectors[n].clone()).collect())
            }
        }
    }

    fn queries(&self) -> Queries<'_> {
        match self {
            Self::Words(texts) => Queries::Words(texts),
            Self::Vectors(vectors) => Queries::Vectors(vectors),
        }
    }
}

impl EngineSource {
    /// Creates a back end over `engine`. `encoder` makes vectors of queries, for an engine that searches them.
    pub fn new(
        engine: Arc<dyn Engine>,
        config: &EngineConfig,
        encoder: Option<Arc<Encoder>>,
        pool: &Arc<Pool>,
    ) -> Self {
        let encoder = encoder.map(|encoder| (encoder, Arc::default()));
        let requests = Semaphore::new(MAX_REQUESTS);
        Self { engine, ef: config.ef, encoder, pool: Arc::clone(pool), requests }
    }

    /// Turns texts into what the engine searches for.
    async fn prepare(
        &self,
        texts: Vec<String>,
        ticket: &Arc<Ticket>,
    ) -> Result<Prepared, SearchFault> {
        let Some((encoder, turn)) = &self.encoder else { return Ok(Prepared::Words(texts)) };
        let (encoder, turn, ticket) = (Arc::clone(encoder), Arc::clone(turn), Arc::clone(ticket));
        let encode = move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let numbers = encoder.encode(&texts, Role::Query, &|| ticket.is_over())?;
            Ok(numbers.chunks_exact(encoder.dimension()).map(<[f32]>::to_vec).collect())
        };
        match self.pool.run(encode).await {
            Ok(Ok(vectors)) => Ok(Prepared::Vectors(vectors)),
            Ok(Err(EncodeError::Stopped)) => Err(SearchFault::DeadlineExceeded),
            Ok(Err(fault)) => {
                error!(%fault, "queries could not be encoded");
                Err(SearchFault::Internal)
            }
            Err(_) => Err(SearchFault::Internal),
        }
    }

    /// Answers the queries at `positions`, in order.
    async fn ask(
        &self,
        prepared: &Prepared,
        positions: &[usize],
        top_k: usize,
        ticket: &Ticket,
    ) -> Vec<QueryAnswer> {
        let started = Instant::now();
        let deadline = ticket.deadline().saturating_duration_since(std::time::Instant::now());
        let policy = RetryPolicy { first_pause: FIRST_PAUSE, max_pause: MAX_PAUSE, deadline };
        let mut backoff = Backoff::new(policy);
        let mut answers: Vec<Option<QueryAnswer>> = vec![None; positions.len()];
        loop {
            let open: Vec<usize> = (0..answers.len()).filter(|&n| answers[n].is_none()).collect();
            let left = deadline.saturating_sub(started.elapsed());
            if open.is_empty() {
                break;
            }
            if left.is_zero() || ticket.is_over() {
                close(&mut answers, SearchFault::DeadlineExceeded);
                break;
            }
            let rows: Vec<usize> = open.iter().map(|&n| positions[n]).collect();
            // Half of the time, so that an engine that hangs leaves time for another attempt.
            let limit = (left / 2).max(MIN_ATTEMPT).min(left);
            let found = self.attempt(&prepared.at(&rows), top_k, limit).await;
            let Some(fault) = fill(&mut answers, &open, found) else { break };
            let Some(pause) = backoff.next_pause(started.elapsed(), fault.pause()) else {
                error!(%fault, queries = open.len(), "queries failed in the engine");
                close(&mut answers, SearchFault::Upstream);
                break;
            };
            warn!(%fault, pause_ms = pause.as_millis(), "the engine is asked again");
            tokio::time::sleep(pause).await;
        }
        let ended = |answer: Option<QueryAnswer>| answer.unwrap_or(Err(SearchFault::Internal));
        answers.into_iter().map(ended).collect()
    }

    /// Sends one request.
    async fn attempt(
        &self,
        prepared: &Prepared,
        top_k: usize,
        limit: Duration,
    ) -> Result<Vec<Result<Vec<crate::query::Answer>, EngineError>>, Duration> {
        let search = Search { top_k, ef: self.ef, limit };
        let asked = async {
            let _place = self.requests.acquire().await;
            self.engine.search(prepared.queries(), search).await
        };
        timeout(limit, asked).await.map_err(|_| limit)
    }
}

/// The fault of a request whose queries may be asked again.
struct Passing(String, Option<Duration>);

impl Passing {
    fn pause(&self) -> Option<Duration> {
        self.1
    }
}

impl std::fmt::Display for Passing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Puts answers into their slots. Returns the fault of those that may be asked again, if there are any.
fn fill(
    answers: &mut [Option<QueryAnswer>],
    open: &[usize],
    found: Result<Vec<Result<Vec<crate::query::Answer>, EngineError>>, Duration>,
) -> Option<Passing> {
    let found = match found {
        Ok(found) => found,
        Err(limit) => {
            return Some(Passing(format!("no answer within {} ms", limit.as_millis()), None));
        }
    };
    let mut passing = None;
    for (&slot, outcome) in open.iter().zip(found) {
        answers[slot] = match outcome {
            Ok(passages) => Some(Ok(passages)),
            Err(fault) if fault.is_retryable() => {
                passing.get_or_insert(Passing(fault.to_string(), fault.pause()));
                None
            }
            Err(fault) => {
                error!(%fault, "a query failed in the engine");
                Some(Err(fault_of(&fault)))
            }
        };
    }
    // An engine that answers too few queries has failed the rest.
    if passing.is_none() && answers.iter().any(Option::is_none) {
        close(answers, SearchFault::Upstream);
    }
    passing
}

/// Returns what clients see of a fault: refusals are final, the rest is not.
fn fault_of(fault: &EngineError) -> SearchFault {
    match fault {
        EngineError::Refused { .. }
        | EngineError::Missing { .. }
        | EngineError::Incomplete { .. }
        | EngineError::OtherVectors { .. }
        | EngineError::Unfit(_)
        | EngineError::TooLarge { .. } => SearchFault::Refused,
        EngineError::Unavailable { .. }
        | EngineError::Malformed { .. }
        | EngineError::Partial { .. } => SearchFault::Upstream,
    }
}

/// Gives every query without an answer the same fault.
fn close(answers: &mut [Option<QueryAnswer>], fault: SearchFault) {
    for open in answers.iter_mut().filter(|answer| answer.is_none()) {
        *open = Some(Err(fault));
    }
}

impl PassageSource for EngineSource {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> PassageFuture<'_> {
        Box::pin(async move {
            let QueryBatch { queries, top_k } = batch;
            // A query without text has no hits, as in the other back ends.
            let mut answers: Vec<QueryAnswer> = vec![Ok(Vec::new()); queries.len()];
            let with_text: Vec<usize> =
                (0..queries.len()).filter(|&n| !queries[n].trim().is_empty()).collect();
            if with_text.is_empty() {
                return answers;
            }
            let texts = with_text.iter().map(|&n| queries[n].clone()).collect();
            let prepared = match self.prepare(texts, &ticket).await {
                Ok(prepared) => prepared,
                Err(fault) => {
                    for n in with_text {
                        answers[n] = Err(fault);
                    }
                    return answers;
                }
            };
            let positions: Vec<usize> = (0..with_text.len()).collect();
            let mut asked = Vec::new();
            for part in positions.chunks(REQUEST_QUERIES) {
                asked.push(self.ask(&prepared, part, top_k, &ticket));
            }
            // The semaphore bounds the requests on their way.
            let found: Vec<Vec<QueryAnswer>> = join_all(asked).await;
            for (slot, answer) in with_text.into_iter().zip(found.into_iter().flatten()) {
                answers[slot] = answer;
            }
            answers
        })
    }
}

#[cfg(test)]
mod tests;
