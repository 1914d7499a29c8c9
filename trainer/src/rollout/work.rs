//! What a rollout is given and what it gives back: episodes, events, times, errors.

use std::time::{Duration, Instant};

use super::episode::{Episode, EpisodeError, EpisodeJob};
use super::trajectory::{EndReason, Segment, Trajectory};
use crate::engine::{EngineError, Sampling, SamplingKey};
use crate::search::{Passage, SearcherError};
use crate::stop::Stopped;

/// What is to be rolled out: episodes that an earlier rollout did not wait for, and new ones.
#[derive(Clone, Debug, Default)]
pub struct RolloutWork {
    /// They come first in the order of the rollout.
    pub carried: Vec<CarriedEpisode>,
    /// New ones.
    pub jobs: Vec<EpisodeJob>,
}

impl From<Vec<EpisodeJob>> for RolloutWork {
    fn from(jobs: Vec<EpisodeJob>) -> Self {
        Self { carried: Vec::new(), jobs }
    }
}

/// An episode in the middle. Its finished turns stay as they were sampled, with the version of their policy;
/// the one in progress is sampled anew.
#[derive(Clone, Debug)]
pub struct CarriedEpisode {
    pub(super) episode: Episode,
    pub(super) key: SamplingKey,
}

impl CarriedEpisode {
    /// What has happened so far.
    pub fn trajectory(&self) -> &Trajectory {
        self.episode.trajectory()
    }

    /// Index of its prompt in the batch.
    pub fn prompt(&self) -> usize {
        self.episode.trajectory().prompt
    }

    /// Gives it another place in its batch.
    #[must_use]
    pub fn with_prompt(mut self, prompt: usize) -> Self {
        self.episode.set_prompt(prompt);
        self
    }
}

/// Finished episodes and where the time went.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// In the order of the work.
    pub trajectories: Vec<Trajectory>,
    /// Those that were not waited for, in the same order; none without
    /// [`RolloutConfig::enough_prompts`](super::RolloutConfig::enough_prompts).
    pub carried: Vec<CarriedEpisode>,
    /// Where the time went.
    pub times: RolloutTimes,
    /// Searches that failed for good, each the end of its episode.
    pub failed_searches: usize,
    /// What the last of them failed of.
    pub last_search_failure: Option<String>,
}

/// Where the time of a rollout went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutTimes {
    /// From the first request to the last episode's end.
    pub total: Duration,
    /// In the engine.
    pub generation: Duration,
    /// While at least one episode waited for passages.
    pub search: Duration,
    /// While there was nothing to do but wait for passages.
    pub search_only: Duration,
}

/// Why a rollout could not be completed. A failed search is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Searches cannot go on at all.
    #[error(transparent)]
    Searcher(#[from] SearcherError),
    /// An episode could not take an event.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
    /// Somebody wished that it ends.
    #[error("the rollout was stopped")]
    Stopped(#[from] Stopped),
    /// The engine or the searcher broke its contract.
    #[error("{0}")]
    Protocol(String),
}

/// Something that happened in a rollout; `job` is an index into the jobs.
#[derive(Clone, Copy, Debug)]
pub enum RolloutEvent<'a> {
    /// A segment was appended to an episode: its prompt, a turn, an observation, a message.
    Appended { job: usize, segment: &'a Segment },
    /// A query is on its way.
    Searching { job: usize, query: &'a str },
    /// Passages came, before they are shortened for the model.
    Found { job: usize, passages: &'a [Passage] },
    /// A search failed for good.
    SearchFailed { job: usize, reason: &'a str },
    /// What a turn that is running has sampled so far; told where episodes are rolled out as they come.
    Sampling { job: usize, token_ids: &'a [u32] },
    /// The engine has computed from `started` on for `took`; `ended` turns are over.
    Stepped { started: Instant, took: Duration, ended: usize },
    /// From `started` on there was nothing to do for `took` but wait for passages.
    Waited { started: Instant, took: Duration },
    /// An episode ended; `done` of all `total` have.
    Finished { job: usize, trajectory: &'a Trajectory, done: usize, total: usize },
}

/// A change in what is to be rolled out.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// Another episode.
    Job {
        /// Names it in events; not given twice.
        id: usize,
        job: EpisodeJob,
        /// How its tokens are chosen.
        sampling: Sampling,
        /// Of all its turns together.
        max_sampled_tokens: usize,
    },
    /// Nobody waits for this one any more. One that is over already is passed over.
    Cancel { id: usize },
}

/// Where episodes come from while others run.
pub trait Arrivals {
    /// What has come since the last call; if nothing has, waits for at most `patience`. `None`: nothing more
    /// will come.
    fn take(&mut self, patience: Duration) -> Option<Vec<Arrival>>;
}

/// Watches a rollout: a progress bar, a conversation in the terminal.
pub trait RolloutObserver {
    /// Called on the scheduler's thread, which waits for it.
    fn observe(&mut self, event: RolloutEvent<'_>);
}

/// Watches nothing.
impl RolloutObserver for () {
    fn observe(&mut self, _: RolloutEvent<'_>) {}
}

impl Rollout {
    /// Episodes that ended for `reason`.
    pub fn ended(&self, reason: EndReason) -> usize {
        self.trajectories.iter().filter(|trajectory| trajectory.end == reason).count()
    }
}
