//! Generalised advantage estimation from a critic's values.

/// The weight of the future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount {
    /// Factor of a reward one token later.
    pub gamma: f64,
    /// Factor of the estimate one token later: 1 trusts only rewards, 0 only the next value.
    pub lambda: f64,
}

/// The positions that count as steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaeSteps {
    /// Every position, observations and padding included: Search-R1's `compute_gae_advantage_return`.
    All,
    /// The tokens of the mask. Value and estimate pass unchanged over all others, so the step after a search
    /// begins with the next sampled token: veRL's `compute_gae_advantage_return`.
    Masked,
}

/// Estimates for every position of a trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimates {
    /// Not whitened yet.
    pub advantages: Vec<f64>,
    /// The critic's targets: advantage plus value.
    pub returns: Vec<f64>,
}

/// Computes GAE (arXiv 1506.02438, equation 16) from the last position to the first: `d = r + gamma V' - V`,
/// `A = d + gamma lambda A'`, with `V' = A' = 0` after the end. `rewards`, `values` and `mask` have the same
/// length. The value of a position is the expectation before its token was chosen.
pub fn generalised_advantages(
    rewards: &[f64],
    values: &[f64],
    mask: &[bool],
    discount: Discount,
    steps: GaeSteps,
) -> Estimates {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for position in (0..rewards.len()).rev() {
        if mask[position] || steps == GaeSteps::All {
            let value = values[position];
            let surprise = rewards[position] + discount.gamma * next_value - value;
            next_advantage = surprise + discount.gamma * discount.lambda * next_advantage;
            next_value = value;
        }
        advantages[position] = next_advantage;
    }
    let returns =
        advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    Estimates { advantages, returns }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An advantage is the reward still to come less the expected one if gamma and lambda are 1. An observation in
    /// between changes no estimate except its own.
    #[test]
    fn observations_are_passed_over() {
        let discount = Discount { gamma: 1.0, lambda: 1.0 };
        let mask = [true, false, true];
        let advantages = |discount, steps| {
            let (rewards, values) = ([0.0, 0.0, 1.0], [0.5, 9.0, 0.25]);
            generalised_advantages(&rewards, &values, &mask, discount, steps).advantages
        };
        assert_eq!(advantages(discount, GaeSteps::Masked), [0.5, 0.75, 0.75]);
        assert_eq!(advantages(discount, GaeSteps::All), [0.5, -8.0, 0.75]);
        let short = Discount { gamma: 1.0, lambda: 0.0 };
        assert_eq!(advantages(short, GaeSteps::Masked)[..1], [-0.25]);
        assert_eq!(advantages(short, GaeSteps::All)[..1], [8.5]);
    }
}
