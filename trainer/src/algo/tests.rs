//! Every recorded advantage, divergence, loss, whitening and entropy of the reference.

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{
    ClipRange, KlEstimator, clipped_policy_loss, entropy_of_logits, group_advantages, kl_estimate,
    masked_mean, masked_whiten,
};
use crate::rollout::tests::golden;

/// The recordings were computed in f32.
const TOLERANCE: f64 = 1e-5;

type Rows = Vec<Vec<f32>>;

/// The sections that these functions compute; the file has more.
#[derive(Deserialize)]
struct Recording {
    grpo: Vec<Grpo>,
    policy_loss: Vec<Policy>,
    kl: Vec<Kl>,
    whiten: Vec<Whiten>,
    entropy: Vec<Entropy>,
}

#[derive(Deserialize)]
struct Grpo {
    group: Vec<String>,
    token_rewards: Rows,
    mask: Rows,
    advantages: Rows,
}

#[derive(Deserialize)]
struct Policy {
    clip: f64,
    old_logp: Rows,
    logp: Rows,
    advantages: Rows,
    mask: Rows,
    loss: f64,
    clip_fraction: f64,
    approx_kl: f64,
    grad_logp: Rows,
}

#[derive(Deserialize)]
struct Kl {
    kind: String,
    logp: Rows,
    ref_logp: Rows,
    out: Rows,
}

#[derive(Deserialize)]
struct Whiten {
    values: Rows,
    mask: Rows,
    out: Rows,
}

#[derive(Deserialize)]
struct Entropy {
    logits: Vec<Rows>,
    mask: Rows,
    loss: f64,
}

fn recording() -> Recording {
    golden::read("algorithms.json")
}

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

#[test]
fn group_advantage_vectors_pass() {
    let cases = recording().grpo;
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let scores: Vec<f64> = case
            .token_rewards
            .iter()
            .map(|rewards| rewards.iter().copied().map(f64::from).sum())
            .collect();
        let number_of = |name: &String| case.group.iter().position(|other| other == name).unwrap();
        let groups: Vec<usize> = case.group.iter().map(number_of).collect();
        let advantages: Vec<f32> =
            group_advantages(&scores, &groups, true).iter().map(|&value| value as f32).collect();
        let of_tokens = Tensor::from_slice(&advantages).unsqueeze(1) * tensor(&case.mask);
        check_rows(&of_tokens, &case.advantages, &format!("case {index}"));
    }
}

#[test]
fn policy_loss_vectors_pass_with_their_gradients() {
    let cases = recording().policy_loss;
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let name = format!("case {index}");
        let log_probs = tensor(&case.logp).set_requires_grad(true);
        let clip = ClipRange { low: case.clip, high: case.clip };
        let (old, advantages) = (tensor(&case.old_logp), tensor(&case.advantages));
        let result = clipped_policy_loss(&log_probs, &old, &advantages, clip);
        let mask = tensor(&case.mask);
        let loss = masked_mean(&result.losses, &mask);
        check_number(loss.double_value(&[]), case.loss, &name);
        let mean = |values: &Tensor| masked_mean(values, &mask).double_value(&[]);
        check_number(mean(&result.clipped), case.clip_fraction, &name);
        check_number(mean(&result.old_minus_new), case.approx_kl, &name);
        loss.backward();
        check_rows(&log_probs.grad(), &case.grad_logp, &name);
    }
}

#[test]
fn divergence_vectors_pass() {
    let cases = recording().kl;
    assert!(!cases.is_empty());
    for case in &cases {
        let estimator = match case.kind.as_str() {
            "kl" => KlEstimator::K1,
            "abs" => KlEstimator::Abs,
            "mse" => KlEstimator::K2,
            "low_var_kl" => KlEstimator::K3,
            other => panic!("estimator {other} is not one of kl, abs, mse and low_var_kl"),
        };
        let found = kl_estimate(estimator, &tensor(&case.logp), &tensor(&case.ref_logp));
        check_rows(&found, &case.out, &case.kind);
    }
}

#[test]
fn whitening_vectors_pass() {
    let cases = recording().whiten;
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let whitened = masked_whiten(&tensor(&case.values), &tensor(&case.mask)).unwrap();
        check_rows(&whitened, &case.out, &format!("case {index}"));
    }
}

#[test]
fn entropy_vectors_pass() {
    let cases = recording().entropy;
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let sequences: Vec<Tensor> = case.logits.iter().map(tensor).collect();
        let entropies = entropy_of_logits(&Tensor::stack(&sequences, 0));
        let mean = masked_mean(&entropies, &tensor(&case.mask)).double_value(&[]);
        check_number(mean, case.loss, &format!("case {index}"));
    }
}

/// A token that the policy has all but given up: the estimate is at its bound, and a bound that is
/// met must not turn the whole update into NaN.
#[test]
fn an_extreme_divergence_has_a_finite_gradient() {
    for estimator in [KlEstimator::K1, KlEstimator::Abs, KlEstimator::K2, KlEstimator::K3] {
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
