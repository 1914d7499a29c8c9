//! Building, interruption and damage of graphs in an index.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::index::dense::fixture::{DenseWorld, vector};
use crate::index::dense::formats;

const KIND: GraphKind = GraphKind::Hnsw;
/// Saves after every batch.
const OFTEN: Saving = Saving { interval: Duration::ZERO, work: 0 };

fn build_all(world: &DenseWorld, threads: usize) -> (GraphEntry, Vec<Progress>) {
    let reports = RefCell::new(Vec::new());
    let effort = BuildEffort { threads, saving: OFTEN };
    let mut report = |progress| reports.borrow_mut().push(progress);
    let entry = build(&world.index, &world.source, effort, &mut report).unwrap();
    (entry, reports.into_inner())
}

fn open_graph(world: &DenseWorld) -> Result<(GraphEntry, GraphFile), IndexError> {
    open(&world.index, &world.source, Verification::Digests)
}

#[test]
fn a_graph_is_built_measured_and_searched() {
    let world = DenseWorld::new(900);
    assert!(!exists(&world.index, &world.source, KIND, RowFormat::I8).unwrap());
    let message = open_graph(&world).unwrap_err().to_string();
    assert!(message.contains("no hnsw graph") && message.contains("--backend ann"), "{message}");
    let (entry, reports) = build_all(&world, 2);
    assert!(exists(&world.index, &world.source, KIND, RowFormat::I8).unwrap());
    let last = Progress::Rows { action: "linked", rows: 900, total: 900, done_before: 0 };
    assert!(reports.ends_with(&[last, Progress::Sealing]), "{reports:?}");
    assert_eq!(world.names(), ["manifest.json", "vectors.f32", "vectors.hnsw"]);

    let (opened, graph) = open_graph(&world).unwrap();
    assert_eq!(opened, entry);
    let recalls: Vec<f64> = entry.recall_at_10.iter().map(|measured| measured.recall).collect();
    assert!(recalls.is_sorted() && recalls[0] > 0.3 && recalls[4] > 0.95, "{recalls:?}");
    let rows = DenseRows::open(&world.index, &world.source, Verification::Sizes).unwrap();
    let scorer = Scorer::new(rows.rows().unwrap(), Metric::InnerProduct);
    let size = GraphSearchSize { top_k: 3, ef: 64 };
    let hits = graph.search(&scorer, &vector("passage 345"), size, &|| false).unwrap();
    assert_eq!(hits[0].row, 345);
}

/// Half of the passages, or all of them, have the same text.
#[test]
fn equal_passages_are_found_like_distinct_ones() {
    for (count, distinct) in [(700, 350), (400, 0), (3, 0), (1, 1)] {
        let text = |row: usize| format!("passage {}", if row < distinct { row } else { distinct });
        for kind in [GraphKind::Hnsw, GraphKind::Usearch] {
            let world = DenseWorld::with_texts(count, text);
            let effort = BuildEffort { threads: 2, saving: OFTEN };
            let entry =
                build_kind(&world.index, &world.source, kind, RowFormat::F32, effort, &mut |_| {});
            let entry = entry.unwrap();
            let known = entry.recall_at_10.iter().find(|measured| measured.ef == 128);
            assert_eq!(known.is_some(), count > 1);
            assert!(known.is_none_or(|known| known.recall > 0.97), "{count} {kind:?} {known:?}");
            assert_eq!(entry.warning(count as u64, 128), None);
        }
    }
}

#[test]
fn low_recall_is_told_with_a_remedy() {
    let world = DenseWorld::new(300);
    let (entry, _) = build_all(&world, 1);
    assert_eq!(entry.warning(300, 128), None);
    let with = |recalls: [f64; 5], joins_copies| {
        let recalls = SAMPLE_EFS.into_iter().zip(recalls);
        let recall_at_10 = recalls.map(|(ef, recall)| MeasuredRecall { ef, recall }).collect();
        GraphEntry { recall_at_10, joins_copies, ..entry.clone() }
    };
    let low = with([0.5, 0.6, 0.7, 0.8, 0.95], true);
    let warning = low.warning(300, 128).unwrap();
    assert!(warning.contains("find 0.8000") && warning.contains("--hnsw-ef 256"), "{warning}");
    assert_eq!(low.warning(300, 300), None);
    // Too few rows to tell.
    assert_eq!(low.warning(199, 128), None);
    let torn = with([0.5; 5], true).warning(300, 100).unwrap();
    assert!(torn.contains("at ef 64") && torn.contains("--backend dense"), "{torn}");
    // Only a graph of an older version is built anew.
    let old = with([0.5; 5], false);
    assert!(old.is_outdated(300, 128) && !low.is_outdated(300, 128));
    record(&world.index, &world.source, &old).unwrap();
    let current = || current(&world.index, &world.source, KIND, RowFormat::F32, 128).unwrap();
    assert_eq!(current(), None);
    assert_eq!(build_all(&world, 1).0, entry);
    assert_eq!(current(), Some(entry));
}

#[test]
fn a_killed_build_resumes_and_ends_with_the_same_graph() {
    let whole = DenseWorld::new(700);
    build_all(&whole, 1);
    let expected = fs::read(whole.file(GRAPH_FILE)).unwrap();
    for killed_at in [1, 90, 300, 699] {
        let world = DenseWorld::new(700);
        let mut report = |progress| {
            if let Progress::Rows { rows, .. } = progress {
                assert!(rows < killed_at, "killed by the test");
            }
        };
        let effort = BuildEffort { threads: 2, saving: OFTEN };
        let killed = catch_unwind(AssertUnwindSafe(|| {
            build(&world.index, &world.source, effort, &mut report)
        }));
        assert!(killed.is_err());
        assert!(!exists(&world.index, &world.source, KIND, RowFormat::I8).unwrap());
        // The remains of a kill in the middle of a save.
        fs::write(world.file(NEW_FILE), &expected[..1000]).unwrap();
        let (_, reports) = build_all(&world, 2);
        let Progress::Rows { done_before, .. } = reports[0] else { panic!("{reports:?}") };
        assert!(done_before >= killed_at, "{done_before} of {killed_at}");
        assert!(fs::read(world.file(GRAPH_FILE)).unwrap() == expected, "killed at {killed_at}");
        assert_eq!(world.names(), ["manifest.json", "vectors.f32", "vectors.hnsw"]);
    }
}

#[test]
fn no_build_resumes_from_a_damaged_or_foreign_graph() {
    let whole = DenseWorld::new(300);
    build_all(&whole, 1);
    let expected = fs::read(whole.file(GRAPH_FILE)).unwrap();
    let mut foreign = expected.clone();
    // Another seed draws other levels.
    foreign[16] ^= 1;
    for left in [&expected[..expected.len() - 3], &foreign[..], b"RSnw", b""] {
        let world = DenseWorld::new(300);
        fs::write(world.file(PARTIAL_FILE), left).unwrap();
        let (_, reports) = build_all(&world, 1);
        assert!(matches!(reports[0], Progress::Rows { done_before: 0, .. }), "{:?}", reports[0]);
        assert!(fs::read(world.file(GRAPH_FILE)).unwrap() == expected);
    }
}

#[test]
fn damaged_graphs_are_refused_by_name() {
    let world = DenseWorld::new(120);
    build_all(&world, 1);
    let path = world.file(GRAPH_FILE);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &flipped[..], b""] {
        fs::write(&path, damaged).unwrap();
        let message = open_graph(&world).unwrap_err().to_string();
        assert!(message.contains(GRAPH_FILE) && message.contains("corrupt"), "{message}");
    }
    fs::remove_file(&path).unwrap();
    assert!(open_graph(&world).unwrap_err().to_string().contains(GRAPH_FILE));
    let other = VectorSource { dimension: 5, ..world.source.clone() };
    assert!(matches!(
        open(&world.index, &other, Verification::Sizes),
        Err(IndexError::OtherVectors { .. })
    ));
}

/// The manifest of the vectors has no seal. Every value in it that determines which bytes are read is
/// compared with the index, the encoder or a file. The rest only informs people.
#[test]
fn no_byte_of_the_manifest_leads_to_other_vectors() {
    let world = DenseWorld::new(20);
    build_all(&world, 1);
    let format = RowFormat::I8;
    formats::build(&world.index, &world.source, format, &mut |_| {}).unwrap();
    let read = || {
        let rows = DenseRows::open(&world.index, &world.source, Verification::Digests)?;
        let rows = rows.with_format(&world.index, &world.source, format, Verification::Digests)?;
        let numbers = |rows: Rows<'_>| {
            let mut numbers = vec![0.0; rows.count() * rows.dimension()];
            for (row, numbers) in numbers.chunks_mut(rows.dimension()).enumerate() {
                rows.read_row(row, numbers);
            }
            numbers
        };
        let (_, graph) = open_graph(&world)?;
        Ok((numbers(rows.rows()?), numbers(rows.searched()?), graph.rows(), graph.inserted()))
    };
    let expected = read().unwrap_or_else(|error: IndexError| panic!("{error}"));
    let path = world.file("manifest.json");
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for offset in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[offset] ^= 1 << (offset % 8);
        fs::write(&path, flipped).unwrap();
        match read() {
            Ok(values) => assert!(values == expected, "byte {offset}"),
            Err(error) => {
                let error = error.to_string();
                let names_it = ["manifest.json", "vectors", "dense", "graph"];
                assert!(names_it.iter().any(|name| error.contains(name)), "{offset}: {error}");
                refused += 1;
            }
        }
    }
    // Digests alone are a quarter of the text.
    assert!(4 * refused > whole.len(), "{refused} of {}", whole.len());
}

#[test]
fn two_concurrent_builds_are_refused() {
    let world = DenseWorld::new(20);
    let _held = lock(&world.index).unwrap();
    let effort = BuildEffort { threads: 1, saving: OFTEN };
    let busy = build(&world.index, &world.source, effort, &mut |_| {});
    assert!(matches!(busy, Err(IndexError::Atomic(_))), "{busy:?}");
}
