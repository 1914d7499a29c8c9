//! Compares searches with the scores of all rows, computed one by one.

use std::io::Write;

use shared::contract::splitmix::numbers;

use super::*;
use crate::vector::faiss_file::FaissIndex;

const DIMENSION: usize = 12;
const ROWS: usize = 500;

/// Writes a flat file in the format of faiss, with vectors that are not normalised.
fn flat_file(metric: Metric, rows: &[f32]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let (code, number) = match metric {
        Metric::InnerProduct => (b"IxFI", 0i32),
        Metric::L2 => (b"IxF2", 1),
    };
    let count = (rows.len() / DIMENSION) as i64;
    file.write_all(code).unwrap();
    file.write_all(&(DIMENSION as i32).to_le_bytes()).unwrap();
    for field in [count, 1 << 20, 1 << 20] {
        file.write_all(&field.to_le_bytes()).unwrap();
    }
    file.write_all(&[1]).unwrap();
    file.write_all(&number.to_le_bytes()).unwrap();
    file.write_all(&(rows.len() as u64).to_le_bytes()).unwrap();
    for number in rows {
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file
}

#[test]
fn flat_files_of_both_metrics_are_ranked_exactly() {
    let (rows, queries) = (numbers(ROWS * DIMENSION, &mut 1), numbers(7 * DIMENSION, &mut 2));
    for metric in [Metric::InnerProduct, Metric::L2] {
        let file = flat_file(metric, &rows);
        let FaissIndex::Flat(flat) = FaissIndex::open(file.path()).unwrap() else {
            panic!("not a flat file");
        };
        let vectors = Vectors::FaissFlat(flat);
        for threads in [1, 3] {
            let size = SearchSize { top_k: 10, threads };
            let lists = vectors.search(&queries, size, &|| false).unwrap().unwrap();
            assert_eq!(lists.len(), 7);
            for (query, hits) in queries.chunks(DIMENSION).zip(lists) {
                let score = |row: &[f32]| -> f64 {
                    let pairs = query.iter().zip(row);
                    let pairs = pairs.map(|(&one, &other)| (f64::from(one), f64::from(other)));
                    match metric {
                        Metric::InnerProduct => pairs.map(|(one, other)| one * other).sum(),
                        Metric::L2 => -pairs.map(|(one, other)| (one - other).powi(2)).sum::<f64>(),
                    }
                };
                let mut expected: Vec<(usize, f64)> =
                    rows.chunks(DIMENSION).map(score).enumerate().collect();
                expected.sort_by(|one, other| other.1.total_cmp(&one.1));
                assert_eq!(hits.len(), 10);
                for (hit, (row, score)) in hits.iter().zip(expected) {
                    assert_eq!(hit.row as usize, row, "{metric:?}");
                    assert!((f64::from(hit.score) - score).abs() < 1e-5, "{metric:?}");
                }
            }
        }
        let size = SearchSize { top_k: 10, threads: 2 };
        assert_eq!(
            vectors.search(&queries, SearchSize { threads: 1, ..size }, &|| true).unwrap(),
            None
        );
        assert_eq!(vectors.search(&[], size, &|| false).unwrap(), Some(Vec::new()));
    }
}

#[test]
fn enough_candidates_are_scored_again_for_any_number_of_hits() {
    assert_eq!([1, 10, 16, 17, 1000].map(candidates), [64, 64, 64, 68, 4000]);
    assert_eq!(candidates(usize::MAX), usize::MAX);
}
