//! `index --to` and a server over engines that speak the documented protocols, sound and failing. Real engines are
//! in `scripts/check-search-engines`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::fake_engine::{FakeEngine, Fault, Protocol};
use crate::harness::http::{get, post};
use crate::harness::program::{model, onnxruntime, run, text};
use crate::harness::retriever::RetrieverHandle;

const KEY: &str = "hunter2";

/// A folder with a corpus and its index, and an engine.
struct World {
    folder: TempDir,
    engine: FakeEngine,
    name: &'static str,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let name = match protocol {
            Protocol::Qdrant => "qdrant",
            Protocol::Chroma => "chroma",
            Protocol::Elasticsearch => "elasticsearch",
        };
        let folder = tempfile::tempdir().unwrap();
        let passages = [
            json!({"id": "oslo", "contents": "\"Oslo\"\nOslo is the capital of Norway."}),
            json!({"id": "lima", "title": "Lima", "text": "Lima is the capital of Peru.",
                   "contents": "\"Lima\"\nLima is the capital of Peru.", "url": "https://example.org/lima"}),
            json!({"id": "bread", "contents": "\"Bread\"\nBread is baked from flour and water."}),
            json!({"id": "piano", "contents": "\"Piano\"\nA piano has keys and strings."}),
        ];
        let lines: Vec<String> = passages.iter().map(Value::to_string).collect();
        fs::write(folder.path().join("corpus.jsonl"), lines.join("\n")).unwrap();
        Self { folder, engine: FakeEngine::start(protocol), name }
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// Runs `index --to` and returns exit code, output and error.
    fn load(&self, more: &[&str]) -> (u8, String, String) {
        let (corpus, index) = (self.folder.path().join("corpus.jsonl"), self.index());
        let (model, library) = (model(), onnxruntime());
        let place = ["--engine-url", &self.engine.url, "--engine-key", KEY];
        let files = ["--corpus", text(&corpus), "--index", text(&index), "--model", text(&model)];
        let machine = ["--onnxruntime", text(&library), "--device", "cpu", "--threads", "1"];
        run(&[&["index", "--to", self.name][..], &place, &files, &machine, more].concat())
    }

    #[track_caller]
    fn loaded(&self) -> String {
        let (code, out, err) = self.load(&[]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    }

    fn serve(&self) -> Result<RetrieverHandle, String> {
        let (model, library) = (model(), onnxruntime());
        let variables = [
            ("RETRIEVER_BACKEND", self.name),
            ("RETRIEVER_ENGINE_URL", self.engine.url.as_str()),
            ("RETRIEVER_ENGINE_KEY", KEY),
            ("RETRIEVER_MODEL", text(&model)),
            ("RETRIEVER_ONNXRUNTIME", text(&library)),
            ("RETRIEVER_DEVICE", "cpu"),
            ("RETRIEVER_DEADLINE_MS", "3000"),
            ("RETRIEVER_PASSAGE_FIELDS", "full"),
        ];
        let index = self.folder.path().join("no index");
        RetrieverHandle::try_start(&index, 0, &variables).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn served(&self) -> RetrieverHandle {
        self.serve().unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Searches and returns the status and, for each query, the identifiers of its passages.
fn search(server: &RetrieverHandle, queries: &[&str]) -> (u16, Vec<Vec<String>>, Value) {
    let body = json!({"queries": queries, "topk": 2, "return_scores": true});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reply = runtime.block_on(post(&server.url(), &body));
    let ids = |list: &Value| -> Vec<String> {
        let hits = list.as_array().unwrap().iter();
        hits.map(|hit| hit["document"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let lists = reply.body["result"].as_array().map(|lists| lists.iter().map(ids).collect());
    (reply.status, lists.unwrap_or_default(), reply.body)
}

/// Returns what the server says about itself.
fn info(server: &RetrieverHandle) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(get(&server.url(), "/info")).body
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Qdrant, Protocol::Chroma, Protocol::Elasticsearch];

/// The answer to a batch of which one record is refused and one must be sent again.
const PARTIAL: &str = r#"{"errors":true,"items":[{"index":{"status":201}},
        {"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse"}}},
        {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
        {"index":{"status":201}}]}"#;

/// The answer to a batch of which one record must be sent again.
const BUSY: &str = r#"{"errors":true,"items":[{"index":{"status":201}},{"index":{"status":201}},
        {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
        {"index":{"status":201}}]}"#;

#[test]
fn an_engine_is_loaded_and_searched() {
    for protocol in PROTOCOLS {
        let world = World::new(protocol);
        let out = world.loaded();
        assert!(out.contains("loaded 4 passages in "), "{out}");
        assert!(
            out.contains(&format!("\"passages\" of {} at {}", world.name, world.engine.url)),
            "{out}"
        );
        assert_eq!(world.engine.count(), 4);
        assert!(world.engine.key().contains(if protocol == Protocol::Elasticsearch {
            "ApiKey"
        } else {
            KEY
        }));
        // Nothing is sent twice.
        let again = world.loaded();
        assert!(
            again.ends_with(&format!(
                "up to date, 4 passages: collection \"passages\" of {} at {}\n",
                world.name, world.engine.url
            )),
            "{again}"
        );
        let server = world.served();
        let (status, lists, body) =
            search(&server, &["the capital of Peru", " ", "Bread is baked from flour"]);
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            (lists[0][0].as_str(), lists[1].len(), lists[2][0].as_str()),
            ("lima", 0, "bread"),
            "{protocol:?}"
        );
        // The collection says which index it was loaded from.
        let over_the_index = info(&RetrieverHandle::start(&world.index()));
        let info = info(&server);
        assert_eq!(info["passage_count"], 4, "{info}");
        assert_eq!(info["index_digest"], over_the_index["index_digest"], "{info}");
        assert_ne!(info["identity"], over_the_index["identity"], "{info}");
        let lima = &body["result"][0][0];
        assert_eq!(lima["document"]["url"], "https://example.org/lima", "{protocol:?}");
        assert!(lima["score"].as_f64().unwrap() > 0.3, "{lima}");
    }
}

#[test]
fn a_busy_engine_is_asked_again() {
    for (protocol, part) in [
        (Protocol::Qdrant, "query/batch"),
        (Protocol::Chroma, "/query"),
        (Protocol::Elasticsearch, "_msearch"),
    ] {
        let world = World::new(protocol);
        world.engine.fail(world.store(), Fault::Status(429, "slow down", Some(0)));
        world.engine.fail(world.store(), Fault::Closes);
        world.loaded();
        assert_eq!(world.engine.count(), 4, "{protocol:?}");
        let server = world.served();
        world.engine.fail(part, Fault::Status(503, "overloaded", Some(0)));
        world.engine.fail(part, Fault::Closes);
        let (status, lists, body) = search(&server, &["the capital of Norway"]);
        assert_eq!((status, lists[0][0].as_str()), (200, "oslo"), "{body}");
        assert_eq!(world.engine.requests(part), 3);
    }
}

impl World {
    /// Returns the part of a path that stores records.
    fn store(&self) -> &'static str {
        match self.name {
            "qdrant" => "points?wait=true",
            "chroma" => "upsert",
            _ => "_bulk",
        }
    }
}

#[test]
fn an_answer_that_is_no_answer_fails_the_query() {
    let cases: [(Protocol, &[&str]); 3] = [
        (
            Protocol::Qdrant,
            &[
                "<html>",
                r#"{"result":[],"status":"ok"}"#,
                r#"{"result":[{"points":[{"id":"x","score":null,"payload":{"contents":"c"}}]}],"status":"ok"}"#,
                r#"{"result":[{"points":[{"id":"x","score":1,"payload":{"body":"c"}}]}],"status":"ok"}"#,
            ],
        ),
        (
            Protocol::Chroma,
            &[
                "",
                "{}",
                r#"{"ids":[["a"]],"documents":[[null]],"distances":[[0.5]],"metadatas":[[null]]}"#,
            ],
        ),
        (
            Protocol::Elasticsearch,
            &[
                "{}",
                r#"{"responses":[{"status":200,"timed_out":false}]}"#,
                r#"{"responses":[{"status":400,"error":{"type":"too_many_clauses","reason":"maxClauseCount is set to 1024"}}]}"#,
                r#"{"responses":[{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}]}"#,
            ],
        ),
    ];
    for (protocol, says) in cases {
        let world = World::new(protocol);
        world.loaded();
        let server = world.served();
        for text in says {
            world.engine.fail(
                if protocol == Protocol::Elasticsearch { "_msearch" } else { "query" },
                Fault::Says(text),
            );
            let (status, lists, body) = search(&server, &["the capital of Norway"]);
            assert!(
                (status, lists.is_empty()) == (424, true)
                    || (status, lists.is_empty()) == (503, true),
                "{text}: {status} {body}"
            );
        }
        let (status, ..) = search(&server, &["the capital of Norway"]);
        assert_eq!(status, 200, "the engine is sound again");
    }
}

#[test]
fn results_of_some_shards_are_not_an_answer() {
    let world = World::new(Protocol::Elasticsearch);
    world.loaded();
    let server = world.served();
    for text in [
        r#"{"responses":[{"status":200,"timed_out":true,"_shards":{"failed":0},"hits":{"hits":[]}}]}"#,
        r#"{"responses":[{"status":200,"timed_out":false,"_shards":{"total":5,"failed":1},"hits":{"hits":[]}}]}"#,
    ] {
        // The search is repeated, and then all shards answer.
        world.engine.fail("_msearch", Fault::Says(text));
        let before = world.engine.requests("_msearch");
        let (status, lists, body) = search(&server, &["the capital of Norway"]);
        assert_eq!((status, lists[0][0].as_str()), (200, "oslo"), "{body}");
        assert_eq!(world.engine.requests("_msearch") - before, 2);
    }
}

#[test]
fn records_that_a_bulk_request_did_not_store_are_reported() {
    let world = World::new(Protocol::Elasticsearch);
    world.engine.fail("_bulk", Fault::Says(PARTIAL));
    let (code, _, err) = world.load(&[]);
    assert_eq!(code, 1);
    let expected = "elasticsearch stored 2 of 4 passages; the passage \"lima\" failed: status 400: \
                    document_parsing_exception: failed to parse; 0 of 4 passages are stored";
    assert!(err.contains(expected), "{err}");
    // Records that were only refused for now are sent again.
    world.engine.fail("_bulk", Fault::Says(BUSY));
    world.loaded();
    assert_eq!(world.engine.count(), 4);
}

#[test]
fn a_missing_or_unfinished_collection_is_named_at_the_start() {
    for protocol in PROTOCOLS {
        let world = World::new(protocol);
        let error = world.serve().unwrap_err();
        let expected =
            format!("{} at {} has no collection \"passages\"", world.name, world.engine.url);
        assert!(error.contains(&expected) && !error.contains(KEY), "{error}");
        // The load ends before it is whole.
        world.engine.fail(world.store(), Fault::Status(400, "no", None));
        let (code, _, err) = world.load(&[]);
        assert!(
            code == 1 && err.contains("refuses: status 400: no; 0 of 4 passages are stored"),
            "{err}"
        );
        let error = world.serve().unwrap_err();
        assert!(error.contains("the collection \"passages\" is not loaded completely"), "{error}");
        world.loaded();
        // A collection that disappears later is an error of each query.
        let server = world.served();
        world.engine.forget();
        if protocol != Protocol::Elasticsearch {
            let (status, lists, body) = search(&server, &["Oslo"]);
            assert_eq!((status, lists.len()), (424, 0), "{body}");
        }
    }
}

/// Returns the word that follows `name` in a text.
fn word_after(text: &str, name: &str) -> String {
    let rest = &text[text.find(name).unwrap() + name.len()..];
    let start = rest.find(|letter: char| letter.is_ascii_alphanumeric()).unwrap();
    rest[start..].chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[test]
fn vectors_of_another_encoder_are_refused_at_the_start() {
    for protocol in [Protocol::Qdrant, Protocol::Chroma] {
        let world = World::new(protocol);
        world.loaded();
        let settings = world.engine.settings();
        let [encoder, dimension] = ["encoder", "dimension"].map(|name| word_after(&settings, name));
        let other = "0".repeat(encoder.len());
        world.engine.amend(&encoder, &other);
        world.engine.amend(&format!(":{dimension}"), ":7");
        let error = world.serve().unwrap_err();
        for part in [
            "the collection \"passages\"".to_owned(),
            format!("7 components by the encoder {other}"),
            format!("{dimension} components by the encoder {encoder}"),
        ] {
            assert!(error.contains(&part), "{part:?} is not in {error:?}");
        }
        let (code, _, err) = world.load(&[]);
        assert!(code == 1 && err.contains("give --force to replace it"), "{err}");
    }
}

/// Nothing tells what the vectors of another program's collection are. The engine then refuses the queries.
#[test]
fn queries_of_another_length_than_the_vectors_fail_and_find_not_nothing() {
    let world = World::new(Protocol::Chroma);
    world.loaded();
    world.engine.amend("retriever_note", "another_note");
    world.engine.cut_vectors(7);
    let server = world.served();
    let (status, lists, body) = search(&server, &["the capital of Norway"]);
    assert_eq!((status, lists.len(), &body["code"]), (424, 0, &json!("upstream_refused")));
}

#[test]
fn a_wrong_key_is_refused_without_being_repeated() {
    let world = World::new(Protocol::Qdrant);
    world.engine.fail("collections", Fault::Status(401, "hunter2 is no key", None));
    let (code, out, err) = world.load(&[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("RETRIEVER_ENGINE_KEY is missing, wrong, or may not do this (status 401"),
        "{err}"
    );
    assert!(!format!("{out}{err}").contains(KEY));
}

#[test]
fn quickwit_is_not_loaded() {
    let world = World { name: "quickwit", ..World::new(Protocol::Elasticsearch) };
    world.engine.fail(
        "_search",
        Fault::Status(404, r#"{"status":404,"error":{"reason":"Index not found"}}"#, None),
    );
    let (code, _, err) = world.load(&[]);
    assert!(code == 1 && err.contains("quickwit keeps no identifiers"), "{err}");
}
