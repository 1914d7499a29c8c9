use std::fs;
use std::path::Path;

use shared::splitmix;

use super::*;
use crate::index::build::{self, BuildRequest};

/// A corpus of made-up words whose frequencies fall as those of a language do (Zipf), and its index.
fn indexed(passages: u64, compact: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 9;
    let mut word = || {
        let uniform = splitmix::unit(splitmix::next(&mut state));
        // Rank r with probability about 1 / r, of 30,000.
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
    let found = fs::metadata(path).unwrap();
    if !found.is_dir() {
        return found.len();
    }
    fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
}

const NOTHING_ELSE: Request =
    Request { vectors: None, model_bytes: None, threads: 2, compact: false };

fn disk_bytes(needs: &Needs, part: &str) -> u64 {
    needs.serving.iter().find(|need| need.part == part).unwrap().disk_bytes
}

/// Made-up words are more alike, or less, than those of a language: what depends on the text is met
/// within a factor of two, which tells a part that is left out or counted twice from one that is not.
#[track_caller]
fn assert_near(planned: u64, found: u64, part: &str) {
    let ratio = planned as f64 / found as f64;
    assert!((0.5..=2.0).contains(&ratio), "{part}: {planned} bytes planned, {found} there");
}

#[test]
fn the_plan_of_a_corpus_is_met_by_its_index() {
    for compact in [false, true] {
        let folder = indexed(6000, compact);
        let index = folder.path().join("index");
        let collection = Collection::of_corpus(&[folder.path().join("corpus.jsonl")]).unwrap();
        let needs = Needs::of(&collection, &Request { compact, ..NOTHING_ELSE });
        assert!(collection.is_measured && collection.passages == 6000);
        // The formats decide these.
        assert_eq!(disk_bytes(&needs, "offsets"), size(&index.join("passages.offsets")));
        let passages = disk_bytes(&needs, "passages");
        if compact {
            let there = ["passages.zst", "passages.dictionary"].map(|one| size(&index.join(one)));
            assert_near(passages, there.iter().sum(), "passages");
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
fn the_plan_of_an_index_is_what_is_there_and_what_is_not() {
    for is_compact in [false, true] {
        let folder = indexed(400, is_compact);
        let index = folder.path().join("index");
        let collection = Collection::of_index(&index).unwrap();
        let vectors = Some(VectorRequest {
            dimension: 384,
            format: RowFormat::F32,
            graph: None,
            reads_rows: true,
        });
        let needs = Needs::of(&collection, &Request { vectors, ..NOTHING_ELSE });
        let there: u64 = needs.serving.iter().map(|need| need.disk_there_bytes).sum();
        assert_eq!(there + size(&index.join("manifest.json")), size(&index));
        assert_eq!(disk_bytes(&needs, "bounds"), size(&index.join("lexical/bounds")));
        assert!(needs.serving.iter().all(|need| need.is_exact), "{needs:?}");
        assert_eq!(disk_bytes(&needs, "vectors"), 400 * 384 * 4);
        assert_eq!(needs.indexing.disk_bytes + needs.indexing.memory_bytes, 0);
        // What is compressed stays so; what is not is to be written.
        let needs = Needs::of(&collection, &Request { compact: true, ..NOTHING_ELSE });
        let passages = &needs.serving[0];
        let to_write = passages.disk_bytes - passages.disk_there_bytes;
        assert_eq!((passages.is_exact, to_write == 0), (is_compact, is_compact), "{passages:?}");
    }
}

/// A graph of usearch has its own rows, and needs those in f32 to score hits again.
#[test]
fn rows_that_nothing_reads_are_not_planned() {
    let collection = Collection::told(1000, 670);
    let (format, graph) = (RowFormat::F16, Some(GraphKind::Usearch));
    let request = VectorRequest { dimension: 768, format, graph, reads_rows: false };
    let found = rows(&collection, request);
    let bytes = |need: &Need| (need.part, need.disk_bytes, need.mapped_bytes, need.gpu_bytes);
    assert_eq!(found.iter().map(bytes).collect::<Vec<_>>(), [("vectors", 3_072_000, 0, 0)]);
    assert_eq!(rows(&collection, VectorRequest { reads_rows: true, ..request }).len(), 2);
}

/// 21,015,324 vectors of 768 numbers, as Search-R1 searches them: its file of floats is that long
/// but for a header of 45 bytes.
#[test]
fn rows_cost_what_their_format_says() {
    let collection = Collection::told(21_015_324, 670);
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
        let found: Vec<u64> = needs.iter().map(|need| need.disk_bytes).collect();
        assert_eq!(found, disk_bytes, "{format:?}");
        let sum = |bytes: &dyn Fn(&Need) -> u64| needs.iter().map(bytes).sum::<u64>();
        let found = (sum(&|need| need.mapped_bytes), sum(&|need| need.gpu_bytes));
        assert_eq!(found, (searched_bytes, gpu_bytes), "{format:?}");
    }
}

#[test]
fn a_graph_costs_its_links() {
    let collection = Collection::told(1_000_000, 670);
    // 32 links on the lowest level, 16 / 15 above it in the mean, of four bytes each, and 12 bytes.
    let vectors =
        VectorRequest { dimension: 384, format: RowFormat::F16, graph: None, reads_rows: true };
    let need = graph(&collection, vectors, GraphKind::Hnsw);
    assert_eq!((need.disk_bytes, need.memory_bytes), (144_266_666, 144_266_666));
    assert!(!need.is_exact);
    // The same links and 16 bytes, and rows of two bytes a number.
    let need = graph(&collection, vectors, GraphKind::Usearch);
    assert_eq!((need.disk_bytes, need.memory_bytes), (916_266_666, 916_266_666));
}
