//! The table of all variables: name, default, unit, what is accepted and what it means. Flags,
//! messages and the reference page come from this table, so that they cannot disagree.

use std::fmt::Write;

use shared::env_example::{self, Entry};

/// What all names begin with.
pub const PREFIX: &str = "RETRIEVER_";

/// One variable, which is also a flag of `serve`.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Name as a flag of `serve`, without the dashes.
    pub flag: &'static str,
    /// Value when none is given; `None` if there is none.
    pub default: Option<&'static str>,
    /// Unit of the value, empty where it has none.
    pub unit: &'static str,
    /// What is accepted, to follow "expected".
    pub accepts: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

const COUNT: &str = "an integer from 1 to 16777216";
const BYTES: &str = "an integer from 1 to 4294967296";
const MILLISECONDS: &str = "an integer from 1 to 86400000";

/// Declares the variables and the table of them.
macro_rules! variables {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $flag:literal, $default:expr, $unit:literal,
       $accepts:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: Variable = Variable {
            name: concat!("RETRIEVER_", $name), flag: $flag, default: $default, unit: $unit,
            accepts: $accepts, meaning: $meaning,
        };)*
        /// All variables, in the order of the reference page.
        pub const VARIABLES: &[Variable] = &[$($constant),*];
    };
}

variables! {
    BACKEND = "BACKEND", "backend", Some("bm25"), "", "bm25, dense, ann or hybrid",
        "What answers queries: BM25, exact search over the vectors of an encoder, approximate search along a graph over them, or two back ends whose lists become one.";
    HYBRID = "HYBRID", "hybrid", Some("bm25,dense"), "", "two different back ends of bm25, dense and ann with a comma between them",
        "Back ends of the hybrid one. A query fails if one of them fails.";
    FUSION = "FUSION", "fusion", Some("rrf"), "", "rrf or weighted",
        "How two lists become one: by ranks (reciprocal rank fusion), or by scores, each list's brought to 0..1.";
    RRF_K = "RRF_K", "rrf-k", Some("60"), "", "a number above 0",
        "Constant of reciprocal rank fusion: the larger, the less the first ranks stand out.";
    FUSION_WEIGHTS = "FUSION_WEIGHTS", "fusion-weights", Some("1,1"), "", "two numbers from 0 to 1000000 with a comma between them, not both 0",
        "Weights of the lists in the order of RETRIEVER_HYBRID; what only a list of weight 0 has is left out.";
    FUSION_DEPTH = "FUSION_DEPTH", "fusion-depth", Some("100"), "passages", COUNT,
        "Passages that each list has, or as many as a request asks for if those are more.";
    ADDR = "ADDR", "addr", Some("0.0.0.0:8000"), "", "an address and port such as 0.0.0.0:8000",
        "Where to listen. Port 0 takes any free port.";
    INDEX = "INDEX", "index", None, "", "the path of a folder",
        "Folder of the index.";
    CORPUS = "CORPUS", "corpus", None, "", "paths of JSON Lines files with commas between them",
        "Corpus to index first when there is no index; an index that is there must have been built from it.";
    MODEL = "MODEL", "model", None, "", "the path of a folder with model.onnx and tokenizer.json",
        "Folder of the encoder, which the dense and ann back ends need, also as a part of the hybrid one.";
    DEVICE = "DEVICE", "device", Some("auto"), "", "auto, cpu, cuda or cuda:N",
        "Device of the encoder, the re-ranker and of exact search over vectors, which cuda spreads over every GPU and cuda:N puts on one; auto takes CUDA where it can be used, else the CPU.";
    ONNXRUNTIME = "ONNXRUNTIME", "onnxruntime", None, "", "the path of a file",
        "Library of ONNX Runtime; without it ORT_DYLIB_PATH, then ../lib beside the program, then .cache/onnxruntime/lib.";
    VECTORS = "VECTORS", "vectors", None, "", "the path of a file that faiss wrote (IndexFlatIP, IndexFlatL2 or IndexHNSWFlat), or of its first part where `split` made parts of it",
        "Vectors of the passages for the dense and ann back ends, in the order of the corpus; without it those in the index.";
    VECTOR_FORMAT = "VECTOR_FORMAT", "vector-format", Some("auto"), "", "auto, f32, f16 or i8",
        "Format of the vectors in the index that are searched: auto takes f16 along a graph and f32 without one; f16 takes half the memory of f32 and i8 a quarter. Hits are scored again in f32, which needs the exact vectors on disk and few of them in memory.";
    ANN = "ANN", "ann", Some("hnsw"), "", "hnsw or usearch",
        "Graph that the ann back end follows: hnsw is this program's own; usearch is that of the library, with its own copy of the vectors in their format.";
    HNSW_EF = "HNSW_EF", "hnsw-ef", Some("128"), "rows", COUNT,
        "Rows that a search along a graph keeps in sight, at least as many as passages are asked for: more find better and take longer.";
    RERANKER = "RERANKER", "reranker", None, "", "the path of a folder with model.onnx and tokenizer.json",
        "Folder of a cross-encoder that ranks again what the back end has found, and answers /rerank; scores are then its own.";
    RERANK_DEPTH = "RERANK_DEPTH", "rerank-depth", Some("30"), "passages", COUNT,
        "Passages per query that the re-ranker looks at; those beyond stay behind them.";
    RERANK_BUDGET_MS = "RERANK_BUDGET_MS", "rerank-budget-ms", Some("0"), "ms", "an integer from 0 to 86400000",
        "Longest time that the re-ranker takes for a request; what it has not scored by then stays behind the rest, in the back end's order. 0 stands for no limit.";
    MAX_RERANK_DOCUMENTS = "MAX_RERANK_DOCUMENTS", "max-rerank-documents", Some("65536"), "documents", COUNT,
        "Most documents in a request to /rerank.";
    BATCH_QUERIES = "BATCH_QUERIES", "batch-queries", Some("512"), "queries", COUNT,
        "Most queries, of one request or of several, that the dense back end takes together.";
    BATCH_TOKENS = "BATCH_TOKENS", "batch-tokens", Some("16384"), "tokens", COUNT,
        "Most tokens that the dense back end takes together, four bytes of a query counted as one.";
    BATCH_WAIT_US = "BATCH_WAIT_US", "batch-wait-us", Some("2000"), "µs", "an integer from 0 to 1000000",
        "Longest time that queries wait beside a batch under way for others to join them; where none is under way they do not wait.";
    VERIFY_INDEX = "VERIFY_INDEX", "verify-index", Some("true"), "", "true or false",
        "Whether every file of the index, and of RETRIEVER_CORPUS if set, is compared with its SHA-256 at the start, or only with its size.";
    TOP_K = "TOP_K", "top-k", Some("3"), "passages", COUNT,
        "Passages per query when the request names no number.";
    MAX_TOP_K = "MAX_TOP_K", "max-top-k", Some("1000"), "passages", COUNT,
        "Most passages per query that a request may ask for.";
    BM25_K1 = "BM25_K1", "bm25-k1", Some("0.9"), "", "a number of at least 0",
        "Saturation of the term frequency.";
    BM25_B = "BM25_B", "bm25-b", Some("0.4"), "", "a number from 0 to 1",
        "Strength of the length normalisation.";
    PASSAGE_FIELDS = "PASSAGE_FIELDS", "passage-fields", Some("minimal"), "", "minimal or full",
        "Keys of a passage in responses: id, contents and url, or also title and text.";
    MAX_BODY_BYTES = "MAX_BODY_BYTES", "max-body-bytes", Some("16777216"), "bytes", BYTES,
        "Largest request body.";
    MAX_BATCH_QUERIES = "MAX_BATCH_QUERIES", "max-batch-queries", Some("4096"), "queries", COUNT,
        "Most queries in a request.";
    MAX_QUERY_BYTES = "MAX_QUERY_BYTES", "max-query-bytes", Some("16384"), "bytes", BYTES,
        "Longest query; a longer one fails by itself.";
    MAX_QUEUED_QUERIES = "MAX_QUEUED_QUERIES", "max-queued-queries", Some("16384"), "queries", COUNT,
        "Most queries being answered at once; more are refused with 503.";
    MAX_REQUESTS = "MAX_REQUESTS", "max-requests", Some("1024"), "requests", COUNT,
        "Most requests being read or answered at once; more are refused with 503.";
    MAX_CONNECTIONS = "MAX_CONNECTIONS", "max-connections", Some("4096"), "connections", COUNT,
        "Most open connections; more wait to be accepted.";
    DEADLINE_MS = "DEADLINE_MS", "deadline-ms", Some("60000"), "ms", MILLISECONDS,
        "Longest time for a request's body to arrive, and again for its answer.";
    GRACE_PERIOD_MS = "GRACE_PERIOD_MS", "grace-period-ms", Some("30000"), "ms", MILLISECONDS,
        "Time to finish admitted work after SIGTERM.";
    THREADS = "THREADS", "threads", Some("auto"), "threads", "auto or an integer from 1 to 1024",
        "Threads that search and index; auto takes one per core.";
    LOG = "LOG", "log", Some("info"), "", "a filter such as info or info,retriever_server=debug",
        "What is logged.";
    LOG_FORMAT = "LOG_FORMAT", "log-format", Some("text"), "", "text or json",
        "How log lines look.";
}

/// The reference page: one table of all variables.
pub fn markdown() -> String {
    let mut page = String::from(
        "| variable | flag | default | unit | accepts | meaning |\n|---|---|---|---|---|---|\n",
    );
    for Variable { name, flag, default, unit, accepts, meaning } in VARIABLES {
        let default = default.map_or_else(String::new, |value| format!("`{value}`"));
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{name}` | `--{flag}` | {default} | {unit} | {accepts} | {meaning} |"
        );
    }
    page
}

/// Every variable as `.env.example` shows it.
pub fn env_example() -> String {
    let entry = |variable: &Variable| {
        env_example::entry(&Entry {
            name: variable.name,
            meaning: variable.meaning,
            unit: variable.unit,
            accepts: variable.accepts,
            default: variable.default.unwrap_or_default(),
        })
    };
    VARIABLES.iter().map(entry).collect::<Vec<_>>().join("\n")
}
