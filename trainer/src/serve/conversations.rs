//! The engine thread's side of the server: receives questions and sends the events of their episodes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use shared::contract::passage::Passage;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

use crate::chat::{Piece, TagSplitter, Voice};
use crate::engine::{Sampling, SamplingKey};
use crate::rollout::{
    Arrival, Arrivals, EndReason, EpisodeJob, RolloutEvent, RolloutObserver, SegmentKind,
};
use crate::token::{TextStream, Tokenizer};

/// A question for the engine.
#[derive(Debug)]
pub struct Question {
    pub(super) prompt_text: String,
    pub(super) prompt_ids: Vec<u32>,
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
    /// Most tokens sampled in all turns together.
    pub(super) max_sampled_tokens: usize,
    pub(super) sender: Sender<AgentEvent>,
    /// The permit that counts the question against the server's limit.
    pub(super) permit: OwnedSemaphorePermit,
}

/// An event of an episode, for its client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AgentEvent {
    /// More of the model's thoughts.
    Thought(String),
    /// More of the model's answer.
    Answer(String),
    /// A query was sent.
    Searching { query: String },
    /// Passages arrived; they have not been shortened for the model yet.
    Found { passages: Vec<Passage> },
    /// The search failed for good; the episode ends.
    SearchFailed { reason: String },
    /// The episode has ended.
    Finished(Finished),
}

/// The figures of an episode that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) end: EndReason,
    pub(super) prompt_tokens: usize,
    pub(super) sampled_tokens: usize,
    /// Number of tokens in the passages and messages that the model was shown.
    pub(super) given_tokens: usize,
}

/// A client whose episode is running.
#[derive(Debug)]
struct Client {
    /// The channel to the client; `None` once the client has gone or its channel is full. The engine never
    /// waits for a client.
    sender: Option<Sender<AgentEvent>>,
    tags: TagSplitter,
    /// The turn in progress.
    turn: TextStream,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    /// Sends an event. If that fails, the client counts as gone, and its episode is cancelled.
    fn send(&mut self, event: AgentEvent) {
        if self.sender.as_ref().is_some_and(|sender| sender.try_send(event).is_err()) {
            self.sender = None;
        }
    }

    fn is_gone(&self) -> bool {
        self.sender.as_ref().is_none_or(Sender::is_closed)
    }

    fn send_all(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(Voice::Thought, text) => self.send(AgentEvent::Thought(text)),
                Piece::Text(Voice::Answer, text) => self.send(AgentEvent::Answer(text)),
                // The whole query follows as one event.
                Piece::Text(Voice::Search, _) | Piece::Ended { .. } => {}
            }
        }
    }
}

/// The running conversations: their clients by job.
#[derive(Debug)]
pub struct Conversations<'t> {
    tokenizer: &'t Tokenizer,
    clients: RefCell<BTreeMap<usize, Client>>,
}

impl<'t> Conversations<'t> {
    /// Creates an empty set of conversations.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, clients: RefCell::default() }
    }
}

/// Returns the client of a running job.
fn running(clients: &mut BTreeMap<usize, Client>, job: usize) -> &mut Client {
    clients.get_mut(&job).expect("a client stays until its episode ends or is cancelled")
}

/// The questions that arrive from the routes, as work for the scheduler.
#[derive(Debug)]
pub struct QuestionArrivals<'c, 't> {
    conversations: &'c Conversations<'t>,
    questions: Receiver<Question>,
    next_id: usize,
}

impl<'c, 't> QuestionArrivals<'c, 't> {
    /// Receives questions until the last sender is dropped.
    pub fn new(conversations: &'c Conversations<'t>, questions: Receiver<Question>) -> Self {
        Self { conversations, questions, next_id: 0 }
    }

    fn begin(&mut self, question: Question) -> Arrival {
        let id = self.next_id;
        self.next_id += 1;
        let Question { prompt_text, prompt_ids, sampling, seed, max_sampled_tokens, .. } = question;
        let (tags, turn) = (TagSplitter::default(), TextStream::new());
        let (sender, permit) = (Some(question.sender), question.permit);
        let client = Client { sender, tags, turn, _permit: permit };
        self.conversations.clients.borrow_mut().insert(id, client);
        // Requests with the same seed draw the same numbers, independently of other requests.
        let key = SamplingKey { seed, step: 0, prompt: 0, sample: 0 };
        let (prompt, example_id) = (id, format!("request-{id}"));
        let job = EpisodeJob { prompt, sample: 0, example_id, prompt_text, prompt_ids, key };
        Arrival::Job { id, job, sampling, max_sampled_tokens }
    }
}

impl Arrivals for QuestionArrivals<'_, '_> {
    fn take(&mut self, patience: Duration) -> Option<Vec<Arrival>> {
        let mut arrived = Vec::new();
        self.conversations.clients.borrow_mut().retain(|&id, client| {
            let is_gone = client.is_gone();
            if is_gone {
                arrived.push(Arrival::Cancel { id });
            }
            !is_gone
        });
        let patience = if arrived.is_empty() { patience } else { Duration::ZERO };
        match self.questions.recv_timeout(patience) {
            Ok(question) => arrived.push(self.begin(question)),
            Err(RecvTimeoutError::Disconnected) if arrived.is_empty() => return None,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        while let Ok(question) = self.questions.try_recv() {
            arrived.push(self.begin(question));
        }
        Some(arrived)
    }
}

impl RolloutObserver for &Conversations<'_> {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        let mut clients = self.clients.borrow_mut();
        match event {
            RolloutEvent::Sampling { job, token_ids } => {
                let client = running(&mut clients, job);
                for &token in &token_ids[client.turn.ids().len().min(token_ids.len())..] {
                    // If decoding fails here, the end of the turn sends the text or ends the episode.
                    let Ok(new) = client.turn.push(self.tokenizer, token) else { return };
                    let stretches = client.tags.push(new);
                    client.send_all(stretches);
                }
            }
            RolloutEvent::Appended { job, segment } if segment.kind == SegmentKind::Sampled => {
                let client = running(&mut clients, job);
                let sent = std::mem::take(&mut client.turn);
                // A turn that was cut at its end may be shorter than the text already sent.
                if let Some(rest) = segment.text.strip_prefix(sent.text()) {
                    let stretches = client.tags.push(rest);
                    client.send_all(stretches);
                }
                let stretches = client.tags.finish();
                client.send_all(stretches);
            }
            RolloutEvent::Searching { job, query } => {
                let query = query.to_owned();
                running(&mut clients, job).send(AgentEvent::Searching { query });
            }
            RolloutEvent::Found { job, passages } => {
                let passages = passages.to_vec();
                running(&mut clients, job).send(AgentEvent::Found { passages });
            }
            RolloutEvent::SearchFailed { job, reason } => {
                tracing::warn!(%reason, "search failed");
                let reason = reason.to_owned();
                running(&mut clients, job).send(AgentEvent::SearchFailed { reason });
            }
            RolloutEvent::Finished { job, trajectory, .. } => {
                let mut client = clients.remove(&job).expect("an episode finishes once");
                let tokens = |kind| {
                    let segments = trajectory.segments.iter().filter(move |part| part.kind == kind);
                    segments.map(|segment| segment.token_ids.len()).sum::<usize>()
                };
                client.send(AgentEvent::Finished(Finished {
                    end: trajectory.end,
                    prompt_tokens: tokens(SegmentKind::Prompt),
                    sampled_tokens: trajectory.sampled_tokens(),
                    given_tokens: tokens(SegmentKind::Observation) + tokens(SegmentKind::Injected),
                }));
            }
            RolloutEvent::Appended { .. }
            | RolloutEvent::Stepped { .. }
            | RolloutEvent::Waited { .. } => {}
        }
    }
}
