//! Admits work up to two limits: requests, and queries. Work beyond a limit is refused immediately,
//! so that clients retry later and no queue grows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::ticket::Ticket;

/// The error of work that is refused because a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// The requests that are read or answered, and the queries that are answered, with their limits.
#[derive(Debug)]
pub struct Admission {
    requests: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    max_requests: usize,
    max_queued_queries: usize,
}

/// The permit that a request holds from its first byte to its last.
#[derive(Debug)]
pub struct RequestPermit {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Creates the limits, with no work admitted.
    pub fn new(max_requests: usize, max_queued_queries: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(max_requests)),
            queries: Arc::new(Semaphore::new(max_queued_queries)),
            max_requests,
            max_queued_queries,
        }
    }

    /// Admits a request, before its body is read.
    pub fn enter(&self) -> Result<RequestPermit, Overloaded> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map(|permit| RequestPermit { _permit: permit }).map_err(|_| Overloaded)
    }

    /// Admits the queries of a request, which must be answered within `limit`.
    pub fn admit(&self, queries: usize, limit: Duration) -> Result<Ticket, Overloaded> {
        let count = u32::try_from(queries).map_err(|_| Overloaded)?;
        match Arc::clone(&self.queries).try_acquire_many_owned(count) {
            Ok(permit) => Ok(Ticket::new(limit, Some(permit))),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(Overloaded),
        }
    }

    /// Returns the number of admitted requests.
    pub fn requests_in_flight(&self) -> usize {
        self.max_requests - self.requests.available_permits()
    }

    /// Returns the number of admitted queries.
    pub fn queries_in_flight(&self) -> usize {
        self.max_queued_queries - self.queries.available_permits()
    }

    /// Waits until no request is admitted any more. New ones are refused from the first call on.
    pub async fn drained(&self) {
        // A semaphore serves in order, so this acquire keeps later ones out while it waits.
        let all = u32::try_from(self.max_requests).expect("the configuration limits it to 2^24");
        let _everything = self.requests.acquire_many(all).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[test]
    fn both_counts_are_bounded_and_permits_come_back() {
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
        let permit = admission.enter().unwrap();
        let waiting = Arc::clone(&admission);
        let mut drained = tokio::spawn(async move { waiting.drained().await });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(permit);
        (&mut drained).await.unwrap();
        assert_eq!(admission.requests_in_flight(), 0);
    }
}
