//! How much work the server takes on. Both counts are bounded; what does not fit is refused at
//! once, so that a client retries later and not into a queue that grows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::ticket::Ticket;

/// The server has taken on as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Counts requests whose body is being read or answered, and queries being answered.
#[derive(Debug)]
pub struct Admission {
    requests: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    max_requests: usize,
    max_queued_queries: usize,
}

/// A request's place from its first byte to its last.
#[derive(Debug)]
pub struct RequestPlace {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Nothing is taken on yet.
    pub fn new(max_requests: usize, max_queued_queries: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(max_requests)),
            queries: Arc::new(Semaphore::new(max_queued_queries)),
            max_requests,
            max_queued_queries,
        }
    }

    /// Takes on a request, before its body is read.
    pub fn enter(&self) -> Result<RequestPlace, Overloaded> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map(|permit| RequestPlace { _permit: permit }).map_err(|_| Overloaded)
    }

    /// Takes on the queries of a request, which have `limit` to be answered.
    pub fn admit(&self, queries: usize, limit: Duration) -> Result<Ticket, Overloaded> {
        let count = u32::try_from(queries).map_err(|_| Overloaded)?;
        match Arc::clone(&self.queries).try_acquire_many_owned(count) {
            Ok(place) => Ok(Ticket::new(limit, Some(place))),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(Overloaded),
        }
    }

    /// Requests under way.
    pub fn requests_in_flight(&self) -> usize {
        self.max_requests - self.requests.available_permits()
    }

    /// Queries under way.
    pub fn queries_in_flight(&self) -> usize {
        self.max_queued_queries - self.queries.available_permits()
    }

    /// Ends when no request is under way. New ones are refused from here on.
    pub async fn drained(&self) {
        // A waiting acquire keeps later ones out: a semaphore serves in order.
        let all = u32::try_from(self.max_requests).unwrap_or(u32::MAX);
        let _everything = self.requests.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[test]
    fn both_counts_are_bounded_and_places_come_back() {
        let admission = Admission::new(2, 10);
        let first = admission.enter().unwrap();
        let _second = admission.enter().unwrap();
        assert_eq!(admission.enter().unwrap_err(), Overloaded);
        drop(first);
        admission.enter().unwrap();
        let ticket = admission.admit(10, LIMIT).unwrap();
        assert_eq!(admission.admit(1, LIMIT).unwrap_err(), Overloaded);
        admission.admit(0, LIMIT).unwrap();
        assert_eq!(admission.queries_in_flight(), 10);
        drop(ticket);
        assert_eq!(admission.queries_in_flight(), 0);
        assert_eq!(admission.admit(11, LIMIT).unwrap_err(), Overloaded);
    }

    #[tokio::test]
    async fn draining_waits_for_the_last_request() {
        let admission = Arc::new(Admission::new(2, 10));
        let place = admission.enter().unwrap();
        let waiting = Arc::clone(&admission);
        let mut drained = tokio::spawn(async move { waiting.drained().await });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(place);
        (&mut drained).await.unwrap();
        assert_eq!(admission.requests_in_flight(), 0);
    }
}
