//! Advantages of whole trajectories from their scores.

use std::collections::BTreeMap;

/// Added to the standard deviation, as in Search-R1's `compute_grpo_outcome_advantage`.
pub const GROUP_STD_EPSILON: f64 = 1e-6;

/// GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1): how far each score lies above the mean of its
/// group, in units of the group's unbiased standard deviation; without the division if
/// `normalise_by_std` is false (Dr.GRPO, arXiv 2503.20783).
///
/// `groups` names the group of each score. A group of one is compared with mean 0 and deviation 1.
pub fn group_advantages(scores: &[f64], groups: &[usize], normalise_by_std: bool) -> Vec<f64> {
    let mut members: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (&score, &group) in scores.iter().zip(groups) {
        members.entry(group).or_default().push(score);
    }
    let statistics: BTreeMap<usize, (f64, f64)> =
        members.into_iter().map(|(group, scores)| (group, mean_and_std(&scores))).collect();
    scores
        .iter()
        .zip(groups)
        .map(|(&score, group)| {
            let (mean, std) = statistics[group];
            let scale = if normalise_by_std { std + GROUP_STD_EPSILON } else { 1.0 };
            (score - mean) / scale
        })
        .collect()
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
    fn without_the_deviation_only_the_mean_is_taken_off() {
        let advantages = group_advantages(&[1.0, 0.0, 5.0], &[3, 3, 9], false);
        assert_eq!(advantages, vec![0.5, -0.5, 5.0]);
    }
}
