//! `train`, `sft` and `eval` end soon after a stop request and lose no finished work.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use shared::machine::shutdown::Shutdown;
use trainer::config::Config;
use trainer::eval::{EvalResult, Searches};
use trainer::run::{EvalOptions, Interrupted, eval_until, sft_until, train, train_until};
use trainer::stop::StopFlag;

use crate::harness::http::PATIENCE;
use crate::harness::relay::{Relay, RelayEvent, Rule};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{checkpoint, comparable_metrics, metrics, trajectories, weights};
use crate::harness::tiny_world::TinyWorld;

/// A flag that is raised when it is looked at after `looks` looks, with the count of looks.
fn raised_after(looks: usize, wish: Shutdown) -> (StopFlag, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let flag = StopFlag::asking(move || {
        (counted.fetch_add(1, Ordering::Relaxed) >= looks).then_some(wish)
    });
    (flag, seen)
}

/// Checks that two runs have the same metrics, trajectories and files of the last checkpoint.
#[track_caller]
fn assert_same(run: &Path, other: &Path, steps: u64) {
    assert_eq!(comparable_metrics(run), comparable_metrics(other));
    assert_eq!(metrics(run).len() as u64, steps);
    let files = [
        "model.safetensors",
        "state/optimizer.safetensors",
        "state/trainer_state.json",
        "config.json",
        "tokenizer.json",
    ];
    for file in files {
        let read = |run: &Path| fs::read(checkpoint(run, steps).join(file)).unwrap();
        assert!(read(run) == read(other), "{file} differs");
    }
    for step in 1..=steps {
        assert_eq!(trajectories(run, step), trajectories(other, step), "step {step}");
    }
}

/// Checks that the run stopped after `step`, with its checkpoint and without a trace of the next step.
#[track_caller]
fn assert_stands_after(run: &Path, step: u64, out: &str) {
    assert!(out.contains(&format!("step-{step}: stopped, run the same command to go on")), "{out}");
    let left: Vec<_> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, [format!("step-{step}")]);
    assert_eq!(metrics(run).len() as u64, step);
}

/// A command on its own thread, which the test can stop.
struct Running {
    raised: Arc<AtomicBool>,
    ended: mpsc::Receiver<Result<String, String>>,
}

impl Running {
    fn start(
        config: Config,
        command: fn(&Config, &StopFlag, &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> Self {
        let (sender, ended) = mpsc::sync_channel(1);
        let raised = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&raised);
        thread::spawn(move || {
            let stop = StopFlag::asking(move || {
                asked.load(Ordering::Relaxed).then_some(Shutdown::Terminate)
            });
            let mut out = Vec::new();
            let result = command(&config, &stop, &mut out);
            let result = result.map(|()| String::from_utf8(out).unwrap());
            let _ = sender.send(result.map_err(|error| format!("{error:#}")));
        });
        Self { raised, ended }
    }

    /// Raises the flag and waits for the end, while the relay holds a search.
    fn stop_while_held(self, relay: &Relay) -> String {
        relay.wait_for(RelayEvent::Held);
        self.raised.store(true, Ordering::Relaxed);
        let out = self.ended.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(relay.count(RelayEvent::Answered), 0, "the stop waited for the search");
        relay.let_go();
        out
    }
}

/// A search may wait minutes for the retriever; a stop does not wait for the search. A step sends one or two
/// requests, so the third belongs to a later step.
#[test]
fn a_run_stopped_in_a_rollout_resumes_to_the_same_result() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    train(&world.config(&retriever.url(), "whole", &[]), &mut Vec::new()).unwrap();
    for request in [1, 3] {
        let name = format!("request-{request}");
        let relay = Relay::start(retriever.addr(), Rule::Hold(request));
        let config = world.config(&relay.url(), &name, &[]);
        let running = Running::start(config, |config, stop, out| train_until(config, stop, out));
        let out = running.stop_while_held(&relay);
        let run = world.run_dir(&name);
        let done = metrics(&run).len() as u64;
        assert_eq!(done == 0, request == 1, "{done}");
        assert_stands_after(&run, done, &out);
        assert!(!run.join(format!("trajectories/step-{}.jsonl.zst", done + 1)).exists());

        train(&world.config(&retriever.url(), &name, &[]), &mut Vec::new()).unwrap();
        assert_same(&run, &world.run_dir("whole"), 3);
    }
}

/// An untrained model that never searches: the number of checks for a stop then depends on the seed only. An
/// entropy bonus gives it something to learn.
struct Untrained {
    world: TinyWorld,
    retriever: RetrieverHandle,
}

impl Untrained {
    fn build() -> Self {
        let world = TinyWorld::build();
        let retriever = RetrieverHandle::start(&world.index());
        Self { world, retriever }
    }

    fn config(&self, run: &str, more: &[&str]) -> Config {
        let model = format!("model.path={}", self.world.untrained_model().display());
        let settings = [
            &[
                model.as_str(),
                "rollout.max_response_tokens=8",
                "training.entropy_coefficient=0.01",
                // Two updates per step, each of several passes.
                "training.trajectories_per_update=8",
                "update.tokens_per_micro_batch=64",
            ],
            more,
        ];
        self.world.config(&self.retriever.url(), run, &settings.concat())
    }

    /// The number of times that a run of one step checks its flag; the last check is in the first update.
    fn looks_of_a_step(&self) -> usize {
        let (stop, looks) = raised_after(usize::MAX, Shutdown::Terminate);
        let config = self.config("counted", &["training.steps=1"]);
        train_until(&config, &stop, &mut Vec::new()).unwrap();
        let run = self.world.run_dir("counted");
        let trajectories = trajectories(&run, 1);
        assert!(trajectories.iter().all(|trajectory| trajectory.searches.is_empty()));
        let untrained = weights(&self.world.untrained_model());
        assert!(weights(&checkpoint(&run, 1)) != untrained, "the weights did not change");
        looks.load(Ordering::Relaxed)
    }
}

#[test]
fn a_run_stopped_in_an_update_resumes_to_the_same_result() {
    let untrained = Untrained::build();
    let looks = untrained.looks_of_a_step();
    train(&untrained.config("whole", &[]), &mut Vec::new()).unwrap();
    // A stop in the last pass of the first update discards the step. A later stop lets it finish.
    for (before, done) in [(looks - 1, 0), (looks, 1)] {
        let name = format!("after-{before}");
        let (stop, _) = raised_after(before, Shutdown::Terminate);
        let mut out = Vec::new();
        train_until(&untrained.config(&name, &[]), &stop, &mut out).unwrap();
        let run = untrained.world.run_dir(&name);
        assert_stands_after(&run, done, &String::from_utf8(out).unwrap());
        if done == 1 {
            let counted = untrained.world.run_dir("counted");
            assert!(weights(&checkpoint(&run, 1)) == weights(&checkpoint(&counted, 1)));
        }

        train(&untrained.config(&name, &[]), &mut Vec::new()).unwrap();
        assert_same(&run, &untrained.world.run_dir("whole"), 3);
    }
}

#[test]
fn a_stopped_evaluation_is_repeated_by_the_resumed_run() {
    let untrained = Untrained::build();
    let looks = untrained.looks_of_a_step();
    let evaluating = ["training.eval_every_steps=1", "training.steps=2"];
    train(&untrained.config("whole", &evaluating), &mut Vec::new()).unwrap();
    let (stop, _) = raised_after(looks, Shutdown::Interrupt);
    let mut out = Vec::new();
    let error = train_until(&untrained.config("run", &evaluating), &stop, &mut out).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    let run = untrained.world.run_dir("run");
    assert_stands_after(&run, 1, &String::from_utf8(out).unwrap());
    assert!(!run.join("eval").exists(), "a partial evaluation was written");

    train(&untrained.config("run", &evaluating), &mut Vec::new()).unwrap();
    let whole = untrained.world.run_dir("whole");
    assert_same(&run, &whole, 2);
    for step in ["eval/step-1.json", "eval/step-2.json"] {
        let rows = |run: &Path| EvalResult::load(&run.join(step)).unwrap().rows;
        assert_eq!(rows(&run), rows(&whole), "{step}");
    }
}

#[test]
fn a_stopped_warm_start_leaves_nothing() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    let model = format!("model.path={}", world.untrained_model().display());
    let folder = |run: &str| world.run_dir(run).join("warm-start");
    let relay = Relay::start(retriever.addr(), Rule::Hold(1));
    let config = world.config(&relay.url(), "played", &[&model]);
    let running = Running::start(config, |config, stop, out| sft_until(config, stop, out));
    let out = running.stop_while_held(&relay);
    assert!(out.contains("stopped, run the same command to start it again"), "{out}");
    assert!(!folder("played").exists());

    // The demonstrations check for a stop a few times; most checks are in the updates.
    let (stop, looks) = raised_after(usize::MAX, Shutdown::Interrupt);
    let whole = world.config(&retriever.url(), "whole", &[&model]);
    sft_until(&whole, &stop, &mut Vec::new()).unwrap();
    let (stop, _) = raised_after(looks.load(Ordering::Relaxed) / 2, Shutdown::Interrupt);
    let config = world.config(&retriever.url(), "trained", &[&model]);
    let mut out = Vec::new();
    let error = sft_until(&config, &stop, &mut out).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    assert!(String::from_utf8(out).unwrap().contains("stopped"));
    assert!(!folder("trained").exists());
    sft_until(&config, &StopFlag::never(), &mut Vec::new()).unwrap();
    assert!(weights(&folder("trained")) == weights(&folder("whole")));
}

#[test]
fn a_stopped_evaluation_leaves_nothing() {
    let untrained = Untrained::build();
    let out_file = untrained.world.path().join("result.json");
    let options = EvalOptions {
        name: "test".to_owned(),
        searches: Searches::None,
        out: Some(out_file.clone()),
    };
    let config = untrained.config("run", &[]);
    for wish in [Shutdown::Terminate, Shutdown::Interrupt] {
        let (stop, _) = raised_after(3, wish);
        let mut out = Vec::new();
        let result = eval_until(&config, &options, &stop, &mut out);
        assert_eq!(result.is_ok(), wish == Shutdown::Terminate, "{result:?}");
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "test: stopped, run the same command to start it again\n");
        assert!(!out_file.exists() && !untrained.world.run_dir("run").exists());
    }
    eval_until(&config, &options, &StopFlag::never(), &mut Vec::new()).unwrap();
    assert!(out_file.exists());
}
