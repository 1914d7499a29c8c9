//! Data sets by their name on a hub: single files and folders, resumed downloads, offline use, and errors.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use shared::contract::rows::{Rows, question_columns};
use tempfile::TempDir;
use trainer::cli::{EXIT_FAILURE, EXIT_SUCCESS, run_command_line};
use trainer::config::Environment;

use crate::harness::fake_hub::{COMMIT, FakeHub, Faults};

const SET: &str = "some/questions";

/// A folder with the files of a data set, and with a cache.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let workspace = Self { folder: tempfile::tempdir().unwrap() };
        let nq = workspace.source().join("nq");
        fs::create_dir_all(&nq).unwrap();
        for (name, count) in [("train.jsonl", 9), ("test.jsonl", 3)] {
            let row = |id: usize| {
                format!(
                    "{{\"id\": \"{id}\", \"question\": \"q{id}?\", \"golden_answers\": [\"x\"]}}\n"
                )
            };
            fs::write(nq.join(name), (0..count).map(row).collect::<String>()).unwrap();
        }
        fs::write(workspace.source().join("part_aa"), vec![7; 5000]).unwrap();
        workspace
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn hub(&self, faults: Faults) -> FakeHub {
        FakeHub::start_with(&[(SET, &self.source())], faults)
    }

    /// Runs `trainer data` with this hub; returns exit code, output and messages.
    fn run(&self, hub: &str, more: &[(&str, &str)], arguments: &[&str]) -> (u8, String, String) {
        let cache = self.folder.path().join("cache").display().to_string();
        let variables = [("HF_ENDPOINT", hub), ("HF_HUB_CACHE", cache.as_str())];
        let variables = variables.iter().chain(more);
        let environment: Environment =
            variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let line = ["trainer", "data"].iter().chain(arguments);
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let code = run_command_line(line, &environment, &mut out, &mut errors);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(errors))
    }
}

#[test]
fn a_file_of_a_data_set_is_downloaded_once_and_used_offline() {
    let workspace = Workspace::new();
    let hub = workspace.hub(Faults::default());
    let fetch = ["fetch", "hf://some/questions/nq/train.jsonl"];
    let (code, out, errors) = workspace.run(&hub.url(), &[], &fetch);
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    let copy = PathBuf::from(out.trim());
    let snapshot = format!("datasets--some--questions/snapshots/{COMMIT}/nq/train.jsonl");
    assert!(copy.ends_with(&snapshot), "{}", copy.display());
    assert_eq!(Rows::open(&copy, question_columns).unwrap().count(), 9);
    hub.take_seen();
    assert_eq!(workspace.run(&hub.url(), &[], &fetch).1, out);
    assert_eq!(hub.take_seen().len(), 1, "more than the revision was requested");
    let offline = [("HF_HUB_OFFLINE", "1")];
    assert_eq!(workspace.run(&hub.url(), &offline, &fetch).1, out);
    let other = ["fetch", "hf://some/questions/nq/test.jsonl"];
    let (code, _, errors) = workspace.run(&hub.url(), &offline, &other);
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("HF_HUB_OFFLINE") && errors.contains("nq/test.jsonl"), "{errors}");
    assert!(hub.take_seen().is_empty());
}

#[test]
fn a_folder_is_linked_where_it_is_wanted_and_large_parts_resume() {
    let workspace = Workspace::new();
    let cuts = VecDeque::from([1000, 0, 500]);
    let hub = workspace.hub(Faults { cuts, ..Faults::default() });
    let to = workspace.folder.path().join("here");
    let to_text = to.display().to_string();
    let names = ["hf://datasets/some/questions@main/nq", "hf://some/questions/part_aa"];
    let (_, sizes, _) = workspace.run(&hub.url(), &[], &["fetch", "--sizes", names[1]]);
    assert_eq!(sizes, "5000 5000 part_aa\n");
    let fetch = ["fetch", "--to", &to_text, names[0], names[1]];
    for _ in 0..2 {
        let (code, out, errors) = workspace.run(&hub.url(), &[], &fetch);
        assert_eq!((code, errors.as_str(), out.lines().count()), (EXIT_SUCCESS, "", 2));
        assert_eq!(fs::read_dir(to.join("nq")).unwrap().count(), 2);
        assert!(fs::read(to.join("part_aa")).unwrap() == vec![7; 5000]);
    }
    let ranges: Vec<String> = hub.take_seen().into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.contains(&"bytes=1000-".to_owned()), "{ranges:?}");
    let (_, sizes, _) = workspace.run(&hub.url(), &[], &["fetch", "--sizes", names[1]]);
    assert_eq!(sizes, "5000 0 part_aa\n");
    let offline = [("HF_HUB_OFFLINE", "1")];
    assert_eq!(workspace.run(&hub.url(), &offline, &fetch).0, EXIT_SUCCESS);
}

#[test]
fn the_other_commands_take_names_of_the_hub() {
    let workspace = Workspace::new();
    let hub = workspace.hub(Faults::default());
    let (train, test) = ("hf://some/questions/nq/train.jsonl", "hf://some/questions/nq/test.jsonl");
    let describe = ["describe", train, "--against", test];
    let (code, out, errors) = workspace.run(&hub.url(), &[], &describe);
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.contains("3 of 3 held-out questions"), "{out}");
    let (_, sample, _) =
        workspace.run(&hub.url(), &[], &["sample", train, "--count", "4", "--seed", "3"]);
    assert_eq!(sample.lines().count(), 4);
    let again = workspace.run(&hub.url(), &[], &["sample", train, "--count", "4", "--seed", "3"]);
    assert_eq!(again.1, sample);
}

#[test]
fn wrong_names_and_damaged_files_are_named() {
    let workspace = Workspace::new();
    let hub = workspace.hub(Faults { damaged: Some("part_aa".to_owned()), ..Faults::default() });
    for (name, parts) in [
        ("data/train.jsonl", &["does not begin with hf://"][..]),
        ("hf://some/questions", &["names no file or folder", "accepted: hf://org/name/path"]),
        (
            "hf://some/questions/dev.jsonl",
            &["no file \"dev.jsonl\"", "nq/test.jsonl, nq/train.jsonl"],
        ),
        ("hf://other/set/x", &["hf://other/set@main", "RepoNotFound", "HF_TOKEN"]),
        ("hf://some/questions@v2/nq", &["RevisionNotFound"]),
        ("hf://some/questions/part_aa", &["has the digest", "it was deleted"]),
    ] {
        let (code, _, errors) = workspace.run(&hub.url(), &[], &["fetch", name]);
        assert_eq!(code, EXIT_FAILURE, "{name}");
        for part in parts {
            assert!(errors.contains(part), "{name}: {part:?} is not in {errors:?}");
        }
    }
}
