//! `retriever-server bench` against a running server: its counts, its output and its refusals.

use std::fs;
use std::path::Path;

use retriever_server::cli::{EXIT_FAILURE, EXIT_SUCCESS, EXIT_USAGE};
use serde_json::{Value, json};

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::program::run;
use crate::harness::retriever::RetrieverHandle;

/// Runs `bench`; returns exit code, output and error.
fn bench(arguments: &[&str]) -> (u8, String, String) {
    run(&[&["bench"], arguments].concat())
}

/// Writes eight queries: seven for towns and one without results.
fn write_queries(folder: &Path) -> String {
    let query = |town| match town {
        7 => json!({"_id": "q7", "text": "zzz"}).to_string(),
        _ => json!({"id": format!("q{town}"), "question": format!("town{town}")}).to_string(),
    };
    let path = folder.join("queries.jsonl");
    fs::write(&path, (0..8).map(query).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn both_loops_count_every_request_of_a_real_server() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let queries = write_queries(corpus.folder());
    let json = corpus.folder().join("bench.json");
    let url = retriever.url();
    let common = ["--url", &url, "--queries", &queries, "--json", json.to_str().unwrap()];
    let closed = ["--clients", "3", "--batch", "4", "--requests", "10", "--warm-up", "2"];
    let (code, out, err) = bench(&[&common[..], &closed].concat());
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
    for part in ["closed loop, 3 clients", "queries per second", "latency, p99 ms"] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    let measured = read_json(&json);
    // Two requests cover the eight queries once; one of the queries finds nothing.
    let counts = ["requests", "requests_answered", "queries", "queries_without_passages"];
    assert_eq!(counts.map(|name| measured[name].as_u64().unwrap()), [10, 10, 40, 5]);
    assert_eq!(measured["failures"], json!({}));
    assert_eq!(measured["server"]["passage_count"], PASSAGE_COUNT);
    let latency = ["p50", "p90", "p99", "max"];
    let latency = latency.map(|name| measured["latency_ms"][name].as_f64().unwrap());
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
    assert!(measured["queries_per_s"].as_f64().unwrap() > 0.0);

    let open = ["--rate", "2000", "--requests", "30", "--seed", "5", "--warm-up", "0"];
    let (code, out, err) = bench(&[&common[..], &open].concat());
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
    assert!(out.contains("open loop, 2000 queries/s, seed 5"), "{out}");
    let measured = read_json(&json);
    assert_eq!(counts.map(|name| measured[name].as_u64().unwrap()), [30, 30, 30, 3]);
    assert_eq!(measured["setting"]["rate_queries_per_s"], 2000.0);
}

#[test]
fn refused_requests_are_failures_and_not_fast_answers() {
    let corpus = IndexedCorpus::build();
    // This server never accepts a request of two queries.
    let limits = [("RETRIEVER_MAX_BATCH_QUERIES", "1"), ("RETRIEVER_MAX_QUEUED_QUERIES", "1")];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &limits);
    let queries = write_queries(corpus.folder());
    let json = corpus.folder().join("bench.json");
    let url = retriever.url();
    let arguments = ["--url", &url, "--queries", &queries, "--batch", "2", "--requests", "6"];
    let written = ["--json", json.to_str().unwrap(), "--warm-up", "0"];
    let (code, out, _) = bench(&[&arguments[..], &written].concat());
    assert_eq!(code, EXIT_FAILURE, "{out}");
    let measured = read_json(&json);
    assert_eq!(measured["requests_answered"], json!(0));
    assert_eq!(measured["queries_per_s"], json!(0.0));
    assert_eq!((&measured["latency_ms"], &measured["requests"]), (&Value::Null, &json!(6)));
    let failures = measured["failures"].as_object().unwrap();
    assert_eq!(failures.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 6);
    assert!(failures.keys().all(|kind| kind.starts_with("status ")), "{failures:?}");

    // With a warm-up, the command fails before the measurement.
    let (code, out, err) = bench(&arguments);
    assert_eq!((code, out.as_str()), (EXIT_FAILURE, ""));
    assert!(err.contains("was answered: status "), "{err}");
}

#[test]
fn invalid_arguments_are_refused_with_the_accepted_values() {
    let folder = tempfile::tempdir().unwrap();
    let queries = write_queries(folder.path());
    for (arguments, expected) in [
        (vec!["--queries", "/nowhere"], "--queries: /nowhere: cannot be read"),
        (vec!["--queries", &queries, "--batch", "9"], "--batch is 9: expected at most 8, the"),
        (vec!["--queries", &queries, "--url", "ftp://host"], "accepted is http://host:port"),
        (vec!["--queries", &queries, "--clients", "0"], "expected an integer from 1 to 4096"),
        (vec!["--queries", &queries, "--rate", "-1"], "expected a number above 0"),
        (vec!["--queries", &queries, "--rate", "9", "--clients", "2"], "cannot be used with"),
        (vec![], "--queries <FILE>"),
    ] {
        let (code, out, err) = bench(&arguments);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{arguments:?}");
        assert!(err.contains(expected), "{expected:?} is not in {err}");
    }
}
