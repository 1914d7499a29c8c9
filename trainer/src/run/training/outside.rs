//! The scores of services, added to the rewards of a step.

use std::collections::BTreeMap;

use tracing::warn;

use crate::data::Example;
use crate::reward::Reward;
use crate::reward::outside::{OutsideItem, OutsideRewards, OutsideScore, agreement};
use crate::rollout::trajectory::Trajectory;
use crate::stop::StopFlag;
use crate::track::RewardMetrics;

/// The figures of the services of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OutsideFigures {
    pub(crate) metrics: RewardMetrics,
    last_failure: Option<String>,
}

impl OutsideFigures {
    /// Refuses too many trajectories without a reward.
    pub(crate) fn check(&self, total: usize, limit: f64) -> anyhow::Result<()> {
        let failed = self.metrics.failed;
        let reason = self.last_failure.as_deref().unwrap_or("unknown");
        if failed > 0 {
            warn!(failed, total, reason, "trajectories dropped: their rewards could not be had");
        }
        anyhow::ensure!(
            failed as f64 <= limit * total as f64,
            "rewards could not be had for {failed} of {total} trajectories, more than \
             training.max_failed_search_fraction = {limit} allows; last failure: {reason}"
        );
        Ok(())
    }
}

/// Adds the services' scores to `rewards`; removes those that could not be had.
pub(crate) fn add_outside(
    services: &OutsideRewards,
    trajectories: &[Trajectory],
    examples: &[&Example],
    rewards: &mut [Option<Reward>],
    stop: &StopFlag,
) -> OutsideFigures {
    let (indices, items): (Vec<usize>, Vec<OutsideItem>) = rewards
        .iter()
        .enumerate()
        .filter_map(|(index, reward)| {
            let trajectory = &trajectories[index];
            Some((index, item(trajectory, examples[trajectory.prompt], reward.as_ref()?)))
        })
        .unzip();
    let mut figures = OutsideFigures::default();
    let mut scored: Vec<OutsideScore> = Vec::new();
    let mut decisions = Vec::new();
    for (index, score) in indices.into_iter().zip(services.scores(&items, stop)) {
        match score {
            Ok(score) => {
                let reward = rewards[index].as_mut().expect("only rewards became items");
                reward.score += score.total;
                decisions
                    .extend(score.judge.map(|verdict| (verdict >= 0.5, reward.exact_match > 0.0)));
                scored.push(score);
            }
            Err(reason) => {
                rewards[index] = None;
                figures.metrics.failed += 1;
                figures.last_failure = Some(reason);
            }
        }
    }
    let (agreement, kappa) = if decisions.is_empty() { (0.0, 0.0) } else { agreement(&decisions) };
    figures.metrics = RewardMetrics {
        service_mean: mean(scored.iter().filter_map(|score| score.service)),
        parts: part_means(&scored),
        judge_mean: mean(scored.iter().filter_map(|score| score.judge)),
        judge_agreement: agreement,
        judge_kappa: kappa,
        known_verdicts: scored.iter().filter(|score| score.is_known_verdict).count() as u64,
        ..figures.metrics
    };
    figures
}

fn item(trajectory: &Trajectory, example: &Example, reward: &Reward) -> OutsideItem {
    OutsideItem {
        id: example.id.clone(),
        question: example.question.clone(),
        golden_answers: example.golden_answers.clone(),
        trajectory: trajectory.segments.iter().map(|segment| segment.text.as_str()).collect(),
        answer: reward.answer.clone(),
        searches: trajectory.searches.len(),
        exact_match: reward.exact_match,
        score: reward.score,
    }
}

/// Returns the mean; 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

fn part_means(scored: &[OutsideScore]) -> BTreeMap<String, f64> {
    let names: Vec<&String> = scored.iter().flat_map(|score| score.parts.keys()).collect();
    let of = |name: &String| mean(scored.iter().filter_map(|score| score.parts.get(name).copied()));
    names.into_iter().map(|name| (name.clone(), of(name))).collect()
}
