use std::fs;
use std::path::Path;

use shared::contract::splitmix;

use super::*;
use crate::index::build::{self, BuildRequest};

/// Builds a corpus of invented words, whose frequencies fall as in a natural language (Zipf), and its
/// index.
fn indexed(passages: u64, compact: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 9;
    let mut word = || {
        let uniform = splitmix::unit(splitmix::next(&mut state));
        // Rank r of 30,000 has a probability proportional to about 1 / r.
        format!("w{}", (30_000_f64.powf(uniform)) as u64)
    };
    let line = |row: u64| {
        let text: Vec<String> = (0..90).map(|_| word()).collect();
        format!("{{\"id\":\"p{row}\",\"contents\":\"{}\",\"dropped\":1}}", text.join(" "))
    };
    let lines: Vec<String> = (0..passages).map(line).collect();
    let corpus = folder.path().join("corpus.jsonl");
    fs::write(&corpus, lines.join("\n")).unwrap();
    let index = folder.path().join("index");
    let request = BuildRequest { corpus: vec![corpus], index, force: false, threads: 1, compact };
    build::build(&request, &mut |_| {}).unwrap();
    folder
}

fn size(path: &Path) -> u64 {
    let metadata = fs::metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
}

const NOTHING_ELSE: Request =
    Request { vectors: None, model_bytes: None, threads: 2, compact: false };

fn disk_bytes(needs: &Needs, part: &str) -> u64 {
    needs.serving.iter().find(|need| need.part == part).unwrap().disk_bytes
}

/// Asserts that a planned size is within a factor of two of the actual one. Invented words are not
/// distributed exactly like those of a language, but the factor still reveals a part that is left out
/// or counted twice.
#[track_caller]
fn assert_near(planned: u64, actual: u64, part: &str) {
    let ratio = planned as f64 / actual as f64;
    assert!((0.5..=2.0).contains(&ratio), "{part}: {planned} bytes planned, {actual} on disk");
}

#[test]
fn the_plan_of_a_corpus_is_met_by_its_index() {
    for compact in [false, true] {
        let folder = indexed(6000, compact);
        let index = folder.path().join("index");
        let collection = Collection::from_corpus(&[folder.path().join("corpus.jsonl")]).unwrap();
        let needs = Needs::new(&collection, &Request { compact, ..NOTHING_ELSE });
        assert!(collection.is_measured && collection.passages == 6000);
        // Their formats determine these sizes.
        assert_eq!(disk_bytes(&needs, "offsets"), size(&index.join("passages.offsets")));
        let passages = disk_bytes(&needs, "passages");
        if compact {
            let sizes = ["passages.zst", "passages.dictionary"].map(|name| size(&index.join(name)));
            assert_near(passages, sizes.iter().sum(), "passages");
            assert!(needs.indexing.disk_bytes >= collection.stored_bytes, "{needs:?}");
        } else {
            assert_eq!(passages, size(&index.join("passages.jsonl")));
        }
        let (lexical, bounds) = (size(&index.join("lexical")), size(&index.join("lexical/bounds")));
        assert_near(disk_bytes(&needs, "postings"), lexical - bounds, "postings");
        assert_near(disk_bytes(&needs, "bounds"), bounds, "bounds");
    }
}

#[test]
fn the_plan_of_an_index_has_existing_and_missing_parts() {
    for is_compact in [false, true] {
        let folder = indexed(400, is_compact);
        let index = folder.path().join("index");
        let collection = Collection::from_index(&index).unwrap();
        let vectors = Some(VectorRequest {
            dimension: 384,
            format: RowFormat::F32,
            graph: None,
            reads_rows: true,
        });
        let needs = Needs::new(&collection, &Request { vectors, ..NOTHING_ELSE });
        let existing: u64 = needs.serving.iter().map(|need| need.disk_there_bytes).sum();
        assert_eq!(existing + size(&index.join("manifest.json")), size(&index));
        assert_eq!(disk_bytes(&needs, "bounds"), size(&index.join("lexical/bounds")));
        assert!(needs.serving.iter().all(|need| need.is_exact), "{needs:?}");
        assert_eq!(disk_bytes(&needs, "vectors"), 400 * 384 * 4);
        assert_eq!(needs.indexing.disk_bytes + needs.indexing.memory_bytes, 0);
        // Compressed passages stay as they are; others must be written again.
        let needs = Needs::new(&collection, &Request { compact: true, ..NOTHING_ELSE });
        let passages = &needs.serving[0];
        let to_write = passages.disk_bytes - passages.disk_there_bytes;
        assert_eq!((passages.is_exact, to_write == 0), (is_compact, is_compact), "{passages:?}");
    }
}

/// A graph of usearch has rows of its own, and needs the rows in f32 to score hits again.
#[test]
fn rows_that_nothing_reads_are_not_planned() {
    let collection = Collection::stated(1000, 670);
    let (format, graph) = (RowFormat::F16, Some(GraphKind::Usearch));
    let request = VectorRequest { dimension: 768, format, graph, reads_rows: false };
    let needs = rows(&collection, request);
    let bytes = |need: &Need| (need.part, need.disk_bytes, need.mapped_bytes, need.gpu_bytes);
    assert_eq!(needs.iter().map(bytes).collect::<Vec<_>>(), [("vectors", 3_072_000, 0, 0)]);
    assert_eq!(rows(&collection, VectorRequest { reads_rows: true, ..request }).len(), 2);
}

/// Search-R1 searches 21,015,324 vectors of 768 numbers. Its file of floats has exactly this size plus a
/// header of 45 bytes.
#[test]
fn the_size_of_rows_depends_on_their_format() {
    let collection = Collection::stated(21_015_324, 670);
    let (f32_bytes, f16_bytes, i8_bytes) = (64_559_075_328, 32_279_537_664, 16_223_830_128);
    for (format, disk_bytes, searched_bytes, gpu_bytes) in [
        (RowFormat::F32, vec![f32_bytes], f32_bytes, f16_bytes),
        (RowFormat::F16, vec![f32_bytes, f16_bytes], f16_bytes, f16_bytes),
        (RowFormat::I8, vec![f32_bytes, i8_bytes], i8_bytes, i8_bytes),
    ] {
        let needs = rows(
            &collection,
            VectorRequest { dimension: 768, format, graph: None, reads_rows: true },
        );
        let planned: Vec<u64> = needs.iter().map(|need| need.disk_bytes).collect();
        assert_eq!(planned, disk_bytes, "{format:?}");
        let sum = |bytes: &dyn Fn(&Need) -> u64| needs.iter().map(bytes).sum::<u64>();
        let planned = (sum(&|need| need.mapped_bytes), sum(&|need| need.gpu_bytes));
        assert_eq!(planned, (searched_bytes, gpu_bytes), "{format:?}");
    }
}

#[test]
fn the_size_of_a_graph_depends_on_its_links() {
    let collection = Collection::stated(1_000_000, 670);
    // Each row has 32 links on the lowest level, 16 / 15 above it on average, of four bytes each, and
    // 12 bytes.
    let vectors =
        VectorRequest { dimension: 384, format: RowFormat::F16, graph: None, reads_rows: true };
    let need = graph(&collection, vectors, GraphKind::Hnsw);
    assert_eq!((need.disk_bytes, need.memory_bytes), (144_266_666, 144_266_666));
    assert!(!need.is_exact);
    // The same links, 16 bytes, and rows with two bytes per number.
    let need = graph(&collection, vectors, GraphKind::Usearch);
    assert_eq!((need.disk_bytes, need.memory_bytes), (916_266_666, 916_266_666));
}
