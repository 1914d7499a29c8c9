//! Rollouts that go ahead of the updates: an engine on a thread of its own plays later steps while the policy learns
//! from the current one (asynchronous training, as in arXiv 2410.18252).
//!
//! **Invariant:** the rollout of step `s` samples by the weights after step `s - 1 - max_staleness`, or by those that
//! the run began with. The choice does not depend on time, so a run remains a function of its seed. No rollout is ever
//! too stale, and none is discarded.
//! **Invariant:** a checkpoint waits for the rollouts that were ordered and keeps them, so a resumed run learns from the
//! same: the weights that sampled them are gone by then.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shared::machine::shutdown::Shutdown;
use tokio::sync::mpsc;

use super::engine::{PolicyEngine, Publisher};
use super::player::{EpisodePlayer, Order};
use crate::engine::EngineCounters;
use crate::rollout::{EpisodeJob, Rollout};
use crate::run::is_due;
use crate::run::model::LoadedModel;
use crate::run::settings::rollout::PlayerSettings;
use crate::stop::{StopFlag, StopSwitch};
use crate::token::Tokenizer;
use crate::track::Trace;

const THREAD_ENDED: &str = "the thread that plays rollouts has ended before its time";

/// A rollout on its way to the thread.
struct Task<W> {
    order: Order,
    /// The weights to sample by from now on, with their version; without them those of the last task.
    weights: Option<(W, u64)>,
    stop: StopFlag,
    traced: bool,
}

/// A rollout that was played.
struct FinishedTask {
    step: u64,
    rollout: anyhow::Result<Rollout>,
    counters: EngineCounters,
    trace: Option<Trace>,
    took: Duration,
}

/// The rollout of a step that was played ahead.
pub(crate) struct AheadRollout {
    pub(crate) rollout: Rollout,
    pub(crate) counters: EngineCounters,
    pub(crate) trace: Option<Trace>,
    /// The number of later steps that were ordered by then.
    pub(crate) steps_ahead: u64,
    /// The part of the rollout's time in which this thread did other work than waiting for it.
    pub(crate) overlapped: Duration,
}

/// A rollout that was played ahead and not yet learned from, as a checkpoint keeps it. Its timeline is not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedRollout {
    pub(crate) step: u64,
    rollout: Rollout,
    counters: EngineCounters,
}

/// The sending end of the tasks, for any form of weights.
trait Tasks {
    /// Sends an order, with the policy of `version` if the player does not have it yet.
    fn send(&self, order: Order, policy: Option<NewPolicy<'_>>, run: TaskRun)
    -> anyhow::Result<()>;
}

/// A policy that the player does not have yet.
struct NewPolicy<'m> {
    model: &'m LoadedModel,
    version: u64,
    /// The oldest version that a task may still need.
    oldest: u64,
}

/// The stop of a task, and whether it makes a timeline.
struct TaskRun {
    stop: StopFlag,
    traced: bool,
}

struct TaskSender<P: Publisher> {
    publisher: P,
    sender: SyncSender<Task<P::Weights>>,
}

impl<P: Publisher> Tasks for TaskSender<P> {
    fn send(
        &self,
        order: Order,
        policy: Option<NewPolicy<'_>>,
        run: TaskRun,
    ) -> anyhow::Result<()> {
        let publish = |NewPolicy { model, version, oldest }: NewPolicy<'_>| {
            anyhow::Ok((self.publisher.publish(model, version, oldest)?, version))
        };
        let weights = policy.map(publish).transpose()?;
        let TaskRun { stop, traced } = run;
        // If the thread has ended, `take` returns the error.
        let _ = self.sender.send(Task { order, weights, stop, traced });
        Ok(())
    }
}

/// A player on a thread of its own.
pub(crate) struct Ahead {
    /// `None` only while it is being dropped.
    tasks: Option<Box<dyn Tasks>>,
    played: mpsc::Receiver<FinishedTask>,
    /// Rollouts that were received and not yet taken, in the order of their steps.
    ready: VecDeque<FinishedTask>,
    thread: Option<JoinHandle<()>>,
    /// Raised when nobody needs the rollouts any more.
    abandon: StopSwitch,
    /// The step of the last order.
    ordered: u64,
    /// The version of the weights of the last order.
    published: u64,
    max_staleness: u64,
    /// Steps of the whole run.
    steps: u64,
    trace_every_steps: usize,
}

impl Ahead {
    /// Moves a player, which samples by the policy after `step` steps, to a thread.
    ///
    /// # Errors
    /// The tokenizer's files, and the system's if it has no thread.
    pub(super) fn start<E: PolicyEngine, P: Publisher<Weights = E::Weights>>(
        settings: &PlayerSettings,
        mut player: EpisodePlayer<E>,
        publisher: P,
        model: &LoadedModel,
        step: u64,
    ) -> anyhow::Result<Self> {
        let tokenizer = model.another_tokenizer()?;
        // The limit of rollouts that are ordered and not yet taken.
        let most = settings.max_staleness as usize + 1;
        let (sender, tasks) = sync_channel::<Task<E::Weights>>(most);
        let (outcomes, played) = mpsc::channel(most);
        let thread = Builder::new().name("rollouts".to_owned()).spawn(move || {
            for task in tasks {
                if outcomes.blocking_send(task.play(&mut player, &tokenizer)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            tasks: Some(Box::new(TaskSender { publisher, sender })),
            played,
            ready: VecDeque::new(),
            thread: Some(thread),
            abandon: StopSwitch::default(),
            ordered: step,
            published: step,
            max_staleness: settings.max_staleness,
            steps: settings.steps,
            trace_every_steps: settings.trace_every_steps,
        })
    }

    /// Takes over the rollouts that a checkpoint kept.
    pub(crate) fn restore(&mut self, saved: Vec<SavedRollout>) {
        for SavedRollout { step, rollout, counters } in saved {
            self.ordered = step;
            let (rollout, trace, took) = (Ok(rollout), None, Duration::ZERO);
            self.ready.push_back(FinishedTask { step, rollout, counters, trace, took });
        }
    }

    /// Waits for the rollouts of the steps after `done` that were ordered, and returns a copy of them.
    ///
    /// # Errors
    /// The first rollout that failed; and a thread that panicked.
    pub(crate) fn in_flight(&mut self, done: u64) -> anyhow::Result<Vec<SavedRollout>> {
        while ((done + self.ready.len() as u64) < self.ordered)
            && self.ready.back().is_none_or(|task| task.rollout.is_ok())
        {
            let played = self.played.blocking_recv();
            self.ready.push_back(played.context(THREAD_ENDED)?);
        }
        let saved = self.ready.iter().map(|task| {
            let failed =
                |error: &anyhow::Error| anyhow::anyhow!("a rollout ahead failed: {error:#}");
            let rollout = task.rollout.as_ref().map_err(failed)?.clone();
            Ok(SavedRollout { step: task.step, rollout, counters: task.counters })
        });
        saved.collect()
    }

    /// Orders the rollouts of the steps that may sample by the policy after `done` steps; `jobs` returns the
    /// episodes of a step.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    pub(crate) fn order(
        &mut self,
        model: &LoadedModel,
        done: u64,
        jobs: impl Fn(u64) -> Vec<EpisodeJob>,
    ) -> anyhow::Result<()> {
        let last = (done + 1 + self.max_staleness).min(self.steps);
        for step in self.ordered + 1..=last {
            // Servers may still have to read the folders of tasks that wait.
            let oldest = done.saturating_sub(self.max_staleness + 1);
            let policy =
                (self.published != done).then_some(NewPolicy { model, version: done, oldest });
            let order = Order { step, work: jobs(step).into(), enough_prompts: None };
            let run = TaskRun {
                // A stop lets them end: the checkpoint that it writes needs them.
                stop: self.abandon.flag(),
                traced: is_due(self.trace_every_steps, step),
            };
            self.tasks
                .as_ref()
                .context("no rollout is ordered any more")?
                .send(order, policy, run)?;
            (self.published, self.ordered) = (done, step);
        }
        Ok(())
    }

    /// Waits for the rollout of `step`, which was ordered.
    ///
    /// # Errors
    /// A stop, a rollout that failed, and a thread that panicked.
    pub(crate) fn take(&mut self, step: u64, stop: &StopFlag) -> anyhow::Result<AheadRollout> {
        let started = Instant::now();
        let played = match self.ready.pop_front() {
            Some(played) => played,
            None => stop.wait(self.played.recv())?.context(THREAD_ENDED)?,
        };
        let waited = started.elapsed();
        let rollout = played.rollout?;
        anyhow::ensure!(
            played.step == step,
            "step {step} was given the rollout of {}",
            played.step
        );
        Ok(AheadRollout {
            rollout,
            counters: played.counters,
            trace: played.trace,
            steps_ahead: self.ordered - step,
            overlapped: played.took.saturating_sub(waited),
        })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.abandon.raise(Shutdown::Terminate);
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened, and `take` has returned it as an error.
            let _ = thread.join();
        }
    }
}

impl<W> Task<W> {
    fn play<E: PolicyEngine<Weights = W>>(
        self,
        player: &mut EpisodePlayer<E>,
        tokenizer: &Tokenizer,
    ) -> FinishedTask {
        let Self { order, weights, stop, traced } = self;
        let (started, step) = (Instant::now(), order.step);
        if let Some((weights, version)) = weights {
            player.engine.take_weights(weights, version);
        }
        let mut trace = traced.then(Trace::start);
        let rollout = player.play(order, tokenizer, &stop, trace.as_mut());
        let counters = player.engine.take_counters();
        FinishedTask { step, rollout, counters, trace, took: started.elapsed() }
    }
}
