//! What an admitted request carries through the server: its place among the queued queries, its
//! deadline, and whether its client is still there. Work that holds the ticket keeps the place
//! taken, so that abandoned work counts until it has really ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

/// One admitted request, or several that share work.
#[derive(Debug)]
pub struct Ticket {
    deadline: Instant,
    abandoned: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
    /// The requests that share work; empty for one by itself.
    members: Vec<Arc<Ticket>>,
}

impl Ticket {
    /// A ticket that runs out after `limit`.
    pub fn new(limit: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            deadline: Instant::now() + limit,
            abandoned: AtomicBool::new(false),
            _place: place,
            members: Vec::new(),
        }
    }

    /// The ticket of work for several requests, which goes on as long as one of them does.
    pub fn joint(members: Vec<Arc<Self>>) -> Self {
        let deadline = members.iter().map(|member| member.deadline).max();
        Self {
            deadline: deadline.unwrap_or_else(Instant::now),
            abandoned: AtomicBool::new(false),
            _place: None,
            members,
        }
    }

    /// When the time for the work is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether work for this request should stop.
    pub fn is_over(&self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        self.abandoned.load(Ordering::Relaxed)
            || now >= self.deadline
            || (!self.members.is_empty() && self.members.iter().all(|one| one.is_over_at(now)))
    }
}

/// Marks the ticket as abandoned when the request's future is dropped, which is how a closed
/// connection shows.
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
