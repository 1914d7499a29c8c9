//! Engines outside this process: vLLM and SGLang servers, which receive token ids over HTTP.
//!
//! A turn is one request with the whole context; the server's prefix cache holds what it has already
//! computed. The end of a turn is decided here, by decoded text, exactly as in the built-in engine: servers
//! cut the text at a stop string but keep the whole last token.
//!
//! Invariant: a turn that was sampled with other weights than the current ones is discarded and sampled
//! again, even if a server was restarted unnoticed.

mod dialect;
mod fleet;
mod http;
mod protocol;
mod sglang;
#[cfg(test)]
mod tests;
mod vllm;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::contract::retry::RetryPolicy;
use shared::contract::splitmix;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub use dialect::Dialect;
use fleet::{Fleet, PlayedTurn};
use protocol::{SampledTurn, TurnEnding, TurnRequest};

use super::sample::Choice;
use super::turn::Turn;
use super::{
    Engine, EngineError, GenerateRequest, Generation, SamplingKey, SequenceId, StopReason,
};
use crate::token::Tokenizer;

/// The most outcomes that wait to be collected; further senders wait.
const OUTCOME_QUEUE_CAPACITY: usize = 1024;
/// The longest time that a step waits for a turn to end. It is short, so that the scheduler sees finished
/// searches in time.
const STEP_WAIT: Duration = Duration::from_millis(5);

/// The reason why the runtime of a live engine is present.
const RUNTIME_LIVES: &str = "only `drop` takes the runtime";

/// The addresses and limits of an external engine.
#[derive(Clone, Debug)]
pub struct ExternalEngineConfig {
    pub dialect: Dialect,
    /// Base URLs, one for each replica; at least one.
    pub urls: Vec<String>,
    /// Longest context, prompt and sampled tokens together.
    pub max_context_tokens: usize,
    /// The number of the model's tokens; ids from here on are invalid.
    pub vocabulary: usize,
    /// The longest wait for one answer.
    pub attempt_timeout: Duration,
    /// The pauses between attempts, and the longest wait for a turn with all its attempts.
    pub retry: RetryPolicy,
    /// The most turns that run concurrently at one replica.
    pub max_in_flight: usize,
    /// The pause between two checks of replicas that did not answer.
    pub health_interval: Duration,
}

/// A turn that was submitted and has not ended.
#[derive(Debug)]
struct RunningTurn {
    request: GenerateRequest,
    /// The turn's number in its outcome. Outcomes of released sequences are dropped.
    ticket: u64,
    /// `None` until the next step sends it.
    task: Option<AbortHandle>,
}

/// A sequence known to the engine.
#[derive(Debug, Default)]
struct RemoteSequence {
    context: Vec<u32>,
    /// The replica whose prefix cache holds the context.
    replica: Option<usize>,
    running: Option<RunningTurn>,
}

/// The result of a turn.
struct Outcome {
    sequence: SequenceId,
    ticket: u64,
    result: Result<PlayedTurn, String>,
}

/// An engine whose turns servers play.
#[derive(Debug)]
pub struct ExternalEngine {
    config: ExternalEngineConfig,
    fleet: Arc<Fleet>,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    sequences: BTreeMap<SequenceId, RemoteSequence>,
    next_ticket: u64,
    sender: mpsc::Sender<Outcome>,
    outcomes: mpsc::Receiver<Outcome>,
}

impl ExternalEngine {
    /// Starts the thread that sends the requests. Does not connect yet.
    ///
    /// # Errors
    /// An address is invalid, or the system refuses to start the thread.
    pub fn new(config: ExternalEngineConfig) -> Result<Self, EngineError> {
        let fleet = Arc::new(Fleet::new(&config).map_err(EngineError::Server)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("engine")
            .enable_all()
            .build()
            .map_err(|error| EngineError::Threads { threads: 1, error })?;
        runtime.spawn(Arc::clone(&fleet).watch_health(config.health_interval));
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE_CAPACITY);
        let (runtime, sequences) = (Some(runtime), BTreeMap::new());
        Ok(Self { config, fleet, runtime, sequences, next_ticket: 0, sender, outcomes })
    }

    /// Sets the weights of all later turns: a model folder, by the path that the servers see. Each replica loads
    /// them before its next turn. Called between rollouts.
    pub fn set_weights(&mut self, folder: &Path, policy_version: u64) {
        self.fleet.set_target(folder, policy_version);
    }

    /// Sends the turns that were submitted since the last step.
    fn send(&mut self, tokenizer: &Tokenizer) {
        let runtime = self.runtime.as_ref().expect(RUNTIME_LIVES);
        for (&id, sequence) in &mut self.sequences {
            let Some(running) = &mut sequence.running else { continue };
            if running.task.is_some() {
                continue;
            }
            let request = &running.request;
            let free = self.config.max_context_tokens - sequence.context.len();
            let turn = TurnRequest {
                prompt: sequence.context.clone(),
                max_new_tokens: request.max_new_tokens.min(free),
                sampling: request.sampling,
                seed: seed_of(request.key, sequence.context.len()),
                stop_at: request.stop.stop_at.clone(),
                end_ids: tokenizer.end_ids().to_vec(),
            };
            let (fleet, sender) = (Arc::clone(&self.fleet), self.sender.clone());
            let (ticket, preferred) = (running.ticket, sequence.replica);
            let task = runtime.spawn(async move {
                let result = fleet.play(&turn, preferred).await;
                // If the receiver is gone, so is the engine, and nobody needs the outcome.
                let _ = sender.send(Outcome { sequence: id, ticket, result }).await;
            });
            running.task = Some(task.abort_handle());
        }
    }

    /// Returns the outcomes that have arrived, after a short wait for the first.
    fn receive(&mut self) -> Vec<Outcome> {
        let mut received = Vec::new();
        let runtime = self.runtime.as_ref().expect(RUNTIME_LIVES);
        let outcomes = &mut self.outcomes;
        // The timeout must be created inside the runtime, which drives its timer.
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

    /// Turns an outcome into a generation; `None` if its sequence was released meanwhile.
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
        let PlayedTurn { sampled, replica, version } = result.map_err(EngineError::Server)?;
        sequence.replica = Some(replica);
        let vocabulary = self.config.vocabulary;
        let foreign = sampled.token_ids.iter().find(|&&token| token as usize >= vocabulary);
        if let Some(&token) = foreign {
            return Err(EngineError::ForeignToken { token, vocabulary });
        }
        let free = self.config.max_context_tokens - sequence.context.len();
        let (turn, stop) = replay(running.request, sampled, free, tokenizer)?;
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

/// Replays a sampled turn and ends it where the built-in engine would have ended it. `free` is the number of
/// tokens that fit into the context.
fn replay(
    request: GenerateRequest,
    sampled: SampledTurn,
    free: usize,
    tokenizer: &Tokenizer,
) -> Result<(Turn, StopReason), EngineError> {
    let mut turn = Turn::new(request);
    let mut stop = None;
    for (token, log_prob) in sampled.token_ids.into_iter().zip(sampled.log_probs) {
        turn.push(Choice { token, log_prob });
        stop = turn.stop_reason(tokenizer, turn.token_ids.len() >= free)?;
        if stop.is_some() {
            break;
        }
    }
    // A server may end texts at tokens that the model folder does not name.
    let reported = match sampled.ending {
        TurnEnding::Stop => StopReason::EndOfSequence,
        TurnEnding::Length | TurnEnding::Aborted => StopReason::Length,
    };
    let (stop, _) = turn.finish(tokenizer, stop.unwrap_or(reported))?;
    Ok((turn, stop))
}

/// Returns the seed of a turn, a function of the counters and of the turn's position in its sequence. It is not
/// negative, because servers expect signed numbers.
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
        let known = self.sequences.get(&id);
        if known.is_some_and(|sequence| sequence.running.is_some()) {
            return Err(EngineError::Busy(id));
        }
        let past = known.map_or(0, |sequence| sequence.context.len()) + request.append.len();
        let (needed, limit) = (past + 1, self.config.max_context_tokens);
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: id, needed, limit });
        }
        if past == 0 {
            return Err(EngineError::EmptyPrompt(id));
        }
        let sequence = self.sequences.entry(id).or_default();
        sequence.context.extend_from_slice(&request.append);
        self.next_ticket += 1;
        sequence.running = Some(RunningTurn { request, ticket: self.next_ticket, task: None });
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
        // A server aborts a turn when its client closes the connection.
        let running = released.and_then(|sequence| sequence.running);
        if let Some(RunningTurn { task: Some(task), .. }) = running {
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
            // Nobody needs the outcomes of running requests, so they are abandoned.
            runtime.shutdown_background();
        }
    }
}
