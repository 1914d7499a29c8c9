//! An update with a NaN ends the run with advice, and `trainer replay` computes its batch again.

use trainer::run::{replay, train};

use crate::harness::retriever::RetrieverHandle;
use crate::harness::tiny_world::TinyWorld;

/// Checks the error and the replay of a run. Its first update moves the weights so far that the second one
/// cannot be computed. `figure` is the failed number in the error, `origin` its source in the replay.
fn check(settings: &[&str], figure: &str, origin: &str) {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let settings: Vec<&str> = ["training.epochs_per_step=2", "training.steps=1"]
        .iter()
        .chain(settings)
        .copied()
        .collect();
    let config = world.config(&retriever.url(), "run", &settings);
    let error = train(&config, &mut Vec::new()).unwrap_err();
    let message = format!("{error:#}");
    let folder = world.run_dir("run").join("failed-batch-step-1");
    let command = format!("trainer replay {}", folder.display());
    for part in ["step 1 failed", figure, "of update 1", &command, "learning_rate", "model.dtype"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!world.run_dir("run").join("checkpoints").exists(), "a checkpoint was saved");

    let mut out = Vec::new();
    replay(&folder, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("step 1, update 1 of the "), "{out}");
    assert!(out.contains("first number that is not finite: "), "{out}");
    assert!(out.contains(origin), "{origin:?} is not in {out}");
}

#[test]
fn a_policy_update_that_is_nan_is_kept_and_replayed() {
    check(&["training.learning_rate=1e30"], "gradient norm", "of the gradient of");
}

#[test]
fn a_critic_update_that_is_nan_is_kept_and_replayed() {
    let settings =
        ["algorithm.advantage=gae", "critic.learning_rate=1e30", "critic.warmup_updates=0"];
    check(&settings, "value loss", "the value loss of valued token");
}

#[test]
fn a_folder_without_a_failure_is_refused_by_its_name() {
    let world = TinyWorld::build();
    let message = format!("{:#}", replay(world.path(), &mut Vec::new()).unwrap_err());
    assert!(
        message.contains("failure.json") && message.contains("failed-batch-step-N"),
        "{message}"
    );
}
