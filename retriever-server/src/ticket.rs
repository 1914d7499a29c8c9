//! The ticket of an admitted request: its permit for queued queries, its deadline, its place among the callers, a
//! mark if its client has gone, and the observation of its stages. Work that holds the ticket holds the permit, so
//! abandoned work counts until it has really ended.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::{Observation, Stage};
use crate::query::SearchFault;
use crate::turns::{Caller, Turn, Turns};

/// The permit of a request, which counts until it is dropped.
pub type Permit = Box<dyn Debug + Send + Sync>;

/// The ticket of one admitted request, or of several that share work.
#[derive(Debug)]
pub struct Ticket {
    deadline: Instant,
    abandoned: AtomicBool,
    _permit: Option<Permit>,
    /// The lines in which the request waits, as this caller. Without, it never waits.
    turns: Option<(Arc<Turns>, Caller)>,
    /// The turn of the work, if it has one.
    _turn: Option<Turn>,
    observation: Option<Observation>,
    /// The tickets of requests that share work; empty for a single request.
    members: Vec<Arc<Ticket>>,
}

impl Ticket {
    /// Creates a ticket that runs out after `limit`.
    pub fn new(limit: Duration, permit: Option<Permit>) -> Self {
        Self {
            deadline: Instant::now() + limit,
            abandoned: AtomicBool::new(false),
            _permit: permit,
            turns: None,
            _turn: None,
            observation: None,
            members: Vec::new(),
        }
    }

    /// Makes work wait for its turn among that of other callers.
    #[must_use]
    pub fn with_turns(self, turns: Arc<Turns>, caller: Caller) -> Self {
        Self { turns: Some((turns, caller)), ..self }
    }

    /// Returns the most queries that have a turn together.
    pub fn max_slice(&self) -> usize {
        self.turns.as_ref().map_or(usize::MAX, |(turns, _)| turns.limits().max_slice)
    }

    /// Waits for the turn of `queries` until the deadline, and returns the ticket of the work on them.
    pub async fn turn(self: &Arc<Self>, queries: usize) -> Result<Arc<Self>, SearchFault> {
        let Some((turns, caller)) = &self.turns else { return Ok(Arc::clone(self)) };
        let turn = turns.take(*caller, queries, self.deadline.into()).await;
        let turn = turn.ok_or(SearchFault::DeadlineExceeded)?;
        let ticket = Self::joint(vec![Arc::clone(self)]);
        let observation = self.observation.clone();
        Ok(Arc::new(Self { _turn: Some(turn), observation, ..ticket }))
    }

    /// Adds the counts and the trace that the stages of the work go to.
    #[must_use]
    pub fn observed(self, observation: Observation) -> Self {
        Self { observation: Some(observation), ..self }
    }

    /// Creates the ticket of work for several requests, at least one. It is over when all of theirs are over.
    pub fn joint(members: Vec<Arc<Self>>) -> Self {
        let deadline = members.iter().map(|member| member.deadline).max();
        let observation = None;
        Self {
            deadline: deadline.expect("shared work belongs to at least one request"),
            abandoned: AtomicBool::new(false),
            _permit: None,
            turns: None,
            _turn: None,
            observation,
            members,
        }
    }

    /// Returns the time at which the work has to end.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Records that a stage that began at `began` ends now, and returns the time now. Shared work counts once, and is in
    /// every trace.
    pub fn stage(&self, stage: Stage, began: Instant) -> Instant {
        match (&self.observation, &self.members[..]) {
            (Some(observation), _) => observation.stage(stage, began),
            (None, [first, others @ ..]) => {
                for observation in others.iter().filter_map(|member| member.observation.as_ref()) {
                    observation.span.record(stage.name(), began);
                }
                first.stage(stage, began)
            }
            (None, []) => Instant::now(),
        }
    }

    /// Returns the counts and the trace of the request, for requests to other services; `None` if the work belongs to
    /// no request, or to several.
    pub fn observation(&self) -> Option<Observation> {
        self.observation.clone()
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
