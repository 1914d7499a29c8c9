//! Advantages of tokens without a group or a critic: REINFORCE and REINFORCE++.
//!
//! Everything is over the trained tokens of a trajectory alone: prompt and observations are not there.

use super::masked::TooFewTokens;

/// Added to the variance before its root is taken, as in veRL's `masked_whiten`.
const VARIANCE_EPSILON: f64 = 1e-8;

/// REINFORCE (Williams 1992) with the batch's mean as the baseline: scores less their mean. Without a
/// baseline an advantage is the score itself, as in ZeroSearch's `compute_reinforce_outcome_advantage`.
pub fn batch_centred(scores: &[f64]) -> Vec<f64> {
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    scores.iter().map(|score| score - mean).collect()
}

/// Discounted sum of the rewards from each token on: `G_t = r_t + gamma G_{t+1}`, the return of
/// REINFORCE++ (arXiv 2501.03262). Over trained tokens an observation neither discounts nor
/// ends a return, as in veRL's `compute_reinforce_plus_plus_outcome_advantage`.
pub fn discounted_returns(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut returns = vec![0.0; rewards.len()];
    let mut following = 0.0;
    for (found, reward) in returns.iter_mut().zip(rewards).rev() {
        following = reward + gamma * following;
        *found = following;
    }
    returns
}

/// `(x - mean) / sqrt(var + 1e-8)` of all `values` with mean and unbiased variance over those that
/// `mask` names, trajectory by trajectory: [`super::masked_whiten`] for lists of different lengths.
///
/// # Errors
/// Fewer than two tokens in the mask have no variance.
pub fn whiten(values: &[Vec<f64>], mask: &[Vec<bool>]) -> Result<Vec<Vec<f64>>, TooFewTokens> {
    let kept: Vec<f64> = values
        .iter()
        .flatten()
        .zip(mask.iter().flatten())
        .filter_map(|(&value, &kept)| kept.then_some(value))
        .collect();
    if kept.len() < 2 {
        return Err(TooFewTokens { count: kept.len() });
    }
    let count = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / count;
    let squares: f64 = kept.iter().map(|value| (value - mean).powi(2)).sum();
    let scale = (squares / (count - 1.0) + VARIANCE_EPSILON).sqrt().recip();
    let whitened = |row: &Vec<f64>| row.iter().map(|value| (value - mean) * scale).collect();
    Ok(values.iter().map(whitened).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_token_cannot_be_whitened() {
        let found = whiten(&[vec![1.0, 2.0]], &[vec![true, false]]);
        assert_eq!(found, Err(TooFewTokens { count: 1 }));
    }

    #[test]
    fn the_baseline_is_the_mean_of_the_batch() {
        assert_eq!(batch_centred(&[1.0, 0.0, 0.5]), vec![0.5, -0.5, 0.0]);
        assert!(batch_centred(&[]).is_empty());
    }
}
