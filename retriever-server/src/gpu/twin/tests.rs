//! The loop of phases over the twin of the kernels, against the plain search.

use std::cell::Cell;

use half::f16;
use proptest::prelude::*;
use shared::splitmix;

use super::*;
use crate::gpu::search::search;
use crate::gpu::shape::KEEP_MAX;
use crate::query::Hit;
use crate::vector::{self, RowFormat, Rows};

const SHARED_BYTES: usize = 227 << 10;

fn never() -> bool {
    false
}

fn halves(dimension: usize) -> Layout {
    Layout { format: DeviceFormat::Halves, dimension }
}

fn found(twin: &mut Twin, queries: &[f32], keep: usize) -> Vec<Vec<Hit>> {
    let packed = PackedQueries::pack(twin.layout, queries);
    let Ok(found) = search(twin, &packed, keep, &never);
    found.unwrap()
}

/// What the processor's search finds in rows of half precision.
fn expected(numbers: &[f32], dimension: usize, queries: &[f32], keep: usize) -> Vec<Vec<Hit>> {
    let mut bytes = Vec::new();
    RowFormat::F16.append_row(numbers, &mut bytes);
    let rows = Rows::new(&bytes, RowFormat::F16, dimension).unwrap();
    vector::top_k(&rows, queries, keep, 1, &never).unwrap()
}

/// Random numbers of half precision.
fn numbers(count: usize, mut state: u64) -> Vec<f32> {
    splitmix::numbers(count, &mut state).iter().map(|&n| f16::from_f32(n).to_f32()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whole numbers, so that every sum is exact and many are equal.
    #[test]
    fn the_twin_finds_what_the_plain_search_finds(
        dimension in 1..150usize,
        rows in 1..500usize,
        queries in 1..70usize,
        keep in 1..300usize,
        seed in 0..1000u64,
    ) {
        let whole = |count, seed| -> Vec<f32> {
            numbers(count, seed).into_iter().map(|number| (number * 3.0).round()).collect()
        };
        let (rows, queries) = (whole(rows * dimension, seed), whole(queries * dimension, seed + 1));
        let mut twin = Twin::new(halves(dimension), &rows, SHARED_BYTES);
        prop_assert_eq!(
            found(&mut twin, &queries, keep),
            expected(&rows, dimension, &queries, keep.min(rows.len() / dimension))
        );
    }

    #[test]
    fn the_network_sorts(mut keys in proptest::collection::vec(0..40u64, 0..9usize)
        .prop_map(|keys| keys.repeat(7))) {
        keys.resize(keys.len().next_power_of_two(), 0);
        let mut expected = keys.clone();
        expected.sort_unstable_by(|one, other| other.cmp(one));
        sort_descending(&mut keys);
        prop_assert_eq!(keys, expected);
    }
}

#[test]
fn every_kernel_finds_the_same() {
    let dimension = 70;
    let whole: Vec<f32> = numbers(700 * dimension, 3).iter().map(|n| (n * 4.0).round()).collect();
    let queries: Vec<f32> = numbers(256 * dimension, 4).iter().map(|n| (n * 4.0).round()).collect();
    for count in [1, 2, 3, 7, 9, 33, 65, 129, 256] {
        let queries = &queries[..count * dimension];
        let expected = expected(&whole, dimension, queries, 20);
        for shared_bytes in [SHARED_BYTES, 99 << 10, 0] {
            let mut twin = Twin::new(halves(dimension), &whole, shared_bytes);
            assert_eq!(found(&mut twin, queries, 20), expected, "{count} {shared_bytes}");
        }
    }
}

#[test]
fn bytes_are_searched_by_whole_products() {
    let dimension = 200;
    let rows = numbers(600 * dimension, 5);
    let layout = Layout { format: DeviceFormat::Bytes, dimension };
    for count in [1, 4, 12, 40] {
        let queries = numbers(count * dimension, 6);
        let mut twin = Twin::new(layout, &rows, SHARED_BYTES);
        let found = found(&mut twin, &queries, 30);
        for (query, hits) in queries.chunks(dimension).zip(&found) {
            let mut packed = vec![0; layout.pitch()];
            let scale = layout.pack(query, &mut packed);
            let mut scored: Vec<u64> = (0..600)
                .map(|row| {
                    let sum = Bytes::add(0, twin.row(row), &packed);
                    keys::make(sum as f32 * twin.scales[row], row as u32)
                })
                .collect();
            scored.sort_unstable_by(|one, other| other.cmp(one));
            assert_eq!(hits.len(), 30);
            for (hit, key) in hits.iter().zip(scored) {
                let expected = keys::open(key).unwrap();
                assert_eq!(hit.row, expected.row);
                assert!((hit.score - expected.score * scale).abs() <= 1e-5 * hit.score.abs());
            }
        }
    }
}

/// Every row is better than all before it: each list runs over, and nothing is lost.
#[test]
fn lists_that_run_over_are_made_again() {
    let rows: Vec<f32> = (0..24_000u16).map(|row| f16::from_bits(row / 2).to_f32()).collect();
    for (keep, count) in [(10, 1), (10, 9), (1000, 1), (KEEP_MAX, 9)] {
        let queries = vec![1.0; count];
        let mut twin = Twin::new(halves(1), &rows, SHARED_BYTES);
        let found = found(&mut twin, &queries, keep);
        let expected = expected(&rows, 1, &queries, keep);
        assert_eq!(found, expected, "{keep} {count}");
        let calm: Vec<f32> = rows.iter().rev().copied().collect();
        let mut calm = Twin::new(halves(1), &calm, SHARED_BYTES);
        let _ = super::tests::found(&mut calm, &queries, keep);
        assert!(twin.phases() > calm.phases(), "{} {}", twin.phases(), calm.phases());
    }
}

#[test]
fn rows_that_are_equal_go_by_their_number() {
    let rows = vec![1.0; 20_000];
    let mut twin = Twin::new(halves(1), &rows, SHARED_BYTES);
    for hits in found(&mut twin, &[0.5; 10], 50) {
        assert!(hits.iter().enumerate().all(|(place, hit)| hit.row == place as u32));
        assert_eq!(hits.len(), 50);
    }
}

#[test]
fn rows_that_are_not_finite_are_left_out() {
    for format in [DeviceFormat::Halves, DeviceFormat::Bytes] {
        let mut rows = vec![0.5; 300];
        for (row, poison) in [(3, f32::NAN), (60, f32::INFINITY), (299, f32::NEG_INFINITY)] {
            rows[row] = poison;
        }
        for count in [1, 20] {
            let layout = Layout { format, dimension: 3 };
            let mut twin = Twin::new(layout, &rows, SHARED_BYTES);
            for hits in found(&mut twin, &vec![1.0; 3 * count], 100) {
                assert_eq!(hits.len(), 97);
                assert!(hits.iter().all(|hit| ![1, 20, 99].contains(&hit.row)));
            }
        }
    }
}

#[test]
fn a_stop_ends_the_search_between_phases() {
    let mut twin = Twin::new(halves(1), &vec![1.0; 100_000], SHARED_BYTES);
    let packed = PackedQueries::pack(twin.layout, &[1.0]);
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 1;
    assert_eq!(search(&mut twin, &packed, 5, &stop), Ok(None));
    assert_eq!(twin.phases(), 1);
    assert_eq!(found(&mut twin, &[1.0], 5)[0].len(), 5, "and the next is not disturbed");
}
