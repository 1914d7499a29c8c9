//! A run that is killed (SIGKILL), in a rollout, an update, a checkpoint or the metrics, resumes to the same bits; and one
//! whose disk takes no more keeps its last good checkpoint. The process to be killed is this test program, which only
//! runs the command there. `scripts/check-resume` is the long form.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trainer::cli::{EXIT_NOT_WRITTEN, run_command_line};
use trainer::config::Environment;

use crate::harness::run_dir::{
    checkpoint, comparable_metrics, files, metrics, trajectories, weights,
};
use crate::harness::trained::Trained;

/// The variable with the settings of the process to be killed, one per line.
const SETTINGS_VARIABLE: &str = "TRAINER_TEST_KILLED_SETTINGS";
const KILLED: &str = "train_killed::a_run_killed_at_any_moment_resumes_to_the_same_bits";
const FULL: &str = "train_killed::a_full_disk_keeps_the_last_good_checkpoint";
/// Longest run, generous for a busy machine; a test that reaches it has failed.
const RUN_PATIENCE: Duration = Duration::from_mins(5);
const STEPS: &str = "training.steps=4";

/// Runs `trainer train` if this process is the one to be killed. Ends with its exit code.
#[expect(clippy::exit, reason = "the process to be killed ends with the exit code of the command")]
fn run_if_asked() {
    let Ok(settings) = std::env::var(SETTINGS_VARIABLE) else { return };
    let sets = settings.lines().flat_map(|setting| ["--set", setting]);
    let arguments = ["trainer", "train"].into_iter().chain(sets);
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    let code = run_command_line(arguments, &Environment::new(), &mut out, &mut errors);
    std::process::exit(code.into());
}

/// Returns a process that runs `trainer train` in this program's test `test`, under `shell` if there is one.
fn process(test: &str, settings: &[String], shell: Option<&str>) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match shell {
        None => Command::new(&program),
        Some(line) => {
            let mut command = Command::new("bash");
            command.args(["-c", &format!("{line}; exec \"$@\"")]).arg("bash").arg(&program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]).env(SETTINGS_VARIABLE, settings.join("\n"));
    command
}

fn settings(trained: &Trained, run: &str, more: &[&str]) -> Vec<String> {
    let more: Vec<&str> = [STEPS, "training.prompts_per_step=3", "training.save_every_steps=1"]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    trained.world.settings(&trained.retriever.url(), run, &more)
}

/// Waits until `is_reached` and kills the process. Returns `false` if it ended before.
fn kill_at(mut child: Child, is_reached: &dyn Fn() -> bool) -> bool {
    let started = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break Some(ended);
        }
        if is_reached() {
            break None;
        }
        if started.elapsed() > RUN_PATIENCE {
            child.kill().unwrap();
            panic!("the moment did not come within {RUN_PATIENCE:?}");
        }
        std::thread::yield_now();
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none_or(|ended| ended.success()), "{ended:?}");
    ended.is_none()
}

#[track_caller]
fn assert_same(run: &Path, whole: &Path) {
    assert_eq!(comparable_metrics(run), comparable_metrics(whole));
    let [one, other] = [run, whole].map(|run| files(&checkpoint(run, 4)));
    assert!(one.keys().eq(other.keys()), "{:?}", one.keys());
    for (file, bytes) in &one {
        assert!(&other[file] == bytes, "{} differs", file.display());
    }
    for step in 1..=4 {
        assert_eq!(trajectories(run, step), trajectories(whole, step), "step {step}");
    }
}

/// Rollouts run ahead, so that a checkpoint has trajectories in flight; and PPO with an adaptive weight has the most
/// state. A moment is a file that the run has written, so no clock decides it.
#[test]
fn a_run_killed_at_any_moment_resumes_to_the_same_bits() {
    run_if_asked();
    let trained = Trained::start();
    let more = [
        "rollout.max_staleness=2",
        "algorithm.advantage=gae",
        "algorithm.kl_placement=reward",
        "algorithm.kl_controller=adaptive",
        "algorithm.kl_horizon=50",
        "training.kl_coefficient=0.05",
    ];
    let run = trained.world.run_dir("killed");
    let in_checkpoints = |below: &str| run.join("checkpoints").join(below);
    let rows =
        || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("a rollout is played", &|| run.join("trajectories/step-1.jsonl.zst").exists()),
        ("a row is written", &|| rows() >= 2),
        ("a checkpoint is written", &|| in_checkpoints(".step-2.partial").exists()),
        ("an update is computed", &|| run.join("trajectories/step-3.jsonl.zst").exists()),
        ("a checkpoint is in place", &|| in_checkpoints("step-3").exists()),
    ];
    let mut killed = 0;
    for (_, is_reached) in moments {
        let child = process(KILLED, &settings(&trained, "killed", &more), None)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        killed += usize::from(kill_at(child, is_reached));
    }
    // A run that ended before its kill shows nothing, so most must have been killed.
    assert!(killed >= 3, "{killed}");
    let config = |name: &str| {
        let settings = settings(&trained, name, &more);
        trainer::config::Config::load(None, &Environment::new(), &settings).unwrap()
    };
    for name in ["killed", "whole"] {
        trainer::run::train(&config(name), &mut Vec::new()).unwrap();
    }
    let whole = trained.world.run_dir("whole");
    assert!(metrics(&whole).iter().any(|row| row.ahead.staleness_max == 2));
    assert_same(&run, &whole);
}

/// A limit on the size of files stands for a full disk: the write fails in the middle of the optimizer's file, which is
/// the largest.
#[test]
fn a_full_disk_keeps_the_last_good_checkpoint() {
    run_if_asked();
    let trained = Trained::start();
    trained.train("full", "training.steps=1", &["training.save_every_steps=1"]);
    let run = trained.world.run_dir("full");
    let size = |file: &str| fs::metadata(checkpoint(&run, 1).join(file)).unwrap().len();
    let (model, optimizer) = (size("model.safetensors"), size("state/optimizer.safetensors"));
    let limit_kib = u64::midpoint(model, optimizer) / 1024;
    assert!(model < limit_kib * 1024 && limit_kib * 1024 < optimizer, "{model}, {optimizer}");
    let full = format!("trap '' XFSZ; ulimit -f {limit_kib}");
    let first = files(&checkpoint(&run, 1));
    for (way, code) in [("stop", EXIT_NOT_WRITTEN), ("continue", EXIT_NOT_WRITTEN)] {
        let setting = format!("checkpoint.on_failed_write={way}");
        let ended =
            process(FULL, &settings(&trained, "full", &[&setting]), Some(&full)).output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code.into()), "{errors}");
        let wanted = if way == "stop" { "step-2" } else { "step-4" };
        let folder = |step: &str| run.join("checkpoints").join(step).display().to_string();
        let told = [folder(wanted), folder("step-1"), "File too large".to_owned()];
        for part in ["cannot write", "the last good checkpoint is"]
            .into_iter()
            .chain(told.iter().map(String::as_str))
        {
            assert!(errors.contains(part), "{part:?} is not in {errors}");
        }
        let left: Vec<PathBuf> = fs::read_dir(run.join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [checkpoint(&run, 1)], "the half checkpoint is removed");
        assert!(files(&checkpoint(&run, 1)) == first, "the good checkpoint is unchanged");
        let steps = metrics(&run).len();
        assert_eq!(steps, if way == "stop" { 2 } else { 4 }, "{way}");
    }
    // With space again, the run ends like one that never lacked it.
    trained.train("full", STEPS, &["training.save_every_steps=1"]);
    trained.train("whole", STEPS, &["training.save_every_steps=1"]);
    assert_same(&run, &trained.world.run_dir("whole"));
}

#[test]
fn the_last_and_the_best_checkpoints_are_kept() {
    let trained = Trained::start();
    let settings = [
        "training.save_every_steps=1",
        "training.eval_every_steps=1",
        "checkpoint.keep_last=2",
        "checkpoint.keep_best=1",
        "guard.action=off",
    ];
    let kept = |run: &Path| {
        let mut steps: Vec<u64> = fs::read_dir(run.join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.strip_prefix("step-").unwrap().parse().unwrap())
            .collect();
        steps.sort_unstable();
        steps
    };
    // In two processes, so that the second one reads the scores of the first.
    trained.train("kept", "training.steps=2", &settings);
    let run = trained.world.run_dir("kept");
    assert_eq!(kept(&run), [1, 2]);
    trained.train("kept", "training.steps=5", &settings);
    let score = |step: u64| {
        let path = run.join(format!("eval/step-{step}.json"));
        trainer::eval::EvalResult::load(&path).unwrap().em().value()
    };
    let best = (1..=5).max_by(|&one, &other| score(one).total_cmp(&score(other))).unwrap();
    let mut expected = vec![best, 4, 5];
    expected.sort_unstable();
    expected.dedup();
    // Removed steps have no weight to come back to, so the best is among those that were still there.
    assert!(kept(&run).ends_with(&[4, 5]), "{:?}", kept(&run));
    assert_eq!(kept(&run), expected);
}

#[test]
fn a_collapse_returns_to_the_healthy_checkpoint_with_a_lower_rate() {
    let trained = Trained::start();
    // A limit that every update passes: the run returns as often as it may.
    let guard = [
        "training.save_every_steps=1",
        "guard.action=roll-back",
        "guard.patience_steps=1",
        "guard.max_entropy=0.000001",
        "guard.max_rollbacks=1",
        "guard.learning_rate_factor=0.25",
    ];
    let message = trained.try_train("guarded", STEPS, &guard).unwrap_err();
    for part in ["collapsed at step 1", "entropy", "guard.max_rollbacks"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    let run = trained.world.run_dir("guarded");
    let journal: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("guard.json")).unwrap()).unwrap();
    assert_eq!(journal["rollbacks"].as_array().unwrap().len(), 1);
    assert_eq!(journal["rollbacks"][0]["to_step"], 0);
    let undone = fs::read_to_string(run.join("guard/rollback-1.jsonl")).unwrap();
    assert_eq!(undone.lines().count(), 1);
    // The limit is lifted: the run goes on with a quarter of the rate, as one does that began with it.
    let lifted = ["training.save_every_steps=1", "guard.action=roll-back"];
    trained.train("guarded", "training.steps=2", &lifted);
    let slower = [&lifted[..], &["training.learning_rate=0.00025"]].concat();
    trained.train("slower", "training.steps=2", &slower);
    let slow = trained.world.run_dir("slower");
    assert!(weights(&checkpoint(&run, 2)) == weights(&checkpoint(&slow, 2)));
    let rates: Vec<f64> = metrics(&run).iter().map(|row| row.learning_rate).collect();
    assert_eq!(rates, [0.00025, 0.00025]);
    assert!(metrics(&run).iter().all(|row| row.guard.rollbacks == 1));
}
