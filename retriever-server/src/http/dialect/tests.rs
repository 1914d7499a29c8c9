//! Every request shape, and every fault with its location.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    default_top_k: 3,
    max_top_k: 100,
    max_body_bytes: 1 << 20,
    max_batch_queries: 4,
    max_query_bytes: 1 << 10,
    max_rerank_documents: 5,
    deadline: Duration::from_mins(1),
};

/// Parses a body of `/retrieve`.
fn parse(body: &[u8], limits: &RequestLimits) -> Result<Call, Vec<ValidationError>> {
    super::parse(body, limits, Route::Retrieve, Profile::Rllm)
}

#[track_caller]
fn check(body: &str, queries: &[&str], top_k: usize, shape: Shape) {
    let call = parse(body.as_bytes(), &LIMITS).unwrap();
    assert_eq!(&call.batch.queries[..], queries);
    assert_eq!((call.batch.top_k, call.shape), (top_k, shape), "{body}");
    assert!(!call.is_partial, "{body}");
}

#[track_caller]
fn check_fault(body: &[u8], expected: &str) {
    let faults = parse(body, &LIMITS).unwrap_err();
    let text: Vec<String> = faults
        .iter()
        .map(|fault| {
            let loc = serde_json::to_string(&fault.loc).unwrap();
            format!("{loc} {} [{}]", fault.msg, fault.kind)
        })
        .collect();
    assert_eq!(text.join("; "), expected);
}

#[test]
fn shapes_of_the_known_clients() {
    check(r#"{"queries":["a",""],"topk":5,"return_scores":true}"#, &["a", ""], 5, Shape::Scored);
    check(r#"{"queries":["a"],"topk":5,"return_scores":false}"#, &["a"], 5, Shape::Bare);
    check(r#"{"query":"a","topk":2,"return_scores":true}"#, &["a"], 2, Shape::Scored);
    check(r#"{"query":"a"}"#, &["a"], 3, Shape::Bare);
    check(r#"{"query":"a","top_k":7}"#, &["a"], 7, Shape::Rllm);
    check(r#"{"query":"a","k":7}"#, &["a"], 7, Shape::Rllm);
    check(r#"{"queries":[]}"#, &[], 3, Shape::Bare);
}

/// Parses a body of another route or profile, and returns its queries, number of passages and shape.
fn parsed(body: &str, route: Route, profile: Profile) -> (Vec<String>, usize, Shape) {
    let call = super::parse(body.as_bytes(), &LIMITS, route, profile).unwrap();
    (call.batch.queries.to_vec(), call.batch.top_k, call.shape)
}

#[test]
fn shapes_of_other_routes() {
    let queries = |queries: &[&str]| -> Vec<String> {
        queries.iter().map(|query| (*query).to_owned()).collect()
    };
    let documents = |is_single, with_scores| Shape::Documents { is_single, with_scores };
    for (route, body, expected) in [
        (
            Route::Search,
            r#"{"query":"a","top_n":2,"return_score":true}"#,
            (queries(&["a"]), 2, documents(true, true)),
        ),
        (Route::Search, r#"{"query":"a"}"#, (queries(&["a"]), 3, documents(true, false))),
        (
            Route::BatchSearch,
            r#"{"query":["a","b"],"top_n":4}"#,
            (queries(&["a", "b"]), 4, documents(false, false)),
        ),
        (Route::BatchSearch, r#"{"query":[]}"#, (queries(&[]), 3, documents(false, false))),
        (Route::Queries, r#"{"queries":["a"],"k":5}"#, (queries(&["a"]), 5, Shape::Answers)),
    ] {
        assert_eq!(parsed(body, route, Profile::Rllm), expected, "{body}");
    }
    for (route, body, expected) in [
        (Route::Search, r#"{"query":" "}"#, "is empty, expected a text"),
        (Route::Search, r#"{"query":["a"]}"#, "is a list, expected a string"),
        (Route::Search, r#"{"queries":["a"]}"#, "field required: query, a string"),
        (Route::BatchSearch, r#"{"query":"a"}"#, "is a string, expected a list of strings"),
        (Route::BatchSearch, "{}", "field required: query, a list of strings"),
        (Route::Queries, r#"{"query":"a"}"#, "field required: queries, a list of strings"),
        (Route::Queries, r#"{"queries":["a"],"k":-1}"#, "is -1, expected an integer"),
    ] {
        let faults = super::parse(body.as_bytes(), &LIMITS, route, Profile::Rllm).unwrap_err();
        assert!(faults[0].msg.contains(expected), "{body}: {faults:?}");
    }
}

#[test]
fn profiles_decide_on_requests_that_several_clients_send() {
    let top_k = r#"{"query":"a","top_k":2}"#;
    let bare = r#"{"queries":["a"]}"#;
    let with_scores = r#"{"queries":["a"],"return_scores":true}"#;
    let without_scores = r#"{"queries":["a"],"return_scores":false}"#;
    for (profile, shapes) in [
        (Profile::Rllm, [Shape::Rllm, Shape::Bare, Shape::Scored, Shape::Bare]),
        (Profile::Zerosearch, [Shape::Texts, Shape::Bare, Shape::Scored, Shape::Bare]),
        (Profile::Proxy, [Shape::Rllm, Shape::Wrapped, Shape::Scored, Shape::Bare]),
    ] {
        let read = [top_k, bare, with_scores, without_scores]
            .map(|body| parsed(body, Route::Retrieve, profile).2);
        assert_eq!(read, shapes, "{profile:?}");
    }
}

#[test]
fn message_pack_is_known_by_its_first_byte() {
    for (fields, shape) in [
        (r#"{"queries":["a"],"topk":2,"return_scores":true}"#, Shape::Scored),
        (r#"{"query":"a","topk":2,"return_scores":true}"#, Shape::Single),
        (r#"{"query":"a","topk":2}"#, Shape::Bare),
    ] {
        let value: Value = serde_json::from_str(fields).unwrap();
        let body = rmp_serde::to_vec(&value).unwrap();
        let call = parse(&body, &LIMITS).unwrap();
        assert_eq!((call.shape, call.encoding), (shape, Encoding::MessagePack), "{fields}");
        assert_eq!((&call.batch.queries[..], call.batch.top_k), (&["a".to_owned()][..], 2));
    }
    let faults = parse(b"\x81\xa7queries\x01", &LIMITS).unwrap_err();
    assert_eq!(faults[0].msg, "is a number, expected a list of strings");
    let faults = parse(b"\x81\xa7quer", &LIMITS).unwrap_err();
    assert_eq!(faults[0].kind, "msgpack_invalid");
}

#[test]
fn absent_null_and_zero_mean_the_default() {
    for topk in ["null", "0", "0.0"] {
        check(&format!(r#"{{"queries":["a"],"topk":{topk}}}"#), &["a"], 3, Shape::Bare);
    }
    check(r#"{"queries":["a"],"topk":4.0,"return_scores":null}"#, &["a"], 4, Shape::Bare);
}

#[test]
fn unknown_keys_are_ignored() {
    check(r#"{"queries":["a"],"user":7,"top_k":50}"#, &["a"], 3, Shape::Bare);
}

#[test]
fn a_list_of_queries_may_have_the_key_of_one() {
    check(r#"{"query":["a","b"],"topk":2,"return_scores":true}"#, &["a", "b"], 2, Shape::Scored);
    check(r#"{"query":["a"],"top_k":7}"#, &["a"], 7, Shape::Bare);
    check(r#"{"query":[]}"#, &[], 3, Shape::Bare);
    check(r#"{"queries":null,"query":"a"}"#, &["a"], 3, Shape::Bare);
    check(r#"{"queries":null,"query":"a","k":5}"#, &["a"], 5, Shape::Rllm);
}

#[test]
fn a_number_above_the_limit_is_the_limit() {
    for (topk, expected, is_limited) in [
        ("100", 100, false),
        ("101", 100, true),
        (r#""1_000""#, 100, true),
        ("1e30", 100, true),
        ("123456789012345678901234567890", 100, true),
    ] {
        let body = format!(r#"{{"queries":["a"],"topk":{topk}}}"#);
        let call = parse(body.as_bytes(), &LIMITS).unwrap();
        assert_eq!((call.batch.top_k, call.is_top_k_limited), (expected, is_limited), "{body}");
    }
}

#[test]
fn a_request_may_allow_that_queries_fail_alone() {
    for (value, expected) in [("true", true), ("1", true), ("\"yes\"", true), ("null", false)] {
        let body = format!(r#"{{"queries":["a"],"partial":{value}}}"#);
        assert_eq!(parse(body.as_bytes(), &LIMITS).unwrap().is_partial, expected, "{body}");
    }
    check_fault(
        br#"{"queries":["a"],"partial":"some"}"#,
        r#"["body","partial"] is "some", expected true or false [bool_type]"#,
    );
}

#[test]
fn wrong_numbers_are_named() {
    check_fault(
        br#"{"queries":["a"],"topk":-1}"#,
        r#"["body","topk"] is -1, expected an integer of at least 0 [out_of_range]"#,
    );
    check_fault(
        br#"{"queries":["a"],"topk":1.5}"#,
        r#"["body","topk"] is 1.5, expected an integer of at least 0 [int_type]"#,
    );
    check_fault(
        br#"{"query":"a","k":"three"}"#,
        r#"["body","k"] is "three", expected an integer of at least 0 [int_type]"#,
    );
    check_fault(
        br#"{"query":"a","k":[3]}"#,
        r#"["body","k"] is a list, expected an integer of at least 0 [int_type]"#,
    );
    let long = format!(r#"{{"query":"a","topk":"{}"}}"#, "9x".repeat(1000));
    let faults = parse(long.as_bytes(), &LIMITS).unwrap_err();
    assert!(faults[0].msg.len() < 120, "{faults:?}");
}

#[test]
fn wrong_types_are_named_all_at_once() {
    check_fault(
        br#"{"queries":["a",7,null],"return_scores":"often"}"#,
        r#"["body","queries",1] is a number, expected a string [string_type]; ["body","queries",2] is null, expected a string [string_type]; ["body","return_scores"] is "often", expected true or false [bool_type]"#,
    );
    check_fault(
        br#"{"queries":"a"}"#,
        r#"["body","queries"] is a string, expected a list of strings [list_type]"#,
    );
    check_fault(
        br#"{"query":{"a":1}}"#,
        r#"["body","query"] is an object, expected a string or a list of strings [string_type]"#,
    );
    check_fault(
        br#"{"query":["a",1]}"#,
        r#"["body","query",1] is a number, expected a string [string_type]"#,
    );
    check_fault(
        br#"{"queries":["a","a","a","a","a"]}"#,
        r#"["body","queries"] has 5 queries, expected at most 4 [too_long]"#,
    );
    check_fault(
        b"{}",
        r#"["body"] field required: queries, a list of strings, or query, a string [missing]"#
            .replace(r#"["body"]"#, r#"["body","queries"]"#)
            .as_str(),
    );
}

#[test]
fn bodies_that_are_no_object_are_named() {
    check_fault(b" ", r#"["body"] the body is empty, expected a JSON object [json_invalid]"#);
    check_fault(b"[]", r#"["body"] the body is a list, expected an object [object_type]"#);
    check_fault(
        b"{\"queries\":[\"a\xff\"]}",
        r#"["body"] the body is not UTF-8: invalid at byte 14 [json_invalid]"#,
    );
    let nested = "[".repeat(100_000);
    let faults = parse(nested.as_bytes(), &LIMITS).unwrap_err();
    assert!(faults[0].msg.contains("recursion limit"), "{faults:?}");
}

#[test]
fn a_flood_of_faults_is_cut() {
    let limits = RequestLimits { max_batch_queries: 1000, ..LIMITS };
    let body = format!(r#"{{"queries":[{}]}}"#, vec!["1"; 900].join(","));
    assert_eq!(parse(body.as_bytes(), &limits).unwrap_err().len(), MAX_FAULTS);
}

/// The server of Search-R1 that retrieves and ranks again has another name for the number.
#[test]
fn the_number_of_passages_after_ranking_again_is_read() {
    let body = br#"{"queries":["a"],"topk_retrieval":9,"topk_rerank":2,"return_scores":true}"#;
    let call = parse(body, &LIMITS).unwrap();
    assert_eq!((call.batch.top_k, call.shape), (2, Shape::Scored));
}

/// Returns `true` for a body that is served although the recorded application refuses or fails it.
fn is_served_here_only(body: &str) -> bool {
    // A number beyond 64 bits that is written as a float is above the limit all the same.
    let numbers = [r#""topk":1e30}"#];
    let null = [r#""return_scores":null}"#];
    numbers.iter().chain(&null).any(|end| body.ends_with(end))
}

/// Returns `true` for a number below 0, which the recorded application takes, and its search then fails.
fn is_negative(read: &Value) -> bool {
    read["topk"].as_i64().is_some_and(|topk| topk < 0)
}

/// The bodies have one character for each byte.
#[test]
fn bodies_are_read_as_the_application_of_the_reference_reads_them() {
    let file = "pydantic-requests.json";
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(file));
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    let path = named.filter(|path| path.exists()).unwrap_or(copy);
    let recorded: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 200);
    let mut served_here_only = 0;
    for case in cases {
        let text = case["body"].as_str().unwrap();
        let body: Vec<u8> = text.chars().map(|byte| u8::try_from(byte).unwrap()).collect();
        let parsed = parse(&body, &LIMITS);
        let read = &case["read"];
        if case["status"] != 200 || is_negative(read) {
            assert_eq!(parsed.is_ok(), is_served_here_only(text), "{text}: {parsed:?}");
            served_here_only += usize::from(parsed.is_ok());
            continue;
        }
        let call = parsed.unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
        let queries: Vec<&str> =
            read["queries"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!(&call.batch.queries[..], queries, "{text}");
        let top_k = match read["topk"].as_u64() {
            None | Some(0) => LIMITS.default_top_k as u64,
            Some(topk) => topk.min(LIMITS.max_top_k as u64),
        };
        assert_eq!(call.batch.top_k as u64, top_k, "{text}");
        let shape = if read["return_scores"] == true { Shape::Scored } else { Shape::Bare };
        assert_eq!(call.shape, shape, "{text}");
    }
    assert_eq!(served_here_only, 2);
}
