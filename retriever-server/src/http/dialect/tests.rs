//! Every request shape, and every fault with its location.

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

#[track_caller]
fn check(body: &str, queries: &[&str], top_k: usize, shape: Shape) {
    let call = parse(body.as_bytes(), &LIMITS).unwrap();
    assert_eq!(&call.batch.queries[..], queries);
    assert_eq!((call.batch.top_k, call.shape), (top_k, shape), "{body}");
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
fn numbers_out_of_range_are_named() {
    for (topk, shown) in [("-1", "-1"), ("1000000000", "1000000000"), ("101", "101")] {
        check_fault(
            format!(r#"{{"queries":["a"],"topk":{topk}}}"#).as_bytes(),
            &format!(
                r#"["body","topk"] is {shown}, expected an integer from 0 to 100 [out_of_range]"#
            ),
        );
    }
    check_fault(
        br#"{"queries":["a"],"topk":1.5}"#,
        r#"["body","topk"] is 1.5, expected an integer from 0 to 100 [int_type]"#,
    );
    check_fault(
        br#"{"query":"a","k":"3"}"#,
        r#"["body","k"] is a string, expected an integer from 0 to 100 [int_type]"#,
    );
}

#[test]
fn wrong_types_are_named_all_at_once() {
    check_fault(
        br#"{"queries":["a",7,null],"return_scores":"yes"}"#,
        r#"["body","queries",1] is a number, expected a string [string_type]; ["body","queries",2] is null, expected a string [string_type]; ["body","return_scores"] is a string, expected true or false [bool_type]"#,
    );
    check_fault(
        br#"{"queries":"a"}"#,
        r#"["body","queries"] is a string, expected a list of strings [list_type]"#,
    );
    check_fault(
        br#"{"query":["a"]}"#,
        r#"["body","query"] is a list, expected a string [string_type]"#,
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
