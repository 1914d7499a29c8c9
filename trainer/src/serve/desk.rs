//! Where questions come in and what happens to their episodes goes out, on the thread of the engine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use shared::passage::Passage;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

use crate::chat::{TagSplitter, Voice};
use crate::engine::{Sampling, SamplingKey};
use crate::rollout::{
    Arrival, Arrivals, EndReason, EpisodeJob, RolloutEvent, RolloutObserver, SegmentKind,
};
use crate::token::{TextStream, Tokenizer};

/// A question on its way to the engine.
#[derive(Debug)]
pub struct Question {
    pub(super) prompt_text: String,
    pub(super) prompt_ids: Vec<u32>,
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
    /// Of all turns together.
    pub(super) max_sampled_tokens: usize,
    pub(super) sender: Sender<AgentEvent>,
    /// Its place among the questions that are taken on.
    pub(super) place: OwnedSemaphorePermit,
}

/// What happens to an episode, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AgentEvent {
    /// More of what the model thinks.
    Thought(String),
    /// More of its answer.
    Answer(String),
    /// A query was sent.
    Searching { query: String },
    /// What it found, before it is shortened for the model.
    Found { passages: Vec<Passage> },
    /// The search failed for good; the episode ends.
    SearchFailed { reason: String },
    /// The episode is over.
    Finished(Finished),
}

/// Figures of an episode that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) end: EndReason,
    pub(super) prompt_tokens: usize,
    pub(super) sampled_tokens: usize,
    /// What the model was shown of passages and messages.
    pub(super) given_tokens: usize,
}

/// A client whose episode runs.
#[derive(Debug)]
struct Client {
    /// `None` once the client has gone, or has let so much wait that it counts as gone: the engine waits for
    /// nobody.
    sender: Option<Sender<AgentEvent>>,
    tags: TagSplitter,
    /// The turn in progress.
    turn: TextStream,
    _place: OwnedSemaphorePermit,
}

impl Client {
    /// Tells the client what is new; a client that has gone is noticed by the inbox.
    fn tell(&mut self, event: AgentEvent) {
        if self.sender.as_ref().is_some_and(|sender| sender.try_send(event).is_err()) {
            self.sender = None;
        }
    }

    fn is_gone(&self) -> bool {
        self.sender.as_ref().is_none_or(Sender::is_closed)
    }

    fn tell_all(&mut self, stretches: Vec<(Voice, String)>) {
        for (voice, text) in stretches {
            match voice {
                Voice::Thought => self.tell(AgentEvent::Thought(text)),
                Voice::Answer => self.tell(AgentEvent::Answer(text)),
                // The query is told as a whole when it is sent.
                Voice::Search => {}
            }
        }
    }
}

/// The clients whose episodes run, by job.
#[derive(Debug)]
pub struct Desk<'t> {
    tokenizer: &'t Tokenizer,
    clients: RefCell<BTreeMap<usize, Client>>,
}

impl<'t> Desk<'t> {
    /// Nobody is being served yet.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, clients: RefCell::default() }
    }
}

/// The end of the channel at which questions arrive.
#[derive(Debug)]
pub struct Inbox<'d, 't> {
    desk: &'d Desk<'t>,
    questions: Receiver<Question>,
    next_id: usize,
}

impl<'d, 't> Inbox<'d, 't> {
    /// Takes questions until their last sender is gone.
    pub fn new(desk: &'d Desk<'t>, questions: Receiver<Question>) -> Self {
        Self { desk, questions, next_id: 0 }
    }

    fn begin(&mut self, question: Question) -> Arrival {
        let id = self.next_id;
        self.next_id += 1;
        let Question { prompt_text, prompt_ids, sampling, seed, max_sampled_tokens, .. } = question;
        let (tags, turn) = (TagSplitter::default(), TextStream::new());
        let client = Client { sender: Some(question.sender), tags, turn, _place: question.place };
        self.desk.clients.borrow_mut().insert(id, client);
        // Two requests with one seed draw alike, whatever else is served.
        let key = SamplingKey { seed, step: 0, prompt: 0, sample: 0 };
        let (prompt, example_id) = (id, format!("request-{id}"));
        let job = EpisodeJob { prompt, sample: 0, example_id, prompt_text, prompt_ids, key };
        Arrival::Job { id, job, sampling, max_sampled_tokens }
    }
}

impl Arrivals for Inbox<'_, '_> {
    fn take(&mut self, patience: Duration) -> Option<Vec<Arrival>> {
        let mut arrived = Vec::new();
        self.desk.clients.borrow_mut().retain(|&id, client| {
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

impl RolloutObserver for &Desk<'_> {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        let mut clients = self.clients.borrow_mut();
        match event {
            RolloutEvent::Sampling { job, token_ids } => {
                let Some(client) = clients.get_mut(&job) else { return };
                for &token in &token_ids[client.turn.ids().len().min(token_ids.len())..] {
                    // A text that cannot be decoded is told as a whole, or not at all, when the turn ends.
                    let Ok(new) = client.turn.push(self.tokenizer, token) else { return };
                    let stretches = client.tags.push(new);
                    client.tell_all(stretches);
                }
            }
            RolloutEvent::Appended { job, segment } if segment.kind == SegmentKind::Sampled => {
                let Some(client) = clients.get_mut(&job) else { return };
                let told = std::mem::take(&mut client.turn);
                // A turn that was cut after the fact may be shorter than what was told of it.
                if let Some(rest) = segment.text.strip_prefix(told.text()) {
                    let stretches = client.tags.push(rest);
                    client.tell_all(stretches);
                }
                let stretches = client.tags.finish();
                client.tell_all(stretches);
            }
            RolloutEvent::Searching { job, query } => {
                let Some(client) = clients.get_mut(&job) else { return };
                client.tell(AgentEvent::Searching { query: query.to_owned() });
            }
            RolloutEvent::Found { job, passages } => {
                let Some(client) = clients.get_mut(&job) else { return };
                client.tell(AgentEvent::Found { passages: passages.to_vec() });
            }
            RolloutEvent::SearchFailed { job, reason } => {
                tracing::warn!(%reason, "search failed");
                let Some(client) = clients.get_mut(&job) else { return };
                client.tell(AgentEvent::SearchFailed { reason: reason.to_owned() });
            }
            RolloutEvent::Finished { job, trajectory, .. } => {
                let Some(mut client) = clients.remove(&job) else { return };
                let tokens = |kind| {
                    let segments = trajectory.segments.iter().filter(move |one| one.kind == kind);
                    segments.map(|segment| segment.token_ids.len()).sum::<usize>()
                };
                client.tell(AgentEvent::Finished(Finished {
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
