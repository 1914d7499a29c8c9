//! Training with turns that an external server samples.

use std::fs;
use std::thread;

use trainer::rollout::trajectory::SegmentKind;
use trainer::run::train;
use trainer::track::StepMetrics;

use crate::harness::fake_vllm::{EngineEvent, FakeVllm};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{metrics, trajectories};
use crate::harness::tiny_world::TinyWorld;

/// Number of connections that the trainer loses before the engine is restarted.
const LOST_CONNECTIONS: usize = 3;

/// Checks that every trajectory was sampled with the weights of its step. With other weights, the log-probs
/// would differ from the trainer's.
fn assert_sampled_by_current_weights(world: &TinyWorld, rows: &[StepMetrics]) {
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    for row in rows {
        assert_eq!((row.trajectories, row.dropped_trajectories), (16, 0));
        assert!(row.log_prob_gap < 1e-4, "step {}: {}", row.step, row.log_prob_gap);
        for trajectory in trajectories(&world.run_dir("run"), row.step) {
            for segment in trajectory.segments {
                if segment.kind == SegmentKind::Sampled {
                    assert_eq!(segment.policy_version, row.step - 1);
                }
            }
        }
    }
    // The weights changed; otherwise, equal log-probs would prove nothing.
    assert!(rows.iter().any(|row| row.grad_norm > 0.0));
}

#[test]
fn a_server_samples_with_the_weights_of_each_step() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let engine = FakeVllm::start(&world.untrained_model(), None);
    let urls = format!("engine.urls={}", engine.url);
    let config = world.config(&retriever.url(), "run", &["engine.kind=vllm", &urls]);
    train(&config, &mut Vec::new()).unwrap();

    let run = world.run_dir("run");
    assert_sampled_by_current_weights(&world, &metrics(&run));
    assert!(engine.turns() >= 48, "{} turns", engine.turns());
    let mut left: Vec<String> = fs::read_dir(run.join("rollout-weights"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["start", "step-3"]);
    // The tiny model's embeddings are tied, but engines receive its head separately.
    let written = fs::read_to_string(run.join("rollout-weights/step-3/config.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["tie_word_embeddings"], false);
    let weights = fs::read(run.join("rollout-weights/step-3/model.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let bytes = |name: &str| weights.tensor(name).unwrap().data().to_vec();
    assert!(bytes("lm_head.weight") == bytes("model.embed_tokens.weight"));
}

#[test]
fn an_engine_that_dies_in_a_step_and_restarts_costs_no_step() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    // The engine dies in the second step: each step has at least 16 turns.
    let engine = FakeVllm::start(&world.untrained_model(), Some(40));
    let urls = format!("engine.urls={}", engine.url);
    let config = world.config(&retriever.url(), "run", &["engine.kind=vllm", &urls]);
    thread::scope(|scope| {
        let training =
            scope.spawn(|| train(&config, &mut Vec::new()).map_err(|error| format!("{error:#}")));
        engine.wait_for(EngineEvent::Died);
        for _ in 0..LOST_CONNECTIONS {
            engine.wait_for(EngineEvent::Lost);
        }
        engine.revive();
        // After the restart, the trainer loads the weights again.
        engine.wait_for(EngineEvent::Loaded);
        training.join().unwrap().unwrap();
    });
    assert_sampled_by_current_weights(&world, &metrics(&world.run_dir("run")));
}
