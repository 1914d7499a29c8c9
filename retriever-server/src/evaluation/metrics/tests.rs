//! Comparison of the measures with values from trec_eval's own code.

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
    /// The grades by query and passage.
    qrels: BTreeMap<String, BTreeMap<String, i32>>,
    /// The scores by query and passage.
    run: BTreeMap<String, BTreeMap<String, f64>>,
    /// The values by query and measure.
    per_query: BTreeMap<String, BTreeMap<String, f64>>,
    /// The means over all judged queries with a relevant passage. A query that is not in the run counts
    /// as 0.
    means: BTreeMap<String, f64>,
}

fn recording() -> Recording {
    let file = "retrieval-metrics.json";
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(file));
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    let path = named.filter(|path| path.is_file()).unwrap_or(copy);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Orders a run like trec_eval, by score and then by identifier, both descending.
fn ranking(run: &BTreeMap<String, f64>) -> Vec<&str> {
    let mut hits: Vec<(&str, f64)> = run.iter().map(|(id, &score)| (id.as_str(), score)).collect();
    hits.sort_by(|left, right| right.1.total_cmp(&left.1).then(right.0.cmp(left.0)));
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
fn expect_close(value: f64, expected: f64, context: &str) {
    assert!((value - expected).abs() < 1e-9, "{context}: {value}, expected {expected}");
}

#[test]
fn every_query_has_the_scores_of_trec_eval() {
    let mut compared = 0;
    for case in recording().cases {
        for (query, values) in &case.per_query {
            let (ranking, relevance) = (ranking(&case.run[query]), relevance(&case.qrels[query]));
            for (name, &expected) in values {
                let value = measured(name, &ranking, &relevance);
                expect_close(value, expected, &format!("{}, {query}, {name}", case.name));
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
            let score = Score::from_values(&values).unwrap();
            expect_close(score.mean, expected, &format!("{}, {name}", case.name));
            compared += 1;
        }
    }
    assert!(compared > 10, "only {compared} means were compared");
}

#[test]
fn passages_without_judgement_are_not_relevant() {
    let relevance = relevance(&BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), -1)]));
    for ranking in [vec![], vec!["a", "b", "c"]] {
        assert_eq!(ndcg(&ranking, &relevance, 10).to_bits(), 0);
        assert_eq!(recall(&ranking, &relevance, 10).to_bits(), 0);
        assert_eq!(reciprocal_rank(&ranking, &relevance, 10).to_bits(), 0);
    }
}
