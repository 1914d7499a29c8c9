//! Rollouts that run ahead, while the policy learns from earlier ones.

use std::collections::BTreeSet;
use std::path::Path;

use trainer::rollout::trajectory::SegmentKind;
use trainer::run::train;

use crate::harness::fake_vllm::FakeVllm;
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{comparable_metrics, metrics, trajectories, weights};
use crate::harness::tiny_world::TinyWorld;

const STEPS: u64 = 4;

/// Returns the questions of a step. Checks that one version sampled all of its trajectories.
fn questions(run: &Path, step: u64, version: u64) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for trajectory in trajectories(run, step) {
        for segment in trajectory.segments {
            if segment.kind == SegmentKind::Sampled {
                assert_eq!(segment.policy_version, version, "step {step}");
            }
        }
        asked.insert(trajectory.example_id);
    }
    asked
}

/// Checks that every step was sampled with weights of exactly the allowed age, and that its questions are
/// those of a run that does not run ahead.
fn check_versions(run: &Path, in_turn: &Path, staleness: u64) {
    for (step, row) in (1..).zip(metrics(run)) {
        let version = (step - 1_u64).saturating_sub(staleness);
        let asked = questions(run, step, version);
        assert_eq!(asked, questions(in_turn, step, step - 1));
        assert_eq!((row.step, row.trajectories, row.dropped_trajectories), (step, 16, 0));
        let behind = step - 1 - version;
        assert_eq!(row.ahead.staleness_max, behind);
        assert!((row.ahead.staleness_mean - behind as f64).abs() < 1e-12);
        assert_eq!(row.stale_trajectories, if behind > 0 { 16 } else { 0 });
        assert_eq!(row.ahead.groups_ahead, 4 * staleness.min(STEPS - step));
    }
}

#[test]
fn rollouts_run_ahead_by_exactly_the_allowed_steps_and_deterministically() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let run = |name: &str, steps: u64, staleness: u64| {
        let settings = [
            format!("training.steps={steps}"),
            format!("rollout.max_staleness={staleness}"),
            "training.save_every_steps=2".to_owned(),
            "trace_every_steps=2".to_owned(),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        train(&world.config(&retriever.url(), name, &settings), &mut Vec::new()).unwrap();
        world.run_dir(name)
    };
    let in_turn = run("in-turn", STEPS, 0);
    let last = |run: &Path| weights(&run.join(format!("checkpoints/step-{STEPS}")));
    for staleness in [1, 3] {
        let name = format!("ahead-{staleness}");
        let ahead = run(&name, STEPS, staleness);
        check_versions(&ahead, &in_turn, staleness);
        assert_ne!(last(&ahead), last(&in_turn));
        let rows = metrics(&ahead);
        assert!(rows.iter().any(|row| row.grad_norm > 1e-3), "{rows:?}");
        assert!(rows.iter().all(|row| row.generation.decoded_tokens > 0), "{rows:?}");
        assert!(ahead.join("trace/step-2.json").is_file());
        // The timing of the two threads does not matter.
        let again = run(&format!("{name}-again"), STEPS, staleness);
        assert_eq!(comparable_metrics(&ahead), comparable_metrics(&again));
        assert_eq!(last(&ahead), last(&again));
    }

    // A resumed run learns from the rollouts that were in flight.
    run("resumed", 2, 1);
    run("resumed", STEPS, 1);
    let resumed = world.run_dir("resumed");
    assert_eq!(metrics(&resumed).len() as u64, STEPS);
    assert_eq!(questions(&resumed, 2, 0), questions(&in_turn, 2, 1));
    // The run of two steps ordered no rollout of a third one, so the third is played with the weights of its time.
    assert_eq!(questions(&resumed, 3, 2), questions(&in_turn, 3, 2));
    assert_eq!(questions(&resumed, 4, 2), questions(&in_turn, 4, 3));
}

#[test]
fn servers_run_ahead_with_the_weights_of_the_ordered_version() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let engine = FakeVllm::start(&world.untrained_model(), None);
    let urls = format!("engine.urls={}", engine.url);
    let settings = ["engine.kind=vllm", &urls, "rollout.max_staleness=2", "training.steps=4"];
    let run = |name: &str, settings: &[&str]| {
        train(&world.config(&retriever.url(), name, settings), &mut Vec::new()).unwrap();
        world.run_dir(name)
    };
    let ahead = run("ahead", &settings);
    check_versions(&ahead, &run("in-turn", &["training.steps=4"]), 2);
}

#[test]
fn settings_that_exclude_running_ahead_are_refused() {
    let world = TinyWorld::build();
    let load = |more: &str| {
        let settings = world.settings(
            "http://127.0.0.1:1/retrieve",
            "run",
            &["rollout.max_staleness=1", more],
        );
        trainer::config::Config::load(None, &trainer::config::Environment::new(), &settings)
    };
    for more in ["rollout.carried_groups=1", "algorithm.dynamic_sampling=true"] {
        let message = load(more).unwrap_err().to_string();
        let key = more.split('=').next().unwrap();
        for part in ["rollout.max_staleness", key, "did you mean 0"] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
    let warned = load("algorithm.importance_most=0").unwrap().warnings();
    assert!(warned.iter().any(|text| text.contains("rollout.max_staleness")), "{warned:?}");
}
