//! `trainer audit`, `trainer eval` over several sets, and `trainer compare`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use shared::machine::shutdown::Shutdown;
use trainer::cli::{EXIT_FAILURE, EXIT_SUCCESS, EXIT_USAGE, run_command_line};
use trainer::config::Environment;
use trainer::eval::audit::{AnswerClass, Audit};
use trainer::eval::{EvalResult, Searches, Suite};
use trainer::run::{Named, SuiteOptions, eval_suite_until};
use trainer::stop::StopFlag;

use crate::harness::fake_vllm::FakeVllm;
use crate::harness::retriever::RetrieverHandle;
use crate::harness::tiny_world::TinyWorld;

/// Runs the trainer and returns exit code, standard output and standard error.
fn trainer(arguments: &[String]) -> (u8, String, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let line = std::iter::once("trainer".to_owned()).chain(arguments.iter().cloned());
    let code = run_command_line(line, &Environment::new(), &mut out, &mut errors);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A world with its held-out questions in two sets. The second has one question more, whose answer is nowhere.
struct Sets {
    world: TinyWorld,
    retriever: RetrieverHandle,
}

const FIRST: usize = 8;
const SECOND: usize = 5;

impl Sets {
    fn build() -> Self {
        let world = TinyWorld::build();
        let retriever = RetrieverHandle::start(&world.index());
        world.warm_start(&retriever);
        let text = fs::read_to_string(world.test_questions()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let nowhere = json!({
            "id": "nowhere", "question": "Where does Person99 live?", "golden_answers": ["Atlantis"],
        });
        lines.push(nowhere.to_string());
        fs::write(world.path().join("first.jsonl"), lines[..FIRST].join("\n")).unwrap();
        fs::write(world.path().join("second.jsonl"), lines[FIRST..].join("\n")).unwrap();
        Self { world, retriever }
    }

    fn path(&self, name: &str) -> String {
        self.world.path().join(name).to_str().unwrap().to_owned()
    }

    fn named(&self) -> Vec<String> {
        ["first", "second"]
            .iter()
            .flat_map(|name| {
                [
                    "--questions".to_owned(),
                    format!("{name}={}", self.path(&format!("{name}.jsonl"))),
                ]
            })
            .collect()
    }

    fn audit(&self) -> (u8, String, String) {
        let corpus = self.world.corpus();
        let url = format!("bm25={}", self.retriever.url());
        let mut line = words(&["audit", "--corpus", corpus.to_str().unwrap(), "--retriever", &url]);
        line.extend(words(&["--depth", "20", "--out", &self.path("audit")]));
        line.extend(self.named());
        trainer(&line)
    }

    /// Evaluates both sets in the run `run`.
    fn eval(&self, run: &str, more: &[&str], settings: &[&str]) -> (u8, String, String) {
        let mut line = words(&["eval", "--name", "tiny"]);
        line.extend(self.named());
        line.extend(words(more));
        for setting in self.world.settings(&self.retriever.url(), run, settings) {
            line.extend(["--set".to_owned(), setting]);
        }
        trainer(&line)
    }

    fn folder(&self, run: &str) -> PathBuf {
        self.world.run_dir(run).join("eval/tiny")
    }
}

/// Returns the results in a folder by the names of their files.
fn results(folder: &Path) -> BTreeMap<String, EvalResult> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| {
            path.extension().is_some_and(|it| it == "json") && !path.ends_with("summary.json")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, EvalResult::load(&path).unwrap())
        })
        .collect()
}

fn suite(folder: &Path) -> Suite {
    serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap()
}

#[track_caller]
fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
}

#[test]
fn an_audit_classifies_every_question_and_weighs_it() {
    let sets = Sets::build();
    let (code, out, errors) = sets.audit();
    assert_eq!(code, EXIT_SUCCESS, "{errors}");
    let printed: Vec<&str> = out.split_whitespace().collect();
    assert!(printed.join(" ").contains("second 5 1 (0.200) 0 (0.000) 4 (0.800) 0.800"), "{out}");
    let audit = Audit::load(&sets.world.path().join("audit/audit.json")).unwrap();
    assert_eq!(audit.corpus.passages, 48);
    let rows: Vec<_> = audit.sets.iter().flat_map(|set| &set.rows).collect();
    assert_eq!(rows.len(), FIRST + SECOND);
    for row in rows {
        // Each person's passage is found by the name, and every third person lives in the same town.
        let expected = if row.id == "nowhere" {
            (AnswerClass::Absent, 0, None)
        } else {
            (AnswerClass::Within, 16, Some(1))
        };
        assert_eq!((row.class, row.passages, row.ranks[0]), expected, "{row:?}");
    }
    let weights = fs::read_to_string(sets.path("audit/second.weights.jsonl")).unwrap();
    let weights: Vec<Value> =
        weights.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(weights.len(), SECOND);
    assert_eq!(weights[SECOND - 1], json!({"id": "nowhere", "weight": 0.0}));
    assert!(weights[..SECOND - 1].iter().all(|line| line["weight"] == 1.0), "{weights:?}");

    // A retriever that is away is named before the corpus is read, and nothing is written.
    let missing = words(&[
        "audit",
        "--corpus",
        "nowhere.jsonl",
        "--retriever",
        "gone=http://127.0.0.1:9",
        "--set",
        "retriever.deadline_ms=50",
        "--out",
        &sets.path("other"),
    ]);
    let (code, _, errors) = trainer(&[missing, sets.named()].concat());
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("gone: no answer to \"Where does Person"), "{errors}");
    assert!(!sets.world.path().join("other").exists());
    let (code, _, errors) = trainer(&words(&["audit"]));
    assert_eq!(code, EXIT_USAGE);
    assert!(errors.contains("needs `data.corpus`"), "{errors}");
}

#[test]
fn sets_turns_and_baselines_are_one_table_that_follows_from_the_rows() {
    let sets = Sets::build();
    assert_eq!(sets.audit().0, EXIT_SUCCESS);
    let untrained = sets.world.untrained_model();
    let audit = sets.path("audit/audit.json");
    let arguments = [
        "--turns",
        "1,2",
        "--baselines",
        "direct,cot,rag,untrained",
        "--untrained",
        untrained.to_str().unwrap(),
        "--audit",
        &audit,
    ];
    let (code, out, errors) = sets.eval("suite", &arguments, &[]);
    assert_eq!(code, EXIT_SUCCESS, "{errors}");
    let folder = sets.folder("suite");
    let (rows, table) = (results(&folder), suite(&folder));
    // Two sets: two turn limits of two models, and three baselines.
    assert_eq!((rows.len(), table.rows.len(), table.averages.len()), (14, 14, 7));
    for average in &table.averages {
        let parts: Vec<&EvalResult> = rows
            .values()
            .filter(|result| {
                result.name == average.entry && result.max_turns == Some(average.max_turns)
            })
            .collect();
        assert_eq!(parts.len(), 2, "{}", average.entry);
        let right = |result: &EvalResult| {
            let of_row = |row: &&trainer::eval::EvalRow| {
                let answer = row.prediction.as_deref().unwrap_or_default().trim().to_lowercase();
                answer == row.golden_answers[0].to_lowercase()
            };
            result.rows.iter().filter(of_row).count() as f64
        };
        let shares = parts.iter().map(|result| right(result) / result.rows.len() as f64);
        close(average.macro_average.em.value, shares.sum::<f64>() / 2.0);
        let all = parts.iter().map(|result| right(result)).sum::<f64>();
        close(average.micro_average.em.value, all / (FIRST + SECOND) as f64);
    }
    let ceilings: Vec<f64> = table.rows.iter().map(|row| row.ceiling.unwrap().value).collect();
    assert!(ceilings.chunks(2).all(|pair| pair == [1.0, 0.8]), "{ceilings:?}");
    for row in &table.rows {
        match row.entry.as_str() {
            "direct" | "chain of thought" => {
                close(row.searches + row.answer_in_passages.value, 0.0);
            }
            "one-shot RAG" => {
                close(row.searches, 1.0);
                close(row.answer_in_passages.value, if row.set == "first" { 1.0 } else { 0.8 });
            }
            _ => assert!(row.searches <= row.max_turns as f64, "{row:?}"),
        }
    }
    // The trained model searches and is better than before its training.
    let em = |entry: &str| {
        let of = |average: &&trainer::eval::SuiteAverage| {
            average.entry == entry && average.max_turns == 2
        };
        table.averages.iter().find(of).unwrap().macro_average.em.value
    };
    assert!(em("tiny") > em("untrained, searching"), "{out}");
    let page = fs::read_to_string(folder.join("summary.html")).unwrap();
    assert!(page.contains("<td>one-shot RAG<td>second") && out.contains("one-shot RAG"), "{out}");

    compare_with_itself_and_with_the_untrained(&sets, &folder);
}

fn compare_with_itself_and_with_the_untrained(sets: &Sets, folder: &Path) {
    let file = |entry: &str| folder.join(format!("{entry}.first.turns-2.json"));
    let json = sets.path("compared.json");
    let before = file("untrained--searching");
    let mut line = words(&["compare", before.to_str().unwrap(), file("tiny").to_str().unwrap()]);
    line.extend(words(&["--seed", "4", "--json", &json]));
    let (code, out, errors) = trainer(&line);
    assert_eq!(code, EXIT_SUCCESS, "{errors}");
    assert!(out.contains("became right: q") && out.contains("live?"), "{out}");
    let compared: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let compared = &compared["compared"][0];
    let right = |path: &Path| {
        EvalResult::load(path).unwrap().rows.iter().filter(|row| row.em).count() as f64
    };
    let (old, new) = (right(&before), right(&file("tiny")));
    close(compared["em"]["difference"].as_f64().unwrap(), (new - old) / FIRST as f64);
    let count = |name: &str| compared[name].as_array().unwrap().len() as f64;
    close(count("gained") - count("lost"), new - old);
    assert_eq!(trainer(&line).1, out, "the bootstrap has a seed");

    let folder = folder.to_str().unwrap();
    let (code, out, _) = trainer(&words(&["compare", folder, folder]));
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("macro EM") && out.contains("+0.000 (+0.000 to +0.000)"), "{out}");
    let (code, _, errors) = trainer(&words(&["compare", folder, &sets.path("audit")]));
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("no evaluation of the same questions"), "{errors}");
}

#[test]
fn finished_sets_are_kept_and_a_second_evaluation_gives_the_same_answers() {
    let sets = Sets::build();
    let url = sets.retriever.url();
    let options = SuiteOptions {
        name: "tiny".to_owned(),
        sets: ["first", "second"]
            .map(|name| Named {
                name: name.to_owned(),
                value: sets.path(&format!("{name}.jsonl")).into(),
            })
            .into(),
        turns: vec![1, 2],
        baselines: Vec::new(),
        untrained: None,
        searches: Searches::Retriever,
    };
    let whole = sets.world.config(&url, "whole", &[]);
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let counting = StopFlag::asking(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        None
    });
    eval_suite_until(&whole, &options, &counting, &mut Vec::new()).unwrap();
    let answers = |run: &str| -> Vec<(String, Vec<Option<String>>)> {
        let of = |result: EvalResult| result.rows.into_iter().map(|row| row.prediction).collect();
        results(&sets.folder(run)).into_iter().map(|(name, result)| (name, of(result))).collect()
    };
    let expected = answers("whole");
    assert!(expected[0].1.iter().flatten().count() > FIRST / 2, "{expected:?}");

    // Stopped in the second half, the evaluation keeps the first sets; the same call goes on with the others.
    let left = AtomicUsize::new(looks.load(Ordering::Relaxed) * 3 / 4);
    let stopping = StopFlag::asking(move || {
        let looked =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        looked.is_err().then_some(Shutdown::Terminate)
    });
    let again = sets.world.config(&url, "again", &[]);
    let mut out = Vec::new();
    eval_suite_until(&again, &options, &stopping, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "tiny: stopped, run the same command to go on: finished sets are kept\n"
    );
    let kept = results(&sets.folder("again"));
    assert!((1..4).contains(&kept.len()), "{:?}", kept.keys());
    eval_suite_until(&again, &options, &StopFlag::never(), &mut Vec::new()).unwrap();
    assert_eq!(answers("again"), expected);
    let finished = results(&sets.folder("again"));
    for (name, result) in &kept {
        // A set that was asked again would have taken another time.
        assert_eq!(finished[name].seconds.to_bits(), result.seconds.to_bits(), "{name}");
    }
    // Another configuration asks again.
    let shorter = sets.world.config(&url, "again", &["rollout.max_response_tokens=2"]);
    eval_suite_until(&shorter, &options, &StopFlag::never(), &mut Vec::new()).unwrap();
    assert_ne!(answers("again"), expected);
}

#[test]
fn an_external_engine_gives_the_answers_of_the_built_in_one() {
    let sets = Sets::build();
    assert_eq!(sets.eval("built-in", &["--turns", "2"], &[]).0, EXIT_SUCCESS);
    let engine = FakeVllm::start(&sets.world.untrained_model(), None);
    let urls = format!("engine.urls={}", engine.url);
    let (code, _, errors) = sets.eval("external", &["--turns", "2"], &["engine.kind=vllm", &urls]);
    assert_eq!(code, EXIT_SUCCESS, "{errors}");
    assert!(engine.turns() > FIRST, "{} turns", engine.turns());
    let answers = |run: &str| -> Vec<Vec<Option<String>>> {
        let of = |result: EvalResult| result.rows.into_iter().map(|row| row.prediction).collect();
        results(&sets.folder(run)).into_values().map(of).collect()
    };
    assert_eq!(answers("external"), answers("built-in"));
}

#[test]
fn wrong_sets_are_named_before_a_model_is_loaded() {
    let sets = Sets::build();
    let many: Vec<String> = (0..126)
        .map(|n| json!({"question": format!("q{n}?"), "golden_answers": ["x"]}).to_string())
        .collect();
    let path = sets.path("many.jsonl");
    fs::write(&path, many.join("\n")).unwrap();
    let bamboogle = format!("bamboogle={path}");
    let (code, _, errors) = sets.eval("run", &["--questions", &bamboogle], &["model.path=nowhere"]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("\"bamboogle\" has 126 questions, Bamboogle has 125"), "{errors}");
    assert_eq!(sets.audit().0, EXIT_SUCCESS);
    let (more, audit) = (format!("more={path}"), sets.path("audit/audit.json"));
    let (code, _, errors) = sets.eval("run", &["--questions", &more, "--audit", &audit], &[]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("more: the audit has no row for 126 of 126 questions"), "{errors}");
    let (code, _, errors) = sets.eval("run", &["--baselines", "untrained"], &[]);
    assert_eq!(code, EXIT_USAGE);
    assert!(errors.contains("--untrained"), "{errors}");
}
