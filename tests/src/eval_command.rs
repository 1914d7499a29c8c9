//! `retriever-server eval`: figures computed by hand, several back ends, and refused arguments.

use std::fs;
use std::path::PathBuf;

use retriever_server::cli::{EXIT_SUCCESS, EXIT_USAGE};
use serde_json::{Value, json};

use crate::harness::program::{model, onnxruntime, run, text};

/// A folder with a corpus of three passages, queries and judgements.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let passages = [
            json!({"id": "horse", "contents": "The zebra is a striped horse of Africa."}),
            json!({"id": "apple", "contents": "The apple is a fruit."}),
            json!({"id": "a plum", "contents": "The plum is a fruit with a stone."}),
        ];
        world.write("corpus.jsonl", &passages.map(|passage| passage.to_string()).join("\n"));
        let queries = [
            json!({"_id": "q1", "text": "zebra", "answers": ["A striped HORSE!"]}),
            json!({"_id": "q2", "text": "plum", "answers": ["an answer that is nowhere"]}),
            json!({"_id": "q3", "text": "apple"}),
        ];
        world.write("queries.jsonl", &queries.map(|query| query.to_string()).join("\n"));
        // One relevant passage of q1 is not in the index. BM25 does not find that of q2. q3 has no relevant
        // passage. q9 is not in the query file.
        world.write(
            "qrels.tsv",
            "query-id\tcorpus-id\tscore\nq1\thorse\t2\nq1\tgone\t1\nq2\tapple\t1\nq3\ta plum\t0\n\
             q9\thorse\t1\n",
        );
        world
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn index(&self, more: &[&str]) -> (u8, String, String) {
        let (corpus, index) = (self.text("corpus.jsonl"), self.text("index"));
        run(&[&["index", "--corpus", &corpus, "--index", &index][..], more].concat())
    }

    fn eval(&self, more: &[&str]) -> (u8, String, String) {
        let (queries, index) = (self.text("queries.jsonl"), self.text("index"));
        run(&[&["eval", "--queries", &queries, "--index", &index][..], more].concat())
    }

    fn figures(&self, more: &[&str]) -> (Value, String) {
        let (qrels, json) = (self.text("qrels.tsv"), self.text("eval.json"));
        let files = ["--qrels", &qrels, "--json", &json];
        let (code, out, err) = self.eval(&[&files[..], more].concat());
        assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
        (serde_json::from_slice(&fs::read(json).unwrap()).unwrap(), out)
    }
}

#[track_caller]
fn expect_score(backend: &Value, name: &str, mean: f64, queries: u64) {
    let score = &backend["scores"][name];
    let computed = score["mean"].as_f64().unwrap();
    assert!((computed - mean).abs() < 1e-9, "{name} is {computed}, expected {mean}");
    assert_eq!(score["queries"].as_u64().unwrap(), queries, "{name}");
}

#[test]
fn figures_equal_those_computed_by_hand_and_omissions_are_reported() {
    let world = World::new();
    assert_eq!(world.index(&[]).0, EXIT_SUCCESS);
    let (figures, out) = world.figures(&["--cutoffs", "3,100"]);
    let bm25 = &figures["backends"][0];
    assert_eq!(bm25["backend"], "bm25");
    // The first query finds its passage of grade 2 but cannot find that of grade 1.
    expect_score(bm25, "nDCG@10", 2.0 / (2.0 + 1.0 / 3_f64.log2()) / 2.0, 2);
    expect_score(bm25, "MRR@10", 0.5, 2);
    expect_score(bm25, "recall@3", 0.25, 2);
    expect_score(bm25, "recall@100", 0.25, 2);
    expect_score(bm25, "answer@3", 0.5, 2);
    let coverage = json!({
        "queries": 3, "queries_with_relevant_passages": 2, "queries_with_answers": 2,
        "judged_queries_not_asked": 1, "judged_passages": 4, "judged_passages_not_in_index": 1,
    });
    assert_eq!(figures["coverage"], coverage);
    for line in [
        "3 queries, 2 with relevant passages, 2 with answers\n",
        "judged queries that are not in the query file, ignored: 1\n",
        "judged passages that are not in the index: 1 of 4\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
}

#[test]
fn back_ends_of_one_index_are_compared_in_one_table() {
    let world = World::new();
    let (model, library) = (model(), onnxruntime());
    let encoder = ["--model", text(&model), "--onnxruntime", text(&library), "--device", "cpu"];
    // One command builds the parts for both back ends.
    let (code, out, err) = world.index(&[&encoder[..], &["--backend", "bm25,dense"]].concat());
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.contains("indexed 3 passages") && out.contains("encoded 3 passages"), "{out}");
    let (figures, out) =
        world.figures(&[&encoder[..], &["--backends", "bm25,dense,hybrid"]].concat());
    let backends = figures["backends"].as_array().unwrap();
    let names: Vec<&Value> = backends.iter().map(|backend| &backend["backend"]).collect();
    assert_eq!(names, ["bm25", "dense", "hybrid"]);
    assert!(out.contains("bm25             dense            hybrid\n"), "{out}");
    // The dense back end ranks all three passages.
    expect_score(&backends[1], "recall@3", 0.75, 2);
    expect_score(&backends[1], "answer@3", 0.5, 2);
    assert!(backends.iter().all(|backend| backend["ms_per_query"].as_f64().unwrap() > 0.0));
}

#[test]
fn gold_passages_of_the_query_file_are_judgements() {
    let world = World::new();
    assert_eq!(world.index(&[]).0, EXIT_SUCCESS);
    let query = json!({"id": "q", "question": "zebra", "gold_ids": ["apple", "horse"]});
    world.write("queries.jsonl", &query.to_string());
    let (code, out, _) = world.eval(&["--cutoffs", "10"]);
    assert_eq!(code, EXIT_SUCCESS);
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(words.windows(3).any(|words| words == ["recall@10", "0.5000", "ms"]), "{out}");
    assert!(!out.contains("answer@"), "{out}");
}

#[test]
fn invalid_inputs_are_refused_with_the_accepted_values() {
    let world = World::new();
    assert_eq!(world.index(&[]).0, EXIT_SUCCESS);
    world.write("broken.tsv", "q1 0 horse\n");
    world.write("plain.jsonl", "{\"question\": \"zebra\"}");
    let (broken, plain) = (world.text("broken.tsv"), world.text("plain.jsonl"));
    for (arguments, expected) in [
        (vec!["--qrels", "/nowhere"], "--qrels: /nowhere: cannot be read"),
        (vec!["--qrels", &broken], "broken.tsv:1: has 3 columns, expected `query 0 passage grade`"),
        (vec!["--cutoffs", "3,500"], "--cutoffs has 500: expected at most 100, which is --top-k"),
        (vec!["--top-k", "9"], "expected an integer from 10 to 100000"),
        (
            vec!["--backends", "bm25,none"],
            "--backends has \"none\": expected bm25, dense, ann, hybrid, web, or an engine",
        ),
        (vec!["--backends", "bm25,dense"], "RETRIEVER_MODEL (--model) is not set"),
    ] {
        let (code, out, err) = world.eval(&arguments);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{arguments:?}");
        assert!(err.contains(expected), "{expected:?} is not in {err}");
    }
    let index = world.text("index");
    let (code, _, err) = run(&["eval", "--queries", &plain, "--index", &index]);
    assert!(code == EXIT_USAGE && err.contains("no query has answers or judged passages"), "{err}");
    for arguments in [["--cutoffs", "x"], ["--batch", "many"], ["--top-k", "1e3"]] {
        let (code, _, err) = world.eval(&arguments);
        assert!(code == EXIT_USAGE && err.contains("expected an integer from "), "{err}");
    }
    // A long query is cut, as a server would.
    assert_eq!(world.eval(&["--max-query-bytes", "4"]).0, EXIT_SUCCESS);
}

#[test]
fn files_are_used_in_the_forms_in_which_people_keep_them() {
    let world = World::new();
    // Both begin with a byte order mark, as Windows tools save them; no passage has contents of its own.
    let passages = "\u{feff}{\"id\": \"a\", \"title\": \"Lima\", \"text\": \"Lima is the capital of Peru.\"}\r\n\
                    {\"_id\": \"b\", \"title\": \"Quito\", \"text\": \"Quito is the capital of Ecuador.\", \
                    \"metadata\": {\"score\": NaN}}\r\n";
    world.write("corpus.jsonl", passages);
    world.write(
        "queries.jsonl",
        "\u{feff}{\"id\": \"1\", \"question\": \"capital of Peru\", \"golden_answers\": [\"Lima\"]}\r\n",
    );
    let (corpus, index) = (world.text("corpus.jsonl"), world.text("index"));
    let named = ["--corpus", &*corpus, "--index", &*index];
    let before = run(&[&["check"], &named[..]].concat());
    assert_eq!((before.0, before.2.as_str()), (EXIT_SUCCESS, ""), "{before:?}");
    let planned = run(&[&["plan"], &named[..]].concat());
    assert!(planned.1.contains("2 passages"), "{planned:?}");
    let (code, _, err) = world.index(&[]);
    assert_eq!(code, EXIT_SUCCESS, "{err}");
    let after = run(&[&["check"], &named[..]].concat());
    assert_eq!(after.0, EXIT_SUCCESS, "{after:?}");
    let (code, out, err) = world.eval(&["--cutoffs", "1"]);
    assert_eq!(code, EXIT_SUCCESS, "{err}");
    let line = out.lines().find(|line| line.starts_with("answer@1")).unwrap();
    assert!(line.contains("1.0000"), "{out}");
    // `check` finds what `index` and `serve` find.
    world.write("corpus.jsonl", "print(\"no corpus\")\n");
    let new = world.text("new");
    for command in ["check", "index"] {
        let (code, out, err) = run(&[command, "--corpus", &corpus, "--index", &new]);
        assert_eq!(code, EXIT_USAGE, "{command}: {out}");
        assert!(err.contains("corpus.jsonl: is a Python script, expected rows"), "{err}");
    }
}
