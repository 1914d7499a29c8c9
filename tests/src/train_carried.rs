//! Steps that do not wait for their slowest groups but carry them over to later steps.

use std::collections::{BTreeMap, BTreeSet};

use trainer::run::train;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{metrics, trajectories};
use crate::harness::tiny_world::{TRAIN_QUESTIONS, TinyWorld};

const GROUP: usize = 4;

/// Returns the questions of a step. Checks that every group is whole.
fn questions(run: &std::path::Path, step: u64) -> BTreeSet<String> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut asked = BTreeSet::new();
    for trajectory in trajectories(run, step) {
        groups.entry(trajectory.prompt).or_default().push(trajectory.sample);
        asked.insert(trajectory.example_id.clone());
        let versions: Vec<u64> = trajectory
            .segments
            .iter()
            .filter(|segment| !segment.log_probs.is_empty())
            .map(|segment| segment.policy_version)
            .collect();
        assert!(versions.is_sorted() && versions.iter().all(|&v| v < step), "{versions:?}");
    }
    assert_eq!(groups.len(), asked.len());
    assert!(groups.keys().copied().eq(0..groups.len()), "{groups:?}");
    for samples in groups.values() {
        assert_eq!(*samples, (0..GROUP).collect::<Vec<_>>());
    }
    asked
}

#[test]
fn carried_groups_are_whole_in_a_later_step() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    // Fewer concurrent episodes than a step has: some have not begun when the step ends.
    let settings = [
        "deterministic=false",
        "rollout.carried_groups=3",
        "rollout.max_sequences=12",
        "training.save_every_steps=2",
    ];
    let run = |steps: &str| {
        let settings = [&settings[..], &[steps]].concat();
        train(&world.config(&retriever.url(), "run", &settings), &mut Vec::new()).unwrap();
    };
    run("training.steps=4");
    let folder = world.run_dir("run");
    let mut seen = BTreeSet::new();
    for (step, row) in (1..).zip(metrics(&folder)) {
        let asked = questions(&folder, step);
        assert!(asked.len() >= 4, "step {step} has only {} groups", asked.len());
        assert_eq!(row.trajectories as usize, asked.len() * GROUP);
        assert!(row.stale_trajectories <= row.trajectories);
        assert!(asked.is_disjoint(&seen), "a question was asked twice: {asked:?}");
        seen.extend(asked);
    }
    // A resumed run asks the unfinished questions again. After 52 groups, of which at most 14 are repeated or
    // unfinished, every question of the first round has been asked.
    run("training.steps=13");
    for step in 5..=13 {
        seen.extend(questions(&folder, step));
    }
    assert_eq!(seen.len(), TRAIN_QUESTIONS);

    let refused = world.settings(&retriever.url(), "run", &["rollout.carried_groups=1"]);
    let message =
        trainer::config::Config::load(None, &trainer::config::Environment::new(), &refused)
            .unwrap_err()
            .to_string();
    for part in ["rollout.carried_groups", "deterministic", "did you mean 0"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}
