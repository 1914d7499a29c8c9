//! All instructions compared with plain sums.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;
use proptest::prelude::*;
use shared::contract::splitmix::numbers;

use super::best::RankedHit;
use super::*;

const FORMATS: [RowFormat; 3] = [RowFormat::F32, RowFormat::F16, RowFormat::I8];

fn never() -> bool {
    false
}

/// Returns rows of a format after `shift` bytes, for any alignment.
fn stored(numbers: &[f32], dimension: usize, format: RowFormat, shift: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; shift];
    for row in numbers.chunks(dimension) {
        format.append_row(row, &mut bytes);
    }
    bytes
}

/// Scores all rows one by one, in double precision, and sorts them.
fn oracle(rows: &Rows<'_>, queries: &[f32], top_k: usize) -> Vec<Vec<Hit>> {
    let mut numbers = vec![0.0; rows.dimension()];
    queries
        .chunks(rows.dimension())
        .map(|query| {
            let mut hits = Vec::new();
            for row in 0..rows.count() {
                rows.read_row(row, &mut numbers);
                let products = query.iter().zip(&numbers);
                let score: f64 =
                    products.map(|(left, right)| f64::from(*left) * f64::from(*right)).sum();
                // -0 becomes 0.
                hits.push(Hit { row: row as u32, score: score as f32 + 0.0 });
            }
            hits.retain(|hit| hit.score.is_finite());
            hits.sort_by_key(|&hit| std::cmp::Reverse(RankedHit(hit)));
            hits.truncate(top_k);
            hits
        })
        .collect()
}

#[derive(Clone, Debug)]
struct Case {
    dimension: usize,
    rows: Vec<f32>,
    queries: Vec<f32>,
    top_k: usize,
    shift: usize,
    threads: usize,
}

/// Generates cases of sizes around those of lanes, blocks and panels, with the given numbers.
fn case(number: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = Case> {
    (1..70usize, 0..200usize, 1..70usize).prop_flat_map(move |(dimension, rows, queries)| {
        let rows = proptest::collection::vec(number.clone(), dimension * rows);
        let queries = proptest::collection::vec(number.clone(), dimension * queries);
        (Just(dimension), rows, queries, 0..250usize, 0..9usize, 0..4usize).prop_map(
            |(dimension, rows, queries, top_k, shift, threads)| Case {
                dimension,
                rows,
                queries,
                top_k,
                shift,
                threads,
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Uses whole numbers, so that every sum is exact and many are equal.
    #[test]
    fn ties_go_to_the_lower_row(case in case((-3..4i8).prop_map(f32::from))) {
        for format in [RowFormat::F32, RowFormat::F16] {
            let bytes = stored(&case.rows, case.dimension, format, case.shift);
            let rows = Rows::new(&bytes[case.shift..], format, case.dimension).unwrap();
            let expected = oracle(&rows, &case.queries, case.top_k);
            for instructions in Instructions::available() {
                let Case { queries, top_k, threads, .. } = &case;
                let lists = top_k_with(instructions, &rows, queries, *top_k, *threads, &never);
                prop_assert_eq!(lists.as_ref(), Some(&expected), "{:?} {:?}", format, instructions);
            }
        }
    }

    #[test]
    fn all_instructions_find_the_rows_of_plain_sums(case in case(-1f32..1.0)) {
        for format in FORMATS {
            let bytes = stored(&case.rows, case.dimension, format, case.shift);
            let rows = Rows::new(&bytes[case.shift..], format, case.dimension).unwrap();
            let expected = oracle(&rows, &case.queries, case.top_k);
            for instructions in Instructions::available() {
                let Case { queries, top_k, threads, .. } = &case;
                let lists = top_k_with(instructions, &rows, queries, *top_k, *threads, &never).unwrap();
                prop_assert_eq!(lists.len(), expected.len());
                for (hits, expected) in lists.iter().zip(&expected) {
                    let rows = |hits: &[Hit]| hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
                    prop_assert_eq!(rows(hits), rows(expected), "{:?} {:?}", format, instructions);
                    for (hit, expected) in hits.iter().zip(expected) {
                        prop_assert!((hit.score - expected.score).abs() <= 1e-6 * expected.score.abs().max(1e-3));
                    }
                }
            }
        }
    }

    /// A number that is not finite makes its row's score not finite, whatever the query. `I8` cannot
    /// store such a number.
    #[test]
    fn rows_that_are_not_finite_are_left_out(
        case in case(-1f32..1.0),
        poison in proptest::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        every in 1..50usize,
    ) {
        let mut numbers = case.rows.clone();
        for (index, row) in numbers.chunks_mut(case.dimension).enumerate().step_by(every) {
            row[index % case.dimension] = poison;
        }
        for format in [RowFormat::F32, RowFormat::F16] {
            let bytes = stored(&numbers, case.dimension, format, 0);
            let rows = Rows::new(&bytes, format, case.dimension).unwrap();
            let poisoned = rows.count().div_ceil(every);
            for instructions in Instructions::available() {
                let lists = top_k_with(instructions, &rows, &case.queries, 300, 2, &never).unwrap();
                for hits in lists {
                    prop_assert_eq!(hits.len(), rows.count() - poisoned, "{:?}", instructions);
                    for hit in hits {
                        prop_assert!(hit.score.is_finite() && !(hit.row as usize).is_multiple_of(every));
                    }
                }
            }
        }
    }
}

/// Uses enough rows for several chunks and threads; the proptests above use only one.
#[test]
fn many_chunks_on_many_threads_give_the_same() {
    let (dimension, count) = (100, 9_001);
    let numbers_of_rows = numbers(dimension * count, &mut 1);
    for format in FORMATS {
        let bytes = stored(&numbers_of_rows, dimension, format, 1);
        let rows = Rows::new(&bytes[1..], format, dimension).unwrap();
        for query_count in [1, 5, 60] {
            let queries = numbers(dimension * query_count, &mut 2);
            let expected = oracle(&rows, &queries, 20);
            for instructions in Instructions::available() {
                for threads in [0, 1, 3, 100] {
                    let lists =
                        top_k_with(instructions, &rows, &queries, 20, threads, &never).unwrap();
                    for (hits, expected) in lists.iter().zip(&expected) {
                        let rows =
                            |hits: &[Hit]| hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
                        assert_eq!(rows(hits), rows(expected), "{format:?} {instructions:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_query_has_the_same_hits_alone_and_in_a_batch() {
    let (dimension, count) = (384, 3_000);
    let bytes = stored(&numbers(dimension * count, &mut 3), dimension, RowFormat::F32, 0);
    let rows = Rows::new(&bytes, RowFormat::F32, dimension).unwrap();
    let queries = numbers(dimension * 50, &mut 4);
    for instructions in Instructions::available() {
        let batch = top_k_with(instructions, &rows, &queries, 10, 2, &never).unwrap();
        assert_eq!(batch.len(), 50);
        for (query, expected) in queries.chunks(dimension).zip(&batch) {
            assert_eq!(&top_k(&rows, query, 10, 1, &never).unwrap()[0], expected);
        }
    }
}

#[test]
fn a_stop_ends_the_search_between_chunks() {
    let dimension = 16;
    let bytes = stored(&numbers(dimension * 50_000, &mut 5), dimension, RowFormat::F32, 0);
    let rows = Rows::new(&bytes, RowFormat::F32, dimension).unwrap();
    let query = numbers(dimension, &mut 6);
    for threads in [1, 2] {
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 3;
        assert_eq!(top_k(&rows, &query, 1, threads, &stop), None);
        let asked = asked.into_inner();
        assert!((4..=5).contains(&asked), "asked {asked} times");
    }
    assert!(top_k(&rows, &query, 1, 2, &never).is_some());
}

#[test]
fn no_queries_or_no_rows_give_no_hits() {
    let rows = Rows::new(&[], RowFormat::F16, 3).unwrap();
    assert_eq!(top_k(&rows, &[0.0; 6], 5, 1, &never), Some(vec![vec![], vec![]]));
    let rows = Rows::new(&[0; 12], RowFormat::F16, 3).unwrap();
    assert_eq!(top_k(&rows, &[0.0; 6], 0, 1, &never), Some(vec![vec![], vec![]]));
    assert_eq!(top_k(&rows, &[], 5, 1, &never), Some(vec![]));
}

#[test]
fn halves_are_read_as_the_half_crate_reads_them() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    for dimension in [1 << 16, 1, 7] {
        for instructions in Instructions::available() {
            for (row, halves) in bytes.chunks(dimension * 2).zip(halves.chunks(dimension)) {
                let mut decoded = vec![[0; 4]; halves.len()];
                instructions.decode(row, RowFormat::F16, &mut decoded);
                for (decoded, half) in decoded.into_iter().zip(halves) {
                    let (decoded, half) = (f32::from_le_bytes(decoded), half.to_f32());
                    assert!(decoded.total_cmp(&half).is_eq() || decoded.is_nan() && half.is_nan());
                }
            }
        }
    }
}

#[test]
fn i8_rows_are_multiples_of_a_scale() {
    let mut bytes = Vec::new();
    RowFormat::I8.append_row(&[2.0, -2.54, 0.019, 0.0], &mut bytes);
    RowFormat::I8.append_row(&[0.0; 4], &mut bytes);
    assert_eq!(
        bytes[..4].iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>(),
        [100, -127, 1, 0]
    );
    let rows = Rows::new(&bytes, RowFormat::I8, 4).unwrap();
    let mut numbers = [9.0; 4];
    rows.read_row(0, &mut numbers);
    for (number, expected) in numbers.into_iter().zip([2.0, -2.54, 0.02, 0.0]) {
        assert!((number - expected).abs() < 1e-6, "{number} {expected}");
    }
    rows.read_row(1, &mut numbers);
    assert!(numbers.iter().all(|number| number.to_bits() == 0));
}

#[test]
fn finer_rows_make_up_for_coarse_ones() {
    let (dimension, count) = (64, 2_000);
    let numbers_of_rows = numbers(dimension * count, &mut 7);
    let queries = numbers(dimension * 40, &mut 8);
    let [fine, _, coarse] = FORMATS.map(|format| stored(&numbers_of_rows, dimension, format, 0));
    let fine = Rows::new(&fine, RowFormat::F32, dimension).unwrap();
    let coarse = Rows::new(&coarse, RowFormat::I8, dimension).unwrap();
    let expected = top_k(&fine, &queries, 10, 2, &never).unwrap();
    assert_ne!(top_k(&coarse, &queries, 10, 2, &never).unwrap(), expected);
    let mut lists = top_k(&coarse, &queries, 40, 2, &never).unwrap();
    rescore(&fine, &queries, &mut lists, 10, 2);
    assert_eq!(lists, expected);
}

#[test]
fn bytes_that_are_not_rows_are_refused() {
    let error = |length, format, dimension| {
        Rows::new(&vec![0; length], format, dimension).unwrap_err().to_string()
    };
    assert_eq!(error(4, RowFormat::F32, 0), "dimension is 0, expected 1 to 65536");
    assert_eq!(error(4, RowFormat::F32, 65_537), "dimension is 65537, expected 1 to 65536");
    assert_eq!(
        error(13, RowFormat::F32, 3),
        "rows are 13 bytes, expected a multiple of 12 (3 numbers a row)"
    );
    assert_eq!(
        error(12, RowFormat::I8, 3),
        "rows are 12 bytes, expected a multiple of 7 (3 numbers a row)"
    );
}
