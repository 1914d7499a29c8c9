//! Runs many episodes over one engine and one searcher.
//!
//! An episode that waits for passages does not delay the others: the engine continues to generate
//! for them. The scheduler waits for the searcher only if the engine is idle. In deterministic mode
//! the episodes take their turns in lock step instead, as in the reference: the engine's batches then
//! do not depend on the duration of searches.

mod arrivals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::episode::{Action, Episode, EpisodeJob, EpisodeLimits, Event};
pub use super::settings::{RolloutSettings, default_stop_rule, reference_stop_rule};
use super::trajectory::Trajectory;
pub use super::work::{
    Arrival, Arrivals, CarriedEpisode, Rollout, RolloutError, RolloutEvent, RolloutObserver,
    RolloutTimes, RolloutWork,
};
use crate::engine::{Engine, GenerateRequest, Generation, Sampling, SamplingKey};
use crate::search::{SearchOutcome, SearchRequest, Searcher};
use crate::token::Tokenizer;
pub use arrivals::roll_out_as_they_come;

/// Rolls out all of `work` and returns the trajectories in the same order.
///
/// On an error, every sequence is released, and the engine can be used again. The stop flag is
/// checked before every engine step and during waits for searches.
pub fn roll_out(
    engine: &mut dyn Engine,
    searcher: &mut dyn Searcher,
    tokenizer: &Tokenizer,
    work: impl Into<RolloutWork>,
    settings: &RolloutSettings,
    observer: &mut dyn RolloutObserver,
) -> Result<Rollout, RolloutError> {
    let RolloutWork { carried, jobs } = work.into();
    let total = carried.len() + jobs.len();
    let limits = episode_limits(settings, engine);
    let new_episode = |job: EpisodeJob| CarriedEpisode {
        key: job.key,
        episode: Episode::new(job, limits.clone()),
    };
    let episodes: Vec<CarriedEpisode> =
        carried.into_iter().chain(jobs.into_iter().map(new_episode)).collect();
    let mut unfinished = BTreeMap::new();
    for episode in &episodes {
        *unfinished.entry(episode.prompt()).or_insert(0) += 1;
    }
    let mut scheduler = Scheduler::new(engine, searcher, tokenizer, settings, observer);
    scheduler.waiting = episodes.into_iter().enumerate().collect();
    scheduler.unfinished = unfinished;
    scheduler.total = total;
    scheduler.finished = Some(BTreeMap::new());
    let started = Instant::now();
    let result =
        if settings.deterministic { scheduler.run_in_lock_step() } else { scheduler.run_apart() };
    let carried = scheduler.release_everything();
    result?;
    let record = scheduler.searcher.take_counters();
    let mut outcome = scheduler.outcome;
    outcome.times.total = started.elapsed();
    let finished = scheduler.finished.expect("this rollout keeps its trajectories");
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
        record,
    })
}

fn episode_limits(settings: &RolloutSettings, engine: &dyn Engine) -> EpisodeLimits {
    EpisodeLimits {
        max_turns: settings.max_turns,
        max_turn_tokens: settings.max_turn_tokens.max(1),
        min_turn_tokens: settings.min_turn_tokens.max(1),
        observation: settings.observation,
        max_context_tokens: settings.max_context_tokens.min(engine.max_context_tokens()),
        max_sampled_tokens: usize::MAX,
    }
}

/// An episode with the scheduler's notes on it.
struct RunningEpisode {
    episode: Episode,
    key: SamplingKey,
    /// Number of segments that the observer has seen.
    observed: usize,
}

/// The figures of a rollout.
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
    settings: &'a RolloutSettings,
    observer: &'a mut dyn RolloutObserver,
    waiting: VecDeque<(usize, CarriedEpisode)>,
    /// Number of unfinished episodes of each prompt; a prompt without any has no entry. Empty where
    /// episodes arrive during the rollout.
    unfinished: BTreeMap<usize, usize>,
    finished_prompts: usize,
    running: BTreeMap<usize, RunningEpisode>,
    /// Number of episodes that have arrived.
    total: usize,
    /// Number of episodes that have ended.
    done: usize,
    /// Trajectories by job; `None` if they go only to the observer.
    finished: Option<BTreeMap<usize, Trajectory>>,
    /// The sampling of the jobs that have their own.
    samplings: BTreeMap<usize, Sampling>,
    /// Cancelled jobs whose query has not come back.
    cancelled: BTreeSet<usize>,
    ready_searches: Vec<SearchRequest>,
    /// The time at which the first of them was ready.
    ready_since: Option<Instant>,
    /// Duration of the engine's last step.
    last_step: Duration,
    /// Number of queries that were submitted and have not come back.
    searching: usize,
    outcome: Outcome,
}

impl<'a> Scheduler<'a> {
    /// Creates a scheduler without episodes that keeps no trajectories.
    fn new(
        engine: &'a mut dyn Engine,
        searcher: &'a mut dyn Searcher,
        tokenizer: &'a Tokenizer,
        settings: &'a RolloutSettings,
        observer: &'a mut dyn RolloutObserver,
    ) -> Self {
        Self {
            engine,
            searcher,
            tokenizer,
            settings,
            observer,
            waiting: VecDeque::new(),
            unfinished: BTreeMap::new(),
            finished_prompts: 0,
            running: BTreeMap::new(),
            total: 0,
            done: 0,
            finished: None,
            samplings: BTreeMap::new(),
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
    /// Runs the episodes independently: each continues as soon as it can.
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

    /// Runs the episodes turn by turn: all running episodes generate, then all of them search. Outcomes
    /// are handled in the order of the jobs, not in the order of their arrival.
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
            // The engine runs again only after all requests of the next turn are queued.
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
        while self.running.len() < self.settings.max_running_episodes.max(1) {
            let Some((index, CarriedEpisode { episode, key })) = self.waiting.pop_front() else {
                return Ok(());
            };
            let running =
                self.running.entry(index).or_insert(RunningEpisode { episode, key, observed: 0 });
            let action = running.episode.ask_again();
            self.act(index, action)?;
        }
        Ok(())
    }

    /// Passes an event to an episode and performs its next action.
    fn step_episode(&mut self, job: usize, event: Event) -> Result<(), RolloutError> {
        let Some(running) = self.running.get_mut(&job) else {
            let reason = format!("an event arrived for job {job}, which is not running");
            return Err(RolloutError::Protocol(reason));
        };
        let action = running.episode.step(event, self.tokenizer)?;
        self.act(job, action)
    }

    /// Reports new segments to the observer, then performs the action of a running episode.
    fn act(&mut self, job: usize, action: Action) -> Result<(), RolloutError> {
        let running = self.running.get_mut(&job).expect("only running episodes act");
        let segments = &running.episode.trajectory().segments;
        for segment in &segments[running.observed..] {
            self.observer.observe(RolloutEvent::Appended { job, segment });
        }
        running.observed = segments.len();
        match action {
            Action::Generate { append, max_new_tokens } => {
                let key = running.key;
                let sampling = self.samplings.get(&job).copied().unwrap_or(self.settings.sampling);
                self.engine.submit(GenerateRequest {
                    sequence: job as u64,
                    append,
                    max_new_tokens,
                    stop: self.settings.stop.clone(),
                    sampling,
                    key,
                })?;
            }
            Action::Search { query } => {
                self.observer.observe(RolloutEvent::Searching { job, query: &query });
                let top_k = self.settings.top_k;
                self.ready_searches.push(SearchRequest { ticket: job as u64, query, top_k });
            }
            Action::Finish => self.finish(job),
        }
        Ok(())
    }

    fn finish(&mut self, job: usize) {
        let running = self.running.remove(&job).expect("only running episodes finish");
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
        self.samplings.remove(&job);
        let (done, total) = (self.done, self.total);
        let event = RolloutEvent::Finished { job, trajectory: &trajectory, done, total };
        self.observer.observe(event);
        if let Some(finished) = &mut self.finished {
            finished.insert(job, trajectory);
        }
    }

    /// Returns `true` once enough prompts have finished: the rollout then ends.
    fn is_enough(&self) -> bool {
        self.settings.enough_prompts.is_some_and(|enough| self.finished_prompts >= enough)
    }

    /// Submits the ready queries, in one request or in one request each.
    fn submit_searches(&mut self) -> Result<(), RolloutError> {
        self.ready_since = None;
        if self.ready_searches.is_empty() {
            return Ok(());
        }
        let mut requests = std::mem::take(&mut self.ready_searches);
        requests.sort_by_key(|request| request.ticket);
        self.searching += requests.len();
        if self.settings.search_batch.is_zero() {
            for request in requests {
                self.searcher.submit(vec![request])?;
            }
        } else {
            self.searcher.submit(requests)?;
        }
        Ok(())
    }

    /// Returns `true` if the ready queries may wait for those of the next engine step. They may if a step
    /// as long as the last one keeps their wait within the limit.
    fn waits_for_more_searches(&mut self) -> bool {
        if self.ready_searches.is_empty() || self.engine.is_idle() {
            return false;
        }
        let waited = self.ready_since.get_or_insert_with(Instant::now).elapsed();
        waited + self.last_step < self.settings.search_batch
    }

    /// Collects search outcomes; waits for one only if the engine is idle.
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
            self.settings.stop_flag.check()?;
            if let Some(outcomes) = self.searcher.wait(Duration::MAX, &self.settings.stop_flag)? {
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
        self.settings.stop_flag.check()?;
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

    /// Releases engine and searcher; returns the unfinished episodes, in the order of the work.
    fn release_everything(&mut self) -> Vec<CarriedEpisode> {
        let mut unfinished: Vec<(usize, CarriedEpisode)> = self.waiting.drain(..).collect();
        for (job, RunningEpisode { episode, key, .. }) in std::mem::take(&mut self.running) {
            self.engine.release(job as u64);
            unfinished.push((job, CarriedEpisode { episode, key }));
        }
        unfinished.sort_by_key(|(job, _)| *job);
        // The next rollout uses the same tickets: no outcome may outlive this rollout.
        self.searcher.cancel();
        unfinished.into_iter().map(|(_, episode)| episode).collect()
    }
}
