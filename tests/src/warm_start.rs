//! `trainer sft`: training on demonstrations makes them more likely.

use std::path::Path;

use trainer::policy::{Compute, Decoder, ModelPlace, Policy, select_compute};
use trainer::run::sft;
use trainer::stop::StopFlag;
use trainer::token::{ChatDate, Tokenizer};
use trainer::update::{TrainSequence, sequence_log_probs};

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::weights;
use crate::harness::tiny_world::TinyWorld;

const PROMPT: &str = "Question: Where does Person3 live?\n";
const FIRST_TURN: &str =
    "<think>I should look this up.</think>\n<search>Where does Person3 live</search>";

/// Returns the mean loss of a demonstration's first turn, in nats per token.
pub(crate) fn loss(model: &Path) -> f64 {
    let base = ModelPlace::find(model, None).unwrap().base;
    let tokenizer = Tokenizer::from_folders(model, &base, ChatDate::default()).unwrap();
    let compute: Compute = select_compute("cpu", "f32").unwrap();
    let policy = Policy::load(model, compute).unwrap();
    let prompt = tokenizer.encode(PROMPT).unwrap();
    let turn = tokenizer.encode(FIRST_TURN).unwrap();
    let sequence = TrainSequence {
        token_ids: [prompt.clone(), turn.clone()].concat(),
        mask: [vec![false; prompt.len()], vec![true; turn.len()]].concat(),
        advantages: Vec::new(),
        weight: 0.0,
        old_log_probs: None,
        reference_log_probs: None,
        sampler_log_probs: Vec::new(),
    };
    let decoder = Decoder::new(&policy.config, sequence.token_ids.len(), compute.device);
    let (weights, never) = (policy.detached_weights(), StopFlag::never());
    let log_probs = sequence_log_probs(&decoder, &weights, &[sequence], 1.0, 1024, &never);
    let log_probs = log_probs.unwrap().remove(0);
    assert_eq!(log_probs.len(), turn.len());
    -log_probs.iter().map(|&value| f64::from(value)).sum::<f64>() / log_probs.len() as f64
}

#[test]
fn the_loss_of_the_demonstrations_falls() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let before = loss(&world.untrained_model());
    let after = loss(&world.model());
    assert!(before > 4.0, "{before}");
    assert!(after < before / 3.0, "{after} after {before}");
}

#[test]
fn the_same_seed_yields_the_same_warm_start() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    let model = format!("model.path={}", world.untrained_model().display());
    let warm_started = |run: &str, seed: &str| {
        let settings = [model.as_str(), "sft.epochs=1", seed];
        sft(&world.config(&retriever.url(), run, &settings), &mut Vec::new()).unwrap();
        weights(&world.run_dir(run).join("warm-start"))
    };
    let first = warm_started("first", "seed=1");
    assert!(first == warm_started("second", "seed=1"));
    assert!(first != warm_started("third", "seed=2"));
}

#[test]
fn demonstrations_without_passages_are_refused() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    let url = retriever.url();
    retriever.stop();
    let model = format!("model.path={}", world.untrained_model().display());
    let settings = [&model, "retriever.attempt_timeout_ms=300", "retriever.deadline_ms=300"];
    let error = sft(&world.config(&url, "run", &settings), &mut Vec::new()).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains("36 of 36 demonstrations found no passages"), "{message}");
    assert!(message.contains("no answer from the retriever"), "{message}");
    assert!(!world.run_dir("run").join("warm-start").exists());
}
