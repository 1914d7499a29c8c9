//! `trainer lint` predicts the figures of a run and refuses configurations that cannot work.

use std::fs;
use std::path::Path;

use trainer::cli::{EXIT_SUCCESS, EXIT_USAGE, run_command_line};
use trainer::config::{Config, Environment};
use trainer::lint::{ModelFacts, memory, plan};
use trainer::policy::{ModelConfig, stored_bytes};
use trainer::run::train;

use crate::harness::corpus::IndexedCorpus;
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{checkpoint, metrics};
use crate::harness::tiny_world::TinyWorld;

/// Runs `trainer lint` with these settings. Returns exit code, standard output and standard error.
fn lint(settings: &[String]) -> (u8, String, String) {
    let mut arguments = vec!["trainer".to_owned(), "lint".to_owned()];
    for setting in settings {
        arguments.extend(["--set".to_owned(), setting.clone()]);
    }
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let code = run_command_line(arguments, &Environment::new(), &mut out, &mut errors);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

/// Returns the number of bytes of the tensors in a safetensors file.
fn tensor_bytes(path: &Path) -> u64 {
    let file = fs::read(path).unwrap();
    file.len() as u64 - 8 - u64::from_le_bytes(file[..8].try_into().unwrap())
}

#[test]
fn training_writes_what_lint_predicts() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let more = [
        "algorithm.advantage=gae",
        "training.steps=2",
        "training.trajectories_per_update=8",
        "training.save_every_steps=1",
        "training.warmup_updates=4",
    ];
    let settings = world.settings(&retriever.url(), "run", &more);
    let (code, before, errors) = lint(&settings);
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    for part in [
        "4 questions x 4 = 16 trajectories",
        "2 updates of 8 trajectories",
        "2 steps, 4 updates of the policy, 4 of the critic",
        "8 questions asked: 0.22 passes over the 36 of data.train",
        "2.5e-4 at the first update, 1e-3 after the warm-up",
        "not known until a step has run",
    ] {
        assert!(before.contains(part), "{part:?} is not in {before}");
    }

    let config = Config::load(None, &Environment::new(), &settings).unwrap();
    train(&config, &mut Vec::new()).unwrap();
    let rates: Vec<f64> =
        metrics(&world.run_dir("run")).iter().map(|row| row.learning_rate).collect();
    assert!((rates[1] - plan(&config).rates[2]).abs() < 1e-12, "{rates:?}");

    let model = ModelConfig::read(&world.model()).unwrap();
    let stored_bytes = stored_bytes(&world.model(), &model).unwrap();
    let facts =
        ModelFacts { config: model, stored_bytes, compute_bytes: 4, packed: None, on_host: true };
    let predicted = memory(&config, &facts);
    let predicted: Vec<u64> = predicted.checkpoint.iter().map(|part| part.bytes).collect();
    let folder = checkpoint(&world.run_dir("run"), 2);
    let written = |name: &str| tensor_bytes(&folder.join(format!("{name}.safetensors")));
    let critic = written("state/critic") + written("state/critic_optimizer");
    assert_eq!(predicted, [written("model"), written("state/optimizer"), critic]);
    assert_eq!(stored_bytes, written("model"), "the warm start is also stored in f32");
    let kept = fs::read_dir(world.run_dir("run").join("checkpoints")).unwrap().count();
    assert_eq!(kept as u64, plan(&config).checkpoints);

    let (code, after, _) = lint(&settings);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(
        after.contains("s per step (mean of the latest, after 2 steps), 0.0 h for the remaining 0"),
        "{after}"
    );
}

#[test]
fn an_impossible_configuration_ends_with_64_and_a_doubtful_one_with_0() {
    let world = TinyWorld::build();
    let settings = |more: &[&str]| {
        let model = format!("model.path={}", world.untrained_model().display());
        let more: Vec<&str> = [model.as_str()].iter().chain(more).copied().collect();
        world.settings("http://127.0.0.1:9/retrieve", "run", &more)
    };
    let (code, out, errors) = lint(&settings(&["rollout.max_prompt_tokens=100000"]));
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    assert!(errors.contains("`rollout.max_prompt_tokens` = 100000 leaves no space"), "{errors}");
    let (code, _, errors) = lint(&settings(&["rollout.max_context_tokens=64"]));
    assert_eq!(code, EXIT_USAGE);
    assert!(errors.contains("`rollout.max_context_tokens` = 64 leaves no space"), "{errors}");

    let (code, out, errors) = lint(&settings(&["training.warmup_updates=50", "rollout.top_p=0.9"]));
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    assert!(
        out.contains("`training.warmup_updates` = 50 is longer than the run, 3 updates"),
        "{out}"
    );
    assert!(out.contains("`rollout.top_p` = 0.9"), "{out}");

    let (code, out, _) = lint(&settings(&["model.path=\"no/such\""]));
    assert_eq!(code, EXIT_SUCCESS);
    assert!(
        out.contains("memory      not known: model.path = no/such is a name on the hub"),
        "{out}"
    );
}

#[test]
fn lint_asks_the_retriever_and_says_what_came_back() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    for end in ["", "/", "/retrieve", "/retrieve/"] {
        let url = format!("{}{end}", retriever.url());
        let (code, out, errors) = lint(&world.settings(&url, "run", &[]));
        assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""), "{url}");
        let shown = format!("retriever   {}/retrieve: 2 passages in ", retriever.url());
        assert!(out.contains(&shown) && out.contains("for the question "), "{out}");
    }
    let wrong = format!("{}/wrong", retriever.url());
    let (code, _, errors) = lint(&world.settings(&wrong, "run", &[]));
    assert_eq!(code, EXIT_USAGE);
    assert!(errors.contains("`retriever.url`") && errors.contains("status 404"), "{errors}");
    let (code, out, _) = lint(&world.settings("http://127.0.0.1:9/retrieve", "run", &[]));
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("no answer from the retriever at http://127.0.0.1:9/retrieve"), "{out}");
}

#[test]
fn retrievers_of_one_index_are_accepted_and_a_mix_is_refused() {
    let world = TinyWorld::build();
    let corpus = IndexedCorpus::build();
    let [first, second] = [0, 0].map(|_| RetrieverHandle::start(&world.index()));
    world.warm_start(&first);
    let list = format!("{},{}/", first.url(), second.url());
    let (code, out, errors) = lint(&world.settings(&list, "run", &[]));
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    for retriever in [&first, &second] {
        assert!(out.contains(&format!("{}/retrieve: 2 passages in ", retriever.url())), "{out}");
    }

    let other_index = RetrieverHandle::start(&corpus.index());
    let other_k1 = RetrieverHandle::start_with(&world.index(), 0, &[("RETRIEVER_BM25_K1", "1.2")]);
    for (other, key) in [(&other_index, "index_digest"), (&other_k1, "k1")] {
        let list = format!("{}, {}", first.url(), other.url());
        let parts = [
            "`retriever.url` = ".to_owned(),
            format!("is a mix: {}/retrieve has the {key} ", other.url()),
            format!(", but {}/retrieve has ", first.url()),
        ];
        let settings = world.settings(&list, "run", &[]);
        let (code, _, errors) = lint(&settings);
        assert_eq!(code, EXIT_USAGE);
        let config = Config::load(None, &Environment::new(), &settings).unwrap();
        let refused = format!("{:#}", train(&config, &mut Vec::new()).unwrap_err());
        for part in &parts {
            assert!(errors.contains(part), "{part:?} is not in {errors}");
            assert!(refused.contains(part), "{part:?} is not in {refused}");
        }
    }
}
