//! Settings of a rollout: its limits and the rules for the end of a turn.

use std::time::Duration;

use super::observation::ObservationBudget;
use crate::engine::{Sampling, StopRule};
use crate::stop::StopFlag;

/// Limits and rules of a rollout, the same for all of its episodes.
#[derive(Clone, Debug)]
pub struct RolloutSettings {
    /// Number of turns that may search. One more generation follows; a search in it is not sent.
    pub max_turns: usize,
    /// Number of passages that each search requests.
    pub top_k: usize,
    /// Most tokens sampled in one turn.
    pub max_turn_tokens: usize,
    /// Free context that a turn needs, in tokens. With less, the episode ends instead.
    pub min_turn_tokens: usize,
    /// Limits on the passages that one search adds to the context.
    pub observation: ObservationBudget,
    /// Most tokens in the whole context; the engine's own limit also holds.
    pub max_context_tokens: usize,
    /// Most episodes that generate or search concurrently; at least 1.
    pub max_running_episodes: usize,
    /// The sampling of tokens.
    pub sampling: Sampling,
    /// The texts that end a turn.
    pub stop: StopRule,
    /// Longest time that a query waits for others, to share one request with them. With zero, every query
    /// has its own request. In lock step, all queries of a turn share one request unless this is zero.
    pub search_batch: Duration,
    /// Turns in lock step: all running episodes generate, then all of them search.
    pub deterministic: bool,
    /// Number of prompts whose episodes must finish. The rollout then ends and hands the other episodes
    /// back. `None` waits for all.
    pub enough_prompts: Option<usize>,
    /// A request to end the rollout early.
    pub stop_flag: StopFlag,
}

/// Ends a turn at the first complete action, search or answer.
pub fn default_stop_rule() -> StopRule {
    StopRule { stop_at: vec!["</search>".into(), "</answer>".into()], cut_after: Vec::new() }
}

/// Ends a turn as the reference does: at the first `</search>`, even after an answer. A turn without
/// a `</search>` is cut after its first `</answer>`.
pub fn reference_stop_rule() -> StopRule {
    StopRule { stop_at: vec!["</search>".into()], cut_after: vec!["</answer>".into()] }
}
