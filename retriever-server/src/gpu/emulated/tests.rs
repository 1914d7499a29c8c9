//! The kernels under the loop of phases, against the exact search.

use std::cell::Cell;

use half::f16;
use proptest::prelude::*;
use shared::contract::splitmix;

use super::*;
use crate::gpu::search::search;
use crate::gpu::shape::KEEP_MAX;
use crate::gpu::{keys, synthetic};
use crate::query::Hit;
use crate::vector::{self, RowFormat, Rows};

fn never() -> bool {
    false
}

fn halves(dimension: usize) -> Layout {
    Layout { format: DeviceFormat::Halves, dimension }
}

fn hits(emulated: &mut Emulated, queries: &[f32], keep: usize) -> Vec<Vec<Hit>> {
    let packed = PackedQueries::pack(emulated.layout, queries);
    search(emulated, &packed, keep, &never).unwrap().unwrap()
}

/// Returns the hits of the exact search in rows of half precision.
fn expected(numbers: &[f32], dimension: usize, queries: &[f32], keep: usize) -> Vec<Vec<Hit>> {
    let mut bytes = Vec::new();
    RowFormat::F16.append_row(numbers, &mut bytes);
    let rows = Rows::new(&bytes, RowFormat::F16, dimension).unwrap();
    vector::top_k(&rows, queries, keep, 1, &never).unwrap()
}

/// Returns random numbers of half precision.
fn numbers(count: usize, mut state: u64) -> Vec<f32> {
    splitmix::numbers(count, &mut state).iter().map(|&n| f16::from_f32(n).to_f32()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Uses whole numbers, so that every sum is exact and many are equal.
    #[test]
    fn the_kernels_find_what_the_exact_search_finds(
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
        let mut emulated = Emulated::new(halves(dimension), &rows);
        prop_assert_eq!(
            hits(&mut emulated, &queries, keep),
            expected(&rows, dimension, &queries, keep.min(rows.len() / dimension))
        );
    }

    #[test]
    fn lists_are_sorted(keys in proptest::collection::vec(1..40u64, 1..9usize)
        .prop_map(|keys| keys.repeat(7))) {
        let mut emulated = Emulated::new(halves(1), &[1.0]);
        emulated.begin(&PackedQueries::pack(halves(1), &[1.0]), 64).unwrap();
        emulated.lists[..keys.len()].copy_from_slice(&keys);
        emulated.counts[0] = keys.len() as u32;
        emulated.cut_lists();
        let mut expected = keys;
        expected.sort_unstable_by(|left, right| right.cmp(left));
        expected.resize(64, 0);
        prop_assert_eq!(&emulated.results, &expected);
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
            let mut emulated =
                Emulated::new(halves(dimension), &whole).with_shared_bytes(shared_bytes);
            assert_eq!(hits(&mut emulated, queries, 20), expected, "{count} {shared_bytes}");
        }
    }
}

/// Searches generated rows, and compares the hits with sums in double precision.
fn check_generated(layout: Layout, query_count: usize, rows: usize) {
    const KEEP: usize = 20;
    // Whole numbers of one byte, which both formats store exactly.
    let bytes = Layout { format: DeviceFormat::Bytes, ..layout };
    let drawn = synthetic::rows(bytes, 9, query_count).0;
    let numbers: Vec<f32> = drawn
        .chunks(bytes.pitch())
        .flat_map(|row| row[..layout.dimension].iter().map(|byte| f32::from(byte.cast_signed())))
        .collect();
    let queries = PackedQueries::pack(layout, &numbers);
    let (packed, scales) = synthetic::rows(layout, 5, rows);
    let mut emulated = Emulated::from_packed(layout, &packed, scales);
    let lists = search(&mut emulated, &queries, KEEP, &never).unwrap().unwrap();
    // The order of rows whose scores differ only by rounding is arbitrary, and so is the last row.
    let expected = synthetic::best(layout, 5, rows, &queries, KEEP + 1, 1);
    for (hits, expected) in lists.iter().zip(expected) {
        assert_eq!(hits.len(), KEEP.min(rows));
        for (hit, best) in hits.iter().zip(&expected) {
            let tolerance = 1e-4 * best.score.abs().max(1.0);
            assert!((hit.score - best.score).abs() <= tolerance, "{layout:?}: {hit:?}, {best:?}");
            let same = expected.iter().find(|best| best.row == hit.row);
            let same = same.unwrap_or_else(|| panic!("{layout:?}: {hit:?} is not among the best"));
            assert!((hit.score - same.score).abs() <= tolerance, "{layout:?}: {hit:?}, {same:?}");
        }
    }
}

/// Runs every kernel with queries that do not fill it, rows that do not fill a tile, and more slabs
/// than stages.
#[test]
fn the_kernels_find_the_best_of_generated_rows_at_all_sizes() {
    for format in [DeviceFormat::Halves, DeviceFormat::Bytes] {
        for (queries, rows) in
            [(1, 5000), (2, 300), (3, 1), (7, 4500), (9, 4500), (33, 700), (100, 400), (200, 900)]
        {
            let dimension = if queries == 9 { 330 } else { 130 };
            check_generated(Layout { format, dimension }, queries, rows);
        }
    }
}

#[test]
fn bytes_are_searched_by_whole_products() {
    let dimension = 200;
    let rows = numbers(600 * dimension, 5);
    let layout = Layout { format: DeviceFormat::Bytes, dimension };
    let pack = |numbers: &[f32]| {
        let mut packed = vec![0; layout.pitch()];
        let scale = layout.pack(numbers, &mut packed);
        (packed, scale)
    };
    let packed_rows: Vec<_> = rows.chunks(dimension).map(pack).collect();
    for count in [1, 4, 12, 40] {
        let queries = numbers(count * dimension, 6);
        let lists = hits(&mut Emulated::new(layout, &rows), &queries, 30);
        for (query, hits) in queries.chunks(dimension).zip(&lists) {
            let (query, query_scale) = pack(query);
            let mut scored: Vec<u64> = packed_rows
                .iter()
                .enumerate()
                .map(|(row, (packed, scale))| {
                    let pairs = packed.iter().zip(&query);
                    let products = pairs.map(|(left, right)| {
                        i32::from(left.cast_signed()) * i32::from(right.cast_signed())
                    });
                    keys::make(products.sum::<i32>() as f32 * scale, row as u32)
                })
                .collect();
            scored.sort_unstable_by(|left, right| right.cmp(left));
            assert_eq!(hits.len(), 30);
            for (hit, key) in hits.iter().zip(scored) {
                let expected = keys::open(key).unwrap();
                assert_eq!(hit.row, expected.row);
                assert!((hit.score - expected.score * query_scale).abs() <= 1e-5 * hit.score.abs());
            }
        }
    }
}

/// Every row is better than all before it, so each list overflows, and nothing may be lost.
#[test]
fn phases_that_overflow_are_repeated() {
    let rows: Vec<f32> = (0..24_000u16).map(|row| f16::from_bits(row / 2).to_f32()).collect();
    for (keep, count) in [(10, 1), (10, 9), (1000, 1), (KEEP_MAX, 9)] {
        let queries = vec![1.0; count];
        let mut rising = Emulated::new(halves(1), &rows);
        let lists = hits(&mut rising, &queries, keep);
        assert_eq!(lists, expected(&rows, 1, &queries, keep), "{keep} {count}");
        let falling: Vec<f32> = rows.iter().rev().copied().collect();
        let mut falling = Emulated::new(halves(1), &falling);
        hits(&mut falling, &queries, keep);
        assert!(rising.phases() > falling.phases(), "{} {}", rising.phases(), falling.phases());
    }
}

#[test]
fn rows_that_are_equal_are_ordered_by_their_number() {
    let rows = vec![1.0; 20_000];
    let mut emulated = Emulated::new(halves(1), &rows);
    for hits in hits(&mut emulated, &[0.5; 10], 50) {
        assert!(hits.iter().enumerate().all(|(index, hit)| hit.row == index as u32));
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
            let mut emulated = Emulated::new(layout, &rows);
            for hits in hits(&mut emulated, &vec![1.0; 3 * count], 100) {
                assert_eq!(hits.len(), 97);
                assert!(hits.iter().all(|hit| ![1, 20, 99].contains(&hit.row)));
            }
        }
    }
}

#[test]
fn a_stop_ends_the_search_between_phases() {
    let mut emulated = Emulated::new(halves(1), &vec![1.0; 100_000]);
    let packed = PackedQueries::pack(emulated.layout, &[1.0]);
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 1;
    assert_eq!(search(&mut emulated, &packed, 5, &stop), Ok(None));
    assert_eq!(emulated.phases(), 1);
    assert_eq!(hits(&mut emulated, &[1.0], 5)[0].len(), 5, "the next search is not disturbed");
}
