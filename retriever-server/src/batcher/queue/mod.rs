//! The queue of a batcher: a state machine that decides when a batch begins. It has no threads or tasks,
//! and receives the time from its caller.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::BatchLimits;
use crate::query::{QueryOutcome, SearchFault};
use crate::ticket::Ticket;

/// The most batches that run concurrently: one is encoded while the other is searched.
const MAX_RUNNING: usize = 2;

/// Bytes of text per token, for the subword vocabularies of English encoders.
const BYTES_PER_TOKEN: usize = 4;
/// Tokens that are added to each text.
const SPECIAL_TOKENS: usize = 2;

/// Queries of one request that go into one batch.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) queries: Vec<String>,
    /// The estimated number of tokens.
    pub(super) tokens: usize,
    pub(super) top_k: usize,
    pub(super) ticket: Arc<Ticket>,
    /// The time at which it was queued.
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Vec<QueryOutcome>>,
}

impl Chunk {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && !self.ticket.is_over()
    }

    /// Answers its queries without a search.
    fn give_up(self) {
        let late = |_| Err(SearchFault::DeadlineExceeded);
        let _ = self.reply.send(self.queries.iter().map(late).collect());
    }
}

/// The next action of the batcher.
#[derive(Debug)]
pub(super) enum Step {
    /// Run a batch of these chunks, then call [`Queue::ended`].
    Begin(Vec<Chunk>),
    /// Wait until this time, call [`Queue::woken`] and ask again.
    WakeAt(Instant),
    /// Wait for the next request or the end of a batch.
    Nothing,
}

/// The waiting chunks, in the order of their arrival.
#[derive(Debug)]
pub(super) struct Queue {
    limits: BatchLimits,
    waiting: VecDeque<Chunk>,
    running: usize,
    alarm_is_set: bool,
}

impl Queue {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), running: 0, alarm_is_set: false }
    }

    /// Queues a chunk. Returns `false` if the queue is full, in which case the chunk is dropped.
    pub(super) fn push(&mut self, chunk: Chunk) -> bool {
        let fits = self.size().0 + chunk.queries.len() <= self.limits.capacity_queries;
        if fits {
            self.waiting.push_back(chunk);
        }
        fits
    }

    /// Records that a batch has ended.
    pub(super) fn ended(&mut self) {
        self.running = self.running.checked_sub(1).expect("only a batch that has begun ends");
    }

    /// Records that the alarm went off.
    pub(super) fn woken(&mut self) {
        self.alarm_is_set = false;
    }

    /// Returns the next action.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        if self.running >= MAX_RUNNING {
            return Step::Nothing;
        }
        self.drop_unwanted();
        let Some(first) = self.waiting.front() else { return Step::Nothing };
        let (queries, tokens) = self.size();
        let is_full = queries >= self.limits.max_queries || tokens >= self.limits.max_tokens;
        let due = first.since + self.limits.wait;
        if self.running == 0 || is_full || now >= due {
            self.running += 1;
            return Step::Begin(self.take());
        }
        if self.alarm_is_set {
            return Step::Nothing;
        }
        self.alarm_is_set = true;
        Step::WakeAt(due)
    }

    /// Returns the number of waiting queries.
    pub(super) fn waiting_queries(&self) -> usize {
        self.size().0
    }

    /// Returns the numbers of waiting queries and tokens.
    fn size(&self) -> (usize, usize) {
        let add = |(queries, tokens), chunk: &Chunk| {
            (queries + chunk.queries.len(), tokens + chunk.tokens)
        };
        self.waiting.iter().fold((0, 0), add)
    }

    fn drop_unwanted(&mut self) {
        if self.waiting.iter().all(Chunk::is_wanted) {
            return;
        }
        for chunk in std::mem::take(&mut self.waiting) {
            if chunk.is_wanted() {
                self.waiting.push_back(chunk);
            } else {
                chunk.give_up();
            }
        }
    }

    /// Takes as many chunks from the front as fit into a batch, at least one.
    fn take(&mut self) -> Vec<Chunk> {
        let mut taken: Vec<Chunk> = Vec::new();
        let (mut queries, mut tokens) = (0, 0);
        let steady = self.limits.steady_top_k;
        while let Some(chunk) = self.waiting.front() {
            let alike = |first: &Chunk| first.top_k.max(steady) == chunk.top_k.max(steady);
            if !taken.first().is_none_or(alike) {
                break;
            }
            queries += chunk.queries.len();
            tokens += chunk.tokens;
            let fits = queries <= self.limits.max_queries && tokens <= self.limits.max_tokens;
            if !fits && !taken.is_empty() {
                break;
            }
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

/// Cuts the queries of a request into pieces that fit into a batch, each with its number of tokens. A
/// query that does not fit is a piece alone.
pub(super) fn pieces(queries: &[String], limits: &BatchLimits) -> Vec<(Vec<String>, usize)> {
    let mut pieces: Vec<(Vec<String>, usize)> = Vec::new();
    for query in queries {
        let tokens = estimated_tokens(query);
        match pieces.last_mut() {
            Some((piece, total))
                if piece.len() < limits.max_queries && *total + tokens <= limits.max_tokens =>
            {
                piece.push(query.clone());
                *total += tokens;
            }
            _ => pieces.push((vec![query.clone()], tokens)),
        }
    }
    pieces
}

fn estimated_tokens(query: &str) -> usize {
    query.len().div_ceil(BYTES_PER_TOKEN) + SPECIAL_TOKENS
}

#[cfg(test)]
mod tests;
