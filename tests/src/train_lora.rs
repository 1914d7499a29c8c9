//! Adapters train instead of the weights: saving merged or alone, resuming, evaluation, refusals.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use trainer::cli::{EXIT_SUCCESS, EXIT_USAGE, run_command_line};
use trainer::config::Environment;
use trainer::eval::EvalResult;
use trainer::hub::{HubSettings, ModelName, fetch};
use trainer::run::sft;

use crate::harness::fake_hub::{FakeHub, Faults, REPOSITORY};
use crate::harness::run_dir::{checkpoint, comparable_metrics, files, metrics, state, weights};
use crate::harness::trained::Trained;
use crate::warm_start::loss;

const RANK: &str = "lora.rank=4";
const ALONE: &str = "lora.merge_on_save=false";
const RATE: &str = "training.learning_rate=0.01";
const ADAPTERS: &str = "adapter_model.safetensors";

fn names(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.names().into_iter().map(str::to_owned).collect()
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Runs `trainer eval` on a folder. Returns exit code, standard error and result.
fn eval(trained: &Trained, folder: &Path, out: &str) -> (u8, String, Option<EvalResult>) {
    eval_in(&Environment::new(), trained, folder, out)
}

fn eval_in(
    environment: &Environment,
    trained: &Trained,
    model: &Path,
    out: &str,
) -> (u8, String, Option<EvalResult>) {
    let path = trained.world.path().join(out);
    let mut line = vec!["trainer".to_owned(), "eval".to_owned()];
    for (flag, value) in [("--model", model), ("--out", &path)] {
        line.extend([flag.to_owned(), value.to_str().unwrap().to_owned()]);
    }
    for setting in trained.world.settings(&trained.retriever.url(), "eval", &[]) {
        line.extend(["--set".to_owned(), setting]);
    }
    let mut errors = Vec::new();
    let code = run_command_line(line, environment, &mut Vec::new(), &mut errors);
    (code, String::from_utf8(errors).unwrap(), EvalResult::load(&path).ok())
}

fn predictions(result: Option<EvalResult>) -> Vec<String> {
    result.unwrap().rows.into_iter().map(|row| format!("{:?}", row.prediction)).collect()
}

#[test]
fn adapters_train_and_resume_to_the_bit_merged_or_alone() {
    let trained = Trained::start();
    let merged = trained.check_resumed("merged", &[RANK, RATE]);
    let alone = trained.check_resumed("alone", &[RANK, RATE, ALONE]);
    // The form of the checkpoint does not affect training.
    assert_eq!(comparable_metrics(&merged), comparable_metrics(&alone));
    let (merged, alone) = (checkpoint(&merged, 2), checkpoint(&alone, 2));
    let adapters = merged.join("adapter");
    assert!(files(&adapters).iter().all(|(name, bytes)| &files(&alone)[name] == bytes));
    assert!(weights(&merged) != weights(&trained.world.model()), "the weights did not change");
    for absent in ["config.json", "model.safetensors"] {
        assert!(!alone.join(absent).exists(), "{absent}");
    }
    let base = json(&alone.join("adapter_config.json"))["base_model_name_or_path"].clone();
    assert_eq!(Path::new(base.as_str().unwrap()), trained.world.model().canonicalize().unwrap());
    // The optimizer holds two moments of each adapter and nothing else.
    let moments = names(&state(&merged, "optimizer.safetensors"));
    assert_eq!(moments.len(), 2 * names(&adapters.join(ADAPTERS)).len());
    assert!(moments.iter().all(|name| name.contains(".lora_")), "{moments:?}");

    let rows = metrics(&trained.world.run_dir("merged-whole"));
    // The reference is the base without adapters. The adapters start at 0.
    assert!(rows[0].kl.abs() < 1e-9 && rows[1].kl > 1e-9, "{rows:?}");
    assert!(rows.iter().all(|row| row.log_prob_gap < 1e-4), "{rows:?}");

    let (code, errors, merged) = eval(&trained, &merged, "merged.json");
    assert_eq!((code, errors), (EXIT_SUCCESS, String::new()));
    let (code, _, alone) = eval(&trained, &alone, "alone.json");
    assert_eq!(code, EXIT_SUCCESS);
    assert_eq!(predictions(merged), predictions(alone));
}

#[test]
fn a_critic_has_its_own_adapters_and_its_head() {
    let trained = Trained::start();
    let ppo = ["algorithm.advantage=gae", "critic.learning_rate=0.01", "critic.warmup_updates=0"];
    let settings: Vec<&str> =
        [RANK, RATE, "lora.targets=q_proj,v_proj"].into_iter().chain(ppo).collect();
    let run = trained.check_resumed("ppo", &settings);
    let critic = names(&state(&checkpoint(&run, 2), "critic.safetensors"));
    let adapters = names(&checkpoint(&run, 2).join("adapter").join(ADAPTERS));
    assert_eq!(critic.len(), adapters.len() + 2, "{critic:?}");
    assert!(critic.iter().any(|name| name == "value_head.weight"), "{critic:?}");
    let is_target = |name: &String| name.contains("q_proj") || name.contains("v_proj");
    assert!(adapters.iter().all(is_target), "{adapters:?}");
    for row in metrics(&run) {
        assert!(row.algorithm.value_loss > 0.0 && row.algorithm.critic_grad_norm > 0.0, "{row:?}");
    }
}

#[test]
fn a_warm_start_of_adapters_is_trained_on_or_merged() {
    let trained = Trained::start();
    let (world, url) = (&trained.world, trained.retriever.url());
    let model = format!("model.path={}", world.untrained_model().display());
    let warm = [&model, RANK, ALONE, "sft.learning_rate=0.03", "lora.rslora=true"];
    let mut out = Vec::new();
    sft(&world.config(&url, "warm-lora", &warm), &mut out).unwrap();
    let folder = world.run_dir("warm-lora").join("warm-start");
    assert!(
        folder.join("adapter_config.json").is_file() && folder.join("tokenizer.json").is_file()
    );
    let (before, after) = (loss(&world.untrained_model()), loss(&folder));
    assert!(after < before - 0.5, "{after} after {before}");
    let (code, errors, _) = eval(&trained, &folder, "warm.json");
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));

    let path = format!("model.path={}", folder.display());
    // An entropy bonus ensures a gradient even if this short warm start earns no reward.
    let bonus = "training.entropy_coefficient=0.01";
    let on = [path.as_str(), RANK, ALONE, RATE, "lora.rslora=true", bonus];
    let run = trained.check_resumed("on", &on);
    let rows = metrics(&run);
    assert!(rows[0].kl.abs() < 1e-9 && rows[1].kl > 1e-9, "it began with other weights: {rows:?}");
    let base = |folder: &Path| {
        json(&folder.join("adapter_config.json"))["base_model_name_or_path"].clone()
    };
    assert_eq!(base(&checkpoint(&run, 2)), base(&folder));

    // If the run has no adapters, those of the folder are merged into the weights.
    let run = trained.check_resumed("whole", &[&path]);
    assert!(checkpoint(&run, 2).join("model.safetensors").is_file());
    let rows = metrics(&run);
    assert!(rows[0].kl.abs() < 1e-9, "{rows:?}");

    let message = trained.try_train("other", "training.steps=1", &[&path, RANK]).unwrap_err();
    for part in ["rslora = true", "rslora = false", "lora.rank = 0"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_run_resumes_only_with_its_own_adapters() {
    let trained = Trained::start();
    trained.train("adapted", "training.steps=1", &[RANK]);
    trained.train("plain", "training.steps=1", &[]);
    for (run, settings, parts) in [
        ("adapted", &[][..], &["lora.rank = 4", "another run_dir"][..]),
        ("plain", &[RANK], &["lora.rank = 0", "training.resume = false"]),
        ("adapted", &["lora.rank=2"], &["rank = 4", "rank = 2", "adapter_config.json"]),
        ("adapted", &[RANK, "lora.targets=q_proj"], &["\"all-linear\"", "\"q_proj\""]),
    ] {
        let message = trained.try_train(run, "training.steps=2", settings).unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{settings:?}: {part:?} is not in {message:?}");
        }
    }
}

/// The saved model is rounded; the weights for resuming are not.
#[test]
fn checkpoints_in_bf16_resume_to_the_bit() {
    let trained = Trained::start();
    let exact = trained.check_resumed("f32", &[]);
    let rounded = trained.check_resumed("bf16", &["checkpoint.dtype=bf16"]);
    assert_eq!(comparable_metrics(&exact), comparable_metrics(&rounded));
    let (exact, rounded) = (checkpoint(&exact, 2), checkpoint(&rounded, 2));
    assert_eq!(json(&rounded.join("config.json"))["torch_dtype"], "bfloat16");
    let (whole, half) = (weights(&exact), weights(&rounded));
    let (whole, half) =
        (SafeTensors::deserialize(&whole).unwrap(), SafeTensors::deserialize(&half).unwrap());
    let masters = fs::read(state(&rounded, "masters.safetensors")).unwrap();
    let masters = SafeTensors::deserialize(&masters).unwrap();
    for (name, tensor) in whole.tensors() {
        assert_eq!(half.tensor(&name).unwrap().dtype(), Dtype::BF16, "{name}");
        assert_eq!(masters.tensor(&name).unwrap().data(), tensor.data(), "{name}");
    }
    let (code, errors, _) = eval(&trained, &rounded, "bf16.json");
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    // Adapters keep their bits, whatever the type of the merged model.
    let run = trained.check_resumed("lora", &[RANK, RATE, "checkpoint.dtype=bf16"]);
    assert!(!state(&checkpoint(&run, 2), "masters.safetensors").exists());
}

#[test]
fn settings_of_adapters_are_refused_by_name() {
    for (setting, parts) in [
        ("lora.targets=\"q_proj,v_prj\"", &["lora.targets", "v_prj", "q_proj,v_proj"][..]),
        ("lora.targets=lm_head", &["lora.targets", "lm_head", "all-linear", "down_proj"]),
        ("lora.alpha=0", &["lora.alpha", "above 0"]),
        ("lora.rslora=true", &["lora.rslora", "lora.rank` = 0"]),
        ("lora.merge_on_save=false", &["lora.merge_on_save", "lora.rank` = 0"]),
        ("lora.alpha=16", &["lora.alpha", "lora.rank` = 0"]),
        ("checkpoint.dtype=f16", &["checkpoint.dtype", "bf16"]),
    ] {
        let line = ["trainer", "config", "--set", setting].map(str::to_owned);
        let mut errors = Vec::new();
        let code =
            run_command_line(line.to_vec(), &Environment::new(), &mut Vec::new(), &mut errors);
        let errors = String::from_utf8(errors).unwrap();
        assert_eq!(code, EXIT_USAGE, "{setting}");
        for part in parts {
            assert!(errors.contains(part), "{setting}: {part:?} is not in {errors:?}");
        }
    }
}

/// The hub has the adapters; their base is a local folder.
#[test]
fn adapters_are_fetched_by_their_name_on_the_hub() {
    let trained = Trained::start();
    let (world, url) = (&trained.world, trained.retriever.url());
    let model = format!("model.path={}", world.untrained_model().display());
    let warm = [model.as_str(), RANK, ALONE, "sft.learning_rate=0.03"];
    sft(&world.config(&url, "warm-lora", &warm), &mut Vec::new()).unwrap();
    let folder = world.run_dir("warm-lora").join("warm-start");
    let hub = FakeHub::start(&folder, Faults::default());
    let home = world.path().join("home").display().to_string();
    let environment =
        Environment::from([("HF_ENDPOINT".to_owned(), hub.url()), ("HF_HOME".to_owned(), home)]);
    let named = Path::new(REPOSITORY);
    let (code, errors, by_name) = eval_in(&environment, &trained, named, "by-name.json");
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    let fetched = hub.take_seen();
    assert!(fetched.iter().any(|seen| seen.line.contains(ADAPTERS)), "{fetched:?}");
    let (_, _, by_folder) = eval(&trained, &folder, "by-folder.json");
    assert_eq!(predictions(by_name), predictions(by_folder));
    // Offline, the cache is enough.
    let name = ModelName::parse(named).unwrap();
    let offline = HubSettings { offline: true, ..HubSettings::from_environment(&environment) };
    assert!(fetch(&name, &offline).unwrap().join(ADAPTERS).is_file());
}
