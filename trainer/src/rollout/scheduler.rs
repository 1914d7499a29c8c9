//! Runs many episodes over one engine and one searcher.
//!
//! An episode that waits for passages does not hold up the others: the engine goes on generating
//! for them, and the searcher is waited for only when nothing else is left to do. In deterministic
//! mode the episodes take their turns in lock step instead, as the reference does, so that the
//! batches that the engine sees do not depend on how long searches take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub use super::config::{RolloutConfig, default_stop_rule, reference_stop_rule};
use super::episode::{Action, Episode, EpisodeError, EpisodeJob, EpisodeLimits, Event};
use super::trajectory::{EndReason, Segment, Trajectory};
use crate::engine::{Engine, EngineError, GenerateRequest, Generation, Sampling, SamplingKey};
use crate::search::{Passage, SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::Stopped;
use crate::token::Tokenizer;

/// Longest wait for searches without a look at the stop flag.
const WAIT_SLICE: Duration = Duration::from_millis(200);
/// Longest wait for searches without a look at what has come.
const ARRIVAL_SLICE: Duration = Duration::from_millis(10);

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
    episode: Episode,
    key: SamplingKey,
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
    /// [`RolloutConfig::enough_prompts`].
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

/// Rolls out all of `work` and returns the trajectories in the same order.
///
/// On an error every sequence is released, so that the engine can be used again. The stop flag is
/// looked at before every step of the engine and while searches are waited for.
pub fn roll_out(
    engine: &mut dyn Engine,
    searcher: &mut dyn Searcher,
    tokenizer: &Tokenizer,
    work: impl Into<RolloutWork>,
    config: &RolloutConfig,
    observer: &mut dyn RolloutObserver,
) -> Result<Rollout, RolloutError> {
    let RolloutWork { carried, jobs } = work.into();
    let total = carried.len() + jobs.len();
    let limits = episode_limits(config, engine);
    let key_and_episode = |job: EpisodeJob| CarriedEpisode {
        key: job.key,
        episode: Episode::new(job, limits.clone()),
    };
    let episodes: Vec<CarriedEpisode> =
        carried.into_iter().chain(jobs.into_iter().map(key_and_episode)).collect();
    let mut unfinished = BTreeMap::new();
    for episode in &episodes {
        *unfinished.entry(episode.prompt()).or_insert(0) += 1;
    }
    let mut scheduler = Scheduler {
        engine,
        searcher,
        tokenizer,
        config,
        observer,
        waiting: episodes.into_iter().enumerate().collect(),
        unfinished,
        finished_prompts: 0,
        running: BTreeMap::new(),
        total,
        done: 0,
        finished: Some(BTreeMap::new()),
        settings: BTreeMap::new(),
        cancelled: BTreeSet::new(),
        ready_searches: Vec::new(),
        ready_since: None,
        last_step: Duration::ZERO,
        searching: 0,
        outcome: Outcome::default(),
    };
    let started = Instant::now();
    let result =
        if config.deterministic { scheduler.run_in_lock_step() } else { scheduler.run_apart() };
    let carried = scheduler.give_everything_back();
    result?;
    let mut outcome = scheduler.outcome;
    outcome.times.total = started.elapsed();
    let finished = scheduler.finished.unwrap_or_default();
    let trajectories: Vec<Trajectory> = finished.into_values().collect();
    if trajectories.len() + carried.len() != total {
        let lost = total - trajectories.len() - carried.len();
        let reason = format!("{lost} of {total} episodes were lost");
        return Err(RolloutError::Protocol(reason));
    }
    Ok(Rollout {
        trajectories,
        carried,
        times: outcome.times,
        failed_searches: outcome.failed_searches,
        last_search_failure: outcome.last_search_failure,
    })
}

/// Rolls out episodes as they come, until no more will come and all are over. Trajectories go to the observer
/// alone, which is told after every step of the engine what each running turn has sampled.
///
/// # Errors
/// Those of [`roll_out`]; a stop ends the episodes that run.
pub fn roll_out_as_they_come(
    engine: &mut dyn Engine,
    searcher: &mut dyn Searcher,
    tokenizer: &Tokenizer,
    arrivals: &mut dyn Arrivals,
    config: &RolloutConfig,
    observer: &mut dyn RolloutObserver,
) -> Result<(), RolloutError> {
    let limits = episode_limits(config, engine);
    let mut scheduler = Scheduler {
        engine,
        searcher,
        tokenizer,
        config,
        observer,
        waiting: VecDeque::new(),
        unfinished: BTreeMap::new(),
        finished_prompts: 0,
        running: BTreeMap::new(),
        total: 0,
        done: 0,
        finished: None,
        settings: BTreeMap::new(),
        cancelled: BTreeSet::new(),
        ready_searches: Vec::new(),
        ready_since: None,
        last_step: Duration::ZERO,
        searching: 0,
        outcome: Outcome::default(),
    };
    let result = scheduler.run_as_they_come(arrivals, &limits);
    scheduler.give_everything_back();
    result
}

fn episode_limits(config: &RolloutConfig, engine: &dyn Engine) -> EpisodeLimits {
    EpisodeLimits {
        max_turns: config.max_turns,
        max_turn_tokens: config.max_turn_tokens.max(1),
        min_turn_tokens: config.min_turn_tokens.max(1),
        observation: config.observation,
        max_context_tokens: config.max_context_tokens.min(engine.max_context_tokens()),
        max_sampled_tokens: usize::MAX,
    }
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
    waiting: VecDeque<(usize, CarriedEpisode)>,
    /// Episodes of each prompt that are not over; no entry once all of them are.
    unfinished: BTreeMap<usize, usize>,
    finished_prompts: usize,
    running: BTreeMap<usize, Running>,
    /// Episodes that have come so far.
    total: usize,
    /// Those of them that are over.
    done: usize,
    /// Trajectories by job; `None` where only the observer is told of them.
    finished: Option<BTreeMap<usize, Trajectory>>,
    /// How tokens are chosen in jobs that have it their own way.
    settings: BTreeMap<usize, Sampling>,
    /// Jobs that nobody wants any more and whose query is still under way.
    cancelled: BTreeSet<usize>,
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
            if self.running.is_empty() || self.is_enough() {
                return Ok(());
            }
            let outcomes = self.collect_outcomes()?;
            self.take_outcomes(outcomes)?;
            self.step_engine()?;
        }
    }

    /// As [`Self::run_apart`], with a look at what has come before every step.
    fn run_as_they_come(
        &mut self,
        arrivals: &mut dyn Arrivals,
        limits: &EpisodeLimits,
    ) -> Result<(), RolloutError> {
        let mut more_will_come = true;
        loop {
            self.config.stop_flag.check()?;
            let is_idle = self.running.is_empty() && self.waiting.is_empty();
            if more_will_come {
                let patience = if is_idle { WAIT_SLICE } else { Duration::ZERO };
                match arrivals.take(patience) {
                    Some(arrived) => self.take_arrivals(arrived, limits),
                    None => more_will_come = false,
                }
            } else if is_idle {
                return Ok(());
            }
            self.start_episodes()?;
            if !self.waits_for_more_searches() {
                self.submit_searches()?;
            }
            let outcomes = if self.searching > 0 && self.engine.is_idle() {
                self.searcher.wait(ARRIVAL_SLICE)?.unwrap_or_default()
            } else if self.searching > 0 {
                self.searcher.poll()?
            } else {
                Vec::new()
            };
            self.count_outcomes(&outcomes)?;
            self.take_outcomes(outcomes)?;
            self.step_engine()?;
            for &job in self.running.keys() {
                let token_ids = self.engine.partial_tokens(job as u64);
                if !token_ids.is_empty() {
                    self.observer.observe(RolloutEvent::Sampling { job, token_ids });
                }
            }
        }
    }

    fn take_arrivals(&mut self, arrived: Vec<Arrival>, limits: &EpisodeLimits) {
        for arrival in arrived {
            match arrival {
                Arrival::Job { id, job, sampling, max_sampled_tokens } => {
                    let key = job.key;
                    let limits = EpisodeLimits { max_sampled_tokens, ..limits.clone() };
                    let episode = Episode::new(job, limits);
                    self.settings.insert(id, sampling);
                    self.waiting.push_back((id, CarriedEpisode { episode, key }));
                    self.total += 1;
                }
                Arrival::Cancel { id } => self.cancel(id),
            }
        }
    }

    /// Gives up an episode that nobody waits for any more.
    fn cancel(&mut self, job: usize) {
        self.waiting.retain(|(waiting, _)| *waiting != job);
        self.settings.remove(&job);
        let unsent = self.ready_searches.len();
        self.ready_searches.retain(|request| request.ticket != job as u64);
        let was_unsent = self.ready_searches.len() < unsent;
        if let Some(Running { episode, .. }) = self.running.remove(&job) {
            self.engine.release(job as u64);
            if episode.is_searching() && !was_unsent {
                self.cancelled.insert(job);
            }
        }
    }

    /// All running episodes take one turn, then all of them search, then the next turn begins. The
    /// outcomes are taken in the order of the jobs, whatever order they came in.
    fn run_in_lock_step(&mut self) -> Result<(), RolloutError> {
        loop {
            self.start_episodes()?;
            if self.running.is_empty() || self.is_enough() {
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
            let Some((index, CarriedEpisode { episode, key })) = self.waiting.pop_front() else {
                return Ok(());
            };
            let running =
                self.running.entry(index).or_insert(Running { episode, key, observed: 0 });
            let action = running.episode.ask_again();
            self.act(index, action)?;
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
        self.act(job, action)
    }

    /// Does what an episode wants, once the observer has seen what is new in it.
    fn act(&mut self, job: usize, action: Action) -> Result<(), RolloutError> {
        let Some(running) = self.running.get_mut(&job) else { return Ok(()) };
        let segments = &running.episode.trajectory().segments;
        for segment in &segments[running.observed..] {
            self.observer.observe(RolloutEvent::Appended { job, segment });
        }
        running.observed = segments.len();
        match action {
            Action::Generate { append, max_new_tokens } => {
                let key = running.key;
                let sampling = self.settings.get(&job).copied().unwrap_or(self.config.sampling);
                self.engine.submit(GenerateRequest {
                    sequence: job as u64,
                    append,
                    max_new_tokens,
                    stop: self.config.stop.clone(),
                    sampling,
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
        if let Some(left) = self.unfinished.get_mut(&trajectory.prompt) {
            *left -= 1;
            if *left == 0 {
                self.unfinished.remove(&trajectory.prompt);
                self.finished_prompts += 1;
            }
        }
        self.done += 1;
        self.settings.remove(&job);
        let (done, total) = (self.done, self.total);
        let event = RolloutEvent::Finished { job, trajectory: &trajectory, done, total };
        self.observer.observe(event);
        if let Some(finished) = &mut self.finished {
            finished.insert(job, trajectory);
        }
    }

    /// Whether the rest is not waited for.
    fn is_enough(&self) -> bool {
        self.config.enough_prompts.is_some_and(|enough| self.finished_prompts >= enough)
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
        self.observer.observe(RolloutEvent::Waited { started, took: waited });
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
            if self.cancelled.remove(&job) {
                continue;
            }
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
        let ended = generations.len();
        self.observer.observe(RolloutEvent::Stepped { started, took, ended });
        Ok(generations)
    }

    /// Frees engine and searcher; returns the episodes that are not over, in the order of the work.
    fn give_everything_back(&mut self) -> Vec<CarriedEpisode> {
        let mut unfinished: Vec<(usize, CarriedEpisode)> = self.waiting.drain(..).collect();
        for (job, Running { episode, key, .. }) in std::mem::take(&mut self.running) {
            self.engine.release(job as u64);
            unfinished.push((job, CarriedEpisode { episode, key }));
        }
        unfinished.sort_by_key(|(job, _)| *job);
        // A ticket is used again in the next rollout: no outcome may outlive this one.
        self.searcher.cancel();
        unfinished.into_iter().map(|(_, episode)| episode).collect()
    }
}

impl Rollout {
    /// Episodes that ended for `reason`.
    pub fn ended(&self, reason: EndReason) -> usize {
        self.trajectories.iter().filter(|trajectory| trajectory.end == reason).count()
    }
}
