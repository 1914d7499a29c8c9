//! Runs many episodes over one engine and one searcher.
//!
//! An episode that waits for passages does not hold up the others: the engine goes on generating
//! for them, and the searcher is waited for only when nothing else is left to do. In deterministic
//! mode the episodes take their turns in lock step instead, as the reference does, so that the
//! batches that the engine sees do not depend on how long searches take.

mod arrivals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub use super::config::{RolloutConfig, default_stop_rule, reference_stop_rule};
use super::episode::{Action, Episode, EpisodeJob, EpisodeLimits, Event};
use super::trajectory::Trajectory;
pub use super::work::{
    Arrival, Arrivals, CarriedEpisode, Rollout, RolloutError, RolloutEvent, RolloutObserver,
    RolloutTimes, RolloutWork,
};
use crate::engine::{Engine, GenerateRequest, Generation, Sampling, SamplingKey};
use crate::search::{SearchOutcome, SearchRequest, Searcher};
use crate::token::Tokenizer;
pub use arrivals::roll_out_as_they_come;

/// Longest wait for searches without a look at the stop flag.
const WAIT_SLICE: Duration = Duration::from_millis(200);

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
    let mut scheduler = Scheduler::new(engine, searcher, tokenizer, config, observer);
    scheduler.waiting = episodes.into_iter().enumerate().collect();
    scheduler.unfinished = unfinished;
    scheduler.total = total;
    scheduler.finished = Some(BTreeMap::new());
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

impl<'a> Scheduler<'a> {
    /// One without episodes, which keeps no trajectories.
    fn new(
        engine: &'a mut dyn Engine,
        searcher: &'a mut dyn Searcher,
        tokenizer: &'a Tokenizer,
        config: &'a RolloutConfig,
        observer: &'a mut dyn RolloutObserver,
    ) -> Self {
        Self {
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
        }
    }
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
