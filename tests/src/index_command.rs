//! Exit codes and messages of the retriever's command line.

use std::fs;
use std::net::TcpListener;

use retriever_server::cli::{EXIT_FAILURE, EXIT_SUCCESS, EXIT_USAGE};

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::program::{run, text};

#[test]
fn a_corpus_is_indexed_once_and_then_up_to_date() {
    let corpus = IndexedCorpus::build();
    let (input, index) = (corpus.corpus(), corpus.folder().join("by-command"));
    let arguments = ["index", "--corpus", text(&input), "--index", text(&index)];
    let (code, out, err) = run(&arguments);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.starts_with(&format!("indexed {PASSAGE_COUNT} passages, ")), "{out}");
    let (code, out, _) = run(&arguments);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.starts_with(&format!("up to date, {PASSAGE_COUNT} passages")), "{out}");
    let manifest = fs::read_to_string(index.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["passage_count"], PASSAGE_COUNT);
    assert_eq!(manifest["corpus"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn compact_compresses_the_passages_of_an_existing_index() {
    let corpus = IndexedCorpus::build();
    let (input, index) = (corpus.corpus(), corpus.index());
    let arguments = ["index", "--corpus", text(&input), "--index", text(&index), "--compact"];
    let (code, out, err) = run(&arguments);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.starts_with(&format!("compressed {PASSAGE_COUNT} passages in ")), "{out}");
    assert!(index.join("passages.zst").exists() && !index.join("passages.jsonl").exists());
    let (code, out, _) = run(&["check", "--index", text(&index), "--corpus", text(&input)]);
    assert!(code == EXIT_SUCCESS && out.contains("has 40 passages"), "{out}");
    let (_, out, _) = run(&arguments);
    assert!(out.starts_with(&format!("up to date, {PASSAGE_COUNT} passages")), "{out}");
}

/// What is done to an index that is there needs its passages, which it has, and not the corpus.
#[test]
fn an_existing_index_needs_no_corpus() {
    let corpus = IndexedCorpus::build();
    fs::remove_file(corpus.corpus()).unwrap();
    let index = corpus.index();
    let (code, out, err) = run(&["index", "--compact", "--index", text(&index)]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.starts_with(&format!("compressed {PASSAGE_COUNT} passages in ")), "{out}");
    let (code, out, _) = run(&["index", "--index", text(&index)]);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.starts_with(&format!("up to date, {PASSAGE_COUNT} passages")), "{out}");
    let new = corpus.folder().join("new");
    for arguments in [
        vec!["index", "--compact", "--index", text(&new)],
        vec!["index", "--index", text(&index), "--force"],
    ] {
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{arguments:?}");
        assert!(err.contains("RETRIEVER_CORPUS (--corpus) is not set"), "{err}");
    }
    assert!(!new.exists());
    fs::remove_file(index.join("passages.offsets")).unwrap();
    let (code, _, err) = run(&["index", "--index", text(&index)]);
    assert!(code == EXIT_FAILURE && err.contains("passages.offsets"), "{err}");
}

#[test]
fn bad_corpus_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let good = br#"{"id":"1","contents":"fine"}"#;
    let cases: [(&[u8], &str); 5] = [
        (br#"{"id":"2","title":"no contents"}"#, "corpus.jsonl:2: contents is missing"),
        (br#"{"id":"2","contents":5}"#, "corpus.jsonl:2: contents is a number, expected a string"),
        (br#"{"id":"2","contents":"#, "corpus.jsonl:2: is not JSON: EOF"),
        (b"{\"id\":\"2\",\"contents\":\"\xff\"}", "corpus.jsonl:2: invalid UTF-8 at byte 22"),
        (br#"{"id":"1","contents":"again"}"#, "corpus.jsonl:2: id \"1\" was used before"),
    ];
    for (bad, expected) in cases {
        let corpus = folder.path().join("corpus.jsonl");
        fs::write(&corpus, [good, bad].join(&b'\n')).unwrap();
        let (code, out, err) = run(&["index", "--corpus", text(&corpus), "--index", text(&index)]);
        assert_eq!((code, out.as_str()), (EXIT_FAILURE, ""));
        assert!(err.contains(expected), "{err}");
        assert!(!index.try_exists().unwrap());
    }
}

#[test]
fn bad_configuration_is_exit_code_64_with_every_variable() {
    let (code, _, err) =
        run(&["serve", "--index", "x", "--top-k", "-1", "--bm25-b", "2", "--deadline-ms", "soon"]);
    assert_eq!(code, EXIT_USAGE);
    for line in [
        "RETRIEVER_TOP_K (--top-k) is \"-1\": expected an integer from 1 to 16777216",
        "RETRIEVER_BM25_B (--bm25-b) is \"2\": expected a number from 0 to 1",
        "RETRIEVER_DEADLINE_MS (--deadline-ms) is \"soon\": expected an integer from 1 to 86400000",
    ] {
        assert!(err.contains(line), "{err}");
    }
    assert_eq!(run(&["serve", "--topk", "3"]).0, EXIT_USAGE);
}

#[test]
fn one_message_names_a_bad_back_end_a_missing_index_and_bad_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("nowhere");
    let arguments = ["serve", "--backend", "e5", "--index", text(&index), "--top-k", "three"];
    let (code, out, err) = run(&[&arguments[..], &["--log", "a=loudly"]].concat());
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    let expected = format!(
        "error: the configuration has bad values\n  \
         RETRIEVER_BACKEND (--backend) is \"e5\": expected bm25, dense, ann, hybrid, web, or an \
         engine: pgvector, qdrant, chroma, milvus, opensearch, elasticsearch or quickwit\n  \
         RETRIEVER_INDEX (--index) is {:?}, but there is no index: expected a folder with an index \
         (or RETRIEVER_CORPUS set, to build one there)\n  \
         RETRIEVER_TOP_K (--top-k) is \"three\": expected an integer from 1 to 16777216\n  \
         RETRIEVER_LOG (--log) is \"a=loudly\": expected a filter such as info or \
         info,retriever_server=debug\n",
        text(&index)
    );
    assert_eq!(err, expected);
}

#[test]
fn check_reports_what_serve_would_do_and_does_nothing() {
    let corpus = IndexedCorpus::build();
    let (input, index, new) = (corpus.corpus(), corpus.index(), corpus.folder().join("new"));
    let (code, out, err) = run(&["check", "--index", text(&index)]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert_eq!(out, format!("ok: bm25, the index {} has 40 passages\n", text(&index)));
    let (code, out, err) = run(&["check", "--index", text(&new), "--corpus", text(&input)]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    let built = format!("the index {} will be built from {}", text(&new), text(&input));
    assert_eq!(out, format!("ok: bm25, {built}\n"));
    assert!(!new.try_exists().unwrap());
}

#[test]
fn check_refuses_what_serve_refuses_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("nowhere");
    for arguments in [
        vec!["--index", text(&index), "--top-k", "0", "--log-format", "xml"],
        vec!["--index", text(folder.path()), "--corpus", "absent.jsonl"],
        vec![],
    ] {
        let [check, serve] =
            ["check", "serve"].map(|command| run(&[&[command], &arguments[..]].concat()));
        assert_eq!(check.0, EXIT_USAGE, "{check:?}");
        assert_eq!(check, serve);
    }
}

#[test]
fn an_index_of_another_corpus_is_exit_code_64_whenever_it_is_detected() {
    let corpus = IndexedCorpus::build();
    let (input, index) = (corpus.corpus(), corpus.index());
    let arguments = ["--index", text(&index), "--corpus", text(&input), "--addr", "127.0.0.1:0"];
    let run = |command: &str| run(&[&[command], &arguments[..]].concat());
    let bytes = fs::read_to_string(&input).unwrap();
    // A corpus of the same size is detected only while loading.
    fs::write(&input, bytes.replace("river", "ocean")).unwrap();
    let (code, _, by_digest) = run("serve");
    assert_eq!(code, EXIT_USAGE, "{by_digest}");
    assert_eq!(run("check"), (EXIT_USAGE, String::new(), by_digest.clone()));
    fs::write(&input, bytes.replace("river", "sea")).unwrap();
    let (code, _, by_size) = run("serve");
    assert_eq!(code, EXIT_USAGE, "{by_size}");
    assert_eq!(run("check"), (EXIT_USAGE, String::new(), by_size.clone()));
    let common = format!(
        "error: the configuration has bad values\n  \
         RETRIEVER_CORPUS (--corpus) is {input:?}, but the index in "
    );
    for (message, difference) in [(by_digest, "SHA-256"), (by_size, "bytes then")] {
        assert!(message.starts_with(&common) && message.contains(difference), "{message}");
    }
}

#[test]
fn a_corpus_that_cannot_be_indexed_is_exit_code_64() {
    let folder = tempfile::tempdir().unwrap();
    let (index, absent) = (folder.path().join("index"), folder.path().join("absent.jsonl"));
    for command in ["index", "serve"] {
        let (code, _, err) = run(&[command, "--index", text(&index), "--corpus", text(&absent)]);
        assert_eq!(code, EXIT_USAGE, "{command}: {err}");
        assert!(err.contains("absent.jsonl cannot be read: No such file"), "{command}: {err}");
        let (code, _, err) =
            run(&[command, "--index", text(folder.path()), "--corpus", text(&absent)]);
        assert_eq!(code, EXIT_USAGE, "{command}: {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_start_that_fails_is_exit_code_1() {
    let corpus = IndexedCorpus::build();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["serve", "--index", text(&corpus.index()), "--addr", &addr]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(err.contains(&format!("cannot listen on {addr}")), "{err}");
    fs::remove_file(corpus.index().join("passages.jsonl")).unwrap();
    let (code, _, err) = run(&["serve", "--index", text(&corpus.index()), "--addr", "127.0.0.1:0"]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(err.contains("passages.jsonl: No such file"), "{err}");
}

#[test]
fn health_without_a_server_is_exit_code_1() {
    // Port 9 is the discard service, which no test machine runs.
    let (code, _, err) = run(&["health", "--url", "http://127.0.0.1:9"]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(err.contains("does not answer"), "{err}");
}

#[test]
fn an_address_that_is_none_is_exit_code_64() {
    for url in ["127.0.0.1:8000", "localhost", "https://localhost", "http://localhost:port", ""] {
        let (code, out, err) = run(&["health", "--url", url]);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{url}");
        assert_eq!(err, format!("error: --url is {url:?}: expected http://host:port\n"));
    }
}

#[test]
fn the_help_names_the_accepted_values() {
    let (code, serve, _) = run(&["serve", "--help"]);
    assert_eq!(code, EXIT_SUCCESS);
    let words = |help: &str| help.split_whitespace().collect::<Vec<_>>().join(" ");
    for accepted in [
        "[accepts: bm25, dense, ann, hybrid, web, or an engine: pgvector, qdrant, chroma, milvus, \
         opensearch, elasticsearch or quickwit] [default: bm25]",
        "[accepts: rrf or weighted] [default: rrf]",
        "[accepts: auto, cpu, cuda or cuda:N] [default: auto]",
        "[accepts: an integer from 1 to 16777216] [default: 3]",
    ] {
        assert!(words(&serve).contains(accepted), "{accepted:?} is not in {serve}");
    }
    let (code, index, _) = run(&["index", "--help"]);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(words(&index).contains("Corpus to index. An index that exists needs none"), "{index}");
    assert!(!index.contains("Corpus to index first"), "{index}");
}
