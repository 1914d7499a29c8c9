//! Generalised advantage estimation from a critic's values.

/// How much of the future counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount {
    /// Of a reward one token later.
    pub gamma: f64,
    /// Of the estimate one token later: 1 trusts rewards alone, 0 the next value alone.
    pub lambda: f64,
}

/// Which tokens are steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaeSteps {
    /// Every position, observations and padding included: Search-R1's `compute_gae_advantage_return`.
    All,
    /// The tokens of the mask; value and estimate are carried over all others, so that the step after a
    /// search begins with the next sampled token: veRL's `compute_gae_advantage_return`.
    Masked,
}

/// One number a position of a trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimates {
    /// Not whitened yet.
    pub advantages: Vec<f64>,
    /// What the critic learns: advantage plus value.
    pub returns: Vec<f64>,
}

/// GAE (arXiv 1506.02438, equation 16), from the last position to the first: `d = r + gamma V' - V`,
/// `A = d + gamma lambda A'`, with `V' = A' = 0` after the end. `rewards`, `values` and `mask` are of
/// one length; the value of a position is what was expected before its token was chosen.
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

    /// With gamma and lambda of 1 an advantage is what comes less what was expected; an observation in
    /// between changes nothing but what it would say of itself.
    #[test]
    fn observations_are_passed_over() {
        let discount = Discount { gamma: 1.0, lambda: 1.0 };
        let mask = [true, false, true];
        let of = |steps| {
            generalised_advantages(&[0.0, 0.0, 1.0], &[0.5, 9.0, 0.25], &mask, discount, steps)
        };
        assert_eq!(of(GaeSteps::Masked).advantages, [0.5, 0.75, 0.75]);
        assert_eq!(of(GaeSteps::All).advantages, [0.5, -8.0, 0.75]);
        let short = Discount { gamma: 1.0, lambda: 0.0 };
        let of = |steps| {
            generalised_advantages(&[0.0, 0.0, 1.0], &[0.5, 9.0, 0.25], &mask, short, steps)
        };
        assert_eq!(of(GaeSteps::Masked).advantages[..1], [-0.25]);
        assert_eq!(of(GaeSteps::All).advantages[..1], [8.5]);
    }
}
