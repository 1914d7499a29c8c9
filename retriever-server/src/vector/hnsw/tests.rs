//! Graphs that are built, interrupted, written, read back and searched.

use proptest::prelude::*;
use shared::contract::splitmix;
use tantivy::directory::OwnedBytes;

use super::*;
use crate::vector::faiss_file::FormatFault;
use crate::vector::faiss_file::cursor::FieldReader;
use crate::vector::gather::Metric;
use crate::vector::{self, RowFormat, Rows};

const DIMENSION: usize = 24;
const SETTINGS: BuildSettings = BuildSettings { links: 8, ef: 60, seed: 7 };

/// Returns rows of length 1 around some centres, so that some are near and others far.
fn rows(count: usize, seed: u64) -> Vec<u8> {
    let number = |index: u64| splitmix::unit(splitmix::finalise(index)) as f32 - 0.5;
    let mut bytes = Vec::new();
    for row in 0..count as u64 {
        let centre = splitmix::finalise(seed ^ row) % 40;
        let numbers = (0..DIMENSION as u64).map(|position| {
            number(centre << 32 | position) + 0.6 * number((row + 1) << 40 ^ position << 8 ^ seed)
        });
        let numbers: Vec<f32> = numbers.collect();
        let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
        let numbers: Vec<f32> = numbers.iter().map(|number| number / length).collect();
        RowFormat::F32.append_row(&numbers, &mut bytes);
    }
    bytes
}

fn table(bytes: &[u8]) -> Rows<'_> {
    Rows::new(bytes, RowFormat::F32, DIMENSION).unwrap()
}

fn scorer(bytes: &[u8]) -> Scorer<'_> {
    Scorer::new(table(bytes), Metric::InnerProduct)
}

fn built(bytes: &[u8], threads: usize) -> Vec<u8> {
    let mut builder = Builder::new(scorer(bytes), SETTINGS, threads);
    while builder.insert_batch() {}
    written(&builder)
}

fn written(builder: &Builder<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    builder.write(&mut file).unwrap();
    file
}

fn read(file: &[u8], check: Check) -> Result<GraphFile, FormatFault> {
    let mut cursor = FieldReader::new(OwnedBytes::new(file.to_vec()));
    let graph = GraphFile::read(&mut cursor, check)?;
    cursor.finish().map(|()| graph)
}

/// Returns the share of the ten nearest rows that the graph finds.
fn recall(file: &GraphFile, bytes: &[u8], ef: usize) -> f64 {
    let queries = self::rows(100, 99);
    let mut query = vec![0.0; DIMENSION];
    let (mut matches, mut expected) = (0, 0);
    for row in 0..100 {
        table(&queries).read_row(row, &mut query);
        let nearest = vector::top_k(&table(bytes), &query, 10, 1, &|| false).unwrap();
        let size = GraphSearchSize { top_k: 10, ef };
        let hits = file.search(&scorer(bytes), &query, size, &|| false).unwrap();
        assert!(hits.is_sorted_by(|left, right| left.score >= right.score));
        expected += nearest[0].len();
        let is_hit = |row: &&Hit| hits.iter().any(|hit| hit.row == row.row);
        matches += nearest[0].iter().filter(is_hit).count();
    }
    f64::from(matches as u32) / f64::from(expected as u32)
}

#[test]
fn nearly_all_of_the_nearest_rows_are_found() {
    let bytes = rows(4_000, 1);
    let file = read(&built(&bytes, 2), Check::Links).unwrap();
    assert_eq!((file.rows(), file.inserted(), file.settings()), (4_000, 4_000, SETTINGS));
    let [low, high] = [10, 120].map(|ef| recall(&file, &bytes, ef));
    assert!(low > 0.6 && low < high && high > 0.98, "{low} {high}");
}

#[test]
fn the_graph_does_not_depend_on_threads_or_interruptions() {
    let bytes = rows(1_500, 2);
    let expected = built(&bytes, 1);
    assert!(built(&bytes, 3) == expected);
    for batches in [1, 40, 80] {
        let mut builder = Builder::new(scorer(&bytes), SETTINGS, 2);
        for _ in 0..batches {
            assert!(builder.insert_batch());
        }
        let inserted = builder.inserted();
        let file = read(&written(&builder), Check::Links).unwrap();
        assert!(file.inserted() == inserted && inserted < 1_500);
        let mut builder = Builder::from_file(scorer(&bytes), SETTINGS, 2, &file).unwrap();
        assert_eq!(builder.inserted(), inserted);
        while builder.insert_batch() {}
        assert!(written(&builder) == expected, "after {batches} batches");
        let other = BuildSettings { seed: 8, ..SETTINGS };
        assert!(Builder::from_file(scorer(&bytes), other, 2, &file).is_none());
    }
}

#[test]
fn every_row_is_inserted_once() {
    for count in [0, 1, 2, 3, 33, 700] {
        let bytes = rows(count, 3);
        let mut builder = Builder::new(scorer(&bytes), SETTINGS, 2);
        while builder.insert_batch() {}
        assert_eq!(builder.inserted() as usize, count);
        let file = read(&written(&builder), Check::Links).unwrap();
        let query = vec![0.1; DIMENSION];
        let size = GraphSearchSize { top_k: 1_000, ef: 1 };
        let hits = file.search(&scorer(&bytes), &query, size, &|| false).unwrap();
        let mut rows: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), count, "all rows can be reached");
    }
}

#[test]
fn equal_rows_are_all_reached_while_they_are_few() {
    let row = rows(1, 4);
    let bytes = row.repeat(12);
    let file = read(&built(&bytes, 1), Check::Links).unwrap();
    let size = GraphSearchSize { top_k: 20, ef: 20 };
    let hits = file.search(&scorer(&bytes), &[0.3; DIMENSION], size, &|| false).unwrap();
    assert_eq!(hits.len(), 12);
}

#[test]
fn a_file_cut_or_lengthened_anywhere_is_refused() {
    let bytes = rows(90, 5);
    let file = built(&bytes, 1);
    assert!(read(&file, Check::Links).is_ok());
    for size in 0..file.len() {
        for check in [Check::Links, Check::Sizes] {
            let fault = read(&file[..size], check).unwrap_err();
            assert!(matches!(fault, FormatFault::Truncated { .. }), "{size}: {fault}");
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(read(&longer, Check::Links), Err(FormatFault::Trailing { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Whichever bytes are changed, the file is refused or can be searched. Nothing panics, and all
    /// hits are rows that exist.
    #[test]
    fn changed_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        static GRAPH: std::sync::OnceLock<(Vec<u8>, Vec<u8>)> = std::sync::OnceLock::new();
        let (bytes, file) = GRAPH.get_or_init(|| {
            let bytes = rows(90, 5);
            let file = built(&bytes, 1);
            (bytes, file)
        });
        let mut file = file.clone();
        for (index, byte) in changes {
            let length = if in_header { 120 } else { file.len() };
            file[index.index(length)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        for check in [Check::Links, Check::Sizes] {
            let Ok(graph) = read(&file, check) else { continue };
            let size = GraphSearchSize { top_k: 10, ef: 30 };
            let hits = graph.search(&scorer(bytes), &[0.2; DIMENSION], size, &|| false);
            prop_assert!(hits.unwrap().iter().all(|hit| hit.row < 90));
            if check == Check::Links && graph.rows() == 90 {
                let builder = Builder::from_file(scorer(bytes), graph.settings(), 1, &graph);
                if let Some(mut builder) = builder {
                    builder.insert_batch();
                }
            }
        }
    }
}
