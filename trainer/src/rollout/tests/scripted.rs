//! A model that follows a script, one character per step, and a retriever with scripted answers and timing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shared::contract::client::Passage;

use crate::engine::{
    Engine, EngineError, GenerateRequest, Generation, Sampling, SamplingKey, StopReason, StopRule,
};
use crate::rollout::observation::ObservationBudget;
use crate::rollout::{EpisodeJob, RolloutSettings};
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;
use crate::token::{CHARACTERS_END_ID, Tokenizer};

/// The text of a turn after the end of the script, as in the recordings.
const AFTER_SCRIPT: &str = "nothing more";

/// An engine that writes script `n` in sequence `n`, one entry per turn.
#[derive(Debug, Default)]
pub(crate) struct ScriptedEngine {
    pub(crate) scripts: Vec<Vec<String>>,
    /// If `true`, samples an end-of-sequence token after an entry without a stop string.
    pub(crate) says_end: bool,
    pub(crate) max_context_tokens: usize,
    /// Number of ended turns after which the engine fails.
    pub(crate) fails_after_turns: Option<usize>,
    pub(crate) sequences: BTreeMap<u64, Sequence>,
    pub(crate) released: BTreeSet<u64>,
    /// The running sequences of each step.
    pub(crate) batches: Vec<Vec<u64>>,
    turns_ended: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// The tokens of the context, each with `true` if it was sampled.
    pub(crate) context: Vec<(u32, bool)>,
    /// The context's text at the start of each turn.
    pub(crate) inputs: Vec<String>,
    turns: usize,
    running: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    rest: VecDeque<char>,
    sampled: Vec<u32>,
    max_new_tokens: usize,
    stop: StopRule,
}

impl ScriptedEngine {
    pub(crate) fn new(scripts: Vec<Vec<String>>) -> Self {
        Self { scripts, max_context_tokens: 1_000_000, ..Self::default() }
    }

    pub(crate) fn from_texts(scripts: &[&[&str]]) -> Self {
        let owned = |script: &&[&str]| script.iter().map(|turn| (*turn).to_owned()).collect();
        Self::new(scripts.iter().map(owned).collect())
    }
}

impl Turn {
    /// Samples one token. Returns the stop reason if the turn ended.
    fn advance(&mut self, says_end: bool) -> Option<StopReason> {
        let Some(character) = self.rest.pop_front() else {
            return Some(self.end_of_script(says_end));
        };
        self.sampled.push(u32::from(character));
        let text = decode(&self.sampled);
        if let Some(tag) = self.stop.stop_at.iter().find(|tag| text.contains(*tag)) {
            return Some(StopReason::Tag(tag.clone()));
        }
        (self.sampled.len() == self.max_new_tokens).then(|| self.cut(StopReason::Length))
    }

    fn end_of_script(&mut self, says_end: bool) -> StopReason {
        let reason = self.cut(StopReason::EndOfSequence);
        if says_end && reason == StopReason::EndOfSequence {
            self.sampled.push(CHARACTERS_END_ID);
        }
        reason
    }

    fn cut(&mut self, otherwise: StopReason) -> StopReason {
        let text = decode(&self.sampled);
        for tag in &self.stop.cut_after {
            if let Some(start) = text.find(tag) {
                self.sampled.truncate(text[..start + tag.len()].chars().count());
                return StopReason::Tag(tag.clone());
            }
        }
        otherwise
    }
}

impl Engine for ScriptedEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        assert!(!self.released.contains(&request.sequence), "a released sequence continues");
        let sequence = self.sequences.entry(request.sequence).or_default();
        if sequence.running.is_some() {
            return Err(EngineError::Busy(request.sequence));
        }
        sequence.context.extend(request.append.iter().map(|id| (*id, false)));
        let limit = self.max_context_tokens;
        let needed = sequence.context.len() + request.max_new_tokens;
        assert!(request.max_new_tokens >= 1);
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: request.sequence, needed, limit });
        }
        let ids: Vec<u32> = sequence.context.iter().map(|(id, _)| *id).collect();
        sequence.inputs.push(decode(&ids));
        let script = &self.scripts[request.sequence as usize];
        let says = script.get(sequence.turns).map_or(AFTER_SCRIPT, String::as_str);
        sequence.turns += 1;
        sequence.running = Some(Turn {
            rest: says.chars().collect(),
            sampled: Vec::new(),
            max_new_tokens: request.max_new_tokens,
            stop: request.stop,
        });
        Ok(())
    }

    fn step(&mut self, _: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        if self.fails_after_turns.is_some_and(|turns| self.turns_ended >= turns) {
            return Err(EngineError::Server("scripted failure".to_owned()));
        }
        let mut ended = Vec::new();
        let mut batch = Vec::new();
        for (&id, sequence) in &mut self.sequences {
            let Some(turn) = &mut sequence.running else { continue };
            batch.push(id);
            let Some(stop) = turn.advance(self.says_end) else { continue };
            let token_ids = std::mem::take(&mut turn.sampled);
            sequence.running = None;
            let first = sequence.context.len();
            sequence.context.extend(token_ids.iter().map(|id| (*id, true)));
            ended.push(Generation {
                sequence: id,
                log_probs: (0..token_ids.len()).map(|offset| log_prob(first + offset)).collect(),
                token_ids,
                stop,
                policy_version: 3,
            });
        }
        self.turns_ended += ended.len();
        self.batches.push(batch);
        Ok(ended)
    }

    fn release(&mut self, sequence: u64) {
        self.released.insert(sequence);
        if let Some(sequence) = self.sequences.get_mut(&sequence) {
            sequence.running = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.sequences.values().all(|sequence| sequence.running.is_none())
    }

    fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }
}

/// Returns a log-prob that encodes the position of its token in the context.
pub(crate) fn log_prob(position: usize) -> f32 {
    -(position as f32) / 1024.0
}

fn decode(ids: &[u32]) -> String {
    Tokenizer::characters().decode(ids).unwrap()
}

/// The timing of a [`ScriptedSearcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// All outcomes at the next poll, in order.
    Immediate,
    /// One outcome at a time, the latest query first, and only at every other poll.
    LateAndReversed,
}

/// A searcher with given results.
#[derive(Debug)]
pub(crate) struct ScriptedSearcher {
    /// The passages of each query; those of `*` answer all other queries.
    pub(crate) documents: BTreeMap<String, Vec<String>>,
    pub(crate) timing: Timing,
    /// Queries that fail for good.
    pub(crate) failing: BTreeSet<String>,
    /// Every batch that was submitted.
    pub(crate) batches: Vec<Vec<SearchRequest>>,
    pub(crate) cancelled: bool,
    pending: Vec<SearchRequest>,
    polls: usize,
}

impl ScriptedSearcher {
    pub(crate) fn new(documents: BTreeMap<String, Vec<String>>, timing: Timing) -> Self {
        Self {
            documents,
            timing,
            failing: BTreeSet::new(),
            batches: Vec::new(),
            cancelled: false,
            pending: Vec::new(),
            polls: 0,
        }
    }

    fn answer(&self, request: &SearchRequest) -> SearchOutcome {
        let documents = self.documents.get(&request.query).or_else(|| self.documents.get("*"));
        let passage = |(rank, contents): (usize, &String)| {
            Passage::new(format!("{}-{rank}", request.query), contents.clone())
        };
        let passages = documents.into_iter().flatten().take(request.top_k).enumerate().map(passage);
        let result = if self.failing.contains(&request.query) {
            Err("scripted failure".to_owned())
        } else {
            Ok(passages.collect())
        };
        SearchOutcome { ticket: request.ticket, result }
    }

    fn take(&mut self) -> Vec<SearchOutcome> {
        let taken = match self.timing {
            Timing::Immediate => std::mem::take(&mut self.pending),
            Timing::LateAndReversed => self.pending.pop().into_iter().collect(),
        };
        taken.iter().map(|request| self.answer(request)).collect()
    }
}

impl Searcher for ScriptedSearcher {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        assert!(!requests.is_empty(), "an empty request went out");
        self.batches.push(requests.clone());
        self.pending.extend(requests);
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        self.polls += 1;
        let is_late = self.timing == Timing::LateAndReversed && !self.polls.is_multiple_of(2);
        Ok(if is_late { Vec::new() } else { self.take() })
    }

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        assert!(!self.pending.is_empty(), "waited with nothing pending");
        Ok(Some(self.take()))
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.pending.clear();
    }
}

/// Creates one job per prompt.
pub(crate) fn jobs<S: AsRef<str>>(prompts: &[S]) -> Vec<EpisodeJob> {
    let job = |(index, prompt): (usize, &S)| EpisodeJob {
        prompt: index,
        sample: 0,
        example_id: format!("example-{index}"),
        prompt_text: prompt.as_ref().to_owned(),
        prompt_ids: Tokenizer::characters().encode(prompt.as_ref()).unwrap(),
        key: SamplingKey { seed: 0, step: 0, prompt: index as u64, sample: 0 },
    };
    prompts.iter().enumerate().map(job).collect()
}

/// Returns settings with limits that no scripted episode reaches.
pub(crate) fn settings(deterministic: bool) -> RolloutSettings {
    RolloutSettings {
        max_turns: 4,
        top_k: 2,
        max_turn_tokens: 10_000,
        min_turn_tokens: 1,
        observation: ObservationBudget { max_tokens: 100_000, max_passage_tokens: 100_000 },
        max_context_tokens: 1_000_000,
        max_running_episodes: 64,
        sampling: Sampling { temperature: 1.0, top_p: 1.0 },
        stop: crate::rollout::scheduler::default_stop_rule(),
        // Queries share a request but never wait for others: tests do not depend on time.
        search_batch: Duration::from_nanos(1),
        deterministic,
        enough_prompts: None,
        stop_flag: StopFlag::never(),
    }
}

pub(crate) fn documents(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |(query, passages): &(&str, &[&str])| {
        ((*query).to_owned(), passages.iter().map(|passage| (*passage).to_owned()).collect())
    };
    entries.iter().map(owned).collect()
}
