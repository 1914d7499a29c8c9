//! Rollouts that go ahead of the updates: an engine on a thread of its own plays later steps while the
//! policy is updated with the present one (asynchronous training, as in arXiv 2410.18252).
//!
//! **Invariant:** the rollout of step `s` samples by the weights of step `s - 1 - rollout.max_staleness`, or
//! by those that the run began with. Which weights that are does not depend on time, so that a run remains
//! a function of its seed; nothing is ever too stale, and nothing is thrown away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared::shutdown::Shutdown;

use super::collecting::Collected;
use super::player::Player;
use super::{TrainingRun, is_due};
use crate::config::Config;
use crate::engine::EngineCounters;
use crate::rollout::{EpisodeJob, Rollout, RolloutSettings};
use crate::run::loaded_model::LoadedModel;
use crate::run::rollout_engine::{NewWeights, Publisher};
use crate::stop::StopFlag;
use crate::token::Tokenizer;
use crate::track::{AheadMetrics, Trace};

/// How often a step that waits for its rollout looks whether it is to stop.
const STOP_SLICE: Duration = Duration::from_millis(200);

/// A rollout that is to be played.
struct Order {
    /// The step that it is for.
    step: u64,
    jobs: Vec<EpisodeJob>,
    config: RolloutSettings,
    /// By which to sample from now on, with their version; those of the order before without.
    weights: Option<(NewWeights, u64)>,
    traced: bool,
}

/// A rollout that was played.
struct Played {
    step: u64,
    rollout: anyhow::Result<Rollout>,
    counters: EngineCounters,
    trace: Option<Trace>,
    took: Duration,
}

/// A player on a thread of its own.
pub(super) struct Ahead {
    orders: Option<Sender<Order>>,
    played: Receiver<Played>,
    thread: Option<JoinHandle<()>>,
    /// Once true, what is played is given up.
    abandoned: Arc<AtomicBool>,
    publisher: Publisher,
    /// The step of the last order.
    ordered: u64,
    /// Version of the weights of the last order.
    published: u64,
}

impl Ahead {
    /// Moves a player, which samples by the policy of `step`, to a thread.
    ///
    /// # Errors
    /// The tokenizer's files, and the system's where there is no thread.
    pub(super) fn start(
        config: &Config,
        loaded: &LoadedModel,
        mut player: Player,
        step: u64,
    ) -> anyhow::Result<Self> {
        // Its own, as the other one is read where the step is.
        let tokenizer = Tokenizer::from_folders(
            loaded.place.folder_with("tokenizer.json"),
            &loaded.place.base,
            config.model.chat_date,
        )?;
        let publisher = player.engine.publisher();
        let (orders, received) = mpsc::channel::<Order>();
        let (sender, played) = mpsc::channel();
        let thread = Builder::new().name("rollouts".to_owned()).spawn(move || {
            for order in received {
                if sender.send(order.play(&mut player, &tokenizer)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            orders: Some(orders),
            played,
            thread: Some(thread),
            abandoned: Arc::new(AtomicBool::new(false)),
            publisher,
            ordered: step,
            published: step,
        })
    }

    /// `stop`, or that nobody waits for the rollout any more.
    fn stop_flag(&self, stop: &StopFlag) -> StopFlag {
        let (abandoned, stop) = (Arc::clone(&self.abandoned), stop.clone());
        StopFlag::asking(move || {
            let abandoned = abandoned.load(Ordering::Relaxed).then_some(Shutdown::Terminate);
            abandoned.or_else(|| stop.wish())
        })
    }

    /// Waits for the next rollout.
    fn take(&mut self, stop: &StopFlag) -> anyhow::Result<Played> {
        loop {
            match self.played.recv_timeout(STOP_SLICE) {
                Ok(played) => return Ok(played),
                Err(RecvTimeoutError::Timeout) => stop.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("the thread that plays rollouts has ended before its time")
                }
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was told where it happened, and met by whoever waited for it.
            let _ = thread.join();
        }
    }
}

impl Order {
    fn play(self, player: &mut Player, tokenizer: &Tokenizer) -> Played {
        let Self { step, jobs, config, weights, traced } = self;
        let started = Instant::now();
        if let Some((weights, version)) = weights {
            player.engine.take_weights(weights, version);
        }
        let mut trace = traced.then(Trace::start);
        let rollout = player.play(tokenizer, step, (jobs.into(), &config), trace.as_mut());
        let counters = player.engine.take_counters();
        Played { step, rollout, counters, trace, took: started.elapsed() }
    }
}

impl TrainingRun<'_> {
    /// Takes the rollout of the step, after ordering those that may begin with the policy as it stands.
    pub(super) fn collect_ahead(
        &mut self,
        collected: &mut Collected,
        stop: &StopFlag,
    ) -> anyhow::Result<()> {
        let (step, per_step) = (self.state.step + 1, self.config.training.prompts_per_step);
        self.order_rollouts(stop)?;
        let started = Instant::now();
        let ahead = self.ahead.as_mut().context("rollouts are played here")?;
        let played = ahead.take(stop)?;
        let waited = started.elapsed();
        let in_flight = (ahead.ordered - step) as usize * per_step;
        let rollout = played.rollout?;
        anyhow::ensure!(
            played.step == step,
            "step {step} was given the rollout of {}",
            played.step
        );
        self.trace = played.trace;
        collected.take_times(&rollout);
        collected.counters = played.counters;
        collected.ahead = AheadMetrics {
            groups_ahead: in_flight as u64,
            overlapped_seconds: played.took.saturating_sub(waited).as_secs_f64(),
            ..AheadMetrics::default()
        };
        let chosen = self.chosen_by(step);
        self.take_groups(collected, &chosen, rollout.trajectories)?;
        let versions = collected.trajectories.iter().map(|one| one.versions_behind(step - 1));
        let (sum, most) =
            versions.fold((0, 0), |(sum, most), one| (sum + one, u64::max(most, one)));
        collected.ahead.staleness_mean = sum as f64 / collected.trajectories.len().max(1) as f64;
        collected.ahead.staleness_max = most;
        self.next_question = step * per_step as u64;
        Ok(())
    }

    /// Orders rollouts up to that of the step which may sample by the present policy.
    fn order_rollouts(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        let (config, present) = (self.config, self.state.step);
        let last = (present + 1 + config.rollout.max_staleness).min(config.training.steps as u64);
        let Some(ahead) = &self.ahead else { return Ok(()) };
        let (first, stop) = (ahead.ordered + 1, ahead.stop_flag(stop));
        for step in first..=last {
            let jobs = self.jobs(0, &self.chosen_by(step), step - 1);
            let rollout = self.rollout_config(&stop);
            let Some(ahead) = &mut self.ahead else { break };
            let weights = if ahead.published == present {
                None
            } else {
                // Servers may still have to read the folders of orders that wait.
                let oldest = present.saturating_sub(config.rollout.max_staleness + 1);
                Some((ahead.publisher.publish(&self.loaded, present, oldest)?, present))
            };
            ahead.published = present;
            let traced = is_due(config.trace_every_steps, step);
            let order = Order { step, jobs, config: rollout, weights, traced };
            ahead.ordered = step;
            if let Some(orders) = &ahead.orders {
                // Where the thread has ended, who waits for the rollout is told.
                let _ = orders.send(order);
            }
        }
        Ok(())
    }

    /// The questions of a step, where every step has as many.
    fn chosen_by(&self, step: u64) -> Vec<usize> {
        let per_step = self.config.training.prompts_per_step;
        self.questions_of((step - 1) * per_step as u64, per_step)
    }
}
