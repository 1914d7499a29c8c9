//! Checks against `algorithms.json`, recorded from Search-R1's `core_algos` and `torch_functional`. The structs
//! name every key and refuse unknown ones, so no recorded value goes unread.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tch::Tensor;

use super::{
    LossCase, Rows, broadcast, check_gradient, check_lists, check_number, check_rows, flags,
    numbered, packed, scores, tensor, wide,
};
use crate::algo::{
    Aggregation, ClipRange, Discount, GaeSteps, KlEstimator, KlTarget, Objective,
    adapted_coefficient, generalised_advantages, group_advantages, kl_estimate, value_loss, whiten,
};
use crate::golden;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    gae: Vec<Gae>,
    grpo: Vec<Grpo>,
    policy_loss: Vec<Policy>,
    value_loss: Vec<Value>,
    kl: Vec<Kl>,
    whiten: Vec<Whiten>,
    /// Checked in `policy`, which computes entropies.
    entropy: Vec<IgnoredAny>,
    kl_controller: Vec<Controller>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gae {
    gamma: f64,
    lam: f64,
    token_rewards: Rows,
    values: Rows,
    mask: Rows,
    advantages: Rows,
    returns: Rows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpo {
    group: Vec<String>,
    token_rewards: Rows,
    mask: Rows,
    advantages: Rows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
struct Value {
    clip: f64,
    predictions: Rows,
    returns: Rows,
    old_values: Rows,
    mask: Rows,
    loss: f64,
    clip_fraction: f64,
    grad_predictions: Rows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kl {
    kind: String,
    logp: Rows,
    ref_logp: Rows,
    out: Rows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whiten {
    values: Rows,
    mask: Rows,
    out: Rows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Controller {
    init: f64,
    target: f64,
    horizon: f64,
    /// Measured divergence, number of trajectories, coefficient afterwards.
    steps_current_n_value: Vec<(f64, usize, f64)>,
}

fn recording() -> Recording {
    golden::read("algorithms.json")
}

#[test]
fn every_section_has_cases() {
    let recording = recording();
    let cases = [
        recording.gae.len(),
        recording.grpo.len(),
        recording.policy_loss.len(),
        recording.value_loss.len(),
        recording.kl.len(),
        recording.whiten.len(),
        recording.entropy.len(),
        recording.kl_controller.len(),
    ];
    assert_eq!(cases, [5, 5, 4, 3, 4, 2, 1, 1]);
}

/// Every position is a step. The mask matters only for whitening.
#[test]
fn gae_vectors_pass() {
    for (index, case) in recording().gae.iter().enumerate() {
        let discount = Discount { gamma: case.gamma, lambda: case.lam };
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        let masks = flags(&case.mask);
        for ((rewards, values), mask) in
            wide(&case.token_rewards).iter().zip(&wide(&case.values)).zip(&masks)
        {
            let estimates = generalised_advantages(rewards, values, mask, discount, GaeSteps::All);
            advantages.push(estimates.advantages);
            returns.push(estimates.returns);
        }
        let name = format!("case {index}");
        check_lists(&whiten(&advantages, &masks).unwrap(), &case.advantages, &name);
        check_lists(&returns, &case.returns, &name);
    }
}

#[test]
fn group_advantage_vectors_pass() {
    for (index, case) in recording().grpo.iter().enumerate() {
        let groups = numbered(&case.group);
        let advantages = group_advantages(&scores(&case.token_rewards), &groups, true);
        let per_token = broadcast(&advantages, &case.mask);
        check_lists(&per_token, &case.advantages, &format!("case {index}"));
    }
}

#[test]
fn policy_loss_vectors_pass_with_their_gradients() {
    for (index, case) in recording().policy_loss.iter().enumerate() {
        let name = format!("case {index}");
        let inputs = LossCase {
            new: &case.logp,
            old: &case.old_logp,
            advantages: &case.advantages,
            mask: &case.mask,
        };
        let clip = ClipRange { low: case.clip, high: case.clip };
        let objective = Objective::Clipped { clip, dual: None };
        let result = inputs.compute(objective, Aggregation::TokenMean, None);
        check_number(result.loss, case.loss, &name);
        check_number(result.clip_fraction, case.clip_fraction, &name);
        let (new, old) = (packed(&case.logp, &case.mask), packed(&case.old_logp, &case.mask));
        let divergence = kl_estimate(KlEstimator::K1, &old, &new).mean(tch::Kind::Float);
        check_number(divergence.double_value(&[]), case.approx_kl, &name);
        check_gradient(&result.gradient, &case.grad_logp, &case.mask, &name);
    }
}

#[test]
fn value_loss_vectors_pass_with_their_gradients() {
    for (index, case) in recording().value_loss.iter().enumerate() {
        let name = format!("case {index}");
        let values = packed(&case.predictions, &case.mask).set_requires_grad(true);
        let old = packed(&case.old_values, &case.mask);
        let returns = packed(&case.returns, &case.mask);
        let result = value_loss(&values, &old, &returns, case.clip);
        let mean = |tensor: &Tensor| tensor.mean(tch::Kind::Float);
        let loss = mean(&result.losses);
        check_number(loss.double_value(&[]), case.loss, &name);
        check_number(mean(&result.clipped).double_value(&[]), case.clip_fraction, &name);
        loss.backward();
        check_gradient(&values.grad(), &case.grad_predictions, &case.mask, &name);
    }
}

#[test]
fn divergence_vectors_pass() {
    for case in &recording().kl {
        let estimator = match case.kind.as_str() {
            "kl" => KlEstimator::K1,
            "abs" => KlEstimator::Abs,
            "mse" => KlEstimator::K2,
            "low_var_kl" => KlEstimator::K3,
            other => panic!("estimator {other} is not one of kl, abs, mse and low_var_kl"),
        };
        let estimates = kl_estimate(estimator, &tensor(&case.logp), &tensor(&case.ref_logp));
        check_rows(&estimates, &case.out, &case.kind);
    }
}

#[test]
fn whitening_vectors_pass() {
    for (index, case) in recording().whiten.iter().enumerate() {
        let whitened = whiten(&wide(&case.values), &flags(&case.mask)).unwrap();
        check_lists(&whitened, &case.out, &format!("case {index}"));
    }
}

#[test]
fn the_controller_follows_the_recorded_one() {
    for case in &recording().kl_controller {
        let target = KlTarget { divergence: case.target, horizon: case.horizon };
        let mut coefficient = case.init;
        for &(measured, trajectories, expected) in &case.steps_current_n_value {
            coefficient = adapted_coefficient(coefficient, target, measured, trajectories);
            check_number(coefficient, expected, &format!("after a divergence of {measured}"));
        }
    }
}
