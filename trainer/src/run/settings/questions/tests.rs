use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::config::Environment;

/// Writes two files of questions and returns a configuration that trains on both.
fn configured(folder: &Path, settings: &[&str]) -> Config {
    let rows = |set: &str, count: usize| {
        let row = |number: usize| {
            format!(
                "{{\"id\": {number}, \"question\": \"{set} {number}?\", \"answer\": \"x\", \"data_source\": \"{set}\"}}\n"
            )
        };
        (0..count).map(row).collect::<String>()
    };
    fs::write(folder.join("nq.jsonl"), rows("nq", 20)).unwrap();
    fs::write(folder.join("hotpotqa.jsonl"), rows("hotpotqa", 5)).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let train = format!("data.train={}, {}", path("nq.jsonl"), path("hotpotqa.jsonl"));
    let mut all = vec![train, "data.chat=false".to_owned()];
    all.extend(
        settings.iter().map(|setting| setting.replace("DIR", &folder.display().to_string())),
    );
    Config::load(None, &Environment::new(), &all).unwrap()
}

fn order(config: &Config) -> anyhow::Result<(Vec<Example>, Mixture)> {
    training_order(config, &Tokenizer::characters(), 10_000)
}

/// Returns how often the questions of each set stand at the first positions.
fn asked(config: &Config, positions: usize) -> BTreeMap<String, usize> {
    let (examples, mixture) = order(config).unwrap();
    assert_eq!(examples.len(), mixture.questions());
    let mut asked = BTreeMap::new();
    for question in mixture.questions_from(0, positions) {
        let set = examples[question].question.split(' ').next().unwrap();
        *asked.entry(set.to_owned()).or_default() += 1;
    }
    asked
}

fn counts(nq: usize, hotpotqa: usize) -> BTreeMap<String, usize> {
    [("nq", nq), ("hotpotqa", hotpotqa)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(set, count)| (set.to_owned(), count))
        .collect()
}

#[test]
fn several_files_are_asked_equally_or_by_their_weights() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), &[]);
    assert_eq!(asked(&config, 25), counts(20, 5));
    let (examples, _) = order(&config).unwrap();
    // The ids of the second file repeat those of the first.
    assert_eq!(
        (examples[3].id.as_str(), examples[23].id.as_str()),
        ("3", "3-hotpotqa.jsonl-line-4")
    );
    let config = configured(folder.path(), &["data.mix=1, 3"]);
    assert_eq!(asked(&config, 1024), counts(256, 768));
}

#[test]
fn filters_leave_questions_out() {
    let folder = tempfile::tempdir().unwrap();
    let named = |settings: &[&str]| asked(&configured(folder.path(), settings), 300);
    assert_eq!(named(&["data.sources=hotpotqa"]), counts(0, 300));
    assert_eq!(named(&["data.max_train_questions=10"]), counts(240, 60));
    fs::write(
        folder.path().join("test.jsonl"),
        "{\"question\": \"HotpotQA 0\", \"answer\": \"x\"}",
    )
    .unwrap();
    let (examples, _) = order(&configured(
        folder.path(),
        &["data.test=DIR/test.jsonl", "data.leave_out_test=true"],
    ))
    .unwrap();
    assert_eq!(examples.len(), 24);
    // "nq 10?" in the template is longer than "nq 9?".
    let template = "data.template={question}";
    let (examples, _) = order(&configured(
        folder.path(),
        &[template, "rollout.max_prompt_tokens=5", "data.skip_long_prompts=true"],
    ))
    .unwrap();
    assert_eq!(examples.len(), 10);
}

#[test]
fn weights_of_questions_count_within_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let line = |id: usize| json!({"id": id.to_string(), "weight": if id < 10 { 0.0 } else { 0.5 }});
    let weights: Vec<String> = (0..19).map(|id| line(id).to_string()).collect();
    let weights = weights.join("\n");
    fs::write(folder.path().join("weights.jsonl"), weights).unwrap();
    let config = configured(folder.path(), &["data.weights=DIR/weights.jsonl"]);
    // Of the first file nine half and one whole question, of the second five: 10.5 in an epoch.
    let asked = asked(&config, 1050);
    assert!(asked["nq"].abs_diff(550) <= 12, "{asked:?}");
    let (examples, mixture) = order(&config).unwrap();
    assert_eq!((examples.len(), mixture.questions()), (15, 15));
}

#[test]
fn wrong_choices_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weights.jsonl"), "{\"id\": \"other\", \"weight\": 1}\n").unwrap();
    for (setting, parts) in [
        ("data.mix=\"1\"", ["data.mix", "has 1 weights for the 2 files of data.train"]),
        ("data.mix=1, 0", ["data.mix", "accepted are numbers above 0"]),
        (
            "data.sources=nq2",
            ["data.sources", "names \"nq2\"; the training questions have \"hotpotqa\", \"nq\""],
        ),
        (
            "data.weights=DIR/weights.jsonl",
            ["weights.jsonl", "names none of the training questions"],
        ),
    ] {
        let made = order(&configured(folder.path(), &[setting]));
        let message = made.map_or_else(|error| format!("{error:#}"), |_| String::new());
        for part in parts {
            assert!(message.contains(part), "{setting}: {part:?} is not in {message:?}");
        }
    }
}

#[test]
fn a_path_with_a_comma_is_one_file_if_it_exists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a, b.jsonl");
    fs::write(&path, "{\"question\": \"q\", \"answer\": \"x\"}\n").unwrap();
    let set = format!("data.train={}", path.display());
    let config = Config::load(None, &Environment::new(), &[set]).unwrap();
    assert_eq!(training_files(&config), [path]);
    let names: Vec<String> = inputs(&config).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["training questions", "held-out questions"]);
}
