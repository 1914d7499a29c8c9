//! How episodes are rolled out: the limits, and where a turn ends.

use std::time::Duration;

use super::observation::ObservationBudget;
use crate::engine::{Sampling, StopRule};
use crate::stop::StopFlag;

/// How episodes are rolled out.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// Turns that may search. One more generation follows, in which a search is not sent.
    pub max_turns: usize,
    /// Passages asked for by each search.
    pub top_k: usize,
    /// Limit of sampled tokens in one turn.
    pub max_turn_tokens: usize,
    /// An episode ends rather than begin a turn with less room in the context than this.
    pub min_turn_tokens: usize,
    /// Limits of what one search puts into the context.
    pub observation: ObservationBudget,
    /// Limit of the whole context; the engine's own limit holds as well.
    pub max_context_tokens: usize,
    /// Limit of episodes that are in the engine or searching at one time; at least 1.
    pub max_running_episodes: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where a turn ends.
    pub stop: StopRule,
    /// Longest wait of a query for others that go out with it in one request; with zero each has a
    /// request of its own. In lock step all queries of a turn go out together, but for zero.
    pub search_batch: Duration,
    /// Turns in lock step: all running episodes generate, then all of them search.
    pub deterministic: bool,
    /// Prompts whose episodes are waited for: the rollout ends as soon as as many are done, and hands the rest
    /// back. `None` waits for all.
    pub enough_prompts: Option<usize>,
    /// Ends the rollout before it is done.
    pub stop_flag: StopFlag,
}

/// Stops at whichever action the model completes first.
pub fn default_stop_rule() -> StopRule {
    StopRule { stop_at: vec!["</search>".into(), "</answer>".into()], cut_after: Vec::new() }
}

/// Keeps what the reference keeps: everything up to the first `</search>`, even after an answer,
/// and only without one everything up to the first `</answer>`.
pub fn reference_stop_rule() -> StopRule {
    StopRule { stop_at: vec!["</search>".into()], cut_after: vec!["</answer>".into()] }
}
