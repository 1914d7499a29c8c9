//! Checks against `algorithms-extended.json`, recorded from veRL and ZeroSearch. One test walks through the whole
//! file and fails if a value was not read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{
    LossCase, Rows, broadcast, check_gradient, check_lists, check_number, check_rows, counts,
    flags, numbered, packed, scores, wide,
};
use crate::algo::{
    Aggregation, ClipRange, Discount, GaeSteps, KlEstimator, Objective, Singleton,
    discounted_returns, generalised_advantages, group_advantages, kl_estimate, leave_one_out,
    length_weighted, rescaled_by_nonzero, truncated_importance, whiten,
};
use crate::golden;

/// A recording that remembers which of its values were read.
struct Recorded {
    file: Value,
    read: RefCell<BTreeSet<String>>,
}

impl Recorded {
    fn open() -> Self {
        let file = golden::read("algorithms-extended.json");
        Self { file, read: RefCell::default() }
    }

    /// Returns the value at a path of keys and marks it as read.
    #[track_caller]
    fn get<T: DeserializeOwned>(&self, path: &[&str]) -> T {
        let value = path.iter().fold(&self.file, |value, key| &value[key]);
        self.read.borrow_mut().insert(path.join("/"));
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// Returns the paths of all values except tables.
    fn paths(&self) -> BTreeSet<String> {
        fn walk(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
            match value {
                Value::Object(table) => {
                    for (key, value) in table {
                        let path =
                            if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
                        walk(value, &path, paths);
                    }
                }
                _ => {
                    paths.insert(path.to_owned());
                }
            }
        }
        let mut paths = BTreeSet::new();
        walk(&self.file, "", &mut paths);
        paths
    }
}

#[test]
fn every_recorded_value_is_met() {
    let recorded = Recorded::open();
    outcome_advantages(&recorded);
    token_advantages(&recorded);
    estimates_over_observations(&recorded);
    policy_losses(&recorded);
    divergences(&recorded);
    let paths = recorded.paths();
    assert_eq!(paths.len(), 57);
    assert_eq!(*recorded.read.borrow(), paths);
}

/// Checks estimators with one advantage per trajectory, repeated at each of its tokens.
fn outcome_advantages(recorded: &Recorded) {
    let mask: Rows = recorded.get(&["inputs", "mask"]);
    let groups = numbered(&recorded.get::<Vec<String>>(&["inputs", "index"]));
    let scores = scores(&recorded.get(&["inputs", "rewards_last_token"]));
    for (name, advantages) in [
        ("verl_grpo", group_advantages(&scores, &groups, true)),
        ("verl_dr_grpo(no_std)", group_advantages(&scores, &groups, false)),
        ("verl_rloo", leave_one_out(&scores, &groups, Singleton::Score)),
        ("verl_rloo_vectorized", leave_one_out(&scores, &groups, Singleton::Zero)),
        ("verl_opo", length_weighted(&scores, &counts(&mask), &groups)),
        ("verl_gpg", rescaled_by_nonzero(&scores, &groups)),
        ("zerosearch_reinforce", scores.clone()),
    ] {
        check_lists(&broadcast(&advantages, &mask), &recorded.get(&[name, "adv"]), name);
    }
    let centred = broadcast(&group_advantages(&scores, &groups, false), &mask);
    let whitened = over_mask(&whiten(&centred, &flags(&mask)).unwrap(), &mask);
    let name = "verl_reinforce_pp_baseline";
    check_lists(&whitened, &recorded.get(&[name, "adv"]), name);
}

fn over_mask(rows: &[Vec<f64>], mask: &Rows) -> Vec<Vec<f64>> {
    let row = |(row, mask): (&Vec<f64>, &Vec<f32>)| {
        row.iter().zip(mask).map(|(value, &kept)| value * f64::from(kept)).collect()
    };
    rows.iter().zip(mask).map(row).collect()
}

/// Puts the values of the mask's tokens back into their positions, with 0 elsewhere.
fn spread(kept: &[Vec<f64>], mask: &Rows) -> Vec<Vec<f64>> {
    let row = |(kept, mask): (&Vec<f64>, &Vec<f32>)| {
        let mut kept = kept.iter();
        mask.iter().map(|&flag| if flag > 0.0 { *kept.next().unwrap() } else { 0.0 }).collect()
    };
    kept.iter().zip(mask).map(row).collect()
}

/// Checks REINFORCE++ over the mask's tokens alone, as in an update.
fn token_advantages(recorded: &Recorded) {
    let mask: Rows = recorded.get(&["inputs", "mask"]);
    let rewards = wide(&recorded.get(&["inputs", "rewards_last_token"]));
    for (name, gamma) in [("verl_reinforce_pp_gamma1", 1.0), ("verl_reinforce_pp_gamma0.9", 0.9)] {
        let returns: Vec<Vec<f64>> = rewards
            .iter()
            .zip(&mask)
            .map(|(rewards, mask)| {
                let kept: Vec<f64> = rewards
                    .iter()
                    .zip(mask)
                    .filter_map(|(&reward, &flag)| (flag > 0.0).then_some(reward))
                    .collect();
                discounted_returns(&kept, gamma)
            })
            .collect();
        check_lists(&spread(&returns, &mask), &recorded.get(&[name, "ret"]), name);
        let all: Vec<Vec<bool>> = returns.iter().map(|row| vec![true; row.len()]).collect();
        let whitened = whiten(&returns, &all).unwrap();
        check_lists(&spread(&whitened, &mask), &recorded.get(&[name, "adv"]), name);
    }
}

/// Checks GAE that passes over observations. The file does not hold the rewards and values. They follow from its
/// returns and from the ratios of its advantages, which are whitened multiples of .1.
fn estimates_over_observations(recorded: &Recorded) {
    let name = "verl_gae_obs_skipped";
    let mask = flags(&recorded.get(&[name, "mask"]));
    let rewards = [vec![0.0, 0.0, 0.0, 1.0, 0.0], vec![0.0; 5]];
    let values = [vec![0.1, 0.2, 0.3, 0.4, 0.0], vec![0.5, 0.4, 0.3, 0.2, 0.1]];
    let discount = Discount { gamma: 1.0, lambda: 1.0 };
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    for row in 0..2 {
        let steps = GaeSteps::Masked;
        let estimates =
            generalised_advantages(&rewards[row], &values[row], &mask[row], discount, steps);
        advantages.push(estimates.advantages);
        returns.push(estimates.returns);
    }
    check_lists(&returns, &recorded.get(&[name, "ret"]), name);
    check_lists(&whiten(&advantages, &mask).unwrap(), &recorded.get(&[name, "adv"]), name);
}

const CLIP: ClipRange = ClipRange { low: 0.2, high: 0.2 };
/// veRL's default also bounds the loss of bad tokens.
const VANILLA: Objective = Objective::Clipped { clip: CLIP, dual: Some(3.0) };

fn policy_losses(recorded: &Recorded) {
    let rows = |name: &str| -> Rows { recorded.get(&["loss_inputs", name]) };
    let (new, old, advantages, mask) = (rows("new"), rows("old"), rows("adv"), rows("mask"));
    let case = LossCase { new: &new, old: &old, advantages: &advantages, mask: &mask };
    let higher = ClipRange { high: 0.28, ..CLIP };
    let higher = Objective::Clipped { clip: higher, dual: Some(3.0) };
    // The width of the recorded rows is the constant of the norm.
    let norm = Aggregation::SequenceMeanTokenSumNorm;
    let of_sequences = Aggregation::SequenceMeanTokenMean;
    let soft = Objective::SoftGate { positive: 1.0, negative: 1.05 };
    for (name, objective, aggregation) in [
        ("vanilla:token-mean", VANILLA, Aggregation::TokenMean),
        ("vanilla:seq-mean-token-sum", VANILLA, Aggregation::SequenceMeanTokenSum),
        ("vanilla:seq-mean-token-mean", VANILLA, of_sequences),
        ("vanilla:seq-mean-token-sum-norm", VANILLA, norm),
        ("vanilla:token-sum", VANILLA, Aggregation::TokenSum),
        ("vanilla_cliphigher.28:token-mean", higher, Aggregation::TokenMean),
        ("gspo", Objective::SequenceRatio { clip: CLIP }, of_sequences),
        ("cispo:token-mean", Objective::ClippedWeight { clip: CLIP }, Aggregation::TokenMean),
        ("sapo", soft, of_sequences),
        ("gmpo(geo_mean)", Objective::GeometricMean { clip: CLIP }, of_sequences),
    ] {
        let result = case.compute(objective, aggregation, None);
        check_number(result.loss, recorded.get(&["loss", name, "loss"]), name);
        let gradient = recorded.get(&["loss", name, "grad_wrt_new_logprob"]);
        check_gradient(&result.gradient, &gradient, &mask, name);
    }
    let tis = "tis_token_C2";
    let sampler = packed(&recorded.get(&[tis, "rollout_logprob"]), &mask);
    let weights = truncated_importance(&packed(&old, &mask), &sampler, 2.0);
    let expected: Rows = recorded.get(&[tis, "weights"]);
    check_gradient(&weights, &expected, &mask, tis);
    let result = case.compute(VANILLA, Aggregation::TokenMean, Some(&weights));
    check_number(result.loss, recorded.get(&[tis, "vanilla_token_mean"]), tis);
}

/// Checks the estimators. The recorded values of k1 are the differences that all estimates were made from.
fn divergences(recorded: &Recorded) {
    let differences: Vec<f32> = recorded.get(&["kl_verl", "k1", "v"]);
    let reference = Tensor::from_slice(&vec![-9.0_f32; differences.len()]);
    for (name, estimator) in [
        ("k1", KlEstimator::K1),
        ("abs", KlEstimator::Abs),
        ("k2", KlEstimator::K2),
        ("k3", KlEstimator::K3),
        ("low_var_kl", KlEstimator::K3),
        ("k3+", KlEstimator::K3Plus),
    ] {
        let log_probs = (Tensor::from_slice(&differences) - 9.0).set_requires_grad(true);
        let estimates = kl_estimate(estimator, &log_probs, &reference);
        estimates.sum(Kind::Float).backward();
        check_rows(&estimates.unsqueeze(0), &vec![recorded.get(&["kl_verl", name, "v"])], name);
        let gradient = vec![recorded.get(&["kl_verl", name, "grad"])];
        check_rows(&log_probs.grad().unsqueeze(0), &gradient, name);
    }
}
