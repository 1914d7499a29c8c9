//! Advantages of whole trajectories, relative to the others of their group: GRPO, Dr.GRPO, RLOO, OPO, GPG.
//!
//! `groups` gives the group of each score. Results are in the order of the scores.

use std::collections::BTreeMap;

/// Added to the standard deviation, as in Search-R1's `compute_grpo_outcome_advantage`.
pub const GROUP_STD_EPSILON: f64 = 1e-6;

/// RLOO's advantage of a trajectory that is alone in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Singleton {
    /// Its own score: veRL's `compute_rloo_outcome_advantage`.
    Score,
    /// Zero: veRL's `compute_rloo_vectorized_outcome_advantage`.
    Zero,
}

/// Returns GRPO's advantages (DeepSeekMath, arXiv 2402.03300, section 4.1): each score less the mean of its
/// group, in units of the group's unbiased standard deviation. If `normalise_by_std` is false, the difference
/// is not divided (Dr.GRPO, arXiv 2503.20783).
///
/// The score of a group of one is compared with mean 0 and deviation 1.
pub fn group_advantages(scores: &[f64], groups: &[usize], normalise_by_std: bool) -> Vec<f64> {
    against_group(scores, groups, |score, members| {
        let (mean, std) = mean_and_std(&chosen(scores, members));
        let scale = if normalise_by_std { std + GROUP_STD_EPSILON } else { 1.0 };
        (score - mean) / scale
    })
}

/// Returns RLOO's advantages (arXiv 2402.14740): each score less the mean of the others in its group.
pub fn leave_one_out(scores: &[f64], groups: &[usize], singleton: Singleton) -> Vec<f64> {
    against_group(scores, groups, |score, members| {
        if members.len() < 2 {
            return match singleton {
                Singleton::Score => score,
                Singleton::Zero => 0.0,
            };
        }
        let others = chosen(scores, members).iter().sum::<f64>() - score;
        score - others / (members.len() - 1) as f64
    })
}

/// Returns OPO's advantages (arXiv 2505.23585): each score less the group's mean weighted by trained `tokens`.
/// Under the paper's assumptions this baseline has the least variance. The score of a group of one is compared
/// with 0, as in veRL's `compute_opo_outcome_advantage`.
pub fn length_weighted(scores: &[f64], tokens: &[usize], groups: &[usize]) -> Vec<f64> {
    against_group(scores, groups, |score, members| {
        if members.len() < 2 {
            return score;
        }
        let weight: f64 = members.iter().map(|&index| tokens[index] as f64).sum();
        let sum: f64 = members.iter().map(|&index| scores[index] * tokens[index] as f64).sum();
        // Without trained tokens there is no gradient whose variance a baseline could reduce.
        score - if weight > 0.0 { sum / weight } else { 0.0 }
    })
}

/// Returns GPG's advantages (arXiv 2504.02546): each score less the mean of its group, times the number of all
/// scores over the number of nonzero ones, as in veRL's `compute_gpg_outcome_advantage`. The score of a group
/// of one is compared with 0.
pub fn rescaled_by_nonzero(scores: &[f64], groups: &[usize]) -> Vec<f64> {
    let nonzero = scores.iter().filter(|&&score| score != 0.0).count().max(1);
    let scale = scores.len() as f64 / nonzero as f64;
    let centred = group_advantages(scores, groups, false);
    centred.into_iter().map(|advantage| advantage * scale).collect()
}

/// Returns, by group, `true` if all its scores are equal. Such a group has nothing to compare; DAPO (arXiv
/// 2503.14476, section 3.2) drops it and samples others instead.
pub fn uniform_groups(scores: &[f64], groups: &[usize]) -> BTreeMap<usize, bool> {
    members_of(groups)
        .into_iter()
        .map(|(group, members)| {
            let first = scores[members[0]];
            let same = |&index: &usize| (scores[index] - first).abs() < f64::EPSILON;
            (group, members.iter().all(same))
        })
        .collect()
}

fn against_group(
    scores: &[f64],
    groups: &[usize],
    advantage: impl Fn(f64, &[usize]) -> f64,
) -> Vec<f64> {
    let members = members_of(groups);
    scores.iter().zip(groups).map(|(&score, group)| advantage(score, &members[group])).collect()
}

/// Returns the indices of each group's scores.
fn members_of(groups: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(index);
    }
    members
}

fn chosen(scores: &[f64], members: &[usize]) -> Vec<f64> {
    members.iter().map(|&index| scores[index]).collect()
}

fn mean_and_std(scores: &[f64]) -> (f64, f64) {
    if scores.len() < 2 {
        return (0.0, 1.0);
    }
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_right_of_five_and_of_sixteen() {
        let mut scores = vec![0.0; 5];
        scores[0] = 1.0;
        let advantages = group_advantages(&scores, &[0; 5], true);
        assert!((advantages[0] - 1.788_850_43).abs() < 1e-5, "{advantages:?}");
        assert!((advantages[1] + 0.447_212_61).abs() < 1e-5, "{advantages:?}");
        let mut scores = vec![0.0; 16];
        scores[0] = 1.0;
        assert!((group_advantages(&scores, &[0; 16], true)[0] - 3.749_98).abs() < 1e-4);
    }

    #[test]
    fn without_the_deviation_only_the_mean_is_subtracted() {
        let advantages = group_advantages(&[1.0, 0.0, 5.0], &[3, 3, 9], false);
        assert_eq!(advantages, vec![0.5, -0.5, 5.0]);
    }

    #[test]
    fn groups_of_equal_scores_are_found() {
        let uniform = uniform_groups(&[1.0, 0.0, 0.5, 0.5, 2.0], &[4, 4, 1, 1, 7]);
        assert_eq!(uniform, BTreeMap::from([(1, true), (4, false), (7, true)]));
    }

    #[test]
    fn a_batch_without_any_reward_is_finite() {
        assert_eq!(rescaled_by_nonzero(&[0.0, 0.0], &[0, 0]), vec![0.0, 0.0]);
        assert_eq!(length_weighted(&[1.0, 0.0], &[0, 0], &[0, 0]), vec![1.0, 0.0]);
    }
}
