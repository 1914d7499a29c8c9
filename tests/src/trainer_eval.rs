//! `trainer eval`: every question is asked once, with passages of the chosen source.

use trainer::cli::{EXIT_SUCCESS, EXIT_USAGE, run_command_line};
use trainer::config::Environment;
use trainer::eval::EvalResult;
use trainer::rollout::trajectory::Trajectory;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::check_searches;
use crate::harness::tiny_world::{TEST_QUESTIONS, TinyWorld};

/// Runs `trainer eval`, which writes its result to `OUT.json`. Returns exit code and standard error.
fn eval(
    world: &TinyWorld,
    url: &str,
    out: &str,
    arguments: &[&str],
    sets: &[&str],
) -> (u8, String) {
    let path = world.path().join(format!("{out}.json"));
    let mut line = vec!["trainer".to_owned(), "eval".to_owned()];
    line.extend(["--out".to_owned(), path.to_str().unwrap().to_owned()]);
    line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    for setting in world.settings(url, "eval", sets) {
        line.extend(["--set".to_owned(), setting]);
    }
    let mut errors = Vec::new();
    let code = run_command_line(line, &Environment::new(), &mut Vec::new(), &mut errors);
    (code, String::from_utf8(errors).unwrap())
}

fn result(world: &TinyWorld, out: &str) -> EvalResult {
    EvalResult::load(&world.path().join(format!("{out}.json"))).unwrap()
}

fn episodes(result: &EvalResult) -> Vec<Trajectory> {
    result.rows.iter().map(|row| row.trajectory.clone().unwrap()).collect()
}

#[test]
fn every_question_is_asked_once_in_order_and_greedily() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let url = retriever.url();
    // Also with batches smaller than the number of questions, and not in lock step.
    let variants: [(&str, &[&str]); 4] = [
        ("first", &[]),
        ("again", &[]),
        ("narrow", &["eval.batch=5", "seed=77"]),
        ("apart", &["deterministic=false", "eval.batch=7"]),
    ];
    for (out, sets) in variants {
        let (code, errors) = eval(&world, &url, out, &[], sets);
        assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    }
    let first = result(&world, "first");
    let ids: Vec<&str> = first.rows.iter().map(|row| row.example_id.as_str()).collect();
    let expected: Vec<String> = (36..36 + TEST_QUESTIONS).map(|n| format!("q{n}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(first.questions, TEST_QUESTIONS);
    let predictions = |out: &str| -> Vec<Option<String>> {
        result(&world, out).rows.into_iter().map(|row| row.prediction).collect()
    };
    let answers = predictions("first");
    assert!(answers.iter().flatten().count() > TEST_QUESTIONS / 2, "{answers:?}");
    for other in ["again", "narrow", "apart"] {
        assert_eq!(predictions(other), answers, "{other}");
    }
    let token_ids = |out: &str| -> Vec<Vec<u32>> {
        episodes(&result(&world, out)).iter().map(Trajectory::token_ids).collect()
    };
    assert_eq!(token_ids("again"), token_ids("first"));
    assert!(check_searches(&episodes(&first), &url, 2) > TEST_QUESTIONS / 2);
}

#[test]
fn passages_come_from_the_retriever_at_random_or_not_at_all() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let url = retriever.url();
    let corpus = format!("data.corpus={}", world.corpus().display());
    for searches in ["retriever", "random", "none"] {
        let arguments = ["--searches", searches];
        let (code, errors) = eval(&world, &url, searches, &arguments, &[&corpus]);
        assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""), "{searches}");
    }
    let passage_ids = |out: &str| -> Vec<Vec<String>> {
        let episodes = episodes(&result(&world, out)).into_iter();
        let searches = episodes.flat_map(|episode| episode.searches);
        searches.map(|search| search.passage_ids).collect()
    };
    let [retrieved, random, nothing] = ["retriever", "random", "none"].map(passage_ids);
    assert!(!retrieved.is_empty() && !random.is_empty() && !nothing.is_empty());
    assert!(random.iter().all(|ids| ids.len() == 2), "{random:?}");
    assert!(nothing.iter().all(Vec::is_empty), "{nothing:?}");
    assert_ne!(retrieved, random);

    let (code, errors) = eval(&world, &url, "without", &["--searches", "random"], &[]);
    assert_eq!(code, EXIT_USAGE);
    assert!(errors.contains("`data.corpus`"), "{errors}");
}

#[test]
fn an_evaluation_without_its_retriever_fails_with_the_reason() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let url = retriever.url();
    retriever.stop();
    let sets = ["retriever.attempt_timeout_ms=300", "retriever.deadline_ms=300"];
    let (code, errors) = eval(&world, &url, "none", &[], &sets);
    assert_eq!(code, trainer::cli::EXIT_FAILURE);
    assert!(
        errors.contains("searches failed") && errors.contains("no answer from the retriever"),
        "{errors}"
    );
    assert!(!world.path().join("none.json").exists(), "a partial result was written");
}
