//! From trajectories to rewards and scores, as functions of values.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::outside::{OutsideFigures, add_outside};
use crate::algo::{OverlongPenalty, overlong_penalty, uniform_groups};
use crate::data::Example;
use crate::reward::outside::OutsideRewards;
use crate::reward::{Reward, RewardRules, reward};
use crate::rollout::trajectory::Trajectory;
use crate::stop::StopFlag;

/// The rules by which trajectories are scored.
#[derive(Clone, Debug)]
pub(crate) struct Scoring {
    pub(crate) reward: RewardRules,
    /// Services whose scores are added.
    pub(crate) outside: Option<Arc<OutsideRewards>>,
    /// The penalty for length, if there is one.
    pub(crate) overlong: Option<OverlongPenalty>,
}

/// The rewards of a step's trajectories, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// `None` for a trajectory whose searches failed, or whose reward could not be had: it counts for nothing.
    pub(crate) rewards: Vec<Option<Reward>>,
    /// The reward and the penalty for length, from which advantages are estimated.
    pub(crate) scores: Vec<f64>,
    /// The groups, by prompt number, that teach nothing: their rewards are all equal, or their searches all failed.
    pub(crate) uniform_groups: BTreeSet<usize>,
    /// What the services said.
    pub(crate) outside: OutsideFigures,
}

/// Scores the trajectories of a step; `examples` are its questions by prompt number. A stop ends the wait for services,
/// and leaves their trajectories without a reward.
pub(crate) fn score(
    trajectories: &[Trajectory],
    examples: &[&Example],
    scoring: &Scoring,
    stop: &StopFlag,
) -> Scored {
    let mut rewards: Vec<Option<Reward>> = trajectories
        .iter()
        .map(|trajectory| {
            let golden = &examples[trajectory.prompt].golden_answers;
            let is_trainable = trajectory.end.is_trainable();
            is_trainable.then(|| reward(trajectory, golden, &scoring.reward))
        })
        .collect();
    let outside = scoring.outside.as_ref().map_or_else(OutsideFigures::default, |services| {
        add_outside(services, trajectories, examples, &mut rewards, stop)
    });
    let scores = trajectories
        .iter()
        .zip(&rewards)
        .map(|(trajectory, reward)| {
            let penalty = scoring
                .overlong
                .map_or(0.0, |penalty| overlong_penalty(penalty, trajectory.sampled_tokens()));
            reward.as_ref().map_or(0.0, |reward| reward.score) + penalty
        })
        .collect();
    let (kept, groups): (Vec<f64>, Vec<usize>) = trajectories
        .iter()
        .zip(&rewards)
        .filter_map(|(trajectory, reward)| Some((reward.as_ref()?.score, trajectory.prompt)))
        .unzip();
    let is_uniform = uniform_groups(&kept, &groups);
    let uniform_groups = (0..examples.len())
        .filter(|group| is_uniform.get(group).copied().unwrap_or(true))
        .collect();
    Scored { rewards, scores, uniform_groups, outside }
}

impl Scored {
    /// Returns the indices of the trajectories that are trained on: those with a reward, and without
    /// `uniform_groups` those of groups that teach something.
    pub(crate) fn trained(
        &self,
        trajectories: &[Trajectory],
        drops_uniform_groups: bool,
    ) -> Vec<usize> {
        (0..trajectories.len())
            .filter(|&index| {
                let is_uniform = self.uniform_groups.contains(&trajectories[index].prompt);
                self.rewards[index].is_some() && !(drops_uniform_groups && is_uniform)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::RewardKind;
    use crate::rollout::trajectory::{EndReason, Segment, SegmentKind};

    /// A trajectory of `tokens` sampled tokens.
    fn trajectory(prompt: usize, answer: &str, tokens: usize, end: EndReason) -> Trajectory {
        let segment = |kind, text: &str, tokens: usize| Segment {
            kind,
            token_ids: vec![7; tokens],
            log_probs: vec![0.0; if kind == SegmentKind::Sampled { tokens } else { 0 }],
            policy_version: 0,
            text: text.to_owned(),
        };
        let answer = format!("<answer>{answer}</answer>");
        Trajectory {
            prompt,
            sample: 0,
            example_id: String::new(),
            segments: vec![
                segment(SegmentKind::Prompt, "Who?", 3),
                segment(SegmentKind::Sampled, &answer, tokens),
            ],
            end,
            turns: 1,
            valid_actions: 1,
            valid_searches: 0,
            invalid_actions: 0,
            length_stops: 0,
            shortened_observations: 0,
            searches: Vec::new(),
        }
    }

    fn example(golden: &str) -> Example {
        Example {
            id: String::new(),
            question: String::new(),
            golden_answers: vec![golden.to_owned()],
            prompt_text: String::new(),
            prompt_ids: Vec::new(),
        }
    }

    /// Prompt, answer, sampled tokens, end; then reward and score. The penalty grows from 0 at 4 tokens to 0.5 at 8.
    #[test]
    fn rewards_penalties_and_groups() {
        use EndReason::{Answered, SearchFailed};
        let table = [
            // Varied rewards.
            ((0, "Ada", 4, Answered), Some(1.0), 1.0),
            ((0, "Bob", 6, Answered), Some(0.0), -0.25),
            // Equal rewards: the penalty alone teaches nothing.
            ((1, "Bob", 9, Answered), Some(1.0), 0.5),
            ((1, "Bob", 2, Answered), Some(1.0), 1.0),
            // A failed search has no reward, whatever was written, and leaves one reward to its group.
            ((2, "Cid", 4, SearchFailed), None, 0.0),
            ((2, "Cid", 4, Answered), Some(1.0), 1.0),
            // No reward at all.
            ((3, "Ada", 8, SearchFailed), None, -0.5),
        ];
        let trajectories: Vec<Trajectory> = table
            .iter()
            .map(|&((prompt, answer, tokens, end), ..)| trajectory(prompt, answer, tokens, end))
            .collect();
        let examples = ["Ada", "Bob", "Cid", "Dan"].map(example);
        let examples: Vec<&Example> = examples.iter().collect();
        let scoring = Scoring {
            reward: RewardRules { kind: RewardKind::ExactMatch, ..RewardRules::default() },
            outside: None,
            overlong: Some(OverlongPenalty { limit_tokens: 8, buffer_tokens: 4, most: 0.5 }),
        };
        let scored = score(&trajectories, &examples, &scoring, &StopFlag::never());
        let rewards: Vec<Option<f64>> = scored
            .rewards
            .iter()
            .map(|reward| reward.as_ref().map(|reward| reward.score))
            .collect();
        assert_eq!(rewards, table.map(|(_, reward, _)| reward));
        assert_eq!(scored.scores, table.map(|(_, _, score)| score));
        assert_eq!(scored.uniform_groups, BTreeSet::from([1, 2, 3]));
        assert_eq!(scored.trained(&trajectories, false), [0, 1, 2, 3, 5]);
        assert_eq!(scored.trained(&trajectories, true), [0, 1]);
    }

    #[test]
    fn without_a_penalty_the_score_is_the_reward() {
        let trajectories = [trajectory(0, "Ada", 900, EndReason::Answered)];
        let example = example("Ada");
        let scoring = Scoring { reward: RewardRules::default(), outside: None, overlong: None };
        let scored = score(&trajectories, &[&example], &scoring, &StopFlag::never());
        assert_eq!(scored.scores, [1.0]);
    }
}
