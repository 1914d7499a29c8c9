//! The record of an episode. Loss mask, reward, viewer and resume all read this one record.
//!
//! Invariant: a token is trained on if and only if it is in a [`SegmentKind::Sampled`] segment.

use serde::{Deserialize, Serialize};

/// The origin of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// The question in its template.
    Prompt,
    /// Tokens that the policy sampled.
    Sampled,
    /// Passages from the retriever, in their `<information>` frame.
    Observation,
    /// Text that the loop inserts, such as the message after an invalid action.
    Injected,
}

/// A run of tokens of one origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The origin of the tokens.
    pub kind: SegmentKind,
    /// The tokens as the engine saw or sampled them.
    pub token_ids: Vec<u32>,
    /// The sampler's log-probs: one per token in a sampled segment, otherwise empty.
    pub log_probs: Vec<f32>,
    /// Version of the weights that sampled this segment; 0 in the other kinds.
    pub policy_version: u64,
    /// The decoded text, for parsing, reward and display only; never tokenised again.
    pub text: String,
}

/// The reason why an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model gave a complete answer.
    Answered,
    /// The model gave no answer within the allowed turns.
    TurnLimit,
    /// The context is full.
    ContextLimit,
    /// A search never succeeded: the trajectory must not be trained on.
    SearchFailed,
}

impl EndReason {
    /// Returns `false` for an episode in which a search never succeeded. The model saw nothing where
    /// passages belonged, and must not learn from that.
    pub fn is_trainable(self) -> bool {
        self != Self::SearchFailed
    }
}

/// One search of an episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// The query as the model wrote it, trimmed.
    pub query: String,
    /// Passage ids, best first.
    pub passage_ids: Vec<String>,
}

/// One finished episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Index of the prompt in its batch. Samples of one prompt share it: they are the advantage group.
    pub prompt: usize,
    /// Number of the sample among those of its prompt.
    pub sample: usize,
    /// Id of the dataset record.
    pub example_id: String,
    /// The segments in order; the first is the prompt.
    pub segments: Vec<Segment>,
    /// The reason why the episode ended.
    pub end: EndReason,
    /// Number of turns as the reference counts them, starting at 1.
    pub turns: usize,
    /// Number of turns with a complete search or answer.
    pub valid_actions: usize,
    /// Number of turns with a complete search, including a search in the last turn, which is not sent.
    pub valid_searches: usize,
    /// Number of turns without a complete action.
    pub invalid_actions: usize,
    /// Number of turns that ended at the token limit.
    #[serde(default)]
    pub length_stops: usize,
    /// Number of observations that were shortened to meet a budget.
    #[serde(default)]
    pub shortened_observations: usize,
    /// The answered searches, in order.
    pub searches: Vec<SearchRecord>,
}

impl Trajectory {
    /// Returns all token ids in order.
    pub fn token_ids(&self) -> Vec<u32> {
        self.segments.iter().flat_map(|segment| segment.token_ids.iter().copied()).collect()
    }

    /// Returns one value per token: `true` if the token was sampled.
    pub fn sampled_mask(&self) -> Vec<bool> {
        self.segments
            .iter()
            .flat_map(|segment| {
                std::iter::repeat_n(segment.kind == SegmentKind::Sampled, segment.token_ids.len())
            })
            .collect()
    }

    /// Returns the sampler's log-probs of the sampled tokens, in order.
    pub fn sampled_log_probs(&self) -> Vec<f32> {
        self.segments.iter().flat_map(|segment| segment.log_probs.iter().copied()).collect()
    }

    /// Returns the number of versions by which the oldest sampled segment is behind `version` of the policy.
    pub fn versions_behind(&self, version: u64) -> u64 {
        let sampled = self.segments.iter().filter(|segment| segment.kind == SegmentKind::Sampled);
        let oldest = sampled.map(|segment| segment.policy_version).min();
        oldest.map_or(0, |oldest| version.saturating_sub(oldest))
    }

    /// Returns the number of tokens that the policy wrote.
    pub fn sampled_tokens(&self) -> usize {
        self.segments
            .iter()
            .filter(|segment| segment.kind == SegmentKind::Sampled)
            .map(|segment| segment.token_ids.len())
            .sum()
    }
}
