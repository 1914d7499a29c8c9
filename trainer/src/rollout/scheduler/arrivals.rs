//! Rollouts of episodes that arrive while others run.

use std::time::Duration;

use super::{RunningEpisode, Scheduler, episode_limits};
use crate::engine::Engine;
use crate::rollout::episode::{Episode, EpisodeLimits};
use crate::rollout::settings::RolloutSettings;
use crate::rollout::work::{
    Arrival, Arrivals, CarriedEpisode, RolloutError, RolloutEvent, RolloutObserver,
};
use crate::search::Searcher;
use crate::token::Tokenizer;

/// Longest wait for the next arrival, while no episode runs, between two checks of the stop flag.
const IDLE_SLICE: Duration = Duration::from_millis(200);
/// Longest wait for searches between two checks for arrivals.
const ARRIVAL_SLICE: Duration = Duration::from_millis(10);

/// Rolls out episodes as they arrive, until no more will arrive and all have ended. Trajectories go only
/// to the observer. After every engine step, it also receives the tokens sampled so far in each running turn.
///
/// # Errors
/// Those of [`roll_out`](crate::rollout::roll_out); a stop ends the running episodes.
pub fn roll_out_as_they_come(
    engine: &mut dyn Engine,
    searcher: &mut dyn Searcher,
    tokenizer: &Tokenizer,
    arrivals: &mut dyn Arrivals,
    settings: &RolloutSettings,
    observer: &mut dyn RolloutObserver,
) -> Result<(), RolloutError> {
    let limits = episode_limits(settings, engine);
    let mut scheduler = Scheduler::new(engine, searcher, tokenizer, settings, observer);
    let result = scheduler.run_as_they_come(arrivals, &limits);
    scheduler.release_everything();
    result
}

impl Scheduler<'_> {
    /// Runs as [`Self::run_apart`] does, but checks for arrivals before every step.
    fn run_as_they_come(
        &mut self,
        arrivals: &mut dyn Arrivals,
        limits: &EpisodeLimits,
    ) -> Result<(), RolloutError> {
        let mut more_will_come = true;
        loop {
            self.settings.stop_flag.check()?;
            let is_idle = self.running.is_empty() && self.waiting.is_empty();
            if more_will_come {
                let patience = if is_idle { IDLE_SLICE } else { Duration::ZERO };
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
                self.searcher.wait(ARRIVAL_SLICE, &self.settings.stop_flag)?.unwrap_or_default()
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
                    self.samplings.insert(id, sampling);
                    self.waiting.push_back((id, CarriedEpisode { episode, key }));
                    self.total += 1;
                }
                Arrival::Cancel { id } => self.cancel(id),
            }
        }
    }

    /// Cancels an episode. The outcome of a query that was already sent is ignored when it arrives.
    fn cancel(&mut self, job: usize) {
        self.waiting.retain(|(waiting, _)| *waiting != job);
        self.samplings.remove(&job);
        let unsent = self.ready_searches.len();
        self.ready_searches.retain(|request| request.ticket != job as u64);
        let was_unsent = self.ready_searches.len() < unsent;
        if let Some(RunningEpisode { episode, .. }) = self.running.remove(&job) {
            self.engine.release(job as u64);
            if episode.is_searching() && !was_unsent {
                self.cancelled.insert(job);
            }
        }
    }
}
