//! What waits for a batch, and when one begins. Holds no threads or tasks, and is told the time.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::BatchLimits;
use crate::query::{QueryOutcome, SearchFault};
use crate::ticket::Ticket;

/// Batches that run at a time: one is encoded while the other is searched.
const MAX_RUNNING: usize = 2;

/// Bytes of text to a token, and tokens beside the text, as the subword vocabularies of English
/// encoders have them.
const BYTES_PER_TOKEN: usize = 4;
const SPECIAL_TOKENS: usize = 2;

/// Queries of one request that go into one batch.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) queries: Vec<String>,
    /// Estimated.
    pub(super) tokens: usize,
    pub(super) top_k: usize,
    pub(super) ticket: Arc<Ticket>,
    /// When it was put in line.
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Vec<QueryOutcome>>,
}

impl Chunk {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && !self.ticket.is_over()
    }

    /// Ends it without a search.
    fn give_up(self) {
        let late = |_| Err(SearchFault::DeadlineExceeded);
        let _ = self.reply.send(self.queries.iter().map(late).collect());
    }
}

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Step {
    /// Run a batch of these, and call [`Queue::ended`] after it.
    Begin(Vec<Chunk>),
    /// Ask again at this time, after [`Queue::woken`].
    WakeAt(Instant),
    /// Nothing until something comes or ends.
    Nothing,
}

/// Chunks in the order in which they came.
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

    /// Puts a chunk in line; false if it was dropped, since the line is full.
    pub(super) fn push(&mut self, chunk: Chunk) -> bool {
        let fits = self.size().0 + chunk.queries.len() <= self.limits.capacity_queries;
        if fits {
            self.waiting.push_back(chunk);
        }
        fits
    }

    /// A batch has ended.
    pub(super) fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// The time that was to be waited for has come.
    pub(super) fn woken(&mut self) {
        self.alarm_is_set = false;
    }

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

    /// Queries and tokens in line.
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

    /// As many chunks from the front as fit into a batch, at least one.
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

/// Cuts the queries of a request into pieces that fit into a batch, each with its tokens; a query
/// that does not fit is a piece by itself.
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
