//! Every algorithm trains: two steps change the weights, and a run that is resumed between them ends with
//! the same bits.

use std::fs;

use crate::harness::run_dir::{checkpoint, metrics};
use crate::harness::trained::Trained;

const SEVERAL_UPDATES: &str = "training.trajectories_per_update=6";
const SEQUENCE_MEAN: &str = "training.loss_aggregation=seq-mean-token-mean";

#[test]
fn every_advantage_trains_and_resumes_to_the_bit() {
    let trained = Trained::start();
    for (name, settings) in [
        ("dr-grpo", &["training.loss_aggregation=seq-mean-token-sum-norm"][..]),
        ("rloo", &["algorithm.policy_loss=reinforce"]),
        ("opo", &["training.loss_aggregation=seq-mean-token-sum"]),
        ("gpg", &["algorithm.policy_loss=reinforce", "training.loss_aggregation=token-sum"]),
        ("reinforce", &["training.group_size=1", "training.prompts_per_step=8"]),
        ("reinforce-baseline", &["training.group_size=2"]),
        ("reinforce++", &["algorithm.gamma=0.95", "algorithm.kl_placement=reward"]),
        ("reinforce++-baseline", &[]),
    ] {
        let advantage = format!("algorithm.advantage={name}");
        let settings: Vec<&str> = [advantage.as_str()].iter().chain(settings).copied().collect();
        trained.check(name, &settings);
    }
}

#[test]
fn every_policy_loss_trains_and_resumes_to_the_bit() {
    let trained = Trained::start();
    for (name, settings) in [
        ("clip", &["algorithm.dual_clip=3", "training.clip_high=0.28"][..]),
        ("gspo", &[SEQUENCE_MEAN]),
        ("cispo", &["training.entropy_coefficient=0.001"]),
        ("sapo", &[SEQUENCE_MEAN]),
        ("gmpo", &[SEQUENCE_MEAN]),
    ] {
        let loss = format!("algorithm.policy_loss={name}");
        let settings: Vec<&str> =
            [SEVERAL_UPDATES, &loss].iter().chain(settings).copied().collect();
        trained.check(name, &settings);
    }
    let llds = ["algorithm.likelihood_coefficient=0.1", "training.epochs_per_step=3"];
    trained.check("llds", &llds);
    let rows = metrics(&trained.world.run_dir("llds-whole"));
    assert!(rows.iter().any(|row| row.algorithm.likelihood_loss > 0.0), "{rows:?}");
}

#[test]
fn ppo_trains_critic_and_policy_and_resumes_to_the_bit() {
    let trained = Trained::start();
    let gae = ["algorithm.advantage=gae", SEVERAL_UPDATES, "critic.learning_rate=0.001"];
    for (name, settings) in [
        ("ppo", &["algorithm.lambda=0.95", "critic.warmup_updates=0"][..]),
        ("search-r1", &["compat=search-r1", "algorithm.kl_placement=reward"]),
    ] {
        let settings: Vec<&str> = gae.iter().chain(settings).copied().collect();
        trained.check(name, &settings);
        let run = trained.world.run_dir(&format!("{name}-halved"));
        let critic = |step| fs::read(checkpoint(&run, step).join("critic.safetensors")).unwrap();
        assert!(critic(1) != critic(2), "{name}: the critic did not change");
        for row in metrics(&run) {
            let figures = row.algorithm;
            assert!(figures.value_loss > 0.0 && figures.critic_grad_norm > 0.0, "{row:?}");
        }
    }
    // During the critic's warm-up, the policy does not change.
    let warm: Vec<&str> = gae.iter().copied().chain(["critic.warmup_steps=1"]).collect();
    trained.train("warm-critic", "training.steps=2", &warm);
    let rows = metrics(&trained.world.run_dir("warm-critic"));
    assert!(rows[0].grad_norm.abs() < f64::EPSILON && rows[1].grad_norm > 0.0, "{rows:?}");
    assert!(rows[0].algorithm.value_loss > 0.0, "{rows:?}");
    // A run without a critic cannot be resumed with one.
    trained.train("plain", "training.steps=1", &[]);
    let message = trained.try_train("plain", "training.steps=2", &gae).unwrap_err();
    for part in ["critic.safetensors", "algorithm.advantage", "training.resume = false"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn dapo_asks_more_questions_and_the_adaptive_kl_weight_is_controlled() {
    let trained = Trained::start();
    let dapo = [
        "algorithm.dynamic_sampling=true",
        "algorithm.sampling_rounds=3",
        "algorithm.overlong_buffer_tokens=60",
        "algorithm.overlong_limit_tokens=80",
        "training.clip_high=0.28",
        "training.kl_coefficient=0",
        "training.group_size=2",
    ];
    trained.check("dapo", &dapo);
    let rows = metrics(&trained.world.run_dir("dapo-whole"));
    // Every question beyond the first three replaces one whose samples all have the same reward.
    assert!(rows.iter().any(|row| row.trajectories > 6), "{rows:?}");
    for row in &rows {
        let asked = row.trajectories / 2;
        assert!(asked - row.algorithm.uniform_groups <= 3, "{row:?}");
        assert!(asked <= 3 + row.algorithm.uniform_groups, "{row:?}");
    }
    let adaptive = [
        "algorithm.kl_placement=reward",
        "algorithm.kl_controller=adaptive",
        "algorithm.kl_horizon=100",
        "training.kl_estimator=k1",
    ];
    trained.check("adaptive", &adaptive);
    let rows = metrics(&trained.world.run_dir("adaptive-whole"));
    let used: Vec<f64> = rows.iter().map(|row| row.algorithm.kl_coefficient).collect();
    // The first step has no divergence, so the weight falls by the largest amount that a step allows.
    assert!((used[0] - 1e-3).abs() < 1e-12, "{used:?}");
    assert!((used[1] - 1e-3 * (1.0 - 0.2 * 12.0 / 100.0)).abs() < 1e-12, "{used:?}");
}

/// A reward that falls with every token teaches short responses, if the signs of the algorithm are right.
#[test]
fn every_algorithm_learns_from_its_reward() {
    let trained = Trained::start();
    let several = "training.trajectories_per_update=12";
    for (name, settings) in [
        ("grpo", &["algorithm.likelihood_coefficient=0.1"][..]),
        ("dr-grpo", &["training.loss_aggregation=seq-mean-token-sum-norm"]),
        ("rloo", &["algorithm.policy_loss=reinforce"]),
        ("opo", &["training.loss_aggregation=seq-mean-token-sum"]),
        ("gpg", &["algorithm.policy_loss=reinforce"]),
        ("reinforce", &[]),
        ("reinforce-baseline", &[]),
        ("reinforce++", &["algorithm.kl_placement=reward"]),
        ("reinforce++-baseline", &["algorithm.dual_clip=3"]),
        ("gae", &[several, "critic.learning_rate=0.003", "critic.warmup_updates=0"]),
        ("grpo", &[several, SEQUENCE_MEAN, "algorithm.policy_loss=gspo"]),
        // The gradient comes from every token, however far its ratio has moved.
        ("grpo", &[several, "algorithm.policy_loss=cispo", "training.learning_rate=0.001"]),
        ("grpo", &[several, SEQUENCE_MEAN, "algorithm.policy_loss=sapo"]),
        ("grpo", &[several, SEQUENCE_MEAN, "algorithm.policy_loss=gmpo"]),
    ] {
        let advantage = format!("algorithm.advantage={name}");
        let mut all = vec![
            "training.resume=false",
            "training.learning_rate=0.002",
            "training.group_size=8",
            "algorithm.overlong_buffer_tokens=60",
            "algorithm.overlong_limit_tokens=60",
            advantage.as_str(),
        ];
        all.extend(settings);
        trained.train("learning", "training.steps=10", &all);
        let rows = metrics(&trained.world.run_dir("learning"));
        let lengths: Vec<f64> = rows.iter().map(|row| row.response_tokens).collect();
        assert_eq!(lengths.len(), 10);
        assert!(lengths[0] > 20.0, "{name}, {settings:?}: {lengths:?}");
        assert!(lengths[9] < 0.6 * lengths[0], "{name}, {settings:?}: {lengths:?}");
    }
}
