//! Errors of `trainer` about invalid input: exit code and location of the problem.

use std::fs;

use trainer::cli::{EXIT_FAILURE, EXIT_USAGE, run_command_line};
use trainer::config::Environment;

use crate::harness::tiny_world::TinyWorld;

const NO_RETRIEVER: &str = "http://127.0.0.1:9";

/// Creates a world with an untrained model; no test here reaches a search.
fn world() -> TinyWorld {
    let world = TinyWorld::build();
    let model = world.model();
    fs::create_dir_all(&model).unwrap();
    for entry in fs::read_dir(world.untrained_model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    world
}

/// Runs a command and checks its exit code, and that its error contains all `parts`.
#[track_caller]
fn check(world: &TinyWorld, command: &str, sets: &[&str], code: u8, parts: &[&str]) {
    let mut line = vec!["trainer".to_owned(), command.to_owned()];
    for setting in world.settings(NO_RETRIEVER, "run", sets) {
        line.extend(["--set".to_owned(), setting]);
    }
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let exit_code = run_command_line(line, &Environment::new(), &mut out, &mut errors);
    let errors = String::from_utf8(errors).unwrap();
    assert_eq!(exit_code, code, "{errors}");
    assert!(errors.starts_with("error: ") && out.is_empty(), "{errors}");
    for part in parts {
        assert!(errors.contains(part), "{part:?} is not in {errors:?}");
    }
}

#[test]
fn a_wrong_model_folder_is_named_with_its_missing_file() {
    let world = world();
    let nowhere = format!("model.path={}", world.path().join("nowhere").display());
    for command in ["sft", "train", "eval"] {
        check(&world, command, &[&nowhere], EXIT_FAILURE, &["model.path", "nowhere"]);
    }
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let path = world.model().join(file);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        check(&world, "train", &[], EXIT_FAILURE, &["model.path", file]);
        fs::write(&path, &whole[..whole.len() / 3]).unwrap();
        check(&world, "train", &[], EXIT_FAILURE, &["model.path", file]);
        fs::write(&path, whole).unwrap();
    }
    let path = world.model().join("config.json");
    let other = fs::read_to_string(&path).unwrap();
    fs::write(&path, other.replace("\"llama\"", "\"mamba\"")).unwrap();
    let parts = ["config.json", "model_type = mamba", "accepted: llama"];
    check(&world, "train", &[], EXIT_FAILURE, &parts);
    fs::write(&path, other.replace("\"hidden_size\": 64", "\"hidden_size\": 32")).unwrap();
    check(&world, "train", &[], EXIT_FAILURE, &["model.safetensors", "has shape", "config.json"]);
}

#[test]
fn a_question_that_cannot_be_scored_is_named_by_file_line_and_field() {
    let world = world();
    let good = fs::read_to_string(world.train_questions()).unwrap();
    let good = good.lines().next().unwrap();
    for (bad, parts) in [
        ("{\"question\":\"Who?\"}", &["there is no answer; accepted are \"golden_answers\""][..]),
        (
            "{\"question\":\"Who?\",\"golden_answers\":[]}",
            &["there is no answer; accepted are \"golden_answers\""],
        ),
        ("{\"golden_answers\":[\"x\"]}", &["\"question\" is missing"]),
        ("{\"question\":", &["JSON"]),
    ] {
        for (command, path) in [
            ("sft", world.train_questions()),
            ("train", world.train_questions()),
            ("eval", world.test_questions()),
        ] {
            fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let place = format!("{file}:2: ");
            let parts = [&[place.as_str()], parts].concat();
            check(&world, command, &[], EXIT_FAILURE, &parts);
        }
    }
    fs::write(world.train_questions(), b"{\"question\":\"\xff\",\"answer\":\"x\"}").unwrap();
    check(&world, "train", &[], EXIT_FAILURE, &["train.jsonl:1: ", "invalid UTF-8"]);
    fs::write(world.train_questions(), "\n").unwrap();
    check(&world, "train", &[], EXIT_FAILURE, &["train.jsonl", "no records"]);
    fs::remove_file(world.train_questions()).unwrap();
    check(&world, "train", &[], EXIT_FAILURE, &["train.jsonl"]);
}

#[test]
fn a_prompt_above_the_limit_is_refused_before_anything_runs() {
    let world = world();
    let parts = ["\"q0\"", "the limit is 3"];
    check(&world, "train", &["rollout.max_prompt_tokens=3"], EXIT_FAILURE, &parts);
    // A model of few positions would write nothing, and every answer would count as wrong.
    let path = world.model().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let positions = |count: usize| format!("\"max_position_embeddings\": {count}");
    assert!(config.contains(&positions(512)), "{config}");
    fs::write(&path, config.replace(&positions(512), &positions(8))).unwrap();
    let space = [
        "tokens, which leaves no space for an answer in a context of 8",
        "the prompt of record \"q",
    ];
    for command in ["sft", "train", "eval"] {
        check(&world, command, &[], EXIT_FAILURE, &space);
    }
}

#[test]
fn wrong_configuration_is_refused_before_anything_is_read() {
    let world = world();
    let check = |sets: &[&str], parts: &[&str]| check(&world, "train", sets, EXIT_USAGE, parts);
    check(
        &["training.lerning_rate=1"],
        &["training.lerning_rate", "did you mean `training.learning_rate`?"],
    );
    check(&["model.dtype=fp32"], &["`model.dtype`", "fp32", "f32"]);
    check(&["retriever.url=127.0.0.1:8000"], &["`retriever.url`", "http://127.0.0.1:8000"]);
    check(&["data.train="], &["needs `data.train`"]);
    check(&["model.path="], &["needs `model.path`"]);
    check(&["data.template=no place for it"], &["`data.template`", "{question}"]);
    assert!(!world.run_dir("run").exists(), "a run was begun");
}
