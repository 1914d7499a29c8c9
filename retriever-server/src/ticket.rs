//! The ticket of an admitted request: its permit for queued queries, its deadline, and a mark if its
//! client has gone. Work that holds the ticket holds the permit, so abandoned work counts until it
//! has really ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

/// The ticket of one admitted request, or of several that share work.
#[derive(Debug)]
pub struct Ticket {
    deadline: Instant,
    abandoned: AtomicBool,
    _permit: Option<OwnedSemaphorePermit>,
    /// The tickets of requests that share work; empty for a single request.
    members: Vec<Arc<Ticket>>,
}

impl Ticket {
    /// Creates a ticket that runs out after `limit`.
    pub fn new(limit: Duration, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            deadline: Instant::now() + limit,
            abandoned: AtomicBool::new(false),
            _permit: permit,
            members: Vec::new(),
        }
    }

    /// Creates the ticket of work for several requests, at least one. It is over when all of theirs are over.
    pub fn joint(members: Vec<Arc<Self>>) -> Self {
        let deadline = members.iter().map(|member| member.deadline).max();
        Self {
            deadline: deadline.expect("shared work belongs to at least one request"),
            abandoned: AtomicBool::new(false),
            _permit: None,
            members,
        }
    }

    /// Returns the time at which the work has to end.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns `true` if work for this request should stop.
    pub fn is_over(&self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        self.abandoned.load(Ordering::Relaxed)
            || now >= self.deadline
            || (!self.members.is_empty()
                && self.members.iter().all(|member| member.is_over_at(now)))
    }
}

/// A guard that marks the ticket as abandoned when the future of the request is dropped. A closed
/// connection drops that future.
#[derive(Debug)]
pub struct AbandonOnDrop(pub Arc<Ticket>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_over_when_time_or_client_is_gone() {
        assert!(Ticket::new(Duration::ZERO, None).is_over());
        let ticket = Arc::new(Ticket::new(Duration::from_hours(1), None));
        let guard = AbandonOnDrop(Arc::clone(&ticket));
        assert!(!ticket.is_over());
        drop(guard);
        assert!(ticket.is_over());
    }

    #[test]
    fn shared_work_is_over_when_nobody_wants_it() {
        let late = Arc::new(Ticket::new(Duration::ZERO, None));
        let ticket = Arc::new(Ticket::new(Duration::from_hours(1), None));
        let joint = Ticket::joint(vec![Arc::clone(&late), Arc::clone(&ticket)]);
        assert!(!joint.is_over());
        assert_eq!(joint.deadline(), ticket.deadline());
        drop(AbandonOnDrop(ticket));
        assert!(joint.is_over());
        assert!(Ticket::joint(vec![late]).is_over());
    }
}
