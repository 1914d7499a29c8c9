//! `scripts/wikipedia` whole, with small files of the same form on a local hub: questions of FlashRAG, a compressed
//! corpus, a flat index in two parts, and a tiny model in place of Llama.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use retriever_server::cli::{self, Streams};

use crate::harness::fake_hub::{FakeHub, Faults};
use crate::harness::tiny_world::{TRAIN_QUESTIONS, TinyWorld};

/// In a process that the script starts: the program, and its arguments, one a line.
const PROGRAM: &str = "TESTED_PROGRAM";
const ARGUMENTS: &str = "TESTED_ARGUMENTS";
const TEST: &str = "wikipedia::the_quick_start_runs_whole_and_resumes";
const DIMENSION: usize = 4;
const MODEL: &str = "meta-llama/Llama-3.2-3B";

/// Runs a program in this process, as the script's call asks.
fn run_program(program: &str) {
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let line: Vec<String> =
        std::iter::once(program).chain(arguments.lines()).map(str::to_owned).collect();
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    let code = if program == "trainer" {
        let environment = trainer::config::environment();
        trainer::cli::run_command_line(line, &environment, &mut out, &mut errors)
    } else {
        let line = line.into_iter().map(Into::into);
        cli::run(line, &mut Streams { out: &mut out, err: &mut errors })
    };
    assert_eq!(code, 0, "{program} failed");
}

/// Writes programs that run this test's own binary.
fn write_programs(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::create_dir_all(folder).unwrap();
    let own = std::env::current_exe().unwrap();
    for program in ["trainer", "retriever-server"] {
        let text = format!(
            "#!/usr/bin/env bash\nexport {PROGRAM}={program} {ARGUMENTS}=\"$(printf '%s\\n' \"$@\")\"\n\
             exec '{}' --exact {TEST} --nocapture\n",
            own.display()
        );
        let path = folder.join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Writes a flat index as faiss does, in two parts, with a vector for each passage.
fn write_parts(folder: &Path, vectors: usize) {
    let numbers = vectors * DIMENSION;
    let mut bytes = b"IxFI".to_vec();
    bytes.extend((DIMENSION as i32).to_le_bytes());
    bytes.extend((vectors as i64).to_le_bytes());
    bytes.extend((1_i64 << 20).to_le_bytes());
    bytes.extend((1_i64 << 20).to_le_bytes());
    bytes.push(1);
    bytes.extend(0_i32.to_le_bytes());
    bytes.extend((numbers as u64).to_le_bytes());
    bytes.extend((0..numbers).flat_map(|number| (number as f32).to_le_bytes()));
    fs::create_dir_all(folder).unwrap();
    let (first, second) = bytes.split_at(bytes.len() * 2 / 3);
    fs::write(folder.join("part_aa"), first).unwrap();
    fs::write(folder.join("part_ab"), second).unwrap();
}

fn gzip(path: &Path, bytes: &[u8]) {
    let mut program = Command::new("gzip")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(path).unwrap())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(program.wait().unwrap().success());
}

struct QuickStart {
    world: TinyWorld,
    hub: FakeHub,
}

impl QuickStart {
    fn new() -> Self {
        let world = TinyWorld::build();
        let source = |name: &str| world.path().join("hub").join(name);
        let nq = source("questions").join("nq");
        fs::create_dir_all(&nq).unwrap();
        fs::copy(world.train_questions(), nq.join("train.jsonl")).unwrap();
        fs::copy(world.test_questions(), nq.join("test.jsonl")).unwrap();
        let corpus = fs::read(world.corpus()).unwrap();
        fs::create_dir_all(source("corpus")).unwrap();
        gzip(&source("corpus").join("wiki-18.jsonl.gz"), &corpus);
        let passages = String::from_utf8(corpus).unwrap().lines().count();
        assert!(passages > TRAIN_QUESTIONS);
        write_parts(&source("e5"), passages);
        let hub = FakeHub::start_with(
            &[
                ("RUC-NLPIR/FlashRAG_datasets", &source("questions")),
                ("PeterJinGo/wiki-18-corpus", &source("corpus")),
                ("PeterJinGo/wiki-18-e5-index", &source("e5")),
                (MODEL, &world.untrained_model()),
            ],
            Faults::default(),
        );
        write_programs(&world.path().join("bin"));
        Self { world, hub }
    }

    fn made(&self, name: &str) -> PathBuf {
        self.world.path().join("made").join(name)
    }

    /// Runs the script with the settings of a tiny run, in a single process that may end by itself only.
    fn run(&self, arguments: &[&str], steps: usize) -> Output {
        let path = self.world.path();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/wikipedia");
        let mut command = Command::new("bash");
        command.arg(script).args(["--folder", self.made("").to_str().unwrap()]).args(arguments);
        command.arg("--");
        // Its own model, retriever and questions come before; those of the script are to stay.
        let own = ["model.path=", "run_dir=", "retriever.url=", "data.train=", "data.test="];
        let more = ["training.prompts_per_step=4", "training.trajectories_per_update=2"];
        let settings = self.world.settings("http://unused", "run", &more);
        let settings = settings.iter().filter(|set| !own.iter().any(|key| set.starts_with(key)));
        for set in settings.filter(|set| !set.starts_with("training.group_size")) {
            command.args(["--set", set]);
        }
        command.args([
            "--set",
            &format!("training.steps={steps}"),
            "--set",
            "training.group_size=1",
        ]);
        command.args(["--set", "critic.warmup_steps=0"]);
        command
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HUB_CACHE", path.join("cache"))
            .env("HF_HOME", path.join("home"))
            .env("WIKIPEDIA_BINARIES", path.join("bin"))
            .env_remove("HF_HUB_OFFLINE")
            .stdin(Stdio::null());
        command.output().unwrap()
    }
}

#[track_caller]
fn out(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{errors}", output.status);
    out
}

#[test]
fn the_quick_start_runs_whole_and_resumes() {
    if let Ok(program) = std::env::var(PROGRAM) {
        run_program(&program);
        return;
    }
    let quick = QuickStart::new();
    let plan = out(&quick.run(&["--plan"], 1));
    for part in ["questions", "corpus", "e5", "join", "of disk space", "to download"] {
        assert!(plan.contains(part), "{part:?} is not in {plan}");
    }
    assert!(!quick.made("wiki-18.jsonl.gz").exists());
    // A first call that ends in the middle, as an interrupted one does.
    let first = out(&quick.run(&["--until", "join"], 1));
    assert!(first.contains("48 vectors of 4 numbers"), "{first}");
    assert!(first.contains("ended after join"), "{first}");
    assert!(!quick.made("index").exists());
    let joined = fs::read(quick.made("e5_Flat.index")).unwrap();
    assert_eq!(joined.len(), 45 + 4 * 48 * DIMENSION);
    quick.hub.take_seen();
    let whole = out(&quick.run(&[], 2));
    assert!(whole.contains("join: already done"), "{whole}");
    assert!(whole.contains("trained for 2 steps"), "{whole}");
    assert!(quick.made("index/manifest.json").is_file());
    let again = quick.hub.take_seen();
    assert!(
        again.iter().all(|seen| !seen.line.contains("part_aa") || seen.line.starts_with("HEAD"))
    );
    // More steps: everything before them is kept.
    let longer = out(&quick.run(&[], 3));
    for part in ["join: already done", "index: already done", "trained for 3 steps"] {
        assert!(longer.contains(part), "{part:?} is not in {longer}");
    }
    let config = fs::read_to_string(quick.made("run/config.toml")).unwrap();
    for part in ["preset = \"paper\"", "advantage = \"gae\"", "models--meta-llama--Llama-3.2-3B"] {
        assert!(config.contains(part), "{part:?} is not in {config}");
    }
    assert_eq!(fs::read_to_string(quick.made("run/metrics.jsonl")).unwrap().lines().count(), 3);
}

#[test]
fn parts_that_do_not_fit_are_not_joined() {
    let quick = QuickStart::new();
    let part = quick.world.path().join("hub/e5/part_ab");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() - 4]).unwrap();
    let quick = QuickStart {
        hub: FakeHub::start_with(
            &[
                ("RUC-NLPIR/FlashRAG_datasets", &quick.world.path().join("hub/questions")),
                ("PeterJinGo/wiki-18-corpus", &quick.world.path().join("hub/corpus")),
                ("PeterJinGo/wiki-18-e5-index", &quick.world.path().join("hub/e5")),
            ],
            Faults::default(),
        ),
        world: quick.world,
    };
    let output = quick.run(&["--until", "join"], 1);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("a whole flat index has"), "{errors}");
    assert!(!quick.made("e5_Flat.index").exists());
}
