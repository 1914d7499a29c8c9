//! Advantages of tokens without a group or a critic: REINFORCE and REINFORCE++.
//!
//! Rows hold the trained tokens of a trajectory alone, without prompt and observations.

/// Added to the variance under the root, as in veRL's `masked_whiten`.
const VARIANCE_EPSILON: f64 = 1e-8;

/// A mask too small for a variance.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("whitening needs at least 2 tokens in the mask, there are {count}")]
pub struct TooFewTokens {
    pub count: usize,
}

/// Returns each score less the mean of the batch: REINFORCE (Williams 1992) with that mean as its baseline.
/// Without a baseline an advantage is the score itself, as in ZeroSearch's
/// `compute_reinforce_outcome_advantage`.
pub fn batch_centred(scores: &[f64]) -> Vec<f64> {
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    scores.iter().map(|score| score - mean).collect()
}

/// Returns the discounted sum of the rewards from each token on, `G_t = r_t + gamma G_{t+1}`: the return of
/// REINFORCE++ (arXiv 2501.03262). An observation is not among the tokens, so it neither discounts nor ends
/// a return, as in veRL's `compute_reinforce_plus_plus_outcome_advantage`.
pub fn discounted_returns(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut returns = vec![0.0; rewards.len()];
    let mut following = 0.0;
    for (slot, reward) in returns.iter_mut().zip(rewards).rev() {
        following = reward + gamma * following;
        *slot = following;
    }
    returns
}

/// Returns `(x - mean) / sqrt(var + 1e-8)` of all `values`, one row per trajectory. Mean and unbiased variance
/// are over the tokens of `mask` (Search-R1's `masked_whiten`).
///
/// # Errors
/// Fails if the mask holds fewer than two tokens: they have no variance.
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
    fn fewer_than_two_tokens_cannot_be_whitened() {
        for (mask, count) in [([true, false], 1), ([false, false], 0)] {
            let whitened = whiten(&[vec![f64::INFINITY, 2.0]], &[mask.to_vec()]);
            assert_eq!(whitened, Err(TooFewTokens { count }));
        }
    }

    #[test]
    fn the_baseline_is_the_mean_of_the_batch() {
        assert_eq!(batch_centred(&[1.0, 0.0, 0.5]), vec![0.5, -0.5, 0.0]);
        assert!(batch_centred(&[]).is_empty());
    }
}
