//! A world for training a tiny model: people who live in towns, one passage each.

use std::fs;
use std::path::{Path, PathBuf};

use retriever_server::index::build::{self, BuildRequest};
use serde_json::{Value, json};
use tempfile::TempDir;
use trainer::config::{Config, Environment};

use crate::harness::retriever::RetrieverHandle;
use crate::harness::tiny_model::write_tiny_model;

const PEOPLE: usize = 48;
pub(crate) const TRAIN_QUESTIONS: usize = 36;
/// Number of held-out questions.
pub(crate) const TEST_QUESTIONS: usize = PEOPLE - TRAIN_QUESTIONS;
/// Number of towns. There are few: an untrained model is then sometimes right and has something to learn from.
const TOWNS: usize = 3;
const MODEL_SEED: u64 = 5;

/// Corpus, index, questions and an untrained model, in a folder that is removed when this value is dropped.
pub(crate) struct TinyWorld {
    folder: TempDir,
}

impl TinyWorld {
    pub(crate) fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { folder };
        let passages: Vec<Value> = (0..PEOPLE).map(passage).collect();
        let questions: Vec<Value> = (0..PEOPLE).map(question).collect();
        write_lines(&world.corpus(), &passages);
        write_lines(&world.train_questions(), &questions[..TRAIN_QUESTIONS]);
        write_lines(&world.test_questions(), &questions[TRAIN_QUESTIONS..]);
        let request = BuildRequest {
            corpus: vec![world.corpus()],
            index: world.index(),
            force: false,
            threads: 1,
            compact: false,
        };
        build::build(&request, &mut |_| {}).unwrap();
        let mut texts: Vec<String> =
            passages.iter().chain(&questions).map(Value::to_string).collect();
        texts.push(demonstration_words());
        write_tiny_model(&world.untrained_model(), &texts, MODEL_SEED);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn corpus(&self) -> PathBuf {
        self.path().join("corpus.jsonl")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path().join("index")
    }

    pub(crate) fn train_questions(&self) -> PathBuf {
        self.path().join("train.jsonl")
    }

    pub(crate) fn test_questions(&self) -> PathBuf {
        self.path().join("test.jsonl")
    }

    pub(crate) fn untrained_model(&self) -> PathBuf {
        self.path().join("model")
    }

    /// Returns the folder of the model that [`Self::warm_start`] trains.
    pub(crate) fn model(&self) -> PathBuf {
        self.run_dir("warm").join("warm-start")
    }

    pub(crate) fn run_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name)
    }

    /// Returns `--set` arguments for a small deterministic run of the warm-started model, followed by `more`.
    pub(crate) fn settings(&self, retriever_url: &str, run: &str, more: &[&str]) -> Vec<String> {
        let mut settings = vec![
            format!("model.path={}", self.model().display()),
            format!("run_dir={}", self.run_dir(run).display()),
            format!("retriever.url={retriever_url}"),
            format!("data.train={}", self.train_questions().display()),
            format!("data.test={}", self.test_questions().display()),
        ];
        settings.extend(SETTINGS.iter().chain(more).map(|setting| (*setting).to_owned()));
        settings
    }

    /// Returns the configuration of [`Self::settings`].
    pub(crate) fn config(&self, retriever_url: &str, run: &str, more: &[&str]) -> Config {
        Config::load(None, &Environment::new(), &self.settings(retriever_url, run, more)).unwrap()
    }

    /// Teaches the untrained model to search and answer, with the trainer's own warm start.
    pub(crate) fn warm_start(&self, retriever: &RetrieverHandle) {
        let model = format!("model.path={}", self.untrained_model().display());
        let config = self.config(&retriever.url(), "warm", &[&model]);
        trainer::run::sft(&config, &mut Vec::new()).unwrap();
    }
}

const SETTINGS: [&str; 27] = [
    "seed=11",
    "deterministic=true",
    "threads=1",
    "model.device=cpu",
    "model.dtype=f32",
    "retriever.top_k=2",
    "data.template=\"Question: {question}\\n\"",
    "data.chat=false",
    "rollout.max_turns=2",
    "rollout.max_prompt_tokens=64",
    "rollout.max_response_tokens=40",
    "rollout.max_observation_tokens=96",
    "rollout.max_passage_tokens=48",
    "sft.demonstrations=36",
    "sft.epochs=14",
    "sft.trajectories_per_update=18",
    "sft.learning_rate=0.01",
    "sft.warmup_updates=2",
    "optimizer.weight_decay=0",
    "training.steps=3",
    "training.prompts_per_step=4",
    "training.group_size=4",
    "training.learning_rate=0.001",
    "training.warmup_updates=0",
    "training.save_every_steps=0",
    "training.max_failed_search_fraction=0",
    "update.tokens_per_micro_batch=512",
];

/// Returns the words of prompts, demonstrations and observations that are in no record.
fn demonstration_words() -> String {
    "Question I should look this up. need to search for. Let me search for the answer. The passage \
     says it. I found it in the passage. This is what I was looking for. Doc Title 1 2"
        .to_owned()
}

fn town(person: usize) -> usize {
    person * 7 % TOWNS
}

fn passage(person: usize) -> Value {
    let contents = format!("\"Person{person}\"\nPerson{person} lives in Town{}.", town(person));
    json!({"id": format!("p{person}"), "contents": contents})
}

fn question(person: usize) -> Value {
    json!({
        "id": format!("q{person}"),
        "question": format!("Where does Person{person} live?"),
        "golden_answers": [format!("Town{}", town(person))],
    })
}

fn write_lines(path: &Path, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n")).unwrap();
}
