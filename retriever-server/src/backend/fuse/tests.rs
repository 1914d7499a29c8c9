//! Properties of the fusion of any two lists.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const RRF: Fusion = Fusion::ReciprocalRank { k: 60.0 };

fn hits(pairs: &[(u32, f32)]) -> Vec<Hit> {
    pairs.iter().map(|&(row, score)| Hit { row, score }).collect()
}

fn fused(one: &[Hit], other: &[Hit], weights: [f64; 2], method: Fusion, top_k: usize) -> Vec<Hit> {
    let lists =
        [Weighed { hits: one, weight: weights[0] }, Weighed { hits: other, weight: weights[1] }];
    fuse(&lists, method, top_k)
}

fn rows(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.row).collect()
}

/// Generates lists in the form that back ends return. They have few different scores, so that some are equal.
fn list() -> impl Strategy<Value = Vec<Hit>> {
    prop::collection::btree_map(0u32..30, -6i32..6, 0..20).prop_map(|scores| {
        let mut hits: Vec<Hit> =
            scores.into_iter().map(|(row, score)| Hit { row, score: score as f32 / 4.0 }).collect();
        hits.sort_by(|one, other| other.score.total_cmp(&one.score).then(one.row.cmp(&other.row)));
        hits
    })
}

fn method() -> impl Strategy<Value = Fusion> {
    prop_oneof![Just(Fusion::Weighted), Just(RRF), Just(Fusion::ReciprocalRank { k: 0.5 })]
}

/// Returns the standing of each row in a list, by which rows are compared: the negated rank, or the score.
fn standing(list: &[Hit], method: Fusion) -> BTreeMap<u32, f64> {
    let value = |rank: usize, hit: &Hit| match method {
        Fusion::ReciprocalRank { .. } => -(rank as f64),
        Fusion::Weighted => f64::from(hit.score),
    };
    list.iter().enumerate().map(|(rank, hit)| (hit.row, value(rank, hit))).collect()
}

#[test]
fn ranks_are_fused_by_the_formula() {
    let one = hits(&[(7, 9.0), (3, 8.0), (5, 1.0)]);
    let other = hits(&[(3, 0.5), (9, 0.4)]);
    let fused = fused(&one, &other, [1.0, 1.0], RRF, 10);
    assert_eq!(rows(&fused), [3, 7, 9, 5]);
    let expected = [1.0 / 62.0 + 1.0 / 61.0, 1.0 / 61.0, 1.0 / 62.0, 1.0 / 63.0];
    for (hit, expected) in fused.iter().zip(expected) {
        assert!((f64::from(hit.score) - expected).abs() < 1e-8, "{hit:?}, expected {expected}");
    }
}

#[test]
fn scores_are_fused_by_the_formula() {
    let one = hits(&[(7, 9.0), (3, 5.0), (5, 1.0)]);
    let other = hits(&[(3, 0.5), (9, 0.5)]);
    let fused = fused(&one, &other, [0.5, 0.25], Fusion::Weighted, 10);
    // All scores of the other list are equal, so each counts as 1.
    assert_eq!(fused, hits(&[(3, 0.5), (7, 0.5), (9, 0.25), (5, 0.0)]));
}

proptest! {
    #[test]
    fn the_order_of_the_lists_does_not_matter(
        one in list(), other in list(), method in method(), weights in [0.0f64..3.0, 0.1f64..3.0],
    ) {
        let [weight, other_weight] = weights;
        prop_assert_eq!(
            fused(&one, &other, [weight, other_weight], method, 50),
            fused(&other, &one, [other_weight, weight], method, 50)
        );
    }

    #[test]
    fn the_result_is_the_best_of_the_union_each_row_once(
        one in list(), other in list(), method in method(), top_k in 0usize..50,
    ) {
        let all = fused(&one, &other, [1.0, 2.0], method, usize::MAX);
        let union: BTreeSet<u32> = rows(&one).into_iter().chain(rows(&other)).collect();
        prop_assert_eq!(rows(&all).into_iter().collect::<BTreeSet<_>>(), union.clone());
        prop_assert_eq!(all.len(), union.len());
        prop_assert!(all.iter().all(|hit| hit.score.is_finite()));
        let cut = fused(&one, &other, [1.0, 2.0], method, top_k);
        prop_assert_eq!(&cut[..], &all[..top_k.min(all.len())]);
    }

    #[test]
    fn what_is_no_worse_in_both_lists_and_better_in_one_is_never_behind(
        one in list(), other in list(), method in method(), weights in [0.1f64..3.0, 0.1f64..3.0],
    ) {
        let all = fused(&one, &other, weights, method, usize::MAX);
        let standings = [standing(&one, method), standing(&other, method)];
        // A list ranks a row that it lacks below every row that it has.
        let compare = |list: &BTreeMap<u32, f64>, better: u32, worse: u32| {
            list.get(&better).partial_cmp(&list.get(&worse)).unwrap()
        };
        for (index, behind) in all.iter().enumerate() {
            for ahead in &all[..index] {
                let orders =
                    standings.each_ref().map(|list| compare(list, behind.row, ahead.row));
                let better = orders.iter().all(|order| order.is_ge())
                    && orders.iter().any(|order| order.is_gt());
                // By score, the last row of a list counts like a row that it lacks.
                let equal = method == Fusion::Weighted
                    && (behind.score - ahead.score).abs() < f32::EPSILON
                    && behind.row > ahead.row;
                prop_assert!(!better || equal, "{behind:?} is behind {ahead:?}");
            }
        }
    }

    #[test]
    fn equal_sums_stand_in_the_order_of_rows(
        one in list(), other in list(), method in method(),
    ) {
        let all = fused(&one, &other, [1.0, 1.0], method, usize::MAX);
        for pair in all.windows(2) {
            prop_assert!(pair[0].score >= pair[1].score, "{pair:?}");
        }
        // With the same list twice, no two rows are equal by rank; by score, those that were equal are.
        let twice = fused(&one, &one, [1.0, 1.0], method, usize::MAX);
        prop_assert_eq!(rows(&twice), rows(&one));
    }

    #[test]
    fn ranks_do_not_know_the_scale_of_scores(
        one in list(), other in list(), factor in 0.001f32..1000.0, shift in -10.0f32..10.0,
    ) {
        let scaled: Vec<Hit> =
            one.iter().map(|hit| Hit { score: hit.score * factor + shift, ..*hit }).collect();
        prop_assert_eq!(
            fused(&one, &other, [1.0, 1.0], RRF, 50),
            fused(&scaled, &other, [1.0, 1.0], RRF, 50)
        );
    }

    #[test]
    fn a_list_of_weight_0_is_left_out(one in list(), other in list(), method in method()) {
        let first = fused(&one, &other, [1.0, 0.0], method, usize::MAX);
        prop_assert_eq!(rows(&first), rows(&one));
    }
}
