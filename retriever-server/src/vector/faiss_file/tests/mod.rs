mod other_kinds;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::query::Hit;
use crate::vector::hnsw::GraphSearchSize;

/// The tolerance for scores, because faiss adds in another order.
const TOLERANCE: f32 = 1e-5;
/// The bytes before the rows of a flat file: kind of index, dimension, number of vectors, two numbers,
/// trained, metric, number of floats.
const FLAT_HEADER_BYTES: usize = 45;

#[derive(Deserialize)]
struct Recording {
    dimension: usize,
    top_k: usize,
    queries: Vec<Vec<f32>>,
    files: Vec<RecordedFile>,
}

#[derive(Deserialize)]
struct RecordedFile {
    file: String,
    metric: String,
    count: usize,
    /// The rows and scores of each query's hits, for each efSearch.
    #[serde(default)]
    by_ef: BTreeMap<usize, Vec<Vec<(u32, f32)>>>,
    /// The rows and scores of each query's hits, from a comparison with all rows.
    exact: Option<Vec<Vec<(u32, f32)>>>,
}

/// Returns the path of a recorded file: in the folder `VECTORS_DIR` if it is there, else the project's
/// copy.
pub(super) fn golden(file: &str) -> PathBuf {
    let file = Path::new("faiss").join(file);
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(&file));
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(&file);
    named.filter(|path| path.is_file()).unwrap_or(copy)
}

fn recording() -> Recording {
    serde_json::from_slice(&fs::read(golden("answers.json")).unwrap()).unwrap()
}

fn read(bytes: &[u8]) -> Result<FaissIndex, FormatFault> {
    FaissIndex::read(&OwnedBytes::new(bytes.to_vec()), None)
}

/// Compares all rows with a query.
fn exact(flat: &FlatFile, query: &[f32], top_k: usize) -> Vec<Hit> {
    let rows: Vec<u32> = (0..flat.count() as u32).collect();
    let (mut prepared, mut scores) = (Vec::new(), Vec::new());
    flat.scorer().prepare(query, &mut prepared);
    flat.scorer().score(&prepared, &rows, &mut scores);
    let mut hits: Vec<Hit> =
        rows.iter().zip(scores).map(|(&row, score)| Hit { row, score }).collect();
    hits.sort_by(|left, right| right.score.total_cmp(&left.score));
    hits.truncate(top_k);
    hits
}

#[track_caller]
fn assert_same(hits: &[Hit], recorded: &[(u32, f32)], metric: Metric, context: &str) {
    let rows: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
    let expected: Vec<u32> = recorded.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, expected, "{context}");
    for (hit, (_, score)) in hits.iter().zip(recorded) {
        let expected = if metric == Metric::L2 { -score } else { *score };
        let error = (hit.score - expected).abs();
        assert!(error <= TOLERANCE * expected.abs().max(1.0), "{context}: {hit:?}, {expected}");
    }
}

#[test]
fn answers_are_those_of_faiss() {
    let recording = recording();
    let top_k = recording.top_k;
    let (mut searches, mut misses) = (0, 0);
    for RecordedFile { file, metric, count, by_ef, exact: compared } in &recording.files {
        let index = FaissIndex::open(&golden(file)).unwrap();
        let vectors = index.vectors();
        let metric = if metric == "ip" { Metric::InnerProduct } else { Metric::L2 };
        assert_eq!(vectors.metric(), metric, "{file}");
        assert_eq!((vectors.count(), vectors.dimension()), (*count, recording.dimension), "{file}");
        assert_eq!(vectors.rows().len(), count * recording.dimension * size_of::<f32>(), "{file}");
        for (number, query) in recording.queries.iter().enumerate() {
            let nearest = exact(vectors, query, top_k);
            match &index {
                FaissIndex::Flat(_) => {
                    let recorded = &compared.as_ref().unwrap()[number];
                    assert_same(&nearest, recorded, metric, &format!("{file} query {number}"));
                    searches += 1;
                }
                FaissIndex::Hnsw(hnsw) => {
                    for (ef, recorded) in by_ef {
                        let hits = hnsw
                            .search(query, GraphSearchSize { top_k, ef: *ef }, &|| false)
                            .unwrap();
                        let context = format!("{file} query {number} ef {ef}");
                        assert_same(&hits, &recorded[number], metric, &context);
                        searches += 1;
                        misses += usize::from(hits != nearest);
                    }
                }
            }
        }
    }
    assert_eq!(searches, recording.queries.len() * (6 + 6 * 4));
    // The answers of the graph differ from exact ones, so the test did compare the graph's search.
    assert!(misses > 20, "{misses} of {searches}");
}

#[test]
fn more_hits_than_rows_or_none_may_be_requested() {
    let FaissIndex::Hnsw(hnsw) = FaissIndex::open(&golden("hnsw-l2.index")).unwrap() else {
        panic!("not an HNSW file");
    };
    let query = &recording().queries[0];
    assert_eq!(
        hnsw.search(query, GraphSearchSize { top_k: 0, ef: 16 }, &|| false),
        Some(Vec::new())
    );
    assert_eq!(
        hnsw.search(query, GraphSearchSize { top_k: 0, ef: 0 }, &|| false),
        Some(Vec::new())
    );
    assert_eq!(
        hnsw.search(query, GraphSearchSize { top_k: 5, ef: 0 }, &|| false).unwrap().len(),
        1
    );
    let all = hnsw
        .search(query, GraphSearchSize { top_k: usize::MAX, ef: usize::MAX }, &|| false)
        .unwrap();
    let mut rows = exact(hnsw.vectors(), query, usize::MAX).into_iter();
    // With so few links, no link leads to some rows. All others are found, in order.
    assert!(all.len() > 200 && all.iter().all(|hit| rows.any(|row| row == *hit)));
}

#[test]
fn a_stop_ends_the_search() {
    let FaissIndex::Hnsw(hnsw) = FaissIndex::open(&golden("hnsw-ip.index")).unwrap() else {
        panic!("not an HNSW file");
    };
    let query = &recording().queries[0];
    let whole = hnsw.search(query, GraphSearchSize { top_k: 10, ef: 64 }, &|| false);
    for patience in 0..10 {
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == patience;
        assert_eq!(hnsw.search(query, GraphSearchSize { top_k: 10, ef: 64 }, &stop), None);
        assert_eq!(asked.get(), patience + 1);
        assert_eq!(
            hnsw.search(query, GraphSearchSize { top_k: 10, ef: 64 }, &|| false),
            whole,
            "the previous search leaves no traces"
        );
    }
}

#[test]
fn scores_are_finite() {
    let FaissIndex::Hnsw(hnsw) = FaissIndex::open(&golden("hnsw-ip.index")).unwrap() else {
        panic!("not an HNSW file");
    };
    let query = &recording().queries[0];
    let best = exact(hnsw.vectors(), query, 1)[0].row as usize;
    let bytes = fs::read(golden("hnsw-ip.index")).unwrap();
    let first = bytes.len() - hnsw.vectors().rows().len();
    let row_bytes = query.len() * size_of::<f32>();
    let best_bytes = first + best * row_bytes..first + (best + 1) * row_bytes;
    for (range, expected) in [(best_bytes, 10), (first..bytes.len(), 0)] {
        for number in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut bytes = bytes.clone();
            for slot in bytes[range.clone()].as_chunks_mut().0 {
                *slot = number.to_le_bytes();
            }
            let FaissIndex::Hnsw(hnsw) = read(&bytes).unwrap() else {
                panic!("not an HNSW file");
            };
            // The sum of the query's numbers is not 0, so its product with f32::MAX overflows.
            let hits =
                hnsw.search(query, GraphSearchSize { top_k: 10, ef: 64 }, &|| false).unwrap();
            assert_eq!(hits.len(), expected, "{number}");
            assert!(hits.iter().all(|hit| hit.score.is_finite() && hit.row as usize != best));
        }
    }
}

/// Opens a file and, if that succeeds, searches it.
fn ask(bytes: &[u8], query: &[f32]) -> Result<(), FormatFault> {
    match read(bytes)? {
        FaissIndex::Flat(flat) => {
            let row_bytes = flat.format().row_bytes(flat.dimension());
            assert_eq!(flat.rows().len(), flat.count() * row_bytes);
        }
        FaissIndex::Hnsw(hnsw) => {
            let query: Vec<f32> =
                query.iter().copied().cycle().take(hnsw.vectors().dimension()).collect();
            let hits =
                hnsw.search(&query, GraphSearchSize { top_k: 10, ef: 16 }, &|| false).unwrap();
            assert!(hits.iter().all(|hit| (hit.row as usize) < hnsw.vectors().count()));
            assert!(hits.is_sorted_by_key(|hit| Reverse(ordered(hit.score))));
        }
    }
    Ok(())
}

fn ordered(score: f32) -> i32 {
    let bits = score.to_bits().cast_signed();
    if bits < 0 { bits ^ i32::MAX } else { bits }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for file in recording().files {
        let bytes = fs::read(golden(&file.file)).unwrap();
        for size in (0..bytes.len()).step_by(7) {
            let fault = read(&bytes[..size]).unwrap_err();
            let FormatFault::Truncated { offset_bytes, needed_bytes, size_bytes, .. } = fault
            else {
                panic!("{} cut at {size}: {fault}", file.file);
            };
            assert_eq!(size_bytes, size, "{}", file.file);
            assert!(offset_bytes <= size && needed_bytes > (size - offset_bytes) as u128);
        }
        let fault = read(&[bytes.as_slice(), b"x"].concat()).unwrap_err();
        assert!(matches!(fault, FormatFault::Trailing { .. }), "{}: {fault}", file.file);
    }
}

#[test]
fn a_flipped_byte_is_refused_or_does_no_harm() {
    let recording = recording();
    let mut refused = 0;
    for file in &recording.files {
        let mut bytes = fs::read(golden(&file.file)).unwrap();
        let vectors = file.count * recording.dimension * size_of::<f32>();
        for index in 0..bytes.len() - vectors {
            for bits in [0xff, 0x80, 0x01] {
                bytes[index] ^= bits;
                refused += usize::from(ask(&bytes, &recording.queries[0]).is_err());
                bytes[index] ^= bits;
            }
        }
    }
    // Most bytes of a graph are links, and most of a link's bytes are 0.
    assert!(refused > 30_000, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_at_random_do_no_harm(
        file in 0usize..12,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        header_only in any::<bool>(),
    ) {
        let recording = recording();
        let mut bytes = fs::read(golden(&recording.files[file].file)).unwrap();
        let size = if header_only { FLAT_HEADER_BYTES } else { bytes.len() };
        for (index, value) in changes {
            bytes[index.index(size)] = value;
        }
        let _ = ask(&bytes, &recording.queries[0]);
    }

    #[test]
    fn a_file_of_random_bytes_does_no_harm(
        code in prop::sample::select(vec![
            "IxFI", "IxF2", "IxFl", "IHNf", "IxMp", "IxM2", "IxSQ", "IHNs", "IwFl", "",
        ]),
        // Small numbers are more likely to pass as a count.
        body in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..400),
    ) {
        let bytes = [code.as_bytes(), &body].concat();
        let _ = ask(&bytes, &[0.5, -1.0]);
    }
}

/// Returns the error for a file with `bytes` at `offset`.
fn message(file: &str, offset: usize, bytes: &[u8]) -> String {
    let mut whole = fs::read(golden(file)).unwrap();
    whole[offset..offset + bytes.len()].copy_from_slice(bytes);
    read(&whole).unwrap_err().to_string()
}

#[test]
fn a_wrong_number_is_reported_with_its_offset() {
    let flat = |offset, bytes: &[u8]| message("flat-ip.index", offset, bytes);
    assert_eq!(flat(4, &(-3i32).to_le_bytes()), "dimension at byte 4 is -3, expected 1 or more");
    assert_eq!(
        flat(8, &(-1i64).to_le_bytes()),
        "number of vectors at byte 8 is -1, expected 0 to 4294967295"
    );
    assert_eq!(flat(32, &[0]), "trained at byte 32 is 0, expected 1");
    assert_eq!(
        flat(33, &23i32.to_le_bytes()),
        "metric at byte 33 is 23, expected 0 (inner product)"
    );
    assert_eq!(flat(33, &1i32.to_le_bytes()), "metric at byte 33 is 1, expected 0 (inner product)");
    assert_eq!(
        flat(37, &u64::MAX.to_le_bytes()),
        "vectors at byte 37 is 18446744073709551615, expected 4320 items"
    );
    // A dimension and a number of vectors that agree, but exceed any machine.
    let mut bytes = fs::read(golden("flat-ip.index")).unwrap();
    bytes[4..8].copy_from_slice(&i32::MAX.to_le_bytes());
    bytes[8..16].copy_from_slice(&i64::from(u32::MAX).to_le_bytes());
    let floats = u64::from(u32::MAX) * i32::MAX as u64;
    bytes[37..45].copy_from_slice(&floats.to_le_bytes());
    assert_eq!(
        read(&bytes).unwrap_err().to_string(),
        "vectors at byte 45 takes 36893488121649299460 bytes, but the file ends at byte 17325; all \
         parts of a split file must be in one folder"
    );
}

/// The parts of the graph in a file, each by its offset.
struct GraphParts {
    probabilities: usize,
    below: usize,
    levels: usize,
    offsets: usize,
    slots: usize,
    entry: usize,
    storage: usize,
}

/// Computes the offsets: each vector starts where the previous one ends.
fn graph_parts(bytes: &[u8]) -> GraphParts {
    let count = |start: usize| u64::from_le_bytes(*bytes[start..].first_chunk().unwrap()) as usize;
    let probabilities = 37;
    let below = probabilities + 8 + 8 * count(probabilities);
    let levels = below + 8 + 4 * count(below);
    let offsets = levels + 8 + 4 * count(levels);
    let slots = offsets + 8 + 8 * count(offsets);
    let entry = slots + 8 + 4 * count(slots);
    GraphParts { probabilities, below, levels, offsets, slots, entry, storage: entry + 20 }
}

#[test]
fn a_wrong_graph_is_reported_with_its_offset() {
    let file = "hnsw-l2.index";
    let bytes = fs::read(golden(file)).unwrap();
    let GraphParts { probabilities, below, levels, offsets, slots, entry, storage } =
        graph_parts(&bytes);
    assert_eq!(&bytes[storage..storage + 4], b"IxF2");
    // The offset and the bytes to write; the field and the offset that the error reports.
    for (offset, bytes, field, reported, expected) in [
        (probabilities, vec![255; 8], "probabilities of levels", probabilities + 8, "takes 14757"),
        (below + 8, vec![1], "slots below a level", below + 8, "is 1, expected 0"),
        (below + 16, vec![7], "slots below a level", below + 16, "is 7, expected 8 or more"),
        (levels, vec![239], "levels of rows", levels, "is 239, expected 240 items"),
        (levels + 8, vec![0], "levels of a row", levels + 8, "is 0, expected 1 to "),
        (levels + 8, vec![99], "levels of a row", levels + 8, "is 99, expected 1 to "),
        (offsets + 16, vec![9], "offset of a row", offsets + 16, "is 9, expected 12"),
        (slots, vec![255; 8], "neighbours", slots, "is 18446744073709551615, expected"),
        (slots + 8, vec![240, 0, 0, 0], "a neighbour", slots + 8, "is 240, expected a row below"),
        (slots + 8, vec![254, 255, 255, 255], "a neighbour", slots + 8, "is -2, expected a row"),
        (entry, vec![255; 4], "entry point", entry, "is -1, expected a row below 240"),
        (entry + 4, vec![255, 255, 255, 127], "max_level", entry + 4, "is 2147483647, expected a"),
        (storage, b"IxFI".to_vec(), "metric", storage + 33, "is 1, expected 0 (inner product)"),
        (storage + 4, vec![9], "vectors", storage + 37, "is 4320, expected 2160 items"),
        (33, vec![2], "metric", 33, "is 2, expected 0 (inner product) or 1 (L2)"),
        (33, vec![0], "metric of stored vectors", storage, "is 1, expected 0 as in the graph"),
    ] {
        let message = message(file, offset, &bytes);
        assert!(
            message.starts_with(&format!("{field} at byte {reported} {expected}")),
            "{message}"
        );
    }
    for (code, expected) in [
        (b"null", "holds null (no vectors: the index was written without its storage), which is"),
        (
            b"IxPQ",
            "holds IxPQ (IndexPQ: product quantisation), which is not supported; accepted are ",
        ),
        (b"IxMp", "holds IxMp (IndexIDMap within another index), which is not supported; accepted"),
    ] {
        let message = message(file, storage, code);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_link_to_a_row_that_is_not_on_its_level_is_refused() {
    let file = "hnsw-l2.index";
    let bytes = fs::read(golden(file)).unwrap();
    let GraphParts { levels, offsets, slots, .. } = graph_parts(&bytes);
    let row_of_height = |height: u8| {
        (0..240).find(|row| bytes[levels + 8 + 4 * row..][..4] == [height, 0, 0, 0]).unwrap()
    };
    let (low, high) = (row_of_height(1), row_of_height(2));
    let offset = u64::from_le_bytes(*bytes[offsets + 8 + 8 * high..].first_chunk().unwrap());
    // After the eight slots of the lowest level.
    let link = slots + 8 + 4 * (offset as usize + 8);
    assert_eq!(
        message(file, link, &(low as u32).to_le_bytes()),
        format!("a neighbour at byte {link} is {low}, expected a row that lives on level 1")
    );
}

#[test]
fn a_path_that_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fault = FaissIndex::open(folder.path()).unwrap_err();
    assert_eq!(fault.to_string(), format!("cannot open {}: not a file", folder.path().display()));
    let fault = FaissIndex::open(Path::new("/")).unwrap_err().to_string();
    assert_eq!(fault, "cannot open /: not a file");
    let missing = folder.path().join("missing.index");
    let fault = FaissIndex::open(&missing).unwrap_err().to_string();
    assert!(fault.starts_with(&format!("cannot open {}: ", missing.display())), "{fault}");
    fs::write(&missing, b"").unwrap();
    let fault = FaissIndex::open(&missing).unwrap_err().to_string();
    assert!(fault.contains("kind of index at byte 0 takes 4 bytes, but the file ends at byte 0"));
}
