//! Checks against every recorded value of the references, and properties beyond them.

mod search_r1;
mod verl;

use tch::{Device, Kind, Tensor};

use super::{
    Aggregation, KlEstimator, Objective, PolicyInputs, TokenLayout, kl_estimate, policy_loss,
    token_weights,
};

/// The recordings were computed in f32.
const TOLERANCE: f64 = 1e-5;
/// The constant that the recordings of `seq-mean-token-sum-norm` divide by.
const NORM_TOKENS: usize = 3;

type Rows = Vec<Vec<f32>>;

fn tensor(rows: &Rows) -> Tensor {
    Tensor::from_slice2(rows)
}

#[track_caller]
fn check_number(actual: f64, expected: f64, case: &str) {
    assert!((actual - expected).abs() < TOLERANCE, "{actual} is not {expected}: {case}");
}

#[track_caller]
fn check_rows(actual: &Tensor, expected: &Rows, case: &str) {
    let expected = tensor(expected);
    assert_eq!(actual.size(), expected.size(), "{case}");
    let gap = (actual - expected).abs().max().double_value(&[]);
    assert!(gap < TOLERANCE, "{case}: off by {gap}");
}

#[track_caller]
fn check_lists(actual: &[Vec<f64>], expected: &Rows, case: &str) {
    let actual: Rows =
        actual.iter().map(|row| row.iter().map(|&value| value as f32).collect()).collect();
    check_rows(&tensor(&actual), expected, case);
}

/// Converts rows of f32 to rows of f64.
fn wide(rows: &Rows) -> Vec<Vec<f64>> {
    rows.iter().map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect()
}

fn flags(mask: &Rows) -> Vec<Vec<bool>> {
    mask.iter().map(|row| row.iter().map(|&value| value > 0.0).collect()).collect()
}

/// Sums each row.
fn scores(rewards: &Rows) -> Vec<f64> {
    wide(rewards).iter().map(|row| row.iter().sum()).collect()
}

/// Gives every name its own number.
fn numbered(names: &[String]) -> Vec<usize> {
    names.iter().map(|name| names.iter().position(|other| other == name).unwrap()).collect()
}

/// Repeats each trajectory's advantage at its tokens, with 0 where the mask is 0.
fn broadcast(advantages: &[f64], mask: &Rows) -> Vec<Vec<f64>> {
    let row = |(advantage, mask): (&f64, &Vec<f32>)| {
        mask.iter().map(|&kept| advantage * f64::from(kept)).collect()
    };
    advantages.iter().zip(mask).map(row).collect()
}

/// Packs the values where the mask is 1 into one row, as an update does.
fn packed(rows: &Rows, mask: &Rows) -> Tensor {
    let kept: Vec<f32> = rows
        .iter()
        .flatten()
        .zip(mask.iter().flatten())
        .filter_map(|(&value, &kept)| (kept > 0.0).then_some(value))
        .collect();
    Tensor::from_slice(&kept)
}

fn counts(mask: &Rows) -> Vec<usize> {
    mask.iter().map(|row| row.iter().filter(|&&kept| kept > 0.0).count()).collect()
}

/// The inputs of a recorded policy loss. Masked tokens are dropped before it is computed.
struct LossCase<'r> {
    new: &'r Rows,
    old: &'r Rows,
    advantages: &'r Rows,
    mask: &'r Rows,
}

/// The numbers in a recording of a policy loss.
struct LossResult {
    loss: f64,
    clip_fraction: f64,
    /// Gradient by the tokens where the mask is 1.
    gradient: Tensor,
}

impl LossCase<'_> {
    fn compute(
        &self,
        objective: Objective,
        aggregation: Aggregation,
        importance: Option<&Tensor>,
    ) -> LossResult {
        let new = packed(self.new, self.mask).set_requires_grad(true);
        let old = packed(self.old, self.mask);
        let advantages = packed(self.advantages, self.mask);
        let counts = counts(self.mask);
        let layout = TokenLayout::new(&counts, Device::Cpu);
        let inputs = PolicyInputs {
            log_probs: &new,
            old_log_probs: &old,
            advantages: &advantages,
            layout: &layout,
        };
        let result = policy_loss(objective, &inputs, importance);
        let weights: Vec<f32> = token_weights(aggregation, NORM_TOKENS, &counts)
            .into_iter()
            .zip(&counts)
            .flat_map(|(weight, &count)| std::iter::repeat_n(weight as f32, count))
            .collect();
        let loss = (&result.losses * Tensor::from_slice(&weights)).sum(Kind::Float);
        loss.backward();
        let mean = |values: &Tensor| values.mean(Kind::Float).double_value(&[]);
        LossResult {
            loss: loss.double_value(&[]),
            clip_fraction: mean(&result.clipped),
            gradient: new.grad(),
        }
    }
}

/// Compares the gradient at the mask's tokens. Elsewhere the recorded gradient must be 0.
#[track_caller]
fn check_gradient(actual: &Tensor, expected: &Rows, mask: &Rows, case: &str) {
    let kept = packed(expected, mask);
    assert_eq!(actual.size(), kept.size(), "{case}");
    let gap = (actual - kept).abs().max().double_value(&[]);
    assert!(gap < TOLERANCE, "{case}: gradient off by {gap}");
    for (expected, kept) in expected.iter().flatten().zip(mask.iter().flatten()) {
        assert!(*kept > 0.0 || expected.abs() < f32::EPSILON, "{case}");
    }
}

/// The policy has almost given up the token, so the estimate is at its bound. That must not turn the whole
/// update into NaN.
#[test]
fn an_extreme_divergence_has_a_finite_gradient() {
    for estimator in
        [KlEstimator::K1, KlEstimator::Abs, KlEstimator::K2, KlEstimator::K3, KlEstimator::K3Plus]
    {
        for log_prob in [-200.0_f32, 0.0] {
            let log_probs = Tensor::from_slice(&[log_prob]).set_requires_grad(true);
            let reference = Tensor::from_slice(&[-100.0_f32]);
            let divergence = kl_estimate(estimator, &log_probs, &reference).sum(Kind::Float);
            divergence.backward();
            assert!(divergence.double_value(&[]).is_finite(), "{estimator:?}");
            assert!(log_probs.grad().double_value(&[0]).is_finite(), "{estimator:?} {log_prob}");
        }
    }
}
