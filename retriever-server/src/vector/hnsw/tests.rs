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

/// Returns rows of length 1 in clusters of `size` around random centres, at a distance of about `noise`.
fn clusters(count: usize, size: usize, noise: f32, seed: u64) -> Vec<u8> {
    let centres = rows(count, seed);
    let (mut bytes, mut state) = (Vec::new(), seed);
    let mut centre = vec![0.0; DIMENSION];
    for row in 0..count * size {
        table(&centres).read_row(row / size, &mut centre);
        let shift = splitmix::numbers(DIMENSION, &mut state);
        let near = centre.iter().zip(&shift).map(|(number, shift)| number + noise * shift);
        let near: Vec<f32> = near.collect();
        let length = near.iter().map(|number| number * number).sum::<f32>().sqrt();
        let near: Vec<f32> = near.iter().map(|number| number / length).collect();
        RowFormat::F32.append_row(&near, &mut bytes);
    }
    bytes
}

/// Asserts that a search which follows every link finds every row.
#[track_caller]
fn assert_connected(file: &GraphFile, bytes: &[u8], context: &str) {
    let count = table(bytes).count();
    let size = GraphSearchSize { top_k: count, ef: count };
    for query in [[0.1; DIMENSION], std::array::from_fn(|position| (position as f32).sin())] {
        let hits = file.search(&scorer(bytes), &query, size, &|| false).unwrap();
        let mut rows: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!((rows.len(), hits.len()), (count, count), "{context}");
    }
}

#[test]
fn equal_rows_do_not_tear_the_graph() {
    let row = rows(1, 4);
    let others = rows(300, 6);
    for (copies, base) in [(12, 0), (5_000, 0), (200, 300), (2_000, 300)] {
        let half = base / 2 * DIMENSION * size_of::<f32>();
        let base = &others[..2 * half];
        let bytes = [&base[..half], &row.repeat(copies), &base[half..]].concat();
        let file = read(&built(&bytes, 2), Check::Links).unwrap();
        let context = format!("{copies} copies");
        assert_connected(&file, &bytes, &context);
        assert!(recall(&file, &bytes, 60) > 0.97, "{context}");
        // Of equal rows, the first are the best.
        let mut query = vec![0.0; DIMENSION];
        table(&row).read_row(0, &mut query);
        let size = GraphSearchSize { top_k: 10, ef: 60 };
        let mut hits = [file.search(&scorer(&bytes), &query, size, &|| false).unwrap()];
        vector::rescore(&table(&bytes), &query, &mut hits, 10, 1);
        let nearest = vector::top_k(&table(&bytes), &query, 10, 1, &|| false).unwrap();
        assert_eq!(hits[..], nearest[..], "{context}");
    }
}

#[test]
fn clusters_of_nearly_equal_rows_do_not_tear_the_graph() {
    // One set of clusters may suit a graph better than another, so three are counted together.
    const SEEDS: [u64; 3] = [8, 9, 10];
    for (size, noise, least) in
        [(40, 1e-7, 0.99), (200, 1e-4, 0.99), (40, 1e-2, 0.93), (200, 1e-2, 0.86), (200, 0.1, 0.92)]
    {
        let context = format!("clusters of {size} rows at {noise}");
        let recalls = SEEDS.map(|seed| {
            let bytes = clusters(2_000 / size, size, noise, seed);
            let file = read(&built(&bytes, 2), Check::Links).unwrap();
            assert_connected(&file, &bytes, &context);
            recall(&file, &bytes, 120)
        });
        let mean = recalls.iter().sum::<f64>() / SEEDS.len() as f64;
        assert!(mean > least, "{context}: {recalls:?}");
    }
}

/// A file of the first format, which has no copies.
#[test]
fn a_graph_without_copies_is_searched_but_not_resumed() {
    let bytes = rows(300, 9);
    let mut file = built(&bytes, 1);
    assert_eq!(file.split_off(file.len() - 8), [0; 8], "the count of copies");
    file[4] = 1;
    let file = read(&file, Check::Links).unwrap();
    assert!(recall(&file, &bytes, 120) > 0.9);
    assert!(Builder::from_file(scorer(&bytes), SETTINGS, 1, &file).is_none());
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
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every row of copies, clusters and distinct rows in any mixture is reached, also after an
    /// interruption, and an exhaustive search gives the list of the exact scan.
    #[test]
    fn every_row_can_be_reached(
        groups in proptest::collection::vec((1..60usize, 0..4usize), 1..8),
        few_links in any::<bool>(),
        seed in 0..1_000u64,
    ) {
        let noise = [0.0, 1e-6, 1e-2, 0.5];
        let groups = groups.iter().enumerate();
        let groups = groups.map(|(number, &(size, kind))| {
            clusters(1, size, noise[kind], seed + number as u64 % 3)
        });
        let bytes = groups.collect::<Vec<_>>().concat();
        let links = if few_links { 2 } else { 8 };
        let settings = BuildSettings { links, ef: 16, seed };
        let mut builder = Builder::new(scorer(&bytes), settings, 1);
        builder.insert_batch();
        let partial = read(&written(&builder), Check::Links).unwrap();
        let mut builder = Builder::from_file(scorer(&bytes), settings, 2, &partial).unwrap();
        while builder.insert_batch() {}
        let file = read(&written(&builder), Check::Links).unwrap();
        assert_connected(&file, &bytes, "a mixture");
        let count = table(&bytes).count();
        let query = [0.2; DIMENSION];
        let size = GraphSearchSize { top_k: count, ef: count };
        let mut hits = [file.search(&scorer(&bytes), &query, size, &|| false).unwrap()];
        vector::rescore(&table(&bytes), &query, &mut hits, count, 1);
        let nearest = vector::top_k(&table(&bytes), &query, count, 1, &|| false).unwrap();
        prop_assert_eq!(&hits[..], &nearest[..]);
    }
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
