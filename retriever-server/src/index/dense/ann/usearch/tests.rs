//! Building, interruption and damage of graphs of usearch in an index.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::index::dense::ann::{Saving, exists};
use crate::index::dense::fixture::{DenseWorld, vector};

const FORMATS: [RowFormat; 3] = [RowFormat::F32, RowFormat::F16, RowFormat::I8];
/// Saves after every batch.
const OFTEN: BuildEffort =
    BuildEffort { threads: 2, saving: Saving { interval: Duration::ZERO, work: 0 } };

fn build_all(world: &DenseWorld, format: RowFormat) -> (GraphEntry, Vec<Progress>) {
    let reports = RefCell::new(Vec::new());
    let mut report = |progress| reports.borrow_mut().push(progress);
    let entry = build(&world.index, &world.source, format, OFTEN, &mut report).unwrap();
    (entry, reports.into_inner())
}

fn open_graph(
    world: &DenseWorld,
    format: RowFormat,
) -> Result<(GraphEntry, UsearchFile), IndexError> {
    let limits = SearchLimits { ef: 900, threads: 2 };
    open(&world.index, &world.source, format, limits, Verification::Digests)
}

fn best(graph: &UsearchFile, text: &str) -> u32 {
    graph.search(&vector(text), 3, &|| false).unwrap().unwrap()[0].row
}

/// Asserts that searches find nearly all rows. The few lost ones depend on the order of the threads.
#[track_caller]
fn check_rows(graph: &UsearchFile, rows: usize) {
    let lost = (0..rows as u32).filter(|row| best(graph, &format!("passage {row}")) != *row);
    let lost = lost.count();
    assert!(lost <= rows / 10, "{lost} of {rows} rows are not the nearest to themselves");
}

#[test]
fn a_graph_is_built_measured_and_searched_in_every_format() {
    let world = DenseWorld::new(900);
    for format in FORMATS {
        let built = || exists(&world.index, &world.source, GraphKind::Usearch, format).unwrap();
        assert!(!built());
        let message = open_graph(&world, format).unwrap_err().to_string();
        let expected = format!("--backend ann --ann usearch --vector-format {}", format.name());
        assert!(message.contains("no usearch graph") && message.contains(&expected), "{message}");
        let (entry, reports) = build_all(&world, format);
        assert!(built());
        let last = Progress::Rows { action: "linked", rows: 900, total: 900, done_before: 0 };
        assert!(reports.ends_with(&[last, Progress::Sealing]), "{reports:?}");
        let (opened, graph) = open_graph(&world, format).unwrap();
        assert_eq!(opened, entry);
        let recalls: Vec<f64> = entry.recall_at_10.iter().map(|measured| measured.recall).collect();
        assert!(recalls[0] > 0.3 && recalls[4] > 0.95, "{format:?} {recalls:?}");
        check_rows(&graph, 900);
    }
    // Each has a file of its own, next to the others.
    let expected = [
        "manifest.json",
        "vectors.f16.usearch",
        "vectors.f32",
        "vectors.f32.usearch",
        "vectors.i8.usearch",
    ];
    assert_eq!(world.names(), expected);
    assert!(!exists(&world.index, &world.source, GraphKind::Hnsw, RowFormat::F32).unwrap());
}

#[test]
fn a_killed_build_resumes_and_links_all_rows() {
    for (format, killed_at) in [(RowFormat::F32, 1), (RowFormat::F16, 256), (RowFormat::I8, 512)] {
        let world = DenseWorld::new(700);
        let mut report = |progress| {
            if let Progress::Rows { rows, .. } = progress {
                assert!(rows < killed_at, "killed by the test");
            }
        };
        let killed = catch_unwind(AssertUnwindSafe(|| {
            build(&world.index, &world.source, format, OFTEN, &mut report)
        }));
        assert!(killed.is_err());
        // The remains of a kill in the middle of a save.
        fs::write(world.file(super::super::NEW_FILE), [7; 1000]).unwrap();
        let (_, reports) = build_all(&world, format);
        let Progress::Rows { done_before, .. } = reports[0] else { panic!("{reports:?}") };
        // The build was killed right after it had saved this batch.
        assert!((killed_at..700).contains(&done_before), "{done_before} of {killed_at}");
        assert_eq!(world.names().len(), 3, "{:?}", world.names());
        let (_, graph) = open_graph(&world, format).unwrap();
        check_rows(&graph, 700);
    }
}

#[test]
fn no_build_resumes_from_a_damaged_or_foreign_graph() {
    let whole = DenseWorld::new(300);
    build_all(&whole, RowFormat::F32);
    let file = fs::read(whole.file(&graph_file(RowFormat::F32))).unwrap();
    let sealed = [&file[..], seal_of(Digest::of_bytes(&file)).as_bytes()].concat();
    let mut flipped = sealed.clone();
    flipped[file.len() / 2] ^= 1;
    // The last two are sound graphs, but with another number of rows or another format.
    let damaged = [&sealed[..sealed.len() - 3], &flipped[..], &file[..], b"", b"usearch"];
    let cases = damaged.map(|left| (left, RowFormat::F32, 300)).into_iter();
    let cases = cases.chain([(&sealed[..], RowFormat::F32, 200), (&sealed, RowFormat::F16, 300)]);
    for (left, format, count) in cases {
        let world = DenseWorld::new(count);
        fs::write(world.file(&partial_file(format)), left).unwrap();
        let (_, reports) = build_all(&world, format);
        assert!(matches!(reports[0], Progress::Rows { done_before: 0, .. }), "{:?}", reports[0]);
        check_rows(&open_graph(&world, format).unwrap().1, count);
    }
    let world = DenseWorld::new(300);
    fs::write(world.file(&partial_file(RowFormat::F32)), &sealed).unwrap();
    let (_, reports) = build_all(&world, RowFormat::F32);
    assert!(matches!(reports[0], Progress::Rows { done_before: 300, .. }), "{:?}", reports[0]);
}

#[test]
fn damaged_graphs_are_refused_by_name() {
    let world = DenseWorld::new(120);
    let format = RowFormat::F16;
    build_all(&world, format);
    let name = graph_file(format);
    let path = world.file(&name);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &flipped[..], b""] {
        fs::write(&path, damaged).unwrap();
        let message = open_graph(&world, format).unwrap_err().to_string();
        assert!(message.contains(&name) && message.contains("corrupt"), "{message}");
    }
    fs::remove_file(&path).unwrap();
    assert!(open_graph(&world, format).unwrap_err().to_string().contains(&name));
}
