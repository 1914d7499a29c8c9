//! Graphs of usearch against exact search.

use std::collections::BTreeSet;

use shared::contract::splitmix::numbers;

use super::*;
use crate::vector::{self, Rows};

const DIMENSION: usize = 24;
const COUNT: usize = 2000;
const TOP_K: usize = 10;
const SETTINGS: BuildSettings = BuildSettings { links: 16, ef: 128, seed: 1 };

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn built(rows: Rows<'_>, format: RowFormat, path: &Path) -> GraphShape {
    let mut builder = UsearchBuilder::new(rows, format, SETTINGS, 1).unwrap();
    while builder.insert_batch().unwrap() {}
    builder.save(path).unwrap();
    builder.shape()
}

/// If a search tracks as many candidates as there are rows, it compares all rows. `i8` loses some of
/// their order, and more candidates make up for that. The rows have very different lengths.
#[test]
fn with_all_rows_as_candidates_the_hits_are_those_of_exact_search() {
    let folder = tempfile::tempdir().unwrap();
    let stored = bytes(&numbers(COUNT * DIMENSION, &mut 11));
    let rows = Rows::new(&stored, RowFormat::F32, DIMENSION).unwrap();
    let queries = numbers(40 * DIMENSION, &mut 12);
    let expected = vector::top_k(&rows, &queries, TOP_K, 1, &|| false).unwrap();
    for format in [RowFormat::F32, RowFormat::F16, RowFormat::I8] {
        let path = folder.path().join(format.name());
        let shape = built(rows, format, &path);
        let file = UsearchFile::open(&path, shape, COUNT, 3).unwrap();
        let search = |query| file.search(query, 100, &|| false).unwrap().unwrap();
        let mut lists: Vec<Vec<Hit>> = queries.chunks(DIMENSION).map(search).collect();
        assert!(lists.iter().all(|hits| hits.is_sorted_by(|hit, next| hit.score >= next.score)));
        vector::rescore(&rows, &queries, &mut lists, TOP_K, 1);
        assert_eq!(lists, expected, "{format:?}");
    }
}

#[test]
fn an_interrupted_build_resumes_up_to_the_last_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    let stored = bytes(&numbers(700 * DIMENSION, &mut 13));
    let rows = Rows::new(&stored, RowFormat::F32, DIMENSION).unwrap();
    for format in [RowFormat::F32, RowFormat::F16, RowFormat::I8] {
        let mut builder = UsearchBuilder::new(rows, format, SETTINGS, 2).unwrap();
        assert!(builder.insert_batch().unwrap());
        builder.save(&path).unwrap();
        let before = builder.inserted();
        assert!(0 < before && before < 700);
        let mut builder = UsearchBuilder::resume(rows, format, SETTINGS, 2, &path).unwrap();
        assert_eq!(builder.inserted(), before);
        while builder.insert_batch().unwrap() {}
        assert_eq!(builder.inserted(), 700);
        builder.save(&path).unwrap();
        let file = UsearchFile::open(&path, builder.shape(), 700, 1).unwrap();
        let hits = file.search(&[0.5; DIMENSION], 700, &|| false).unwrap().unwrap();
        let rows: BTreeSet<u32> = hits.iter().map(|hit| hit.row).collect();
        assert_eq!(rows.len(), hits.len(), "{format:?}: a row was found twice");
        assert!(rows.iter().all(|&row| row < 700));
        // A graph leads to nearly all rows. Which rows it misses depends on the order of the threads.
        assert!(rows.len() >= 630, "{format:?}: {} of 700 rows are found", rows.len());
    }
}

/// There are more threads than permits, and without the limit the library would refuse some searches.
#[test]
fn searches_from_many_threads_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    let stored = bytes(&numbers(500 * DIMENSION, &mut 14));
    let rows = Rows::new(&stored, RowFormat::F32, DIMENSION).unwrap();
    let shape = built(rows, RowFormat::F32, &path);
    let file = UsearchFile::open(&path, shape, 200, 2).unwrap();
    let query = [0.3; DIMENSION];
    let expected = file.search(&query, TOP_K, &|| false).unwrap().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let hits = file.search(&query, TOP_K, &|| false).unwrap().unwrap();
                    assert_eq!(hits, expected);
                }
            });
        }
    });
    assert!(file.search(&query, TOP_K, &|| true).unwrap().is_none());
}

/// The library's own `view` closes file descriptor 0, whichever file that is.
#[test]
fn no_other_file_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    let stored = bytes(&numbers(300 * DIMENSION, &mut 16));
    let rows = Rows::new(&stored, RowFormat::F32, DIMENSION).unwrap();
    let shape = built(rows, RowFormat::F32, &path);
    let first = || std::fs::read_link("/proc/self/fd/0").ok();
    let before = first();
    for _ in 0..2 {
        drop(UsearchFile::open(&path, shape, 64, 1).unwrap());
        UsearchFile::open(&path, GraphShape { rows: 301, ..shape }, 64, 1).unwrap_err();
        assert_eq!(first(), before);
    }
    std::fs::write(&path, b"usearch").unwrap();
    UsearchFile::open(&path, shape, 64, 1).unwrap_err();
    assert_eq!(first(), before);
}

#[test]
fn other_graphs_and_broken_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    let stored = bytes(&numbers(300 * DIMENSION, &mut 15));
    let rows = Rows::new(&stored, RowFormat::F32, DIMENSION).unwrap();
    let shape = built(rows, RowFormat::F32, &path);
    let refusal = |shape| UsearchFile::open(&path, shape, 64, 1).unwrap_err().to_string();
    let message = refusal(GraphShape { rows: 301, ..shape });
    assert_eq!(message, "number of rows is 300, expected 301");
    let message = refusal(GraphShape { dimension: 48, ..shape });
    assert_eq!(message, "numbers a row is 24, expected 48");
    assert!(refusal(GraphShape { format: RowFormat::I8, ..shape }).contains("format is"));
    let settings = BuildSettings { links: 8, ..SETTINGS };
    assert!(refusal(GraphShape { settings, ..shape }).contains("links a row is 16"));
    let fewer = Rows::new(&stored[..200 * 4 * DIMENSION], RowFormat::F32, DIMENSION).unwrap();
    let resumed = UsearchBuilder::resume(fewer, RowFormat::F32, SETTINGS, 1, &path);
    assert!(resumed.unwrap_err().to_string().contains("expected up to 200"));
    let whole = std::fs::read(&path).unwrap();
    // The list of copies takes 16 bytes behind the graph; without it, the graph is still whole.
    for length in [0, 7, whole.len() / 2, whole.len() - 17] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(refusal(shape).starts_with("usearch: "), "{length} bytes");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(shape).starts_with("usearch: "));
}
