//! One question being worked on: a state machine without I/O.
//!
//! An episode is told what happened and says what it wants next. It owns the trajectory and every
//! rule of the loop: turns, invalid actions, budgets, endings. It never talks to an engine or to a
//! retriever, and never encodes a text that the model wrote.
//!
//! ```text
//! Generating => Searching | Generating | Done      (a turn was sampled)
//! Searching  => Generating | Done                  (passages came, or the search failed)
//! ```

use shared::client::Passage;

use super::observation::{self, ObservationBudget};
use super::parse::{TurnAction, parse_action};
use super::trajectory::{EndReason, SearchRecord, Segment, SegmentKind, Trajectory};
use crate::engine::{Generation, SamplingKey, StopReason};
use crate::token::{TokenError, Tokenizer};

/// Put in after a turn without a complete action. The wording is part of the protocol: models that
/// were trained with the reference have seen exactly this.
pub const INVALID_ACTION_TEXT: &str = "\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n";

/// What is to be rolled out.
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
    /// Decides the random draws.
    pub key: SamplingKey,
}

/// The bounds of one episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeLimits {
    /// Turns that may search. One more generation follows, in which a search is not sent.
    pub max_turns: usize,
    /// Of one turn.
    pub max_turn_tokens: usize,
    /// The episode ends rather than begin a turn with less room than this; at least 1.
    pub min_turn_tokens: usize,
    /// Of what one search puts into the context.
    pub observation: ObservationBudget,
    /// Prompt, turns and observations together.
    pub max_context_tokens: usize,
    /// Of all turns together.
    pub max_sampled_tokens: usize,
}

/// What happened to an episode.
#[derive(Clone, Debug)]
pub enum Event {
    /// First of all.
    Started,
    /// A turn was sampled.
    Generated(Generation),
    /// The passages found, best first; an empty list is a success.
    Found(Vec<Passage>),
    /// The search failed for good.
    SearchFailed,
}

/// What an episode wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sample a turn.
    Generate {
        /// Tokens that the engine has not seen yet.
        append: Vec<u32>,
        /// Limit of sampled tokens; at least 1.
        max_new_tokens: usize,
    },
    /// Look something up.
    Search {
        /// May be empty.
        query: String,
    },
    /// Nothing: the trajectory is complete.
    Finish,
}

/// Why an episode could not take an event.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeError {
    /// A text could not be encoded or decoded.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The caller sent an event that this state does not expect.
    #[error("an episode got {event} while it was {state}")]
    OutOfOrder { event: &'static str, state: &'static str },
    /// The engine broke its contract: one log-prob a token.
    #[error("a generation of {tokens} tokens came with {log_probs} log-probs")]
    LogProbs { tokens: usize, log_probs: usize },
}

#[derive(Clone, Debug)]
enum State {
    Ready,
    Generating,
    Searching { query: String },
    Done,
}

/// One question being worked on.
#[derive(Clone, Debug)]
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
    /// An episode that waits for [`Event::Started`].
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

    /// Takes an event and says what is wanted next.
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

    /// Asks again for what the episode waits for, of an engine that has seen none of its context and of a
    /// searcher that has forgotten the query. A turn in progress begins anew.
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

    /// Whether it waits for passages.
    pub fn is_searching(&self) -> bool {
        matches!(self.state, State::Searching { .. })
    }

    /// Gives the episode another place in its batch.
    pub fn set_prompt(&mut self, prompt: usize) {
        self.trajectory.prompt = prompt;
    }

    /// What has happened so far; complete once [`Action::Finish`] was returned.
    pub fn trajectory(&self) -> &Trajectory {
        &self.trajectory
    }

    /// The trajectory itself.
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
                // Counted even where it is not sent, as the reference does.
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
                if token_ids.len() + self.limits.min_turn_tokens > self.room() {
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
        let left_for_observation = self.room().saturating_sub(self.limits.min_turn_tokens);
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

    /// The next turn, if the context has room for one.
    fn generate_or_end(&mut self) -> Action {
        let left = self.limits.max_sampled_tokens.saturating_sub(self.trajectory.sampled_tokens());
        let room = self.room();
        if room < self.limits.min_turn_tokens.max(1) || left == 0 {
            return self.finish(EndReason::ContextLimit);
        }
        self.state = State::Generating;
        Action::Generate {
            append: std::mem::take(&mut self.unseen),
            max_new_tokens: self.limits.max_turn_tokens.min(room).min(left),
        }
    }

    fn finish(&mut self, end: EndReason) -> Action {
        self.trajectory.end = end;
        self.state = State::Done;
        Action::Finish
    }

    /// Tokens that the context still holds.
    fn room(&self) -> usize {
        self.limits.max_context_tokens.saturating_sub(self.context_tokens)
    }

    /// Appends what the model did not write: the engine has yet to see it.
    fn append_given(&mut self, kind: SegmentKind, token_ids: Vec<u32>, text: String) {
        self.context_tokens += token_ids.len();
        self.unseen.extend_from_slice(&token_ids);
        let log_probs = Vec::new();
        let segment = Segment { kind, token_ids, log_probs, policy_version: 0, text };
        self.trajectory.segments.push(segment);
    }

    /// Appends what the model wrote: the engine has it in its context already.
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
