//! Engines outside this process: vLLM and SGLang servers, asked over HTTP with token ids.
//!
//! A turn is one request that carries the whole context; the server finds what it has computed
//! before in its prefix cache. Where a turn ends is decided here, by decoded text, exactly as the
//! built-in engine does: servers cut the text at a stop string, but keep the whole last token.
//!
//! Invariant: what was sampled by other weights than the present ones is thrown away and sampled
//! again, also where a server was started anew behind our back.

mod dialect;
mod fleet;
mod http;
mod sglang;
#[cfg(test)]
mod tests;
mod vllm;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::retry::RetryPolicy;
use shared::splitmix;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub use dialect::Dialect;
use dialect::{Ending, Sampled, TurnRequest};
use fleet::{Fleet, Played};

use super::sample::Choice;
use super::turn::Turn;
use super::{
    Engine, EngineError, GenerateRequest, Generation, SamplingKey, SequenceId, StopReason,
};
use crate::token::Tokenizer;

/// Outcomes that wait to be collected; senders wait when there are more.
const OUTCOME_QUEUE_CAPACITY: usize = 1024;
/// Longest wait of one step for a turn to end: short, so that the scheduler sees searches in time.
const STEP_WAIT: Duration = Duration::from_millis(5);

/// Where the servers are and how long they are waited for.
#[derive(Clone, Debug)]
pub struct ExternalEngineConfig {
    pub dialect: Dialect,
    /// Base URLs, one a replica; at least one.
    pub urls: Vec<String>,
    /// Longest context, prompt and sampled tokens together.
    pub max_context_tokens: usize,
    /// Ids from here on are no tokens of the model.
    pub vocabulary: usize,
    /// Longest wait for one answer.
    pub attempt_timeout: Duration,
    /// Pauses between attempts, and the longest wait for a turn with all of them.
    pub retry: RetryPolicy,
    /// Most turns under way at one replica.
    pub max_in_flight: usize,
    /// Pause between two looks at replicas that did not answer.
    pub health_interval: Duration,
}

/// A turn that is under way.
#[derive(Debug)]
struct Running {
    request: GenerateRequest,
    /// Names the turn in its outcome: those of released sequences are nobody's.
    ticket: u64,
    /// `None` until the next step sends it.
    task: Option<AbortHandle>,
}

/// A sequence known to the engine.
#[derive(Debug, Default)]
struct Sequence {
    context: Vec<u32>,
    /// The replica whose prefix cache holds the context.
    replica: Option<usize>,
    running: Option<Running>,
}

/// What became of a turn.
struct Outcome {
    sequence: SequenceId,
    ticket: u64,
    result: Result<Played, String>,
}

/// Turns played by servers.
#[derive(Debug)]
pub struct ExternalEngine {
    config: ExternalEngineConfig,
    fleet: Arc<Fleet>,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    sequences: BTreeMap<SequenceId, Sequence>,
    next_ticket: u64,
    sender: mpsc::Sender<Outcome>,
    outcomes: mpsc::Receiver<Outcome>,
}

impl ExternalEngine {
    /// Starts the thread that carries the requests; does not connect yet.
    ///
    /// # Errors
    /// An address that is none, or the system's when no thread can be started.
    pub fn new(config: ExternalEngineConfig) -> Result<Self, EngineError> {
        let fleet = Arc::new(Fleet::new(&config).map_err(EngineError::Other)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
            .map_err(|error| EngineError::Other(format!("cannot start a thread: {error}")))?;
        runtime.spawn(Arc::clone(&fleet).watch_health(config.health_interval));
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE_CAPACITY);
        let (runtime, sequences) = (Some(runtime), BTreeMap::new());
        Ok(Self { config, fleet, runtime, sequences, next_ticket: 0, sender, outcomes })
    }

    /// The weights that turns are sampled by from now on: a model folder, as the servers see it.
    /// Each replica loads them before its next turn. Called between rollouts.
    pub fn set_weights(&mut self, folder: &Path, policy_version: u64) {
        self.fleet.set_target(folder, policy_version);
    }

    /// Sends the turns that were submitted since the last step.
    fn send(&mut self, tokenizer: &Tokenizer) {
        let Some(runtime) = &self.runtime else { return };
        for (&id, sequence) in &mut self.sequences {
            let Some(running) = &mut sequence.running else { continue };
            if running.task.is_some() {
                continue;
            }
            let request = &running.request;
            let room = self.config.max_context_tokens - sequence.context.len();
            let turn = TurnRequest {
                prompt: sequence.context.clone(),
                max_new_tokens: request.max_new_tokens.min(room),
                sampling: request.sampling,
                seed: seed_of(request.key, sequence.context.len()),
                stop_at: request.stop.stop_at.clone(),
                end_ids: tokenizer.end_ids().to_vec(),
            };
            let (fleet, sender) = (Arc::clone(&self.fleet), self.sender.clone());
            let (ticket, preferred) = (running.ticket, sequence.replica);
            let task = runtime.spawn(async move {
                let result = fleet.play(&turn, preferred).await;
                // The receiver is gone with the engine, and nobody wants the rest.
                let _ = sender.send(Outcome { sequence: id, ticket, result }).await;
            });
            running.task = Some(task.abort_handle());
        }
    }

    /// Outcomes that have come, after a short wait for the first.
    fn receive(&mut self) -> Vec<Outcome> {
        let mut received = Vec::new();
        let Some(runtime) = &self.runtime else { return received };
        let outcomes = &mut self.outcomes;
        // A timer needs its runtime from the start.
        if let Ok(Some(first)) =
            runtime.block_on(async { timeout(STEP_WAIT, outcomes.recv()).await })
        {
            received.push(first);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            received.push(outcome);
        }
        received
    }

    /// The generation that an outcome is, unless its sequence was released meanwhile.
    fn take(
        &mut self,
        outcome: Outcome,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Generation>, EngineError> {
        let Outcome { sequence: id, ticket, result } = outcome;
        let Some(sequence) = self.sequences.get_mut(&id) else { return Ok(None) };
        let Some(running) = sequence.running.take_if(|running| running.ticket == ticket) else {
            return Ok(None);
        };
        let Played { sampled, replica, version } = result.map_err(EngineError::Other)?;
        sequence.replica = Some(replica);
        let vocabulary = self.config.vocabulary;
        if let Some(token) = sampled.token_ids.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(EngineError::Other(format!(
                "the engine sampled token {token}, which is not among the model's {vocabulary} \
                 tokens: it serves another model than model.path"
            )));
        }
        let room = self.config.max_context_tokens - sequence.context.len();
        let (turn, stop) = replayed(running.request, sampled, room, tokenizer)?;
        sequence.context.extend_from_slice(&turn.token_ids);
        Ok(Some(Generation {
            sequence: id,
            token_ids: turn.token_ids,
            log_probs: turn.log_probs,
            stop,
            policy_version: version,
        }))
    }
}

/// Ends a turn where the built-in engine would have ended it. `room` counts the tokens that the
/// context can take.
fn replayed(
    request: GenerateRequest,
    sampled: Sampled,
    room: usize,
    tokenizer: &Tokenizer,
) -> Result<(Turn, StopReason), EngineError> {
    let mut turn = Turn::new(request);
    let mut found = None;
    for (token, log_prob) in sampled.token_ids.into_iter().zip(sampled.log_probs) {
        turn.push(Choice { token, log_prob });
        found = turn.stop_reason(tokenizer, turn.token_ids.len() >= room)?;
        if found.is_some() {
            break;
        }
    }
    // A server may know more tokens that end a text than the model folder names.
    let otherwise = match sampled.ending {
        Ending::Stop => StopReason::EndOfSequence,
        Ending::Length | Ending::Aborted => StopReason::Length,
    };
    let (stop, _) = turn.finish(tokenizer, found.unwrap_or(otherwise))?;
    Ok((turn, stop))
}

/// The seed of a turn: a function of the counters and of the turn's place in its sequence. Not
/// negative, since servers take signed numbers.
fn seed_of(key: SamplingKey, position: usize) -> i64 {
    let mut state = splitmix::INCREMENT;
    for counter in [key.seed, key.step, key.prompt, key.sample, position as u64] {
        state = splitmix::finalise(state ^ counter).wrapping_add(splitmix::INCREMENT);
    }
    (splitmix::finalise(state) >> 1) as i64
}

impl Engine for ExternalEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        let id = request.sequence;
        let held = self.sequences.get(&id);
        if held.is_some_and(|sequence| sequence.running.is_some()) {
            return Err(EngineError::Busy(id));
        }
        let past = held.map_or(0, |sequence| sequence.context.len()) + request.append.len();
        let (needed, limit) = (past + 1, self.config.max_context_tokens);
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: id, needed, limit });
        }
        if past == 0 {
            return Err(EngineError::Other(format!("sequence {id} has an empty prompt")));
        }
        let sequence = self.sequences.entry(id).or_default();
        sequence.context.extend_from_slice(&request.append);
        self.next_ticket += 1;
        sequence.running = Some(Running { request, ticket: self.next_ticket, task: None });
        Ok(())
    }

    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        self.send(tokenizer);
        let mut ended = Vec::new();
        for outcome in self.receive() {
            ended.extend(self.take(outcome, tokenizer)?);
        }
        Ok(ended)
    }

    fn release(&mut self, sequence: SequenceId) {
        let released = self.sequences.remove(&sequence);
        // A server aborts what its client no longer waits for.
        if let Some(Running { task: Some(task), .. }) = released.and_then(|one| one.running) {
            task.abort();
        }
    }

    fn is_idle(&self) -> bool {
        self.sequences.values().all(|sequence| sequence.running.is_none())
    }

    fn max_context_tokens(&self) -> usize {
        self.config.max_context_tokens
    }
}

impl Drop for ExternalEngine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests that nobody waits for any more are abandoned rather than waited for.
            runtime.shutdown_background();
        }
    }
}
