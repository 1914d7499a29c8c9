//! Players of rollouts, and the display of their progress.

use serde_json::json;

use super::engine::{PolicyEngine, Publisher};
use crate::engine::{Engine, EngineCounters};
use crate::rollout::scheduler::roll_out;
use crate::rollout::trajectory::SegmentKind;
use crate::rollout::{Rollout, RolloutEvent, RolloutObserver, RolloutSettings, RolloutWork};
use crate::run::model::LoadedModel;
use crate::search::record::RecordedSearcher;
use crate::stop::StopFlag;
use crate::token::Tokenizer;
use crate::track::{Progress, Trace, Track};

/// A rollout to be played.
#[derive(Debug)]
pub(crate) struct Order {
    /// The step that needs the rollout.
    pub(crate) step: u64,
    pub(crate) work: RolloutWork,
    /// The number of finished prompts at which the rollout ends; `None` waits for all.
    pub(crate) enough_prompts: Option<usize>,
}

/// An engine with the searcher and the limits of its episodes.
#[derive(Debug)]
pub(super) struct EpisodePlayer<E> {
    pub(super) engine: E,
    pub(super) searcher: RecordedSearcher,
    pub(super) episodes: RolloutSettings,
}

impl<E: Engine> EpisodePlayer<E> {
    /// Plays a rollout until it is done or `stop` is raised, and adds its timeline to `trace`.
    pub(super) fn play(
        &mut self,
        order: Order,
        tokenizer: &Tokenizer,
        stop: &StopFlag,
        trace: Option<&mut Trace>,
    ) -> anyhow::Result<Rollout> {
        let Order { step, work, enough_prompts } = order;
        let config =
            RolloutSettings { enough_prompts, stop_flag: stop.clone(), ..self.episodes.clone() };
        let label = format!("rollout {step}");
        let episodes = work.jobs.len() + work.carried.len();
        let progress = Progress::start(&label, episodes as u64, "trajectories");
        let mut observer = TracedProgress { progress: EpisodeProgress(progress), trace };
        let (engine, searcher) = (&mut self.engine, &mut self.searcher);
        let rollout = roll_out(engine, searcher, tokenizer, work, &config, &mut observer)?;
        let TracedProgress { progress, trace } = observer;
        progress.0.finish();
        if let Some(trace) = trace {
            trace.next_rollout(episodes);
        }
        Ok(rollout)
    }
}

/// Plays rollouts between the updates, on the thread of the step.
pub(crate) trait Player {
    /// Plays a rollout now.
    ///
    /// # Errors
    /// A stop, and an engine or a searcher that failed.
    fn play(
        &mut self,
        order: Order,
        tokenizer: &Tokenizer,
        stop: &StopFlag,
        trace: Option<&mut Trace>,
    ) -> anyhow::Result<Rollout>;

    /// Samples by the current policy from now on, which is that of `version`.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    fn take_policy(&mut self, model: &LoadedModel, version: u64) -> anyhow::Result<()>;

    /// Returns what the engine has computed since the last call.
    fn take_counters(&mut self) -> EngineCounters;
}

/// A player with the publisher of its engine's weights.
pub(super) struct PolicyPlayer<E, P> {
    pub(super) player: EpisodePlayer<E>,
    pub(super) publisher: P,
}

impl<E: PolicyEngine, P: Publisher<Weights = E::Weights>> Player for PolicyPlayer<E, P> {
    fn play(
        &mut self,
        order: Order,
        tokenizer: &Tokenizer,
        stop: &StopFlag,
        trace: Option<&mut Trace>,
    ) -> anyhow::Result<Rollout> {
        self.player.play(order, tokenizer, stop, trace)
    }

    fn take_policy(&mut self, model: &LoadedModel, version: u64) -> anyhow::Result<()> {
        let weights = self.publisher.publish(model, version, version)?;
        self.player.engine.take_weights(weights, version);
        Ok(())
    }

    fn take_counters(&mut self) -> EngineCounters {
        self.player.engine.take_counters()
    }
}

/// Moves a progress bar by one with every episode that ends.
#[derive(Debug)]
pub(crate) struct EpisodeProgress(pub(crate) Progress);

impl RolloutObserver for EpisodeProgress {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        match event {
            RolloutEvent::Finished { .. } => self.0.advance(1),
            RolloutEvent::SearchFailed { reason, .. } => tracing::warn!(%reason, "search failed"),
            _ => {}
        }
    }
}

/// Shows how many episodes have ended, and adds their timeline to a trace.
struct TracedProgress<'t> {
    progress: EpisodeProgress,
    trace: Option<&'t mut Trace>,
}

impl RolloutObserver for TracedProgress<'_> {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        self.progress.observe(event);
        let Some(trace) = self.trace.as_deref_mut() else { return };
        match event {
            RolloutEvent::Appended { job, segment } => {
                if segment.kind == SegmentKind::Prompt {
                    trace.begin(job, "episode", &json!({"prompt_tokens": segment.token_ids.len()}));
                }
            }
            RolloutEvent::Searching { job, query } => {
                trace.begin(job, "search", &json!({"query": query}));
            }
            RolloutEvent::Found { job, passages } => {
                trace.end(job, "search", &json!({"passages": passages.len()}));
            }
            RolloutEvent::SearchFailed { job, reason } => {
                trace.end(job, "search", &json!({"failed": reason}));
            }
            RolloutEvent::Sampling { .. } => {}
            RolloutEvent::Stepped { started, took, ended } => {
                let details = json!({"turns_ended": ended});
                trace.span(Track::Engine, "pass", started, took, &details);
            }
            RolloutEvent::Waited { started, took } => {
                let details = json!({});
                trace.span(Track::Engine, "wait for passages", started, took, &details);
            }
            RolloutEvent::Finished { job, trajectory, .. } => {
                let details = json!({
                    "searches": trajectory.searches.len(),
                    "sampled_tokens": trajectory.sampled_tokens(),
                    "end": trajectory.end,
                });
                trace.end(job, "episode", &details);
            }
        }
    }
}
