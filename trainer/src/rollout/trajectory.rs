//! The one record of an episode that mask, reward, viewer and resume all read.
//!
//! Invariant: a token is trained on exactly if it lies in a [`SegmentKind::Sampled`] segment.

use serde::{Deserialize, Serialize};

/// Who wrote a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// The question in its template.
    Prompt,
    /// The policy.
    Sampled,
    /// Passages from the retriever, in their `<information>` frame.
    Observation,
    /// Text that the loop puts in, such as the message after an invalid action.
    Injected,
}

/// A run of tokens with one writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Who wrote it.
    pub kind: SegmentKind,
    /// As the engine saw or sampled them.
    pub token_ids: Vec<u32>,
    /// The sampler's log-probs; as long as `token_ids` in sampled segments, else empty.
    pub log_probs: Vec<f32>,
    /// Version of the weights that sampled this segment; 0 elsewhere.
    pub policy_version: u64,
    /// Decoded for parsing, reward and display only; never tokenised again.
    pub text: String,
}

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// With a complete answer.
    Answered,
    /// No answer within the turns allowed.
    TurnLimit,
    /// No room left in the context.
    ContextLimit,
    /// A search never succeeded: the trajectory must not be trained on.
    SearchFailed,
}

impl EndReason {
    /// False for an episode in which a search never succeeded: its model was shown nothing where it
    /// should have been shown passages, and must not learn from that.
    pub fn is_trainable(self) -> bool {
        self != Self::SearchFailed
    }
}

/// One search of an episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// As the model wrote it, white space around it removed.
    pub query: String,
    /// Passage ids, best first.
    pub passage_ids: Vec<String>,
}

/// One finished episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Index of the prompt in its batch; samples of one prompt share it (the advantage group).
    pub prompt: usize,
    /// Number of the sample among those of its prompt.
    pub sample: usize,
    /// Id of the dataset record.
    pub example_id: String,
    /// In order, the prompt first.
    pub segments: Vec<Segment>,
    /// How the episode ended.
    pub end: EndReason,
    /// Counters of the reference: `turns` starts at 1.
    pub turns: usize,
    /// Turns with a complete search or answer.
    pub valid_actions: usize,
    /// Turns with a complete search, one that was not sent in the last turn included.
    pub valid_searches: usize,
    /// Turns without a complete action.
    pub invalid_actions: usize,
    /// Turns that ended at the token limit.
    #[serde(default)]
    pub length_stops: usize,
    /// Observations of which a part was left out to meet a budget.
    #[serde(default)]
    pub shortened_observations: usize,
    /// Searches that were answered, in order.
    pub searches: Vec<SearchRecord>,
}

impl Trajectory {
    /// All token ids in order.
    pub fn token_ids(&self) -> Vec<u32> {
        self.segments.iter().flat_map(|segment| segment.token_ids.iter().copied()).collect()
    }

    /// True where a token was sampled, as long as `token_ids`.
    pub fn sampled_mask(&self) -> Vec<bool> {
        self.segments
            .iter()
            .flat_map(|segment| {
                std::iter::repeat_n(segment.kind == SegmentKind::Sampled, segment.token_ids.len())
            })
            .collect()
    }

    /// The sampler's log-probs of the sampled tokens, in order.
    pub fn sampled_log_probs(&self) -> Vec<f32> {
        self.segments.iter().flat_map(|segment| segment.log_probs.iter().copied()).collect()
    }

    /// By how many versions the oldest part is behind `version` of the policy.
    pub fn versions_behind(&self, version: u64) -> u64 {
        let sampled = self.segments.iter().filter(|one| one.kind == SegmentKind::Sampled);
        let oldest = sampled.map(|one| one.policy_version).min();
        oldest.map_or(0, |oldest| version.saturating_sub(oldest))
    }

    /// How many tokens the policy wrote.
    pub fn sampled_tokens(&self) -> usize {
        self.segments
            .iter()
            .filter(|segment| segment.kind == SegmentKind::Sampled)
            .map(|segment| segment.token_ids.len())
            .sum()
    }
}
