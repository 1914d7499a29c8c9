//! Deterministic runs: the same seed yields the same result.

use trainer::run::train;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{comparable_metrics, metrics, trajectories, weights};
use crate::harness::tiny_world::TinyWorld;

#[test]
fn deterministic_runs_with_one_seed_are_equal() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    for (run, seed) in [("first", "seed=3"), ("second", "seed=3"), ("third", "seed=4")] {
        let config = world.config(&retriever.url(), run, &[seed]);
        train(&config, &mut Vec::new()).unwrap();
    }
    let [first, second, third] = ["first", "second", "third"].map(|run| world.run_dir(run));
    assert_eq!(comparable_metrics(&first), comparable_metrics(&second));
    assert_ne!(comparable_metrics(&first), comparable_metrics(&third));
    for step in 1..=3 {
        assert_eq!(trajectories(&first, step), trajectories(&second, step));
    }
    let last = |run: &std::path::Path| weights(&run.join("checkpoints/step-3"));
    assert_eq!(last(&first), last(&second));
    assert_ne!(last(&first), last(&third));

    // The runs were not empty: they had searches, rewards and updates.
    let rows = metrics(&first);
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    for row in &rows {
        assert_eq!((row.trajectories, row.dropped_trajectories), (16, 0));
        assert!(row.searches_per_question > 0.5, "{row:?}");
        assert!(row.response_tokens > 5.0 && row.entropy > 0.0, "{row:?}");
        assert!(row.log_prob_gap < 1e-4, "{row:?}");
    }
    assert!(rows.iter().any(|row| row.em > 0.0 && row.grad_norm > 1e-3), "{rows:?}");
}
