//! The measures against values that trec_eval's code computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::evaluation::scores::Score;

#[derive(Deserialize)]
struct Recording {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// Query, passage, grade.
    qrels: BTreeMap<String, BTreeMap<String, i32>>,
    /// Query, passage, score.
    run: BTreeMap<String, BTreeMap<String, f64>>,
    /// Query, measure, value.
    per_query: BTreeMap<String, BTreeMap<String, f64>>,
    /// Over all judged queries that have a relevant passage; one that is not in the run counts 0.
    means: BTreeMap<String, f64>,
}

fn recording() -> Recording {
    let file = "retrieval-metrics.json";
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(file));
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    let path = named.filter(|path| path.is_file()).unwrap_or(copy);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// As trec_eval orders a run: by score, then by identifier, both falling.
fn ranking(run: &BTreeMap<String, f64>) -> Vec<&str> {
    let mut hits: Vec<(&str, f64)> = run.iter().map(|(id, &score)| (id.as_str(), score)).collect();
    hits.sort_by(|one, other| other.1.total_cmp(&one.1).then(other.0.cmp(one.0)));
    hits.into_iter().map(|(id, _)| id).collect()
}

fn relevance(grades: &BTreeMap<String, i32>) -> Relevance {
    Relevance::new(grades.iter().map(|(id, &grade)| (id.clone(), grade)))
}

fn measured(name: &str, ranking: &[&str], relevance: &Relevance) -> f64 {
    let (measure, cutoff) = name.split_once('@').unwrap();
    let cutoff = cutoff.parse().unwrap();
    match measure {
        "nDCG" => ndcg(ranking, relevance, cutoff),
        "recall" => recall(ranking, relevance, cutoff),
        "MRR" => reciprocal_rank(ranking, relevance, cutoff),
        other => panic!("{other} is not measured"),
    }
}

#[track_caller]
fn expect_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9, "{what}: {found}, expected {expected}");
}

#[test]
fn every_query_scores_as_in_trec_eval() {
    let mut compared = 0;
    for case in recording().cases {
        for (query, values) in &case.per_query {
            let (ranking, relevance) = (ranking(&case.run[query]), relevance(&case.qrels[query]));
            for (name, &expected) in values {
                let found = measured(name, &ranking, &relevance);
                expect_close(found, expected, &format!("{}, {query}, {name}", case.name));
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "only {compared} values were compared");
}

#[test]
fn means_are_over_the_queries_that_have_a_relevant_passage() {
    let nothing = BTreeMap::new();
    let mut compared = 0;
    for case in recording().cases {
        for (name, &expected) in &case.means {
            let values: Vec<f64> = case
                .qrels
                .iter()
                .map(|(query, grades)| (query, relevance(grades)))
                .filter(|(_, relevance)| relevance.relevant_count() > 0)
                .map(|(query, relevance)| {
                    let ranking = ranking(case.run.get(query).unwrap_or(&nothing));
                    measured(name, &ranking, &relevance)
                })
                .collect();
            let found = Score::of(&values).unwrap();
            expect_close(found.mean, expected, &format!("{}, {name}", case.name));
            compared += 1;
        }
    }
    assert!(compared > 10, "only {compared} means were compared");
}

#[test]
fn what_is_not_judged_is_not_relevant() {
    let relevance = relevance(&BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), -1)]));
    for ranking in [vec![], vec!["a", "b", "c"]] {
        assert_eq!(ndcg(&ranking, &relevance, 10).to_bits(), 0);
        assert_eq!(recall(&ranking, &relevance, 10).to_bits(), 0);
        assert_eq!(reciprocal_rank(&ranking, &relevance, 10).to_bits(), 0);
    }
}
