//! A run directory belongs to one run: one process at a time, and the inputs that the run began with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use trainer::cli::{EXIT_FAILURE, run_command_line};
use trainer::config::Environment;

use crate::harness::relay::{Relay, RelayEvent, Rule};
use crate::harness::run_dir::{assert_servable, checkpoint, files, metrics, state, weights};
use crate::harness::trained::Trained;

/// Settings of the run of a child process, as a JSON list.
const SETTINGS_VARIABLE: &str = "TEST_RUN_FOLDER_SETTINGS";
const TEST: &str = "run_folder::a_second_process_is_refused_until_the_first_is_gone";

/// Runs the trainer with `settings`; returns exit code and standard error.
fn run(command: &str, settings: &[String]) -> (u8, String) {
    let (code, _, errors) = run_whole(command, settings);
    (code, errors)
}

/// Runs the trainer with `settings`; returns exit code, standard output and standard error.
fn run_whole(command: &str, settings: &[String]) -> (u8, String, String) {
    let mut line = vec!["trainer".to_owned(), command.to_owned()];
    for setting in settings {
        line.extend(["--set".to_owned(), setting.clone()]);
    }
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let code = run_command_line(line, &Environment::new(), &mut out, &mut errors);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(errors))
}

/// Starts `trainer train` in a separate process.
fn start(settings: &[String]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(SETTINGS_VARIABLE, serde_json::to_string(settings).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    if let Ok(settings) = std::env::var(SETTINGS_VARIABLE) {
        let settings: Vec<String> = serde_json::from_str(&settings).unwrap();
        assert_eq!(run("train", &settings).0, 0);
        return;
    }
    let trained = Trained::start();
    let (world, url) = (&trained.world, trained.retriever.url());
    // The first process waits for a search as long as the test likes.
    let relay = Relay::start(trained.retriever.addr(), Rule::Hold(1));
    let mut first = start(&world.settings(&relay.url(), "run", &["training.steps=1"]));
    relay.wait_for(RelayEvent::Held);
    let second = world.settings(&url, "run", &["training.steps=2", "training.learning_rate=1"]);
    let before = files(&world.run_dir("run"));
    for command in ["train", "sft"] {
        let (code, errors) = run(command, &second);
        assert_eq!(code, EXIT_FAILURE, "{errors}");
        let (folder, pid) = (world.run_dir("run").display().to_string(), first.id().to_string());
        for part in [&folder, &pid, "trainer train", "another run_dir"] {
            assert!(errors.contains(part), "{part:?} is not in {errors:?}");
        }
    }
    assert_eq!(files(&world.run_dir("run")), before, "a refused process wrote");
    // Another directory is free, and so is this one once its process is killed.
    let (code, errors) = run("train", &world.settings(&url, "other", &["training.steps=1"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    first.kill().unwrap();
    first.wait().unwrap();
    relay.let_go();
    let (code, errors) = run("train", &world.settings(&url, "run", &["training.steps=1"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(metrics(&world.run_dir("run")).len(), 1);
}

/// Copies a model folder and lets `change` edit a file of the copy.
fn changed_model(
    trained: &Trained,
    name: &str,
    file: &str,
    change: fn(String) -> String,
) -> PathBuf {
    let copy = trained.world.path().join(name);
    fs::create_dir(&copy).unwrap();
    for (name, bytes) in files(&trained.world.model()) {
        fs::write(copy.join(name), bytes).unwrap();
    }
    let path = copy.join(file);
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    copy
}

#[test]
fn a_run_resumes_only_with_the_inputs_that_it_began_with() {
    let trained = Trained::start();
    let world = &trained.world;
    trained.train("run", "training.steps=1", &[]);
    let run_dir = world.run_dir("run");
    let before = files(&run_dir);
    let path = |key: &str, path: &Path| format!("{key}={}", path.display());
    let spaced = |text: String| text.replacen('{', "{ ", 1);
    let other = trained.world.path().join("other.jsonl");
    let lines = fs::read_to_string(world.train_questions()).unwrap();
    fs::write(&other, lines.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    let tokenizer = changed_model(&trained, "tokenizer", "tokenizer.json", spaced);
    let config = changed_model(&trained, "config", "config.json", spaced);
    for (setting, parts) in [
        (path("data.train", &other), &["training questions: ", "other.jsonl"][..]),
        (path("data.test", &other), &["held-out questions: ", "other.jsonl"]),
        (path("model.path", &tokenizer), &["tokenizer: ", "tokenizer.json"]),
        (path("model.path", &config), &["model configuration: "]),
        (path("model.path", &world.untrained_model()), &["model: the run began with sha256:"]),
    ] {
        let message = trained.try_train("run", "training.steps=2", &[&setting]).unwrap_err();
        for part in parts.iter().chain(&["step-1", "another run_dir", "training.resume = false"]) {
            assert!(message.contains(part), "{setting}: {part:?} is not in {message:?}");
        }
        let after = files(&run_dir);
        let is_locked_file = |name: &&PathBuf| name.as_path() == Path::new("run.lock");
        assert!(
            after
                .keys()
                .filter(|name| !is_locked_file(name))
                .all(|name| after[name] == before[name])
        );
    }
    // Files that the model folder lacked decide as well.
    let ends = changed_model(&trained, "ends", "config.json", |text| text);
    fs::write(ends.join("special_tokens_map.json"), "{}").unwrap();
    let message = trained.try_train("run", "training.steps=2", &[&path("model.path", &ends)]);
    let message = message.unwrap_err();
    assert!(message.contains("special tokens: the run began with none, "), "{message}");
    // The same files elsewhere are the same, and settings of the training may change.
    let moved = changed_model(&trained, "moved", "config.json", |text| text);
    let moved = path("model.path", &moved);
    trained.train("run", "training.steps=2", &[&moved, "training.learning_rate=0.002"]);

    // After a new start the old checkpoint is not one of the new run.
    let other = path("data.train", &other);
    trained.train("run", "training.steps=1", &[&other, "training.resume=false"]);
    let message = trained.try_train("run", "training.steps=3", &[&other]).unwrap_err();
    assert!(message.contains("step-2") && message.contains("training questions"), "{message}");
}

/// A folder of parts holds the questions of one file; each part counts when a run resumes.
#[test]
fn a_run_is_trained_on_a_folder_of_parts() {
    let trained = Trained::start();
    let folder = trained.world.path().join("parts");
    fs::create_dir(&folder).unwrap();
    let lines = fs::read_to_string(trained.world.train_questions()).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    for (name, part) in [("part-0.jsonl", first), ("part-1.jsonl", second)] {
        fs::write(folder.join(name), part.join("\n")).unwrap();
    }
    let questions = format!("data.train={}", folder.display());
    trained.train("whole", "training.steps=1", &[]);
    trained.train("parts", "training.steps=1", &[&questions]);
    let [whole, parts] = ["whole", "parts"].map(|run| trained.world.run_dir(run));
    assert!(weights(&checkpoint(&whole, 1)) == weights(&checkpoint(&parts, 1)));
    let settings = trained.world.settings(&trained.retriever.url(), "lint", &[&questions]);
    let (code, report, errors) = run_whole("lint", &settings);
    let count = format!("over the {} of data.train", lines.len());
    assert!(code == 0 && report.contains(&count), "{report} {errors}");

    fs::write(folder.join("part-1.jsonl"), second[1..].join("\n")).unwrap();
    let message = trained.try_train("parts", "training.steps=2", &[&questions]).unwrap_err();
    let named = "training questions, part 2: the run began with sha256:";
    assert!(message.contains(named) && message.contains("part-1.jsonl"), "{message}");
    fs::write(folder.join("notes.csv"), "a,b\n").unwrap();
    let message = trained.try_train("parts", "training.steps=2", &[&questions]).unwrap_err();
    assert!(message.contains("is a folder of different files"), "{message}");
}

/// Moves the state of a checkpoint to where earlier versions wrote it, without what they did not write.
fn age(folder: &Path) {
    fs::remove_file(state(folder, "inputs.json")).unwrap();
    for file in files(&folder.join("state")).into_keys() {
        fs::rename(folder.join("state").join(&file), folder.join(&file)).unwrap();
    }
    fs::remove_dir(folder.join("state")).unwrap();
}

#[test]
fn a_checkpoint_of_an_earlier_version_resumes() {
    let trained = Trained::start();
    let ppo = ["algorithm.advantage=gae", "critic.warmup_updates=0", "checkpoint.dtype=bf16"];
    let whole = trained.check_resumed("new", &ppo);
    trained.train("old", "training.steps=1", &ppo);
    let old = trained.world.run_dir("old");
    age(&checkpoint(&old, 1));
    let manifest = old.join("manifest.json");
    let mut facts: serde_json::Map<String, Value> =
        serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    for later in ["model configuration", "tokenizer configuration", "chat template"] {
        facts.remove(later);
    }
    fs::write(&manifest, serde_json::to_vec(&facts).unwrap()).unwrap();
    let untrained = format!("model.path={}", trained.world.untrained_model().display());
    let other = [&ppo[..], &[&untrained]].concat();
    let message = trained.try_train("old", "training.steps=2", &other).unwrap_err();
    assert!(message.contains("model: the run began with"), "{message}");
    trained.train("old", "training.steps=2", &ppo);
    assert!(weights(&checkpoint(&old, 2)) == weights(&checkpoint(&whole, 2)));
    assert_servable(&checkpoint(&old, 2), &trained.world.model());
}

/// Templates with names go along, so that a checkpoint renders what its source renders.
#[test]
fn named_templates_are_copied_into_checkpoints() {
    let trained = Trained::start();
    let templates = trained.world.model().join("additional_chat_templates");
    fs::create_dir(&templates).unwrap();
    fs::write(templates.join("tool_use.jinja"), "{{ messages }}").unwrap();
    trained.train("run", "training.steps=1", &[]);
    let saved = checkpoint(&trained.world.run_dir("run"), 1);
    assert_eq!(files(&saved.join("additional_chat_templates")), files(&templates));
    fs::write(templates.join("tool_use.jinja"), "{{ tools }}").unwrap();
    let message = trained.try_train("run", "training.steps=2", &[]).unwrap_err();
    assert!(message.contains("chat template tool_use"), "{message}");
}
