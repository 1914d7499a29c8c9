//! Scores of finished trajectories against the golden answers.
//!
//! By default only the model's own text counts: an answer in a passage, or the example in the prompt, earns nothing.
//! [`RewardReading::Reference`] reads the decoded text from the prompt on, as the reference does. An answer in a
//! passage then counts, and an end-of-turn token spoils the format. It exists to reproduce published runs.

pub mod answer;
pub mod format;
pub mod matching;
pub mod outside;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::format::FormatVerdict;
use crate::rollout::trajectory::{SegmentKind, Trajectory};

/// The measure that a reward pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// 1 if the normalised answer equals a golden answer.
    ExactMatch,
    /// 1 if a normalised golden answer is contained in the answer.
    SubExactMatch,
    /// The best word overlap with a golden answer.
    F1,
    /// Exact match, with parts of it for the right form and for finding the right passage.
    Structured,
}

/// The text that is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardReading {
    /// The segments that the model wrote. The last complete answer counts.
    Sampled,
    /// Prompt and response as one text. Its first answer is treated as the prompt's example.
    Reference,
}

/// The rules that score trajectories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardRules {
    /// The measure that is paid for.
    pub kind: RewardKind,
    /// The text that is scored.
    pub reading: RewardReading,
    /// Score of a wrong answer under the three match rewards (0 in the reference's scripts).
    pub wrong_answer_score: f64,
    /// The parts of [`RewardKind::Structured`].
    pub structured: StructuredScores,
    /// Measures that are paid for besides.
    pub weights: MeasureWeights,
    /// Subtracted for each search that was sent.
    pub search_cost: f64,
    /// Answers that decline to answer, such as "I don't know"; compared after normalisation.
    pub abstentions: Vec<String>,
    /// Score of such an answer, instead of that of `kind`.
    pub abstention_score: f64,
}

/// The weights with which measures are added to the score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureWeights {
    /// Weight of the score of [`RewardRules::kind`].
    pub kind: f64,
    /// Weight of exact match.
    pub exact_match: f64,
    /// Weight of containment.
    pub sub_exact_match: f64,
    /// Weight of F1.
    pub f1: f64,
}

impl Default for MeasureWeights {
    fn default() -> Self {
        Self { kind: 1.0, exact_match: 0.0, sub_exact_match: 0.0, f1: 0.0 }
    }
}

impl Default for RewardRules {
    fn default() -> Self {
        Self {
            kind: RewardKind::ExactMatch,
            reading: RewardReading::Sampled,
            wrong_answer_score: 0.0,
            structured: StructuredScores::default(),
            weights: MeasureWeights::default(),
            search_cost: 0.0,
            abstentions: Vec::new(),
            abstention_score: 0.0,
        }
    }
}

/// The parts of the structured reward: s, f and r of its paper (arXiv 2505.15117).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StructuredScores {
    /// s: paid for the right form without the right answer, and subtracted from a right answer in the wrong form.
    pub structure: f64,
    /// f: paid for a wrong answer in the wrong form.
    pub final_answer: f64,
    /// r: paid on top of s if a passage holds a golden answer.
    pub retrieval: f64,
}

impl Default for StructuredScores {
    fn default() -> Self {
        Self { structure: 0.2, final_answer: 0.1, retrieval: 0.1 }
    }
}

/// The score of a trajectory, and figures that are reported for every kind of reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// The trajectory's reward.
    pub score: f64,
    /// 0 or 1.
    pub exact_match: f64,
    /// 0 or 1.
    pub sub_exact_match: f64,
    /// In [0, 1].
    pub f1: f64,
    /// The answer as written, or `None` if there is no complete one.
    pub answer: Option<String>,
    /// `true` if the answer declines to answer and no golden answer is the same.
    pub is_abstention: bool,
    /// `true` if thoughts, searches, passages and answer are in the right order.
    pub is_well_formed: bool,
    /// `true` if a passage that was shown holds a golden answer.
    pub is_answer_retrieved: bool,
}

/// Scores one trajectory.
pub fn reward(trajectory: &Trajectory, golden: &[String], config: &RewardRules) -> Reward {
    let (answer, verdict) = match config.reading {
        RewardReading::Sampled => {
            let written: Vec<&str> = trajectory
                .segments
                .iter()
                .filter(|segment| segment.kind == SegmentKind::Sampled)
                .map(|segment| segment.text.as_str())
                .collect();
            let answer = answer::last_in_turns(&written);
            (answer, format::check_segments(&trajectory.segments, golden))
        }
        RewardReading::Reference => {
            let text: String =
                trajectory.segments.iter().map(|segment| segment.text.as_str()).collect();
            (answer::after_example(&text), format::check_reference_text(&text, golden))
        }
    };
    let mut reward = score(answer, verdict, golden, config);
    // Without a cost the score keeps its bits.
    if config.search_cost > 0.0 {
        reward.score -= config.search_cost * trajectory.searches.len() as f64;
    }
    reward
}

/// Scores one trajectory's extracted answer and form, without the cost of its searches.
pub fn score(
    answer: Option<String>,
    verdict: FormatVerdict,
    golden: &[String],
    config: &RewardRules,
) -> Reward {
    let text = answer.as_deref();
    let measured =
        |measure: fn(&str, &[String]) -> f64| text.map_or(0.0, |text| measure(text, golden));
    let exact_match = measured(matching::exact_match);
    let sub_exact_match = measured(matching::sub_exact_match);
    let f1 = measured(matching::f1);
    let or_wrong = |matched: f64| match text {
        None => 0.0,
        Some(_) if matched > 0.0 => matched,
        Some(_) => config.wrong_answer_score,
    };
    let is_abstention =
        exact_match == 0.0 && text.is_some_and(|text| abstains(text, &config.abstentions));
    let by_kind = match config.kind {
        _ if is_abstention => config.abstention_score,
        RewardKind::ExactMatch => or_wrong(exact_match),
        RewardKind::SubExactMatch => or_wrong(sub_exact_match),
        RewardKind::F1 => or_wrong(f1),
        RewardKind::Structured => {
            let is_right = text.map(|_| exact_match > 0.0);
            structured_score(is_right, verdict, config.structured)
        }
    };
    let weights = config.weights;
    let score = weights.kind * by_kind
        + weights.exact_match * exact_match
        + weights.sub_exact_match * sub_exact_match
        + weights.f1 * f1;
    let FormatVerdict { is_well_formed, is_answer_retrieved } = verdict;
    Reward {
        score,
        exact_match,
        sub_exact_match,
        f1,
        answer,
        is_abstention,
        is_well_formed,
        is_answer_retrieved,
    }
}

/// Returns `true` if `answer` equals one of `abstentions`, both normalised.
fn abstains(answer: &str, abstentions: &[String]) -> bool {
    matching::exact_match(answer, abstentions) > 0.0
}

/// Computes the structured reward. `is_right` is `None` if there is no answer.
fn structured_score(
    is_right: Option<bool>,
    verdict: FormatVerdict,
    scores: StructuredScores,
) -> f64 {
    match (is_right, verdict.is_well_formed) {
        (Some(true), true) => 1.0,
        (Some(true), false) => 1.0 - scores.structure,
        (_, true) if verdict.is_answer_retrieved => scores.structure + scores.retrieval,
        (_, true) => scores.structure,
        (Some(false), false) => scores.final_answer,
        (None, false) => 0.0,
    }
}
