//! Plays rollouts, between the updates or beside them.

use serde_json::json;

use crate::rollout::scheduler::roll_out;
use crate::rollout::trajectory::SegmentKind;
use crate::rollout::{Rollout, RolloutEvent, RolloutObserver, RolloutSettings, RolloutWork};
use crate::run::loaded_model::EpisodeProgress;
use crate::run::rollout_engine::RolloutEngine;
use crate::search::http::HttpSearcher;
use crate::token::Tokenizer;
use crate::track::{Progress, Trace, Track};

/// An engine with the searcher of its episodes.
pub(super) struct Player {
    pub(super) engine: RolloutEngine,
    pub(super) searcher: HttpSearcher,
}

impl Player {
    /// Plays a rollout of `step`, and notes its timeline in `trace`.
    pub(super) fn play(
        &mut self,
        tokenizer: &Tokenizer,
        step: u64,
        (work, config): (RolloutWork, &RolloutSettings),
        trace: Option<&mut Trace>,
    ) -> anyhow::Result<Rollout> {
        let label = format!("rollout {step}");
        let episodes = work.jobs.len() + work.carried.len();
        let progress = Progress::start(&label, episodes as u64, "trajectories");
        let mut observer = TracedProgress { progress: EpisodeProgress(progress), trace };
        let (engine, searcher) = (self.engine.as_engine(), &mut self.searcher);
        let rollout = roll_out(engine, searcher, tokenizer, work, config, &mut observer)?;
        let TracedProgress { progress, trace } = observer;
        progress.0.finish();
        if let Some(trace) = trace {
            trace.next_rollout(episodes);
        }
        Ok(rollout)
    }
}

/// Shows how many episodes have ended, and notes the timeline of a step that is traced.
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
