//! Penalties on rewards for length.

/// The lengths between which the penalty grows, and its maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverlongPenalty {
    /// Number of sampled tokens at which the penalty reaches its maximum.
    pub limit_tokens: usize,
    /// Number of tokens below the limit over which the penalty grows from 0.
    pub buffer_tokens: usize,
    /// Maximum of the penalty, above 0.
    pub most: f64,
}

/// Returns DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), to be added to the reward: 0 up to
/// `limit - buffer` sampled tokens, then linearly down to `-most` at the limit and beyond.
pub fn overlong_penalty(penalty: OverlongPenalty, sampled_tokens: usize) -> f64 {
    let free = penalty.limit_tokens.saturating_sub(penalty.buffer_tokens);
    let over = sampled_tokens.saturating_sub(free) as f64;
    -penalty.most * (over / penalty.buffer_tokens.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_grows_over_the_buffer_only() {
        let penalty = OverlongPenalty { limit_tokens: 100, buffer_tokens: 40, most: 0.5 };
        for (tokens, expected) in [(0, 0.0), (60, 0.0), (70, -0.125), (100, -0.5), (500, -0.5)] {
            let actual = overlong_penalty(penalty, tokens);
            assert!((actual - expected).abs() < 1e-12, "{tokens}: {actual}");
        }
    }
}
