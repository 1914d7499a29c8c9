//! Input and output of a rollout: episodes, events, times, errors.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::episode::{Episode, EpisodeError, EpisodeJob};
use super::trajectory::{EndReason, Segment, Trajectory};
use crate::engine::{EngineError, Sampling, SamplingKey};
use crate::search::record::RecordCounters;
use crate::search::{Passage, SearcherError};
use crate::stop::Stopped;

/// The work of a rollout: unfinished episodes of an earlier rollout, then new ones.
#[derive(Clone, Debug, Default)]
pub struct RolloutWork {
    /// Unfinished episodes; they come first in the order of the rollout.
    pub carried: Vec<CarriedEpisode>,
    /// New episodes.
    pub jobs: Vec<EpisodeJob>,
}

impl From<Vec<EpisodeJob>> for RolloutWork {
    fn from(jobs: Vec<EpisodeJob>) -> Self {
        Self { carried: Vec::new(), jobs }
    }
}

/// An unfinished episode. Its finished turns keep their tokens and the version of their policy; the turn
/// in progress is sampled again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CarriedEpisode {
    pub(super) episode: Episode,
    pub(super) key: SamplingKey,
}

impl CarriedEpisode {
    /// Returns the trajectory so far.
    pub fn trajectory(&self) -> &Trajectory {
        self.episode.trajectory()
    }

    /// Returns the index of the prompt in its batch.
    pub fn prompt(&self) -> usize {
        self.episode.trajectory().prompt
    }

    /// Sets the index of the prompt in its batch.
    #[must_use]
    pub fn with_prompt(mut self, prompt: usize) -> Self {
        self.episode.set_prompt(prompt);
        self
    }
}

/// The result of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollout {
    /// Finished episodes, in the order of the work.
    pub trajectories: Vec<Trajectory>,
    /// Unfinished episodes, in the same order; empty without
    /// [`RolloutSettings::enough_prompts`](super::RolloutSettings::enough_prompts).
    pub carried: Vec<CarriedEpisode>,
    /// The time spent, by activity.
    pub times: RolloutTimes,
    /// Number of searches that failed for good. Each ended its episode.
    pub failed_searches: usize,
    /// The reason of the last failure.
    pub last_search_failure: Option<String>,
    /// The searches that a record of searches answered, and those that it did not.
    pub record: RecordCounters,
}

/// The time of a rollout, by activity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutTimes {
    /// Time from the first request to the end of the last episode.
    pub total: Duration,
    /// Time in the engine.
    pub generation: Duration,
    /// Time during which at least one episode waited for passages.
    pub search: Duration,
    /// Time during which all episodes waited for passages and the engine was idle.
    pub search_only: Duration,
}

/// An error that ends a rollout. A failed search does not: it ends its episode only.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The searcher cannot work at all.
    #[error(transparent)]
    Searcher(#[from] SearcherError),
    /// An episode could not handle an event.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
    /// A stop was requested.
    #[error("the rollout was stopped")]
    Stopped(#[from] Stopped),
    /// The engine or the searcher broke its contract.
    #[error("{0}")]
    Protocol(String),
}

/// An event of a rollout; `job` is an index into the jobs.
#[derive(Clone, Copy, Debug)]
pub enum RolloutEvent<'a> {
    /// A segment was appended to an episode: its prompt, a turn, an observation or a message.
    Appended { job: usize, segment: &'a Segment },
    /// A query was sent.
    Searching { job: usize, query: &'a str },
    /// Passages arrived; they have not been shortened for the model yet.
    Found { job: usize, passages: &'a [Passage] },
    /// A search failed for good.
    SearchFailed { job: usize, reason: &'a str },
    /// A running turn has sampled `token_ids` so far. Reported by `roll_out_as_they_come` only.
    Sampling { job: usize, token_ids: &'a [u32] },
    /// The engine computed for `took`, beginning at `started`; `ended` turns ended.
    Stepped { started: Instant, took: Duration, ended: usize },
    /// All episodes waited for passages for `took`, beginning at `started`.
    Waited { started: Instant, took: Duration },
    /// An episode ended; `done` of `total` episodes have ended.
    Finished { job: usize, trajectory: &'a Trajectory, done: usize, total: usize },
}

/// A change to the set of episodes of a rollout.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A new episode.
    Job {
        /// The episode's index in events; never used twice.
        id: usize,
        job: EpisodeJob,
        /// The sampling of its tokens.
        sampling: Sampling,
        /// Most tokens sampled in all of its turns together.
        max_sampled_tokens: usize,
    },
    /// The episode is no longer needed. Ignored if the episode has ended.
    Cancel { id: usize },
}

/// A source of episodes that arrive while others run.
pub trait Arrivals {
    /// Returns the arrivals since the last call. If there are none, waits for at most `patience`. Returns
    /// `None` once no more will arrive.
    fn take(&mut self, patience: Duration) -> Option<Vec<Arrival>>;
}

/// An observer of a rollout, such as a progress bar or a conversation in the terminal.
pub trait RolloutObserver {
    /// Receives an event, on the scheduler's thread, which waits for the call to return.
    fn observe(&mut self, event: RolloutEvent<'_>);
}

/// Ignores all events.
impl RolloutObserver for () {
    fn observe(&mut self, _: RolloutEvent<'_>) {}
}

impl Rollout {
    /// Returns the number of episodes that ended for `reason`.
    pub fn ended(&self, reason: EndReason) -> usize {
        self.trajectories.iter().filter(|trajectory| trajectory.end == reason).count()
    }
}
