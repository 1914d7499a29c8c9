//! A resumed run equals an uninterrupted one, and an incomplete checkpoint does not count.

use std::fs;
use std::path::Path;

use trainer::run::train;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{checkpoint, comparable_metrics, metrics, trajectories, weights};
use crate::harness::tiny_world::TinyWorld;

/// A warm-started world with its retriever, and a run after two of three steps.
struct Stopped {
    world: TinyWorld,
    retriever: RetrieverHandle,
}

const STEPWISE: &str = "training.save_every_steps=1";

impl Stopped {
    fn after_two_steps() -> Self {
        let world = TinyWorld::build();
        let retriever = RetrieverHandle::start(&world.index());
        world.warm_start(&retriever);
        let stopped = Self { world, retriever };
        stopped.train("run", &[STEPWISE, "training.steps=2"]).unwrap();
        stopped
    }

    fn train(&self, run: &str, settings: &[&str]) -> Result<String, String> {
        let config = self.world.config(&self.retriever.url(), run, settings);
        let mut out = Vec::new();
        train(&config, &mut out).map_err(|error| format!("{error:#}"))?;
        Ok(String::from_utf8(out).unwrap())
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let stopped = Stopped::after_two_steps();
    let run = stopped.world.run_dir("run");
    assert_eq!(metrics(&run).len(), 2);
    // A process that is killed while saving leaves this folder behind.
    let partial = run.join("checkpoints/.step-3.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("model.safetensors"), b"half of").unwrap();

    let out = stopped.train("run", &[STEPWISE]).unwrap();
    assert!(out.contains("step-3") && out.contains("trained for 3 steps"), "{out}");
    stopped.train("whole", &[]).unwrap();
    let whole = stopped.world.run_dir("whole");

    assert_eq!(comparable_metrics(&run), comparable_metrics(&whole));
    assert!(weights(&checkpoint(&run, 3)) == weights(&checkpoint(&whole, 3)));
    assert!(weights(&checkpoint(&run, 3)) != weights(&checkpoint(&run, 2)));
    for file in
        ["state/optimizer.safetensors", "state/trainer_state.json", "config.json", "tokenizer.json"]
    {
        let read = |run: &Path| fs::read(checkpoint(run, 3).join(file)).unwrap();
        assert!(read(&run) == read(&whole), "{file} differs");
    }
    assert_eq!(trajectories(&run, 3), trajectories(&whole, 3));
    assert!(!partial.exists(), "the incomplete checkpoint remains");
}

#[test]
fn a_finished_run_does_nothing_more() {
    let stopped = Stopped::after_two_steps();
    let run = stopped.world.run_dir("run");
    let before = (comparable_metrics(&run), weights(&checkpoint(&run, 2)));
    stopped.train("run", &["training.steps=2"]).unwrap();
    assert_eq!((comparable_metrics(&run), weights(&checkpoint(&run, 2))), before);
}

#[test]
fn an_incomplete_checkpoint_is_ignored() {
    let stopped = Stopped::after_two_steps();
    let run = stopped.world.run_dir("run");
    let second = weights(&checkpoint(&run, 2));
    // The state after the death of a process before the second checkpoint was renamed.
    fs::rename(checkpoint(&run, 2), run.join("checkpoints/.step-2.partial")).unwrap();
    stopped.train("run", &[STEPWISE, "training.steps=2"]).unwrap();
    assert!(weights(&checkpoint(&run, 2)) == second, "the repeated step 2 differs");
    assert_eq!(metrics(&run).iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2]);
    assert!(!run.join("checkpoints/.step-2.partial").exists());
}

#[test]
fn the_checkpoint_before_a_damaged_one_is_used() {
    let stopped = Stopped::after_two_steps();
    let run = stopped.world.run_dir("run");
    let (rows, second) = (comparable_metrics(&run), weights(&checkpoint(&run, 2)));
    for file in ["state/trainer_state.json", "state/inputs.json", "model.safetensors"] {
        let path = checkpoint(&run, 2).join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        stopped.train("run", &[STEPWISE, "training.steps=2"]).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "{file} is not written again");
        assert_eq!(comparable_metrics(&run), rows, "{file}");
        assert!(weights(&checkpoint(&run, 2)) == second, "{file}");
    }
}

#[test]
fn without_a_whole_checkpoint_the_damaged_file_is_named() {
    let stopped = Stopped::after_two_steps();
    fs::remove_dir_all(checkpoint(&stopped.world.run_dir("run"), 1)).unwrap();
    let folder = checkpoint(&stopped.world.run_dir("run"), 2);
    for file in ["state/trainer_state.json", "state/optimizer.safetensors", "model.safetensors"] {
        let path = folder.join(file);
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() / 2], b""] {
            fs::write(&path, damaged).unwrap();
            let message = stopped.train("run", &[]).unwrap_err();
            for part in [file, "training.resume = false"] {
                assert!(message.contains(part), "{part:?} is not in {message}");
            }
        }
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(folder.join("state/optimizer.safetensors")).unwrap();
    let message = stopped.train("run", &[]).unwrap_err();
    assert!(message.contains("optimizer.safetensors"), "{message}");
}

#[test]
fn another_seed_is_refused_and_resume_can_be_turned_off() {
    let stopped = Stopped::after_two_steps();
    let message = stopped.train("run", &["seed=99"]).unwrap_err();
    for part in ["seed = 11", "says 99", "training.resume"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let run = stopped.world.run_dir("run");
    stopped.train("run", &["seed=99", "training.resume=false", "training.steps=1"]).unwrap();
    assert_eq!(metrics(&run).iter().map(|row| row.step).collect::<Vec<_>>(), [1]);
}
