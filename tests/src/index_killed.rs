//! `index --backend ann` is killed (SIGKILL) at many moments and run again. There is always the old or the
//! new index, finished work is not lost, and in the end the results equal those of an undisturbed build. The
//! killed process is this test program, which only runs the command there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use retriever_server::cli::EXIT_SUCCESS;
use retriever_server::index;
use retriever_server::index::dense::{DenseManifest, DenseRows, ann};
use retriever_server::index::manifest::{Manifest, Verification};
use retriever_server::lexical::bm25::Bm25Parameters;
use serde_json::{Value, json};

use crate::harness::http::post;
use crate::harness::program::{model, onnxruntime, run, text};
use crate::harness::retriever::RetrieverHandle;

/// The variable with the folder for the process to be killed.
const FOLDER_VARIABLE: &str = "RETRIEVER_TEST_INDEX_IN";
const TEST: &str = "index_killed::a_build_killed_at_any_moment_resumes_to_the_same_results";

const OLD_PASSAGES: usize = 40;
const NEW_PASSAGES: usize = 900;
const ROW_BYTES: u64 = 384 * 4;
/// Longest build, generous for a busy machine; a test that reaches it has failed.
const BUILD_PATIENCE: Duration = Duration::from_mins(10);
/// Largest difference of a score: batches of other sizes use other kernels and orders of sums.
const TOLERANCE: f64 = 1e-5;

/// A folder with corpora and an index.
struct World {
    folder: PathBuf,
}

/// A moment in a build, with a test for it.
type Moment<'a> = (&'static str, &'a dyn Fn(&World) -> bool);

/// The progress of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// The whole old index.
    Old,
    /// The new passages and postings, with the number of vectors that the next build need not encode.
    Encoding(u64),
    /// The new passages with their vectors.
    Vectors,
    /// The whole new index.
    Whole,
}

impl World {
    /// Writes both corpora and builds the index of the old one.
    fn new(folder: &Path) -> Self {
        let world = Self { folder: folder.to_owned() };
        for (name, passages) in [("old.jsonl", OLD_PASSAGES), ("new.jsonl", NEW_PASSAGES)] {
            let line = |row: usize| {
                let (land, thing) = (row % 7, ["bridge", "castle", "harbour"][row % 3]);
                let contents = format!("Town {row} of land {land} has a {thing}.");
                json!({"id": format!("{name}-{row}"), "contents": contents}).to_string()
            };
            let lines: Vec<String> = (0..passages).map(line).collect();
            fs::write(world.path(name), lines.join("\n")).unwrap();
        }
        world.index("old.jsonl");
        world
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Runs the command to its end.
    fn index(&self, corpus: &str) -> String {
        let (corpus, index) = (self.path(corpus), self.path("index"));
        let (model, library) = (model(), onnxruntime());
        let (code, out, err) = run(&[
            &["index", "--force", "--backend", "ann", "--device", "cpu", "--threads", "2"][..],
            &["--corpus", text(&corpus), "--index", text(&index)],
            &["--model", text(&model), "--onnxruntime", text(&library)],
        ]
        .concat());
        assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
        out
    }

    /// Starts the command on the new corpus in a separate process.
    fn start(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(FOLDER_VARIABLE, &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Kills a build as soon as it reaches a moment. Returns `false` if it ended before.
    fn kill_at(&self, is_reached: &dyn Fn(&Self) -> bool) -> bool {
        let mut child = self.start();
        let started = Instant::now();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break Some(ended);
            }
            if is_reached(self) {
                break None;
            }
            if started.elapsed() > BUILD_PATIENCE {
                child.kill().unwrap();
                panic!("no moment within {BUILD_PATIENCE:?}; last seen: {:?}", self.state());
            }
            std::thread::yield_now();
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ended.is_none_or(|ended| ended.success()), "{ended:?}");
        ended.is_none()
    }

    fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// Returns the number of vectors that are written but not in their final folder.
    fn rows_done(&self) -> u64 {
        let path = self.path("index/.dense.partial/vectors.f32");
        fs::metadata(path).map_or(0, |metadata| metadata.len() / ROW_BYTES)
    }

    /// Returns the state of the index. Compares every file in use with its digest.
    fn state(&self) -> State {
        let index = self.path("index");
        let parameters = Bm25Parameters::default();
        let open = index::open(&index, parameters, Verification::Digests).unwrap();
        let dense = DenseManifest::load(&index).unwrap();
        let has_graph = dense.as_ref().is_some_and(|dense| !dense.graphs.is_empty());
        if let Some(dense) = &dense {
            DenseRows::open(&index, &dense.source, Verification::Digests).unwrap();
            if has_graph {
                ann::open(&index, &dense.source, Verification::Digests).unwrap();
            }
        }
        match (open.passages.len(), dense) {
            (OLD_PASSAGES, dense) => {
                assert!(dense.is_some() && has_graph, "the old index is whole");
                State::Old
            }
            (NEW_PASSAGES, None) => State::Encoding(self.rows_done()),
            (NEW_PASSAGES, Some(_)) => {
                if has_graph {
                    State::Whole
                } else {
                    State::Vectors
                }
            }
            (other, _) => panic!("{other} passages"),
        }
    }

    /// Returns ids and scores of the five nearest passages for each query. The graph search visits all rows.
    fn answers(&self) -> Vec<Vec<(String, f64)>> {
        let (model, library, all) = (model(), onnxruntime(), NEW_PASSAGES.to_string());
        let variables = [
            ("RETRIEVER_BACKEND", "ann"),
            ("RETRIEVER_MODEL", text(&model)),
            ("RETRIEVER_ONNXRUNTIME", text(&library)),
            ("RETRIEVER_DEVICE", "cpu"),
            ("RETRIEVER_HNSW_EF", &all),
        ];
        let retriever = RetrieverHandle::start_with(&self.path("index"), 0, &variables);
        let queries = ["a town with a castle", "where is the harbour of town 123", "land 5"];
        let body = json!({"queries": queries, "topk": 5, "return_scores": true});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reply = runtime.block_on(post(&retriever.url(), &body));
        assert_eq!(reply.status, 200, "{reply:?}");
        let id_and_score = |hit: &Value| {
            let id = hit["document"]["id"].as_str().unwrap().to_owned();
            (id, hit["score"].as_f64().unwrap())
        };
        let lists = reply.body["result"].as_array().unwrap().iter();
        lists.map(|list| list.as_array().unwrap().iter().map(id_and_score).collect()).collect()
    }
}

#[test]
fn a_build_killed_at_any_moment_resumes_to_the_same_results() {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        World { folder: folder.into() }.index("new.jsonl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder.path());
    let old = Manifest::load(&world.path("index")).unwrap();
    let is_replaced = |world: &World| Manifest::load(&world.path("index")).unwrap() != old;
    let moments: [Moment<'_>; 9] = [
        ("passages are read", &|world| world.exists(".index.partial/passages.jsonl")),
        ("the index is sealed", &|world| world.exists(".index.partial/manifest.json")),
        ("the index is replaced", &is_replaced),
        ("the first vectors are written", &|world| world.rows_done() > 0),
        ("more are", &|world| world.rows_done() > 300),
        ("nearly all are", &|world| world.rows_done() > 600),
        ("vectors are in place", &|world| world.exists("index/dense/manifest.json")),
        ("the graph is written", &|world| {
            world.exists("index/dense/.vectors.hnsw.new")
                || world.exists("index/dense/vectors.hnsw")
        }),
        ("the graph is in place", &|world| world.exists("index/dense/vectors.hnsw")),
    ];
    let mut last = world.state();
    assert_eq!(last, State::Old);
    let mut killed = Vec::new();
    for (moment, is_reached) in moments {
        if world.kill_at(is_reached) {
            killed.push(moment);
        }
        let state = world.state();
        assert!(state >= last, "{state:?} after {last:?}, killed when {moment}");
        last = state;
    }
    // A build that ended before its kill shows nothing, so most must have been killed.
    assert!(killed.len() >= 4, "{killed:?}");
    let out = world.index("new.jsonl");
    assert!(out.starts_with("up to date, 900 passages"), "{out}");
    assert_eq!(world.state(), State::Whole);
    for left in [".index.partial", ".index.retired", "index/.dense.partial", "index/.dense.retired"]
    {
        assert!(!world.exists(left), "{left} is left over");
    }

    let whole = tempfile::tempdir().unwrap();
    let undisturbed = World::new(whole.path());
    undisturbed.index("new.jsonl");
    let (resumed, expected) = (world.answers(), undisturbed.answers());
    for (hit, expected) in resumed.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!(hit.0, expected.0);
        assert!((hit.1 - expected.1).abs() < TOLERANCE, "{hit:?}, expected {expected:?}");
    }
    assert_eq!(resumed.len(), expected.len());
}
