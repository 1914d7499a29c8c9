//! Defaults, precedence, and messages about bad values.

use std::collections::BTreeMap;

use super::source::Layered;
use super::*;
use crate::backend::fuse::{Fusion, FusionConfig};

fn source(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn only_the_index_must_be_named() {
    let config = ServeConfig::resolve(&source(&[("RETRIEVER_INDEX", "/data/index")])).unwrap();
    assert_eq!(config.addr.to_string(), "0.0.0.0:8000");
    assert_eq!(config.index, Some(PathBuf::from("/data/index")));
    assert!(config.corpus.is_empty());
    assert_eq!((config.bm25.k1(), config.bm25.b()), (0.9, 0.4));
    assert_eq!(config.request.default_top_k, 3);
    assert_eq!(config.request.max_body_bytes, 16 * 1024 * 1024);
    assert!(config.request.max_batch_queries >= 2560);
    assert!(config.load.max_queued_queries >= config.request.max_batch_queries);
    assert!(config.threads >= 1);
    let error = ServeConfig::resolve(&source(&[])).unwrap_err();
    assert_eq!(error.faults.len(), 1);
    assert_eq!(
        error.to_string(),
        "the configuration has bad values\n  RETRIEVER_INDEX (--index) is not set: \
         expected the path of a folder"
    );
}

#[test]
fn every_bad_value_is_reported_at_once() {
    let values = [
        ("RETRIEVER_BACKEND", "bm26"),
        ("RETRIEVER_HYBRID", "bm25,hybrid"),
        ("RETRIEVER_FUSION", "sum"),
        ("RETRIEVER_RRF_K", "0"),
        ("RETRIEVER_FUSION_WEIGHTS", "0,0"),
        ("RETRIEVER_FUSION_DEPTH", "0"),
        ("RETRIEVER_ADDR", "localhost"),
        ("RETRIEVER_RERANKER", ""),
        ("RETRIEVER_RERANK_DEPTH", "0"),
        ("RETRIEVER_RERANK_BUDGET_MS", "-1"),
        ("RETRIEVER_MAX_RERANK_DOCUMENTS", "all"),
        ("RETRIEVER_BATCH_QUERIES", "0"),
        ("RETRIEVER_BATCH_TOKENS", "-5"),
        ("RETRIEVER_BATCH_WAIT_US", "2000000"),
        ("RETRIEVER_INDEX", ""),
        ("RETRIEVER_CORPUS", "a,,b"),
        ("RETRIEVER_VERIFY_INDEX", "yes"),
        ("RETRIEVER_TOP_K", "0"),
        ("RETRIEVER_MAX_TOP_K", "-1"),
        ("RETRIEVER_BM25_K1", "NaN"),
        ("RETRIEVER_BM25_B", "1.5"),
        ("RETRIEVER_PASSAGE_FIELDS", "some"),
        ("RETRIEVER_PROFILE", "gem"),
        ("RETRIEVER_MAX_BODY_BYTES", "16MB"),
        ("RETRIEVER_MAX_BATCH_QUERIES", "0"),
        ("RETRIEVER_MAX_QUERY_BYTES", ""),
        ("RETRIEVER_MAX_QUEUED_QUERIES", "99999999999"),
        ("RETRIEVER_MAX_IN_FLIGHT_QUERIES", "0"),
        ("RETRIEVER_MAX_WAIT_MS", "never"),
        ("RETRIEVER_MAX_REQUESTS", "x"),
        ("RETRIEVER_MAX_BODIES_BYTES", "1GB"),
        ("RETRIEVER_MAX_CONNECTIONS", "1.5"),
        ("RETRIEVER_DEADLINE_MS", "0"),
        ("RETRIEVER_HEADER_TIMEOUT_MS", "0"),
        ("RETRIEVER_BODY_TIMEOUT_MS", ""),
        ("RETRIEVER_IDLE_TIMEOUT_MS", "99999999"),
        ("RETRIEVER_GRACE_PERIOD_MS", "1 s"),
        ("RETRIEVER_THREADS", "many"),
    ];
    let error = ServeConfig::resolve(&source(&values)).unwrap_err();
    let reported: Vec<_> = error.faults.iter().map(|fault| fault.variable).collect();
    for (name, value) in values {
        assert!(reported.contains(&name), "{name} is not reported");
        assert!(error.to_string().contains(&format!("is {value:?}: expected")), "{error}");
    }
    assert_eq!(reported.len(), values.len());
}

#[test]
fn a_hybrid_back_end_is_two_others() {
    let values = |more: &[(&str, &str)]| {
        let mut values = source(&[
            ("RETRIEVER_INDEX", "i"),
            ("RETRIEVER_BACKEND", "hybrid"),
            ("RETRIEVER_MODEL", "m"),
        ]);
        values.extend(source(more));
        values
    };
    let config = ServeConfig::resolve(&values(&[])).unwrap();
    assert_eq!(config.backend.components(), [BackendKind::Bm25, BackendKind::Dense]);
    assert!(config.encoder.is_some());
    let hybrid = config.backend.hybrid.unwrap();
    let method = Fusion::ReciprocalRank { k: 60.0 };
    assert_eq!(hybrid.fusion, FusionConfig { method, weights: [1.0; 2], depth: 100 });
    let more = [("RETRIEVER_FUSION", "weighted"), ("RETRIEVER_FUSION_WEIGHTS", "0.25,0.75")];
    let fusion = ServeConfig::resolve(&values(&more)).unwrap().backend.hybrid.unwrap().fusion;
    assert_eq!((fusion.method, fusion.weights), (Fusion::Weighted, [0.25, 0.75]));
    let wrong = ["bm25", "bm25,bm25", "bm25,dense,bm25", "bm25,", "", "bm25, dense"];
    for parts in wrong {
        let error = ServeConfig::resolve(&values(&[("RETRIEVER_HYBRID", parts)])).unwrap_err();
        assert_eq!(error.faults[0].variable, "RETRIEVER_HYBRID", "{parts:?}");
    }
    for weights in ["1", "1,-1", "nan,1", "inf,1", "1,1,1"] {
        let more = [("RETRIEVER_FUSION_WEIGHTS", weights)];
        assert!(ServeConfig::resolve(&values(&more)).is_err(), "{weights}");
    }
}

#[test]
fn limits_must_fit_each_other() {
    let values = [
        ("RETRIEVER_INDEX", "i"),
        ("RETRIEVER_TOP_K", "20"),
        ("RETRIEVER_MAX_TOP_K", "10"),
        ("RETRIEVER_MAX_QUEUED_QUERIES", "100"),
    ];
    let message = ServeConfig::resolve(&source(&values)).unwrap_err().to_string();
    let expected = "RETRIEVER_TOP_K (--top-k) is \"20\": \
                    expected at most 10, the value of RETRIEVER_MAX_TOP_K";
    assert!(message.contains(expected), "{message}");
    assert!(
        message.contains("at most 100, the value of RETRIEVER_MAX_QUEUED_QUERIES"),
        "{message}"
    );
}

#[test]
fn flags_win_over_the_environment() {
    let layered = Layered {
        flags: source(&[("RETRIEVER_TOP_K", "5")]),
        environment: source(&[("RETRIEVER_TOP_K", "7"), ("RETRIEVER_INDEX", "i")]),
    };
    let config = ServeConfig::resolve(&layered).unwrap();
    assert_eq!(config.request.default_top_k, 5);
    assert_eq!(config.index, Some(PathBuf::from("i")));
}

#[test]
fn the_log_and_the_index_command_are_checked_too() {
    let error = LogConfig::resolve(&source(&[("RETRIEVER_LOG_FORMAT", "xml")])).unwrap_err();
    assert!(error.to_string().contains("expected text or json"), "{error}");
    LogConfig::resolve(&source(&[])).unwrap();
    let error = IndexConfig::resolve(&source(&[])).unwrap_err();
    // An index that is there needs no corpus, so only the disk tells if one is missing.
    let unset: Vec<&str> = error.faults.iter().map(|fault| fault.variable).collect();
    assert_eq!(unset, ["RETRIEVER_INDEX"], "{error}");
}

#[test]
fn the_table_is_documented_and_its_names_are_one_scheme() {
    for variable in var::VARIABLES {
        let flag = variable.name.strip_prefix("RETRIEVER_").unwrap().to_lowercase();
        assert_eq!(variable.flag, flag.replace('_', "-"));
        assert!(!variable.meaning.is_empty() && !variable.accepts.is_empty(), "{}", variable.name);
    }
    let page = var::markdown();
    assert!(page.contains("| `RETRIEVER_TOP_K` | `--top-k` | `3` | passages |"), "{page}");
}

#[test]
fn an_index_is_made_for_several_back_ends() {
    let map = |backend: &str| {
        BTreeMap::from([
            ("RETRIEVER_BACKEND".to_owned(), backend.to_owned()),
            ("RETRIEVER_INDEX".to_owned(), "i".to_owned()),
            ("RETRIEVER_CORPUS".to_owned(), "c".to_owned()),
            ("RETRIEVER_MODEL".to_owned(), "m".to_owned()),
        ])
    };
    for (backend, has_encoder) in
        [("bm25", false), ("bm25,dense", true), ("dense,bm25", true), ("bm25,hybrid", true)]
    {
        let config = IndexConfig::resolve(&map(backend)).unwrap();
        assert_eq!(config.encoder.is_some(), has_encoder, "{backend}");
    }
    for backend in ["bm25,none", "bm25,", ","] {
        let error = IndexConfig::resolve(&map(backend)).unwrap_err().to_string();
        assert!(error.contains("RETRIEVER_BACKEND (--backend) is"), "{error}");
    }
    // One server answers by one back end.
    assert!(ServeConfig::resolve(&map("bm25,dense")).is_err());
}
