//! A record of searches: runs and evaluations that are repeated without their retriever, and then equal.

use std::fs::File;
use std::path::Path;

use trainer::config::Config;
use trainer::eval::{EvalResult, Searches};
use trainer::run::{EvalOptions, eval, train};

use crate::harness::fake_searxng::FakeSearxng;
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{checkpoint, comparable_metrics, metrics, trajectories, weights};
use crate::harness::tiny_world::TinyWorld;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A warm-started world, whose record is in `searches.jsonl`.
struct Recorded(TinyWorld);

impl Recorded {
    fn config(&self, url: &str, run: &str, settings: &[&str]) -> Config {
        let file = format!("record.file={}", self.0.path().join("searches.jsonl").display());
        let settings: Vec<&str> =
            [file.as_str()].into_iter().chain(settings.iter().copied()).collect();
        self.0.config(url, run, &settings)
    }

    fn train(&self, url: &str, run: &str, settings: &[&str]) -> Result<(), String> {
        let config = self.config(url, run, settings);
        train(&config, &mut Vec::new()).map_err(|error| format!("{error:#}"))
    }

    fn assert_equal_runs(&self, first: &str, second: &str) {
        let [first, second] = [first, second].map(|run| self.0.run_dir(run));
        assert_eq!(comparable_metrics(&first), comparable_metrics(&second));
        for step in 1..=3 {
            assert_eq!(trajectories(&first, step), trajectories(&second, step));
        }
        assert!(weights(&checkpoint(&first, 3)) == weights(&checkpoint(&second, 3)));
    }

    fn evaluated(&self, url: &str, name: &str, settings: &[&str]) -> EvalResult {
        let out = self.0.path().join(format!("{name}.json"));
        let searches = Searches::Retriever;
        let options = EvalOptions { name: name.to_owned(), searches, out: Some(out.clone()) };
        eval(&self.config(url, name, settings), &options, &mut Vec::new()).unwrap();
        EvalResult::load(&out).unwrap()
    }
}

#[test]
fn a_recorded_run_repeats_without_its_retriever() {
    let world = Recorded(TinyWorld::build());
    let retriever = RetrieverHandle::start(&world.0.index());
    world.0.warm_start(&retriever);
    let url = retriever.url();
    world.train(&url, "live", &[]).unwrap();
    world.train(&url, "first-step", &["record.mode=record", "training.steps=1"]).unwrap();
    // The rest is added to the record of the first step, also by an evaluation within the run.
    let more = ["record.mode=fill", "training.eval_every_steps=3"];
    world.train(&url, "recorded", &more).unwrap();
    world.assert_equal_runs("live", "recorded");
    let rows = metrics(&world.0.run_dir("recorded"));
    assert!(rows[0].record.hits > 0 && rows[0].record.misses == 0, "{:?}", rows[0].record);
    assert!(rows.iter().any(|row| row.record.recorded > 0), "{rows:?}");

    retriever.stop();
    let replay = ["record.mode=replay", "training.eval_every_steps=3"];
    world.train(NOWHERE, "replayed", &replay).unwrap();
    world.assert_equal_runs("live", "replayed");
    for row in metrics(&world.0.run_dir("replayed")) {
        assert!(row.record.hits > 0, "{row:?}");
        assert_eq!((row.record.misses, row.record.recorded), (0, 0));
        assert!((row.record.hit_rate - 1.0).abs() < f64::EPSILON);
    }
    // A record that has everything needs no retriever to be filled either.
    world.train(NOWHERE, "filled", &["record.mode=fill"]).unwrap();
    world.assert_equal_runs("live", "filled");
}

#[test]
fn queries_that_a_record_lacks_stop_a_replay_or_drop_their_trajectories() {
    let world = Recorded(TinyWorld::build());
    let retriever = RetrieverHandle::start(&world.0.index());
    world.0.warm_start(&retriever);
    world.train(&retriever.url(), "one", &["record.mode=record", "training.steps=1"]).unwrap();
    retriever.stop();
    let message = world.train(NOWHERE, "stopped", &["record.mode=replay"]).unwrap_err();
    for part in ["searches.jsonl has no answer to the query \"", "with 2 passages", "bm25"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let dropping =
        ["record.mode=replay", "record.on_miss=drop", "training.max_failed_search_fraction=1"];
    world.train(NOWHERE, "dropped", &dropping).unwrap();
    let rows = metrics(&world.0.run_dir("dropped"));
    assert_eq!((rows[0].dropped_trajectories, rows[0].record.misses), (0, 0));
    assert!(rows[1].dropped_trajectories > 0, "{rows:?}");
    assert_eq!(rows[1].dropped_trajectories, rows[1].record.misses);

    let other = File::options().write(true).open(world.0.path().join("searches.jsonl")).unwrap();
    other.try_lock().unwrap();
    let message = world.train(NOWHERE, "second", &["record.mode=record"]).unwrap_err();
    assert!(message.contains("another process writes the search record"), "{message}");
}

#[test]
fn an_evaluation_over_the_web_repeats_without_the_web() {
    let world = Recorded(TinyWorld::build());
    let retriever = RetrieverHandle::start(&world.0.index());
    world.0.warm_start(&retriever);
    let fake = FakeSearxng::start();
    let endpoint = fake.url();
    let variables = [
        ("RETRIEVER_BACKEND", "web"),
        ("RETRIEVER_WEB_PROVIDER", "searxng"),
        ("RETRIEVER_WEB_ENDPOINTS", endpoint.as_str()),
        ("RETRIEVER_WEB_RATES", "1000"),
    ];
    let web = RetrieverHandle::start_with(Path::new("unused"), 0, &variables);
    let live = world.evaluated(&web.url(), "live", &["record.mode=record"]);
    assert!(fake.searches() > 0);
    web.stop();
    let replayed = world.evaluated(NOWHERE, "replayed", &["record.mode=replay"]);
    let searches = |result: &EvalResult| result.rows.iter().map(|row| row.searches).sum::<usize>();
    assert!(searches(&live) > 0);
    assert!(replayed.rows == live.rows, "the evaluations differ");
}
