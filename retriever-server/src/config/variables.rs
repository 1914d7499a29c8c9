//! The table of all variables with their defaults, units, accepted values and meanings. Flags,
//! messages and the reference page come from this table, so they cannot disagree.

use std::fmt::Write;

use shared::contract::env_example::{self, Entry};

/// The prefix of all names.
pub const PREFIX: &str = "RETRIEVER_";

/// One variable, which is also a flag of `serve`.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The name in the environment.
    pub name: &'static str,
    /// The name of the flag, without the dashes.
    pub flag: &'static str,
    /// The default; `None` if there is none.
    pub default: Option<&'static str>,
    /// The unit of the value, empty if it has none.
    pub unit: &'static str,
    /// The accepted values, worded to follow "expected".
    pub accepts: &'static str,
    /// The meaning, for the help and the reference page.
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
    BACKEND = "BACKEND", "backend", Some("bm25"), "", "bm25, dense, ann, hybrid, web, or an engine: pgvector, qdrant, chroma, milvus, opensearch, elasticsearch or quickwit",
        "Back end that answers queries: bm25, exact search over the vectors of an encoder (dense), approximate search along a graph over them (ann), two back ends whose results are fused (hybrid), search of the web by providers (web), or an engine of another machine, by its name.";
    HYBRID = "HYBRID", "hybrid", Some("bm25,dense"), "", "two different back ends of bm25, dense and ann, with a comma between them",
        "Two back ends that hybrid combines. A query fails if either of them fails.";
    FUSION = "FUSION", "fusion", Some("rrf"), "", "rrf or weighted",
        "Fusion of two result lists: by rank (rrf, reciprocal rank fusion) or by score, with the scores of each list scaled to 0..1 (weighted).";
    RRF_K = "RRF_K", "rrf-k", Some("60"), "", "a number above 0",
        "Constant of reciprocal rank fusion; the larger it is, the less the first ranks stand out.";
    FUSION_WEIGHTS = "FUSION_WEIGHTS", "fusion-weights", Some("1,1"), "", "two numbers from 0 to 1000000, not both 0, with a comma between them",
        "Weights of the lists, in the order of RETRIEVER_HYBRID. Passages that only a list of weight 0 contains are left out.";
    FUSION_DEPTH = "FUSION_DEPTH", "fusion-depth", Some("100"), "passages", COUNT,
        "Passages in each list before fusion; more if a request asks for more.";
    ADDR = "ADDR", "addr", Some("0.0.0.0:8000"), "", "an address and port such as 0.0.0.0:8000",
        "Address to listen on. Port 0 takes any free port.";
    INDEX = "INDEX", "index", None, "", "the path of a folder",
        "Folder of the index.";
    CORPUS = "CORPUS", "corpus", None, "", "paths of corpus files or folders of parts with commas between them",
        "Corpus to index first if there is no index. An existing index must have been built from it.";
    MODEL = "MODEL", "model", None, "", "the path of a folder with model.onnx and tokenizer.json",
        "Folder of the encoder, which dense and ann need, also as parts of hybrid, and engines that search vectors.";
    ENGINE_URL = "ENGINE_URL", "engine-url", None, "", "an address of the engine, such as http://host:6333 or postgres://user@host/database",
        "Address of the engine of another machine to search, or to load with `index --to`.";
    ENGINE_COLLECTION = "ENGINE_COLLECTION", "engine-collection", Some("passages"), "", "a name of up to 60 letters, digits, `_`, `-` and `.` that begins with a letter; for milvus without `-` and `.`",
        "Collection, table or index of the engine that holds the passages.";
    ENGINE_KEY = "ENGINE_KEY", "engine-key", None, "", "the engine's API key, token or password, or user:password",
        "Key for the engine. No log or message shows it; on a command line, other users of the machine see it.";
    ENGINE_KEY_FILE = "ENGINE_KEY_FILE", "engine-key-file", None, "", "the path of a file",
        "File with the key for the engine, instead of RETRIEVER_ENGINE_KEY.";
    DEVICE = "DEVICE", "device", Some("auto"), "", "auto, cpu, cuda or cuda:N",
        "Device of the encoder, of the re-ranker and of exact search over vectors. cuda uses every GPU for the search, cuda:N one of them; auto uses CUDA if it is available, else the CPU.";
    ONNXRUNTIME = "ONNXRUNTIME", "onnxruntime", None, "", "the path of a file",
        "Library of ONNX Runtime. If it is not set: ORT_DYLIB_PATH, then ../lib next to the program, then .cache/onnxruntime/lib.";
    VECTORS = "VECTORS", "vectors", None, "", "the path of a file of faiss (IndexFlat, IndexScalarQuantizer, IndexIVFFlat, or IndexHNSW over flat or scalar-quantised vectors, alone or in an IndexIDMap), of an array of numpy (.npy) or of its raw rows (.memmap), or of its first part if `split` divided it",
        "Vectors of the passages for dense and ann, in the order of the corpus. If it is not set, those in the index.";
    VECTOR_FORMAT = "VECTOR_FORMAT", "vector-format", Some("auto"), "", "auto, f32, f16 or i8",
        "Format of the searched vectors in the index: f16 takes half the memory of f32, i8 a quarter; auto is f16 along a graph and f32 without one. Hits are scored again in f32, so the exact vectors must be on disk, but few of them are read into memory.";
    ANN = "ANN", "ann", Some("hnsw"), "", "hnsw or usearch",
        "Graph that ann follows: hnsw is this program's own; usearch is the library's, with a copy of the vectors in their format.";
    HNSW_EF = "HNSW_EF", "hnsw-ef", Some("128"), "rows", COUNT,
        "Candidate rows that a search along a graph keeps, at least as many as the requested passages. More raise the recall and take longer.";
    RERANKER = "RERANKER", "reranker", None, "", "the path of a folder with model.onnx and tokenizer.json",
        "Folder of a cross-encoder that ranks the results of the back end again and answers /rerank. Scores in responses are then its scores.";
    RERANK_DEPTH = "RERANK_DEPTH", "rerank-depth", Some("30"), "passages", COUNT,
        "Passages per query that are ranked again; the others keep their order behind them.";
    RERANK_BUDGET_MS = "RERANK_BUDGET_MS", "rerank-budget-ms", Some("0"), "ms", "an integer from 0 to 86400000",
        "Longest time that the re-ranker may take for a request. Passages that are not scored by then keep the back end's order behind the others. 0 means no limit.";
    MAX_RERANK_DOCUMENTS = "MAX_RERANK_DOCUMENTS", "max-rerank-documents", Some("65536"), "documents", COUNT,
        "Most documents in a request to /rerank.";
    WEB_PROVIDER = "WEB_PROVIDER", "web-provider", None, "", "serper, brave, tavily, exa, serpapi, searxng, you, jina, google or bing, or several with commas between them",
        "Provider that the web back end asks. A later one of several is asked if those before it fail.";
    WEB_KEYS = "WEB_KEYS", "web-keys", None, "", "a key, or pairs such as brave=KEY with commas between them",
        "Keys of the providers. They are never logged; other users of the machine can read a flag, but not a variable.";
    WEB_KEYS_FILE = "WEB_KEYS_FILE", "web-keys-file", None, "", "the path of a file with a key, or with a line such as brave=KEY for each provider",
        "File with keys, as a mounted secret. A key in RETRIEVER_WEB_KEYS overrides it.";
    WEB_ENDPOINTS = "WEB_ENDPOINTS", "web-endpoints", None, "", "an address, or pairs such as searxng=ADDRESS with commas between them",
        "Addresses of the providers' APIs; searxng and bing have no default. Parameters of an address go into every request, such as searxng=http://host:8080?language=en. The address of google needs the parameter cx, the id of a search engine.";
    WEB_RATES = "WEB_RATES", "web-rates", None, "requests/s", "a number from 0.001 to 10000, or pairs such as brave=1 with commas between them",
        "Requests per second to each provider. If it is not set, what its smallest plan allows.";
    WEB_TIMEOUT_MS = "WEB_TIMEOUT_MS", "web-timeout-ms", Some("10000"), "ms", MILLISECONDS,
        "Longest time of one request to a provider; retries and further providers have the time until RETRIEVER_DEADLINE_MS.";
    WEB_BUDGET = "WEB_BUDGET", "web-budget", None, "", "a number of requests such as 1000, or an amount such as 2.50USD",
        "Most that providers with keys may cost in a day (UTC). After that, queries go to searxng or fail.";
    WEB_PRICES = "WEB_PRICES", "web-prices", None, "USD", "a price, or pairs such as brave=0.005 with commas between them",
        "Price of a request to each provider, which a budget in USD needs.";
    WEB_CACHE = "WEB_CACHE", "web-cache", None, "", "the path of a file",
        "File that keeps answers and the expenses of the day over a restart. If it is not set, memory only.";
    WEB_CACHE_BYTES = "WEB_CACHE_BYTES", "web-cache-bytes", Some("268435456"), "bytes", BYTES,
        "Largest size of the answers that are kept, in memory and again in the file; the oldest leave the file first.";
    WEB_CACHE_TTL_S = "WEB_CACHE_TTL_S", "web-cache-ttl-s", Some("86400"), "s", COUNT,
        "Time for which an answer of a provider is used again.";
    WEB_PAGES = "WEB_PAGES", "web-pages", Some("false"), "", "true or false",
        "Read the pages that are found, and return their best paragraphs instead of what providers say about them.";
    BATCH_QUERIES = "BATCH_QUERIES", "batch-queries", Some("512"), "queries", COUNT,
        "Most queries in a batch of dense or ann, from one request or from several.";
    BATCH_TOKENS = "BATCH_TOKENS", "batch-tokens", Some("16384"), "tokens", COUNT,
        "Most tokens in a batch of dense or ann; four bytes of a query count as one token.";
    BATCH_WAIT_US = "BATCH_WAIT_US", "batch-wait-us", Some("2000"), "µs", "an integer from 0 to 1000000",
        "Longest time that queries wait for others to join them while a batch is running. If none is running, they do not wait.";
    VERIFY_INDEX = "VERIFY_INDEX", "verify-index", Some("auto"), "", "auto, background, true or false",
        "Compare every file of the index, and of RETRIEVER_CORPUS if it is set, with its SHA-256: before the first query (true); while queries are answered, and a file that differs takes the index out of service (background); up to 128 MiB before the first query and the rest while queries are answered (auto); never, only sizes (false).";
    TOP_K = "TOP_K", "top-k", Some("3"), "passages", COUNT,
        "Passages per query if the request names no number.";
    MAX_TOP_K = "MAX_TOP_K", "max-top-k", Some("1000"), "passages", COUNT,
        "Most passages per query; a request for more gets as many.";
    BM25_K1 = "BM25_K1", "bm25-k1", Some("0.9"), "", "a number of at least 0",
        "Saturation of the term frequency.";
    BM25_B = "BM25_B", "bm25-b", Some("0.4"), "", "a number from 0 to 1",
        "Strength of the length normalisation.";
    PASSAGE_FIELDS = "PASSAGE_FIELDS", "passage-fields", Some("minimal"), "", "minimal, url or full",
        "Keys of a passage in responses: id and contents, and url where the corpus has it (minimal); url always, empty where the corpus has none, as ASearcher needs it (url); also title and text where the corpus has them (full).";
    PROFILE = "PROFILE", "profile", Some("rllm"), "", "rllm, zerosearch or proxy",
        "Client that a request to /retrieve means which several clients send: query with top_k or k is answered as rLLM's server does, or with ZeroSearch's list of texts (zerosearch); queries without return_scores get passages, or each in a document (proxy), as from Search-R1's web search servers.";
    MAX_BODY_BYTES = "MAX_BODY_BYTES", "max-body-bytes", Some("16777216"), "bytes", BYTES,
        "Largest request body.";
    MAX_BATCH_QUERIES = "MAX_BATCH_QUERIES", "max-batch-queries", Some("4096"), "queries", COUNT,
        "Most queries in a request.";
    MAX_QUERY_BYTES = "MAX_QUERY_BYTES", "max-query-bytes", Some("16384"), "bytes", BYTES,
        "Longest query; of a longer one, only this much is searched for, up to the end of a character.";
    MAX_QUEUED_QUERIES = "MAX_QUEUED_QUERIES", "max-queued-queries", Some("16384"), "queries", COUNT,
        "Most queries that are admitted, in flight and waiting; more are refused with 503. A client takes at most eight ninths of them.";
    MAX_IN_FLIGHT_QUERIES = "MAX_IN_FLIGHT_QUERIES", "max-in-flight-queries", Some("auto"), "queries", "auto or an integer from 1 to 16777216",
        "Most queries in flight; the others wait, and clients take turns. auto is 16 per thread for bm25, else three batches. Fewer make an overloaded server answer sooner, and refuse more.";
    MAX_WAIT_MS = "MAX_WAIT_MS", "max-wait-ms", Some("60000"), "ms", MILLISECONDS,
        "Longest expected wait of a new request for its turn. One whose wait is expected to be longer, from the observed rate, is refused with 503 at once; an admitted one waits until its deadline.";
    MAX_REQUESTS = "MAX_REQUESTS", "max-requests", Some("4096"), "requests", COUNT,
        "Most requests that are read or answered concurrently; more are refused with 503. A client takes at most eight ninths of them.";
    MAX_BODIES_BYTES = "MAX_BODIES_BYTES", "max-bodies-bytes", Some("1073741824"), "bytes", BYTES,
        "Most bytes of all request bodies together; more are refused with 503.";
    MAX_CONNECTIONS = "MAX_CONNECTIONS", "max-connections", Some("4096"), "connections", COUNT,
        "Most open connections; more wait to be accepted.";
    DEADLINE_MS = "DEADLINE_MS", "deadline-ms", Some("60000"), "ms", MILLISECONDS,
        "Longest time for the answer to a request once its body is there, which includes the wait for a server that is starting. A request may set a shorter one in its header X-Request-Timeout-Ms or grpc-timeout.";
    HEADER_TIMEOUT_MS = "HEADER_TIMEOUT_MS", "header-timeout-ms", Some("20000"), "ms", MILLISECONDS,
        "Longest time for the header of a request to arrive; then the connection is closed.";
    BODY_TIMEOUT_MS = "BODY_TIMEOUT_MS", "body-timeout-ms", Some("60000"), "ms", MILLISECONDS,
        "Longest time for the body of a request to arrive, and for a client to take no byte of its answer.";
    IDLE_TIMEOUT_MS = "IDLE_TIMEOUT_MS", "idle-timeout-ms", Some("600000"), "ms", MILLISECONDS,
        "Longest time that a connection stays open without a request.";
    GRACE_PERIOD_MS = "GRACE_PERIOD_MS", "grace-period-ms", Some("30000"), "ms", MILLISECONDS,
        "Time to finish admitted work after SIGTERM.";
    THREADS = "THREADS", "threads", Some("auto"), "threads", "auto or an integer from 1 to 1024",
        "Threads that search and index; auto is one per core.";
    ADMIN_ADDR = "ADMIN_ADDR", "admin-addr", None, "", "an address and port such as 127.0.0.1:8001",
        "Address of the admin endpoints: /admin/reload, /metrics, /stats, /info and the probes. If it is not set, there is no /admin/reload, and /metrics is on RETRIEVER_ADDR.";
    API_KEYS_FILE = "API_KEYS_FILE", "api-keys-file", None, "", "the path of a file with one key a line, of 16 to 512 visible ASCII characters, with a name and a space before it if it has one",
        "Keys of which a request on RETRIEVER_ADDR needs one, as Authorization: Bearer KEY or X-Api-Key: KEY; probes need none. The file is read again when it changes. If it is not set, everybody may ask.";
    ADMIN_KEYS_FILE = "ADMIN_KEYS_FILE", "admin-keys-file", None, "", "the path of a file with one key a line, of 16 to 512 visible ASCII characters, with a name and a space before it if it has one",
        "Keys of which a request on RETRIEVER_ADMIN_ADDR needs one. If it is not set, everybody who reaches that address may ask.";
    TLS_CERT = "TLS_CERT", "tls-cert", None, "", "the path of a file of PEM with a certificate",
        "Certificate of the server, followed by those that vouch for it. With it, both addresses speak TLS 1.2 or 1.3 only. The file is read again when it changes.";
    TLS_KEY = "TLS_KEY", "tls-key", None, "", "the path of a file of PEM with an unencrypted private key",
        "Private key of RETRIEVER_TLS_CERT.";
    CORS_ORIGINS = "CORS_ORIGINS", "cors-origins", None, "", "* or origins such as https://example.org with commas between them",
        "Web sites whose pages may send requests from a browser. If it is not set, none may.";
    OTLP_ENDPOINT = "OTLP_ENDPOINT", "otlp-endpoint", None, "", "a URL such as http://localhost:4318",
        "Collector that receives traces over OTLP (HTTP, protobuf). If it is not set, none are recorded; a traceparent of a client is still passed on.";
    TRACE_RATIO = "TRACE_RATIO", "trace-ratio", Some("1"), "", "a number from 0 to 1",
        "Share of requests that are traced. A request whose traceparent has the decision of its client keeps it.";
    LOG = "LOG", "log", Some("info"), "", "a filter such as info or info,retriever_server=debug",
        "Filter of the log.";
    LOG_FORMAT = "LOG_FORMAT", "log-format", Some("text"), "", "text or json",
        "Format of log lines.";
}

/// Returns the reference page: one table of all variables.
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

/// Returns every variable in the form of `.env.example`.
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
