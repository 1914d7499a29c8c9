//! Token weights: the factors with which per-token losses add up to one number.

/// A rule that turns per-token losses into one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Mean over all trained tokens of the update (DAPO, arXiv 2503.14476, equation 8).
    TokenMean,
    /// Mean over trajectories of their token means (GRPO's paper, equation 3).
    SequenceMeanTokenMean,
    /// Mean over trajectories of their token sums.
    SequenceMeanTokenSum,
    /// Mean over trajectories of their token sums, divided by a constant number of tokens. Length then has
    /// no influence (Dr.GRPO, arXiv 2503.20783, section 3.2).
    SequenceMeanTokenSumNorm,
    /// Sum over all trained tokens of the update.
    TokenSum,
}

/// Returns the weight of a token, for each trajectory of an update, from the trajectories' numbers of trained
/// tokens. The weighted sum of the per-token losses is the loss. The normaliser is the whole update's, so
/// micro-batches of any size add up to the same gradient. `norm_tokens` is the constant of
/// [`Aggregation::SequenceMeanTokenSumNorm`].
pub fn token_weights(
    aggregation: Aggregation,
    norm_tokens: usize,
    tokens_of_trajectories: &[usize],
) -> Vec<f64> {
    let trajectories = tokens_of_trajectories.len().max(1) as f64;
    let tokens = tokens_of_trajectories.iter().sum::<usize>().max(1) as f64;
    tokens_of_trajectories
        .iter()
        .map(|&own| match aggregation {
            Aggregation::TokenMean => 1.0 / tokens,
            Aggregation::SequenceMeanTokenMean => 1.0 / (trajectories * own.max(1) as f64),
            Aggregation::SequenceMeanTokenSum => 1.0 / trajectories,
            Aggregation::SequenceMeanTokenSumNorm => {
                1.0 / (trajectories * norm_tokens.max(1) as f64)
            }
            Aggregation::TokenSum => 1.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_aggregation() {
        let close = |weights: Vec<f64>, expected: [f64; 2]| {
            for (weight, expected) in weights.iter().zip(expected) {
                assert!((weight - expected).abs() < 1e-12, "{weights:?}");
            }
        };
        close(token_weights(Aggregation::TokenMean, 10, &[1, 3]), [0.25, 0.25]);
        close(token_weights(Aggregation::SequenceMeanTokenMean, 10, &[1, 4]), [0.5, 0.125]);
        close(token_weights(Aggregation::SequenceMeanTokenSum, 10, &[1, 4]), [0.5, 0.5]);
        close(token_weights(Aggregation::SequenceMeanTokenSumNorm, 10, &[1, 4]), [0.05, 0.05]);
        close(token_weights(Aggregation::TokenSum, 10, &[1, 4]), [1.0, 1.0]);
    }
}
