//! Runs many episodes over one engine and one searcher.
//!
//! An episode that waits for passages does not hold up the others: the engine goes on generating
//! for them, and the searcher is waited for only when nothing else is left to do. In deterministic
//! mode the episodes take their turns in lock step instead, as the reference does, so that the
//! batches that the engine sees do not depend on how long searches take.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub use super::config::{RolloutConfig, default_stop_rule, reference_stop_rule};
use super::episode::{Action, Episode, EpisodeError, EpisodeJob, EpisodeLimits, Event};
use super::trajectory::{EndReason, Segment, Trajectory};
use crate::engine::{Engine, EngineError, GenerateRequest, Generation, SamplingKey};
use crate::search::{Passage, SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::Stopped;
use crate::token::Tokenizer;

/// Longest wait for searches without a look at the stop flag.
const WAIT_SLICE: Duration = Duration::from_millis(200);

/// Finished episodes and where the time went.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// In the order of the jobs.
    pub trajectories: Vec<Trajectory>,
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
    /// An episode ended; `done` of all `total` have.
    Finished { job: usize, trajectory: &'a Trajectory, done: usize, total: usize },
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

/// Rolls out all `jobs` and returns their trajectories in the same order.
///
/// On an error every sequence is released, so that the engine can be used again. The stop flag is
/// looked at before every step of the engine and while searches are waited for.
pub fn roll_out(
    engine: &mut dyn Engine,
    searcher: &mut dyn Searcher,
    tokenizer: &Tokenizer,
    jobs: Vec<EpisodeJob>,
    config: &RolloutConfig,
    observer: &mut dyn RolloutObserver,
) -> Result<Rollout, RolloutError> {
    let total = jobs.len();
    let limits = EpisodeLimits {
        max_turns: config.max_turns,
        max_turn_tokens: config.max_turn_tokens.max(1),
        min_turn_tokens: config.min_turn_tokens.max(1),
        observation: config.observation,
        max_context_tokens: config.max_context_tokens.min(engine.max_context_tokens()),
    };
    let mut scheduler = Scheduler {
        engine,
        searcher,
        tokenizer,
        config,
        observer,
        limits,
        waiting: jobs.into_iter().enumerate().collect(),
        running: BTreeMap::new(),
        finished: (0..total).map(|_| None).collect(),
        ready_searches: Vec::new(),
        ready_since: None,
        last_step: Duration::ZERO,
        searching: 0,
        outcome: Outcome::default(),
    };
    let started = Instant::now();
    let result =
        if config.deterministic { scheduler.run_in_lock_step() } else { scheduler.run_apart() };
    scheduler.give_everything_back();
    result?;
    let mut outcome = scheduler.outcome;
    outcome.times.total = started.elapsed();
    let trajectories: Vec<Trajectory> = scheduler.finished.into_iter().flatten().collect();
    if trajectories.len() != total {
        let reason = format!("{} of {total} episodes did not finish", total - trajectories.len());
        return Err(RolloutError::Protocol(reason));
    }
    Ok(Rollout {
        trajectories,
        times: outcome.times,
        failed_searches: outcome.failed_searches,
        last_search_failure: outcome.last_search_failure,
    })
}

/// An episode with what the scheduler needs beside it.
struct Running {
    episode: Episode,
    key: SamplingKey,
    /// Segments that the observer has been told of.
    observed: usize,
}

#[derive(Default)]
struct Outcome {
    times: RolloutTimes,
    failed_searches: usize,
    last_search_failure: Option<String>,
}

/// A rollout in progress. A job's index is its ticket with the searcher and its sequence in the
/// engine.
struct Scheduler<'a> {
    engine: &'a mut dyn Engine,
    searcher: &'a mut dyn Searcher,
    tokenizer: &'a Tokenizer,
    config: &'a RolloutConfig,
    observer: &'a mut dyn RolloutObserver,
    limits: EpisodeLimits,
    waiting: VecDeque<(usize, EpisodeJob)>,
    running: BTreeMap<usize, Running>,
    finished: Vec<Option<Trajectory>>,
    ready_searches: Vec<SearchRequest>,
    /// Since when the first of them has been looked at.
    ready_since: Option<Instant>,
    /// How long the last step of the engine took.
    last_step: Duration,
    /// Queries that were submitted and have not come back.
    searching: usize,
    outcome: Outcome,
}

impl Scheduler<'_> {
    /// Each episode goes on as soon as it can.
    fn run_apart(&mut self) -> Result<(), RolloutError> {
        loop {
            self.start_episodes()?;
            if !self.waits_for_more_searches() {
                self.submit_searches()?;
            }
            if self.running.is_empty() {
                return Ok(());
            }
            let outcomes = self.collect_outcomes()?;
            self.take_outcomes(outcomes)?;
            self.step_engine()?;
        }
    }

    /// All running episodes take one turn, then all of them search, then the next turn begins. The
    /// outcomes are taken in the order of the jobs, whatever order they came in.
    fn run_in_lock_step(&mut self) -> Result<(), RolloutError> {
        loop {
            self.start_episodes()?;
            if self.running.is_empty() {
                return Ok(());
            }
            let mut generations = Vec::new();
            while !self.engine.is_idle() {
                generations.extend(self.timed_engine_step()?);
            }
            generations.sort_by_key(|generation| generation.sequence);
            let mut turns = Vec::with_capacity(generations.len());
            for generation in generations {
                turns.push((generation.sequence as usize, Event::Generated(generation)));
            }
            // Requests for the next turn are only queued here: the engine runs once all are in.
            for (job, event) in turns {
                self.step_episode(job, event)?;
            }
            self.submit_searches()?;
            let mut outcomes = Vec::new();
            while self.searching > 0 {
                outcomes.extend(self.timed_wait()?);
            }
            outcomes.sort_by_key(|outcome| outcome.ticket);
            self.take_outcomes(outcomes)?;
        }
    }

    fn start_episodes(&mut self) -> Result<(), RolloutError> {
        while self.running.len() < self.config.max_running_episodes.max(1) {
            let Some((index, job)) = self.waiting.pop_front() else { return Ok(()) };
            let key = job.key;
            let episode = Episode::new(job, self.limits.clone());
            self.running.insert(index, Running { episode, key, observed: 0 });
            self.step_episode(index, Event::Started)?;
        }
        Ok(())
    }

    /// Tells an episode what happened and does what it wants next.
    fn step_episode(&mut self, job: usize, event: Event) -> Result<(), RolloutError> {
        let Some(running) = self.running.get_mut(&job) else {
            let reason = format!("got something for job {job}, which is not running");
            return Err(RolloutError::Protocol(reason));
        };
        let action = running.episode.step(event, self.tokenizer)?;
        let segments = &running.episode.trajectory().segments;
        for segment in &segments[running.observed..] {
            self.observer.observe(RolloutEvent::Appended { job, segment });
        }
        running.observed = segments.len();
        match action {
            Action::Generate { append, max_new_tokens } => {
                let key = running.key;
                self.engine.submit(GenerateRequest {
                    sequence: job as u64,
                    append,
                    max_new_tokens,
                    stop: self.config.stop.clone(),
                    sampling: self.config.sampling,
                    key,
                })?;
            }
            Action::Search { query } => {
                self.observer.observe(RolloutEvent::Searching { job, query: &query });
                let top_k = self.config.top_k;
                self.ready_searches.push(SearchRequest { ticket: job as u64, query, top_k });
            }
            Action::Finish => self.finish(job),
        }
        Ok(())
    }

    fn finish(&mut self, job: usize) {
        let Some(running) = self.running.remove(&job) else { return };
        self.engine.release(job as u64);
        let trajectory = running.episode.into_trajectory();
        let total = self.finished.len();
        let done = total - self.waiting.len() - self.running.len();
        let event = RolloutEvent::Finished { job, trajectory: &trajectory, done, total };
        self.observer.observe(event);
        self.finished[job] = Some(trajectory);
    }

    /// One request for all queries that are ready, or one for each.
    fn submit_searches(&mut self) -> Result<(), RolloutError> {
        self.ready_since = None;
        if self.ready_searches.is_empty() {
            return Ok(());
        }
        let mut requests = std::mem::take(&mut self.ready_searches);
        requests.sort_by_key(|request| request.ticket);
        self.searching += requests.len();
        if self.config.search_batch.is_zero() {
            for request in requests {
                self.searcher.submit(vec![request])?;
            }
        } else {
            self.searcher.submit(requests)?;
        }
        Ok(())
    }

    /// Whether queries that are ready may wait for those of the next engine step: only if they will not
    /// have waited too long by its end, as the last one tells.
    fn waits_for_more_searches(&mut self) -> bool {
        if self.ready_searches.is_empty() || self.engine.is_idle() {
            return false;
        }
        let waited = self.ready_since.get_or_insert_with(Instant::now).elapsed();
        waited + self.last_step < self.config.search_batch
    }

    /// Waits for the searcher only if the engine has nothing to do.
    fn collect_outcomes(&mut self) -> Result<Vec<SearchOutcome>, RolloutError> {
        if self.searching == 0 {
            return Ok(Vec::new());
        }
        if self.engine.is_idle() {
            return self.timed_wait();
        }
        let outcomes = self.searcher.poll()?;
        self.count_outcomes(&outcomes)?;
        Ok(outcomes)
    }

    fn timed_wait(&mut self) -> Result<Vec<SearchOutcome>, RolloutError> {
        let started = Instant::now();
        let outcomes = loop {
            self.config.stop_flag.check()?;
            if let Some(outcomes) = self.searcher.wait(WAIT_SLICE)? {
                break outcomes;
            }
        };
        if outcomes.is_empty() {
            let reason = "the searcher stopped waiting without an outcome".to_owned();
            return Err(RolloutError::Protocol(reason));
        }
        let waited = started.elapsed();
        self.outcome.times.search += waited;
        self.outcome.times.search_only += waited;
        self.count_outcomes(&outcomes)?;
        Ok(outcomes)
    }

    fn count_outcomes(&mut self, outcomes: &[SearchOutcome]) -> Result<(), RolloutError> {
        self.searching = self.searching.checked_sub(outcomes.len()).ok_or_else(|| {
            RolloutError::Protocol("the searcher returned more outcomes than it was asked".into())
        })?;
        Ok(())
    }

    fn take_outcomes(&mut self, outcomes: Vec<SearchOutcome>) -> Result<(), RolloutError> {
        for SearchOutcome { ticket, result } in outcomes {
            let job = ticket as usize;
            let event = match result {
                Ok(passages) => {
                    self.observer.observe(RolloutEvent::Found { job, passages: &passages });
                    Event::Found(passages)
                }
                Err(reason) => {
                    self.observer.observe(RolloutEvent::SearchFailed { job, reason: &reason });
                    self.outcome.failed_searches += 1;
                    self.outcome.last_search_failure = Some(reason);
                    Event::SearchFailed
                }
            };
            self.step_episode(job, event)?;
        }
        Ok(())
    }

    fn step_engine(&mut self) -> Result<(), RolloutError> {
        if self.engine.is_idle() {
            return Ok(());
        }
        for generation in self.timed_engine_step()? {
            let job = generation.sequence as usize;
            self.step_episode(job, Event::Generated(generation))?;
        }
        Ok(())
    }

    fn timed_engine_step(&mut self) -> Result<Vec<Generation>, RolloutError> {
        self.config.stop_flag.check()?;
        let started = Instant::now();
        let generations = self.engine.step(self.tokenizer)?;
        let took = started.elapsed();
        self.last_step = took;
        self.outcome.times.generation += took;
        if self.searching > 0 {
            self.outcome.times.search += took;
        }
        Ok(generations)
    }

    fn give_everything_back(&mut self) {
        for job in self.running.keys() {
            self.engine.release(*job as u64);
        }
        self.running.clear();
        // A ticket is used again in the next rollout: no outcome may outlive this one.
        self.searcher.cancel();
    }
}

impl Rollout {
    /// Episodes that ended for `reason`.
    pub fn ended(&self, reason: EndReason) -> usize {
        self.trajectories.iter().filter(|trajectory| trajectory.end == reason).count()
    }
}
