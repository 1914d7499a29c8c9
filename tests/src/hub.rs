//! Models by their name on a hub: downloads, resumed downloads, and the errors when the hub refuses.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::contract::retry::RetryPolicy;
use tempfile::TempDir;
use trainer::cli::{EXIT_FAILURE, EXIT_SUCCESS, run_command_line};
use trainer::config::Environment;
use trainer::hub::{HubError, HubSettings, ModelName, fetch};
use trainer::policy::{Policy, select_compute, weight_files, write_weights};

use crate::harness::fake_hub::{COMMIT, FakeHub, Faults, OLD_NAME, REPOSITORY, digest};
use crate::harness::run_dir::files;
use crate::harness::tiny_model::write_tiny_model;
use crate::harness::tiny_world::TinyWorld;

/// A folder with the files of a model, and with a cache.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let workspace = Self { folder: tempfile::tempdir().unwrap() };
        write_tiny_model(&workspace.source(), &["a hub of words".to_owned()], 3);
        // A model folder does not need this file, so it is not downloaded.
        fs::write(workspace.source().join("pytorch_model.bin"), b"pickled").unwrap();
        workspace
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn settings(&self, hub: &FakeHub) -> HubSettings {
        let environment = Environment::from([
            ("HF_ENDPOINT".to_owned(), hub.url()),
            ("HF_HUB_CACHE".to_owned(), self.cache().display().to_string()),
            ("HF_HOME".to_owned(), self.folder.path().join("home").display().to_string()),
        ]);
        let retry = RetryPolicy {
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(1),
            deadline: Duration::from_secs(20),
        };
        HubSettings { retry, ..HubSettings::from_environment(&environment) }
    }

    /// Checks that the snapshot has exactly these files, with the bytes of the source and the layout of the
    /// hub's other clients.
    #[track_caller]
    fn check(&self, folder: &Path, files: &[&str]) {
        let repository = self.cache().join("models--tiny--world");
        assert_eq!(folder, repository.join("snapshots").join(COMMIT));
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, files);
        for file in files {
            let bytes = fs::read(self.source().join(file)).unwrap();
            assert!(fs::read(folder.join(file)).unwrap() == bytes, "{file} differs");
            let blob = Path::new("../../blobs").join(digest(file, &bytes));
            assert_eq!(fs::read_link(folder.join(file)).unwrap(), blob);
        }
        assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
        let blobs = fs::read_dir(repository.join("blobs")).unwrap();
        assert_eq!(blobs.count(), files.len(), "an incomplete file is left");
    }
}

fn name(text: &str) -> ModelName {
    ModelName::parse(Path::new(text)).unwrap()
}

const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

#[test]
fn a_model_is_downloaded_once_into_the_cache() {
    let workspace = Workspace::new();
    let hub = FakeHub::start(&workspace.source(), Faults::default());
    let settings = workspace.settings(&hub);
    let folder = fetch(&name(REPOSITORY), &settings).unwrap();
    workspace.check(&folder, &FILES);
    assert!(hub.take_seen().iter().all(|seen| !seen.line.contains("pytorch_model.bin")));
    assert_eq!(fetch(&name(REPOSITORY), &settings).unwrap(), folder);
    let again = hub.take_seen();
    assert_eq!(again.len(), 1, "more than the revision was requested: {again:?}");
    let offline = HubSettings { offline: true, ..settings.clone() };
    assert_eq!(fetch(&name(REPOSITORY), &offline).unwrap(), folder);
    let pinned = name(&format!("{REPOSITORY}@{COMMIT}"));
    assert_eq!(fetch(&pinned, &offline).unwrap(), folder);
    assert!(hub.take_seen().is_empty());
    drop(hub);
    let retry = RetryPolicy { deadline: Duration::from_millis(5), ..settings.retry };
    let unreachable = HubSettings { retry, ..settings };
    assert_eq!(fetch(&name(REPOSITORY), &unreachable).unwrap(), folder);
}

/// Templates with names are in a folder of the repository; other folders are left there.
#[test]
fn named_templates_are_downloaded() {
    let workspace = Workspace::new();
    for (path, text) in [
        ("additional_chat_templates/tool_use.jinja", "{{ tools }}"),
        ("additional_chat_templates/notes.txt", "no template"),
        ("onnx/model.onnx", "another format"),
    ] {
        let path = workspace.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let hub = FakeHub::start(&workspace.source(), Faults::default());
    let folder = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap();
    let template = Path::new("additional_chat_templates/tool_use.jinja");
    assert_eq!(fs::read_to_string(folder.join(template)).unwrap(), "{{ tools }}");
    let link = fs::read_link(folder.join(template)).unwrap();
    assert!(link.starts_with("../../../blobs"), "{}", link.display());
    let fetched = files(&folder);
    assert_eq!(fetched.len(), FILES.len() + 1, "{:?}", fetched.keys());
}

#[test]
fn a_renamed_model_is_found() {
    let workspace = Workspace::new();
    let hub = FakeHub::start(&workspace.source(), Faults::default());
    let folder = fetch(&name(OLD_NAME), &workspace.settings(&hub)).unwrap();
    let loaded = Policy::load(&folder, select_compute("cpu", "f32").unwrap()).unwrap();
    assert!(loaded.parameter_count() > 0);
}

#[test]
fn weights_in_several_files_come_with_their_index() {
    let workspace = Workspace::new();
    let source = workspace.source();
    let policy = Policy::load(&source, select_compute("cpu", "f32").unwrap()).unwrap();
    fs::remove_file(source.join("model.safetensors")).unwrap();
    let any = policy.parameters.values().next().unwrap();
    write_weights(&source, &policy.parameters, any.kind(), 80_000).unwrap();
    let shards = weight_files(&source).unwrap();
    assert!(shards.len() > 2, "{shards:?}");
    let hub = FakeHub::start(&source, Faults::default());
    let folder = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap();
    let mut files = vec!["config.json", "model.safetensors.index.json", "tokenizer.json"];
    files.extend(shards.iter().map(|path| path.file_name().unwrap().to_str().unwrap()));
    files.sort_unstable();
    workspace.check(&folder, &files);
}

#[test]
fn an_interrupted_download_resumes_where_it_stopped() {
    let workspace = Workspace::new();
    let cuts = VecDeque::from([1000, 0, 70_000, 1]);
    let hub = FakeHub::start(&workspace.source(), Faults { cuts, ..Faults::default() });
    let folder = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap();
    workspace.check(&folder, &FILES);
    let ranges: Vec<String> = hub.take_seen().into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.contains(&"bytes=1000-".to_owned()), "{ranges:?}");
    assert!(ranges.len() >= 4, "{ranges:?}");
}

#[test]
fn a_store_without_ranges_starts_again() {
    let workspace = Workspace::new();
    let cuts = VecDeque::from([1000]);
    let faults = Faults { cuts, without_ranges: true, ..Faults::default() };
    let hub = FakeHub::start(&workspace.source(), faults);
    let folder = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap();
    workspace.check(&folder, &FILES);
}

#[test]
fn a_later_process_resumes_the_download_of_an_earlier_one() {
    let workspace = Workspace::new();
    let bytes = fs::read(workspace.source().join("model.safetensors")).unwrap();
    let blobs = workspace.cache().join("models--tiny--world/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let left = format!("{}.incomplete", digest("model.safetensors", &bytes));
    fs::write(blobs.join(left), &bytes[..5000]).unwrap();
    let hub = FakeHub::start(&workspace.source(), Faults { busy: 3, ..Faults::default() });
    let folder = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap();
    workspace.check(&folder, &FILES);
    let seen = hub.take_seen();
    let ranges: Vec<&String> = seen.iter().filter_map(|seen| seen.range.as_ref()).collect();
    assert!(ranges.contains(&&"bytes=5000-".to_owned()), "{ranges:?}");
}

#[test]
fn a_file_with_another_digest_is_not_kept() {
    for damaged in ["model.safetensors", "tokenizer.json"] {
        let workspace = Workspace::new();
        let faults = Faults { damaged: Some(damaged.to_owned()), ..Faults::default() };
        let hub = FakeHub::start(&workspace.source(), faults);
        let error = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap_err();
        assert!(matches!(error, HubError::Digest { .. }), "{error}");
        let expected = digest(damaged, &fs::read(workspace.source().join(damaged)).unwrap());
        let message = error.to_string();
        assert!(message.contains(damaged) && message.contains(&expected), "{message}");
        let repository = workspace.cache().join("models--tiny--world");
        for entry in fs::read_dir(repository.join("blobs")).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            assert!(!file.starts_with(&expected), "{file} is left");
        }
        assert!(!repository.join("refs/main").exists());
        assert!(!repository.join("snapshots").join(COMMIT).join(damaged).exists());
    }
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_its_store() {
    let workspace = Workspace::new();
    let faults = Faults { token: Some("of-mine".to_owned()), ..Faults::default() };
    let hub = FakeHub::start(&workspace.source(), faults);
    let error = fetch(&name(REPOSITORY), &workspace.settings(&hub)).unwrap_err().to_string();
    for part in ["tiny/world@main", "GatedRepo", "explanation of GatedRepo", "HF_TOKEN"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(hub.take_seen().iter().all(|seen| seen.token.is_none()));
    let settings = HubSettings { token: Some("of-mine".to_owned()), ..workspace.settings(&hub) };
    assert!(!format!("{settings:?}").contains("of-mine"));
    workspace.check(&fetch(&name(REPOSITORY), &settings).unwrap(), &FILES);
    let seen = hub.take_seen();
    let mut by_server = BTreeMap::new();
    for request in &seen {
        by_server.entry(request.at_store).or_insert_with(Vec::new).push(request.token.is_some());
    }
    assert!(by_server[&false].iter().all(|&sent| sent), "{seen:?}");
    assert!(!by_server[&true].is_empty() && by_server[&true].iter().all(|&sent| !sent), "{seen:?}");
}

#[test]
fn errors_name_the_missing_model_revision_or_weights() {
    let workspace = Workspace::new();
    let hub = FakeHub::start(&workspace.source(), Faults::default());
    let settings = workspace.settings(&hub);
    let refusal = |text: &str| fetch(&name(text), &settings).unwrap_err().to_string();
    let unknown = refusal("other/model");
    for part in ["other/model@main", "neither a local folder", "RepoNotFound", "HF_TOKEN"] {
        assert!(unknown.contains(part), "{part:?} is not in {unknown:?}");
    }
    let revision = refusal("tiny/world@v2");
    assert!(revision.contains("tiny/world@v2") && revision.contains("RevisionNotFound"));
    fs::remove_file(workspace.source().join("model.safetensors")).unwrap();
    let bare = FakeHub::start(&workspace.source(), Faults::default());
    let weights = fetch(&name(REPOSITORY), &workspace.settings(&bare)).unwrap_err().to_string();
    assert!(weights.contains("no safetensors weights"), "{weights}");
    let offline = HubSettings { offline: true, ..workspace.settings(&hub) };
    let absent = fetch(&name(REPOSITORY), &offline).unwrap_err().to_string();
    assert!(absent.contains("HF_HUB_OFFLINE") && absent.contains("cache"), "{absent}");
    let endpoint = HubSettings { endpoint: "ftp://hub".to_owned(), ..workspace.settings(&hub) };
    let scheme = fetch(&name(REPOSITORY), &endpoint).unwrap_err().to_string();
    assert!(scheme.contains("HF_ENDPOINT") && scheme.contains("accepted: http"), "{scheme}");
}

#[test]
fn names_are_distinguished_from_paths() {
    let parse = |text: &str| ModelName::parse(Path::new(text));
    let plain = parse("Some-Org/Some_Model-1.5B").unwrap();
    assert_eq!(
        (plain.repository.as_str(), plain.revision.as_str()),
        ("Some-Org/Some_Model-1.5B", "main")
    );
    assert_eq!(parse("org/name@v1.0").unwrap().revision, "v1.0");
    for path in [
        "",
        "name",
        "/org/name",
        "./org",
        "../name",
        "org/name/more",
        "org/na me",
        "org/",
        "org/n@",
    ] {
        assert_eq!(parse(path), None, "{path:?}");
    }
    // An existing file, and a missing file in an existing folder.
    assert_eq!(parse("src/lib.rs"), None);
    assert_eq!(parse("src/absent"), None);
}

/// The whole path from `model.path` on the command line to an evaluation.
#[test]
fn a_command_accepts_the_name_of_a_model() {
    let world = TinyWorld::build();
    let hub = FakeHub::start(&world.untrained_model(), Faults::default());
    let environment = Environment::from([
        ("HF_ENDPOINT".to_owned(), hub.url()),
        ("HF_HOME".to_owned(), world.path().join("home").display().to_string()),
    ]);
    let run = |model: &str| {
        let out = world.path().join("result.json");
        let mut line = vec!["trainer".to_owned(), "eval".to_owned()];
        line.extend(["--searches", "none", "--model", model, "--out"].map(str::to_owned));
        line.push(out.display().to_string());
        for setting in world.settings("http://127.0.0.1:9", "eval", &["eval.questions=2"]) {
            line.extend(["--set".to_owned(), setting]);
        }
        let mut errors = Vec::new();
        let code = run_command_line(line, &environment, &mut Vec::new(), &mut errors);
        (code, String::from_utf8(errors).unwrap())
    };
    assert_eq!(run(REPOSITORY), (EXIT_SUCCESS, String::new()));
    assert!(world.path().join("home/hub/models--tiny--world/refs/main").is_file());
    let (code, errors) = run("other/model");
    assert_eq!(code, EXIT_FAILURE, "{errors}");
    assert!(errors.contains("other/model@main: neither a local folder"), "{errors}");
}
