//! Admits work up to two limits: requests, and queries. Work beyond a limit is refused immediately, so that
//! clients retry later and no queue grows. So is work that would wait longer than it may.
//!
//! One caller never takes everything: the more is taken, the less a caller that already has a part of it may
//! take (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::ticket::Ticket;
use crate::turns::{Caller, Turns};

/// The unit in which memory is counted.
const MEMORY_UNIT_BYTES: usize = 1024;

/// The most that a caller may hold, as a multiple of what nobody holds.
const HELD_PER_FREE: usize = 8;

/// The error of work that is refused because a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded {
    /// The number of seconds after which the work may be accepted.
    pub retry_after_s: u16,
}

/// The requests that are read or answered, and the queries that are answered, with their limits.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    memory: Arc<Semaphore>,
}

/// The memory that a body takes, until this value is dropped.
#[derive(Debug, Default)]
pub struct Memory {
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Shared {
    held: Mutex<Held>,
    /// The number of admitted requests.
    requests: watch::Sender<usize>,
    turns: Arc<Turns>,
}

#[derive(Debug)]
struct Held {
    requests: Share,
    queries: Share,
    is_closed: bool,
}

/// The parts of one limit that callers hold.
#[derive(Debug)]
struct Share {
    limit: usize,
    total: usize,
    callers: BTreeMap<Caller, usize>,
}

impl Share {
    fn new(limit: usize) -> Self {
        Self { limit, total: 0, callers: BTreeMap::new() }
    }

    /// Takes `count` for a caller, if it may have them.
    fn take(&mut self, caller: Caller, count: usize) -> bool {
        let free = self.limit - self.total;
        let held = self.callers.get(&caller).copied().unwrap_or(0);
        let is_fair = held == 0 || held.saturating_add(count) <= free.saturating_mul(HELD_PER_FREE);
        let is_taken = count == 0 || (count <= free && is_fair);
        if is_taken && count > 0 {
            self.total += count;
            *self.callers.entry(caller).or_default() += count;
        }
        is_taken
    }

    fn give_back(&mut self, caller: Caller, count: usize) {
        self.total -= count;
        if let Entry::Occupied(mut held) = self.callers.entry(caller) {
            *held.get_mut() -= count;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

/// The permit that a request holds from its first byte to its last.
#[derive(Debug)]
pub struct RequestPermit {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let mut held = self.shared.lock();
        held.requests.give_back(self.caller, 1);
        self.shared.tell(&held);
    }
}

/// The permit of the queries of a request, which its ticket holds.
#[derive(Debug)]
struct QueryPermit {
    shared: Arc<Shared>,
    caller: Caller,
    queries: usize,
}

impl Drop for QueryPermit {
    fn drop(&mut self) {
        self.shared.lock().queries.give_back(self.caller, self.queries);
    }
}

impl Shared {
    /// Locks the counts. Their changes cannot fail half-way, so a poisoned lock still guards sound ones.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the number of admitted requests. Somebody waits for it only once no more are admitted.
    fn tell(&self, held: &Held) {
        self.requests.send_if_modified(|requests| {
            *requests = held.requests.total;
            held.is_closed
        });
    }

    fn overloaded(&self, queries: usize) -> Overloaded {
        Overloaded { retry_after_s: self.turns.refuse(queries) }
    }
}

impl Admission {
    /// Creates the limits, with no work admitted. Admitted queries wait for their turn among `turns`.
    pub fn new(max_requests: usize, max_queued_queries: usize, turns: Arc<Turns>) -> Self {
        let held = Held {
            requests: Share::new(max_requests),
            queries: Share::new(max_queued_queries),
            is_closed: false,
        };
        let requests = watch::Sender::new(0);
        let shared = Arc::new(Shared { held: Mutex::new(held), requests, turns });
        Self { shared, memory: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    /// Bounds the memory of all bodies together.
    #[must_use]
    pub fn with_memory(self, bodies_bytes: usize) -> Self {
        let memory = Arc::new(Semaphore::new(bodies_bytes.div_ceil(MEMORY_UNIT_BYTES)));
        Self { memory, ..self }
    }

    /// Makes the memory of a body large enough for `bytes`.
    pub fn grow(&self, memory: &mut Memory, bytes: usize) -> Result<(), Overloaded> {
        let held = memory.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(MEMORY_UNIT_BYTES).saturating_sub(held);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.memory).try_acquire_many_owned(missing);
        let more = more.map_err(|_| self.shared.overloaded(1))?;
        match &mut memory.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Admits a request, before its body is read.
    pub fn enter(&self, caller: Caller) -> Result<RequestPermit, Overloaded> {
        let mut held = self.shared.lock();
        if held.is_closed || !held.requests.take(caller, 1) {
            drop(held);
            return Err(self.shared.overloaded(1));
        }
        self.shared.tell(&held);
        Ok(RequestPermit { shared: Arc::clone(&self.shared), caller })
    }

    /// Admits the queries of a request, which must be answered within `limit`.
    pub fn admit(
        &self,
        caller: Caller,
        queries: usize,
        limit: Duration,
    ) -> Result<Ticket, Overloaded> {
        let turns = &self.shared.turns;
        let max_wait = turns.limits().max_wait.min(limit);
        let wait = turns.expected_wait(caller, queries);
        if wait.is_some_and(|wait| wait > max_wait)
            || !self.shared.lock().queries.take(caller, queries)
        {
            return Err(self.shared.overloaded(queries));
        }
        let permit = QueryPermit { shared: Arc::clone(&self.shared), caller, queries };
        Ok(Ticket::new(limit, Some(Box::new(permit))).with_turns(Arc::clone(turns), caller))
    }

    /// Returns the number of admitted requests.
    pub fn requests_in_flight(&self) -> usize {
        self.shared.lock().requests.total
    }

    /// Returns the number of admitted queries.
    pub fn queries_in_flight(&self) -> usize {
        self.shared.lock().queries.total
    }

    /// Returns the turns of the admitted queries.
    pub fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// Waits until no request is admitted any more. New ones are refused from the first call on.
    pub async fn drained(&self) {
        self.shared.lock().is_closed = true;
        let mut requests = self.shared.requests.subscribe();
        // The sender lives as long as this value.
        let _ = requests.wait_for(|requests| *requests == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::turns::TurnLimits;

    const LIMIT: Duration = Duration::from_mins(1);

    fn admission(max_requests: usize, max_queued_queries: usize) -> Admission {
        let limits = TurnLimits { max_in_flight: 10, max_slice: 10, max_wait: LIMIT };
        Admission::new(max_requests, max_queued_queries, Arc::new(Turns::new(limits)))
    }

    fn caller(number: u8) -> Caller {
        Caller::of(Ipv4Addr::new(10, 0, 0, number).into())
    }

    #[test]
    fn both_counts_are_bounded_and_permits_come_back() {
        let admission = admission(2, 10);
        let one = caller(1);
        let first = admission.enter(one).unwrap();
        let _second = admission.enter(one).unwrap();
        let overloaded = Overloaded { retry_after_s: 1 };
        assert_eq!(admission.enter(one).unwrap_err(), overloaded);
        drop(first);
        admission.enter(one).unwrap();
        let ticket = admission.admit(one, 10, LIMIT).unwrap();
        assert_eq!(admission.admit(one, 1, LIMIT).unwrap_err(), overloaded);
        admission.admit(one, 0, LIMIT).unwrap();
        assert_eq!(admission.queries_in_flight(), 10);
        drop(ticket);
        assert_eq!(admission.queries_in_flight(), 0);
        assert_eq!(admission.admit(one, 11, LIMIT).unwrap_err(), overloaded);
        assert!(admission.shared.lock().queries.callers.is_empty());
    }

    #[test]
    fn one_caller_leaves_room_for_others() {
        let mut share = Share::new(900);
        while share.take(caller(1), 1) {}
        assert_eq!(share.total, 800, "eight ninths");
        let mut others = 0;
        for number in 2..=50 {
            assert!(share.take(caller(number), 1), "{number}");
            others += 1;
        }
        assert_eq!(share.total, 800 + others);
        // The caller with the most has to wait until others have as much of what is free.
        share.give_back(caller(1), 40);
        assert!(!share.take(caller(1), 1));
        assert!(share.take(caller(2), 40));
    }

    #[tokio::test]
    async fn draining_waits_for_the_last_request() {
        let admission = Arc::new(admission(2, 10));
        let permit = admission.enter(caller(1)).unwrap();
        let waiting = Arc::clone(&admission);
        let mut drained = tokio::spawn(async move { waiting.drained().await });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        assert!(admission.enter(caller(1)).is_err());
        drop(permit);
        (&mut drained).await.unwrap();
        assert_eq!(admission.requests_in_flight(), 0);
    }
}
