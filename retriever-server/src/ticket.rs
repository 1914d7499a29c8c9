//! What an admitted request carries through the server: its place among the queued queries, its
//! deadline, and whether its client is still there. Work that holds the ticket keeps the place
//! taken, so that abandoned work counts until it has really ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

/// One admitted request.
#[derive(Debug)]
pub struct Ticket {
    deadline: Instant,
    abandoned: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    /// A ticket that runs out after `limit`.
    pub fn new(limit: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { deadline: Instant::now() + limit, abandoned: AtomicBool::new(false), _place: place }
    }

    /// Whether work for this request should stop.
    pub fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.deadline
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
}
