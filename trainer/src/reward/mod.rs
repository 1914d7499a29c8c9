//! Scores finished trajectories against the golden answers.
//!
//! By default only what the model wrote is read: an answer that stands in a passage, or the example
//! in the prompt, earns nothing. [`RewardReading::Reference`] reads the decoded text from the prompt
//! on, as the reference does, with the consequences that follow (a passage may hold the answer, an
//! end-of-turn token spoils the format); it exists to reproduce published runs.

pub mod answer;
pub mod format;
pub mod matching;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::format::FormatVerdict;
use crate::rollout::trajectory::{SegmentKind, Trajectory};

/// What is paid for.
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

/// Which text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardReading {
    /// The segments that the model wrote; the last complete answer counts.
    Sampled,
    /// Prompt and response as one text, in which the first answer is taken for the prompt's example.
    Reference,
}

/// What a trajectory is paid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardRules {
    /// What is paid for.
    pub kind: RewardKind,
    /// Which text is read.
    pub reading: RewardReading,
    /// Paid by the three match rewards for an answer that is wrong (0 in the reference's scripts).
    pub wrong_answer_score: f64,
    /// The parts of [`RewardKind::Structured`].
    pub structured: StructuredScores,
}

impl Default for RewardRules {
    fn default() -> Self {
        Self {
            kind: RewardKind::ExactMatch,
            reading: RewardReading::Sampled,
            wrong_answer_score: 0.0,
            structured: StructuredScores::default(),
        }
    }
}

/// The parts of the structured reward, s, f and r of its paper (arXiv 2505.15117).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StructuredScores {
    /// s: for the right form without the right answer; taken off a right answer in the wrong form.
    pub structure: f64,
    /// f: for a wrong answer in the wrong form.
    pub final_answer: f64,
    /// r: on top of s, if a passage holds a golden answer.
    pub retrieval: f64,
}

impl Default for StructuredScores {
    fn default() -> Self {
        Self { structure: 0.2, final_answer: 0.1, retrieval: 0.1 }
    }
}

/// What a trajectory earned, and the figures that are reported whatever is paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// What the trajectory is paid.
    pub score: f64,
    /// 0 or 1.
    pub exact_match: f64,
    /// 0 or 1.
    pub sub_exact_match: f64,
    /// In [0, 1].
    pub f1: f64,
    /// The answer as written, or `None` if there is no complete one.
    pub answer: Option<String>,
    /// True if thoughts, searches, passages and answer follow each other as they should.
    pub is_well_formed: bool,
    /// True if a passage that was shown holds a golden answer.
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
            (answer, format::of_segments(&trajectory.segments, golden))
        }
        RewardReading::Reference => {
            let text: String =
                trajectory.segments.iter().map(|segment| segment.text.as_str()).collect();
            (answer::after_example(&text), format::of_reference_text(&text, golden))
        }
    };
    score(answer, verdict, golden, config)
}

/// Scores one trajectory's answer and form, however they were read.
pub fn score(
    answer: Option<String>,
    verdict: FormatVerdict,
    golden: &[String],
    config: &RewardRules,
) -> Reward {
    let read = answer.as_deref();
    let of_answer = |measure: fn(&str, &[String]) -> f64| read.map_or(0.0, |a| measure(a, golden));
    let exact_match = of_answer(matching::exact_match);
    let sub_exact_match = of_answer(matching::sub_exact_match);
    let f1 = of_answer(matching::f1);
    let or_wrong = |matched: f64| match read {
        None => 0.0,
        Some(_) if matched > 0.0 => matched,
        Some(_) => config.wrong_answer_score,
    };
    let score = match config.kind {
        RewardKind::ExactMatch => or_wrong(exact_match),
        RewardKind::SubExactMatch => or_wrong(sub_exact_match),
        RewardKind::F1 => or_wrong(f1),
        RewardKind::Structured => {
            let is_right = read.map(|_| exact_match > 0.0);
            structured_score(is_right, verdict, config.structured)
        }
    };
    let FormatVerdict { is_well_formed, is_answer_retrieved } = verdict;
    Reward { score, exact_match, sub_exact_match, f1, answer, is_well_formed, is_answer_retrieved }
}

/// The structured reward; `is_right` is `None` if there is no answer.
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
