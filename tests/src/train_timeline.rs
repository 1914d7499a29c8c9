//! The time of a step by activity, as numbers and as a timeline.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use trainer::run::train;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{metrics, trajectories};
use crate::harness::tiny_world::TinyWorld;

#[test]
fn a_step_writes_a_timeline_with_its_phases_passes_and_searches() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let settings = ["training.steps=2", "trace_every_steps=2", "deterministic=false"];
    train(&world.config(&retriever.url(), "run", &settings), &mut Vec::new()).unwrap();
    let run = world.run_dir("run");
    assert!(!run.join("trace/step-1.json").exists(), "only every second step is traced");
    let text = fs::read(run.join("trace/step-2.json")).unwrap();
    let trace: Value = serde_json::from_slice(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();

    let played = trajectories(&run, 2);
    let searches: usize = played.iter().map(|trajectory| trajectory.searches.len()).sum();
    assert!(searches > 0, "the step has no searches");
    let mut marks: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "episode") {
        let key = (event["name"].as_str().unwrap(), event["ph"].as_str().unwrap());
        *marks.entry(key).or_default() += 1;
    }
    let expected = [
        (("episode", "b"), played.len()),
        (("episode", "e"), played.len()),
        (("search", "b"), searches),
        (("search", "e"), searches),
    ];
    assert_eq!(marks, BTreeMap::from(expected));

    // The phases follow each other without overlaps.
    let spans = |track: u64| -> Vec<(&str, u64, u64)> {
        let of_track = events.iter().filter(|event| event["ph"] == "X" && event["tid"] == track);
        let span = |event: &'_ Value| -> (u64, u64) {
            (event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap())
        };
        of_track
            .map(|event| (event["name"].as_str().unwrap(), span(event).0, span(event).1))
            .collect()
    };
    let phases = spans(1);
    let names: Vec<&str> = phases.iter().map(|phase| phase.0).collect();
    assert_eq!(names, ["rollout", "log-probs and advantages", "update", "weights to the engine"]);
    assert!(phases.is_sorted_by(|phase, next| phase.1 + phase.2 <= next.1 + 1), "{phases:?}");

    // The passes of the engine are within the rollout, and their sum is the time in the metrics.
    let (_, rollout_start, rollout_length) = phases[0];
    let passes: Vec<_> = spans(2).into_iter().filter(|span| span.0 == "pass").collect();
    assert!(passes.len() > 10, "{passes:?}");
    for &(_, start, length) in &passes {
        assert!(start >= rollout_start && start + length <= rollout_start + rollout_length + 1);
    }
    let row = &metrics(&run)[1];
    let computed = passes.iter().map(|pass| pass.2).sum::<u64>() as f64 / 1e6;
    let rounding = 1e-6 * passes.len() as f64;
    assert!((row.seconds.generation - computed).abs() <= rounding, "{row:?} {computed}");
    assert!(row.seconds.generation <= row.seconds.rollout);
}
