//! One question and the model's work on it: a state machine without I/O.
//!
//! An episode receives an event and returns the next action. It owns the trajectory and every rule of
//! the loop: turns, invalid actions, budgets, endings. It never calls an engine or a retriever, and
//! never encodes text that the model wrote.
//!
//! ```text
//! Generating => Searching | Generating | Done      (a turn was sampled)
//! Searching  => Generating | Done                  (passages arrived, or the search failed)
//! ```

use serde::{Deserialize, Serialize};
use shared::contract::client::Passage;

use super::observation::{self, ObservationBudget};
use super::parse::{TurnAction, parse_action};
use super::trajectory::{EndReason, SearchRecord, Segment, SegmentKind, Trajectory};
use crate::engine::{Generation, SamplingKey, StopReason};
use crate::token::{TokenError, Tokenizer};

/// Text inserted after a turn without a complete action. The wording is part of the protocol: models
/// trained with the reference have seen exactly this text.
pub const INVALID_ACTION_TEXT: &str = "\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n";

/// An episode that has not begun.
#[derive(Clone, Debug)]
pub struct EpisodeJob {
    /// Index of the prompt in its batch; samples of one prompt share it.
    pub prompt: usize,
    /// Number of the sample among those of its prompt.
    pub sample: usize,
    /// Id of the dataset record.
    pub example_id: String,
    /// The question in its template.
    pub prompt_text: String,
    /// Token ids of `prompt_text`.
    pub prompt_ids: Vec<u32>,
    /// The key of its random draws.
    pub key: SamplingKey,
}

/// The limits of one episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpisodeLimits {
    /// Number of turns that may search. One more generation follows; a search in it is not sent.
    pub max_turns: usize,
    /// Most tokens sampled in one turn.
    pub max_turn_tokens: usize,
    /// Free context that a turn needs, in tokens; at least 1. With less, the episode ends instead.
    pub min_turn_tokens: usize,
    /// Limits on the passages that one search adds to the context.
    pub observation: ObservationBudget,
    /// Most tokens in prompt, turns and observations together.
    pub max_context_tokens: usize,
    /// Most tokens sampled in all turns together.
    pub max_sampled_tokens: usize,
}

/// An event that an episode receives.
#[derive(Clone, Debug)]
pub enum Event {
    /// The episode starts; always the first event.
    Started,
    /// A turn was sampled.
    Generated(Generation),
    /// The passages of a search, best first; an empty list is a success.
    Found(Vec<Passage>),
    /// The search failed for good.
    SearchFailed,
}

/// The action that an episode requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sample a turn.
    Generate {
        /// Tokens that the engine has not seen yet.
        append: Vec<u32>,
        /// Most tokens to sample; at least 1.
        max_new_tokens: usize,
    },
    /// Send a query to the retriever.
    Search {
        /// The query; may be empty.
        query: String,
    },
    /// End the episode: the trajectory is complete.
    Finish,
}

/// An error in handling an event.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeError {
    /// A text could not be encoded or decoded.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The caller sent an event that this state does not expect.
    #[error("an episode received {event} while it was {state}")]
    OutOfOrder { event: &'static str, state: &'static str },
    /// The engine broke its contract of one log-prob per token.
    #[error("a generation of {tokens} tokens came with {log_probs} log-probs")]
    LogProbs { tokens: usize, log_probs: usize },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    Ready,
    Generating,
    Searching { query: String },
    Done,
}

/// The model's work on one question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Episode {
    trajectory: Trajectory,
    state: State,
    limits: EpisodeLimits,
    generations: usize,
    context_tokens: usize,
    /// Tokens at the end of the context that the engine has not seen.
    unseen: Vec<u32>,
}

impl Episode {
    /// Creates an episode that waits for [`Event::Started`].
    pub fn new(job: EpisodeJob, limits: EpisodeLimits) -> Self {
        let mut episode = Self {
            trajectory: Trajectory {
                prompt: job.prompt,
                sample: job.sample,
                example_id: job.example_id,
                segments: Vec::new(),
                end: EndReason::TurnLimit,
                turns: 1,
                valid_actions: 0,
                valid_searches: 0,
                invalid_actions: 0,
                length_stops: 0,
                shortened_observations: 0,
                searches: Vec::new(),
            },
            state: State::Ready,
            limits,
            generations: 0,
            context_tokens: 0,
            unseen: Vec::new(),
        };
        episode.append_given(SegmentKind::Prompt, job.prompt_ids, job.prompt_text);
        episode
    }

    /// Handles an event and returns the next action.
    pub fn step(&mut self, event: Event, tokenizer: &Tokenizer) -> Result<Action, EpisodeError> {
        match (&self.state, event) {
            (State::Ready, Event::Started) => Ok(self.generate_or_end()),
            (State::Generating, Event::Generated(generation)) => {
                self.take_turn(generation, tokenizer)
            }
            (State::Searching { query }, Event::Found(passages)) => {
                let query = query.clone();
                self.take_passages(query, &passages, tokenizer)
            }
            (State::Searching { .. }, Event::SearchFailed) => {
                Ok(self.finish(EndReason::SearchFailed))
            }
            (state, event) => {
                Err(EpisodeError::OutOfOrder { event: event.name(), state: state.name() })
            }
        }
    }

    /// Returns the pending action again, for an engine that has seen none of the context and a searcher
    /// without the query. A turn in progress starts over.
    pub fn ask_again(&mut self) -> Action {
        match &self.state {
            State::Done => Action::Finish,
            State::Ready | State::Generating => {
                self.unseen = self.trajectory.token_ids();
                self.generate_or_end()
            }
            State::Searching { query } => {
                let query = query.clone();
                self.unseen = self.trajectory.token_ids();
                Action::Search { query }
            }
        }
    }

    /// Returns `true` if the episode waits for passages.
    pub fn is_searching(&self) -> bool {
        matches!(self.state, State::Searching { .. })
    }

    /// Sets the index of the prompt in its batch.
    pub fn set_prompt(&mut self, prompt: usize) {
        self.trajectory.prompt = prompt;
    }

    /// Returns the trajectory so far; it is complete once [`Action::Finish`] was returned.
    pub fn trajectory(&self) -> &Trajectory {
        &self.trajectory
    }

    /// Converts the episode into its trajectory.
    pub fn into_trajectory(self) -> Trajectory {
        self.trajectory
    }

    fn take_turn(
        &mut self,
        generation: Generation,
        tokenizer: &Tokenizer,
    ) -> Result<Action, EpisodeError> {
        if generation.token_ids.len() != generation.log_probs.len() {
            return Err(EpisodeError::LogProbs {
                tokens: generation.token_ids.len(),
                log_probs: generation.log_probs.len(),
            });
        }
        self.generations += 1;
        let text = tokenizer.decode_turn(&generation.token_ids)?;
        let action = parse_action(&text);
        self.append_sampled(generation, text);
        let is_last = self.generations > self.limits.max_turns;
        match action {
            TurnAction::Answer(_) => {
                self.trajectory.valid_actions += 1;
                Ok(self.finish(EndReason::Answered))
            }
            TurnAction::Search(query) => {
                self.trajectory.valid_actions += 1;
                // The reference counts a search even if it is not sent.
                self.trajectory.valid_searches += 1;
                if is_last {
                    return Ok(self.finish(EndReason::TurnLimit));
                }
                self.trajectory.turns += 1;
                self.state = State::Searching { query: query.clone() };
                Ok(Action::Search { query })
            }
            TurnAction::Invalid => {
                self.trajectory.invalid_actions += 1;
                if is_last {
                    return Ok(self.finish(EndReason::TurnLimit));
                }
                self.trajectory.turns += 1;
                let token_ids = tokenizer.encode(INVALID_ACTION_TEXT)?;
                if token_ids.len() + self.limits.min_turn_tokens > self.free_tokens() {
                    return Ok(self.finish(EndReason::ContextLimit));
                }
                let text = INVALID_ACTION_TEXT.to_owned();
                self.append_given(SegmentKind::Injected, token_ids, text);
                Ok(self.generate_or_end())
            }
        }
    }

    fn take_passages(
        &mut self,
        query: String,
        passages: &[Passage],
        tokenizer: &Tokenizer,
    ) -> Result<Action, EpisodeError> {
        let passage_ids = passages.iter().map(|passage| passage.id.clone()).collect();
        self.trajectory.searches.push(SearchRecord { query, passage_ids });
        let left_for_observation = self.free_tokens().saturating_sub(self.limits.min_turn_tokens);
        let budget = ObservationBudget {
            max_tokens: self.limits.observation.max_tokens.min(left_for_observation),
            ..self.limits.observation
        };
        let Some(observation) = observation::render(passages, budget, tokenizer)? else {
            return Ok(self.finish(EndReason::ContextLimit));
        };
        self.trajectory.shortened_observations += usize::from(observation.shortened);
        self.append_given(SegmentKind::Observation, observation.token_ids, observation.text);
        Ok(self.generate_or_end())
    }

    /// Begins the next turn, or ends the episode if the context or the limit of sampled tokens is full.
    fn generate_or_end(&mut self) -> Action {
        let unsampled =
            self.limits.max_sampled_tokens.saturating_sub(self.trajectory.sampled_tokens());
        let free = self.free_tokens();
        if free < self.limits.min_turn_tokens.max(1) || unsampled == 0 {
            return self.finish(EndReason::ContextLimit);
        }
        self.state = State::Generating;
        Action::Generate {
            append: std::mem::take(&mut self.unseen),
            max_new_tokens: self.limits.max_turn_tokens.min(free).min(unsampled),
        }
    }

    fn finish(&mut self, end: EndReason) -> Action {
        self.trajectory.end = end;
        self.state = State::Done;
        Action::Finish
    }

    /// Returns the number of tokens that still fit into the context.
    fn free_tokens(&self) -> usize {
        self.limits.max_context_tokens.saturating_sub(self.context_tokens)
    }

    /// Appends tokens that the model did not write. The engine has not seen them yet.
    fn append_given(&mut self, kind: SegmentKind, token_ids: Vec<u32>, text: String) {
        self.context_tokens += token_ids.len();
        self.unseen.extend_from_slice(&token_ids);
        let log_probs = Vec::new();
        let segment = Segment { kind, token_ids, log_probs, policy_version: 0, text };
        self.trajectory.segments.push(segment);
    }

    /// Appends a turn that the model wrote. The engine already has it in its context.
    fn append_sampled(&mut self, generation: Generation, text: String) {
        self.context_tokens += generation.token_ids.len();
        self.trajectory.length_stops += usize::from(generation.stop == StopReason::Length);
        self.trajectory.segments.push(Segment {
            kind: SegmentKind::Sampled,
            token_ids: generation.token_ids,
            log_probs: generation.log_probs,
            policy_version: generation.policy_version,
            text,
        });
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Started => "its start",
            Self::Generated(_) => "a generation",
            Self::Found(_) => "passages",
            Self::SearchFailed => "a failed search",
        }
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Ready => "not started",
            Self::Generating => "generating",
            Self::Searching { .. } => "searching",
            Self::Done => "done",
        }
    }
}
