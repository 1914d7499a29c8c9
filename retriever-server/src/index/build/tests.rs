//! Building, reusing and refusing indexes.

use super::*;
use crate::index::{self, corpus_match};

fn request(folder: &Path, lines: &[&str]) -> BuildRequest {
    let corpus = folder.join("corpus.jsonl");
    fs::write(&corpus, lines.join("\n")).unwrap();
    BuildRequest {
        corpus: vec![corpus],
        index: folder.join("index"),
        force: false,
        threads: 2,
        compact: false,
    }
}

fn run(request: &BuildRequest) -> Result<BuildOutcome, IndexError> {
    build(request, &mut |_| {})
}

const OSLO: &str = r#"{"id":"1","contents":"\"Oslo\"\nOslo is the capital of Norway."}"#;
const ROME: &str = r#"{"id":"2","contents":"\"Rome\"\nRome is the capital of Italy."}"#;

#[test]
fn an_index_is_built_opened_and_found_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), &[OSLO, "", ROME]);
    let mut reports = Vec::new();
    let report = &mut |progress| reports.push(progress);
    let BuildOutcome::Built(manifest) = build(&request, report).unwrap() else {
        panic!("not built");
    };
    assert_eq!(reports.last(), Some(&Progress::Sealing));
    assert_eq!((manifest.passage_count, manifest.token_count), (2, 8));
    let parameters = Bm25Parameters::default();
    let open = index::open(&request.index, parameters, Verification::Digests).unwrap();
    let ranked = open.lexical.rank("norway", 3, &|| false).unwrap();
    assert_eq!(ranked.len(), 1);
    assert_eq!(open.passages.get(ranked[0].row).unwrap().id, "1");
    assert_eq!(run(&request).unwrap(), BuildOutcome::UpToDate(manifest));
}

#[test]
fn equal_corpora_have_equal_digests() {
    let digests: Vec<_> = (0..2)
        .map(|_| {
            let folder = tempfile::tempdir().unwrap();
            match run(&request(folder.path(), &[OSLO, ROME])).unwrap() {
                BuildOutcome::Built(manifest) => manifest.digest,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn another_corpus_replaces_an_index_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    run(&request(folder.path(), &[OSLO])).unwrap();
    let mut other = request(folder.path(), &[OSLO, ROME]);
    assert!(matches!(run(&other), Err(IndexError::Differs(_))));
    other.force = true;
    assert!(
        matches!(run(&other), Ok(BuildOutcome::Built(manifest)) if manifest.passage_count == 2)
    );
}

/// On a file system that cannot exchange names, the old index is set aside for a moment.
#[test]
fn an_index_that_a_killed_build_has_set_aside_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), &[OSLO, ROME]);
    let BuildOutcome::Built(built) = run(&request).unwrap() else { panic!("not built") };
    let aside = folder.path().join(".index.retired");
    fs::rename(&request.index, &aside).unwrap();
    assert_eq!(Manifest::load(&request.index).unwrap(), built);
    assert!(!aside.try_exists().unwrap());
}

#[test]
fn a_folder_that_is_not_an_index_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path(), &[OSLO]);
    request.force = true;
    fs::create_dir(&request.index).unwrap();
    fs::write(request.index.join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(run(&request), Err(IndexError::NotAnIndex(_))));
}

#[test]
fn a_bad_line_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), &[OSLO, r#"{"id":"2"}"#]);
    let message = run(&request).unwrap_err().to_string();
    assert!(message.contains("corpus.jsonl:2: contents is missing"), "{message}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the corpus: {left:?}");
}

#[test]
fn a_repeated_id_is_named_with_both_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path(), &[OSLO, "", ROME, OSLO]);
    let message = run(&request).unwrap_err().to_string();
    assert!(message.contains("corpus.jsonl:4: id \"1\" was used before"), "{message}");
    assert!(message.ends_with("corpus.jsonl:1"), "{message}");
    let second = folder.path().join("second.jsonl");
    fs::write(&second, format!("\n{ROME}\n")).unwrap();
    fs::write(&request.corpus[0], [OSLO, "", ROME].join("\n")).unwrap();
    request.corpus.push(second);
    let message = run(&request).unwrap_err().to_string();
    assert!(message.contains("second.jsonl:2: id \"2\""), "{message}");
    assert!(message.ends_with("corpus.jsonl:3"), "{message}");
}

#[test]
fn empty_and_missing_corpora_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path(), &["", " "]);
    assert!(matches!(run(&request), Err(IndexError::Empty)));
    request.corpus = vec![folder.path().join("absent.jsonl")];
    let message = run(&request).unwrap_err().to_string();
    assert!(message.contains("absent.jsonl"), "{message}");
    request.corpus.clear();
    assert!(matches!(run(&request), Err(IndexError::NoCorpus)));
}

#[test]
fn a_flipped_byte_is_found_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), &[OSLO, ROME]);
    run(&request).unwrap();
    let path = request.index.join(PASSAGES_FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let parameters = Bm25Parameters::default();
    index::open(&request.index, parameters, Verification::Sizes).unwrap();
    let error = index::open(&request.index, parameters, Verification::Digests).unwrap_err();
    assert!(error.to_string().contains("passages.jsonl is corrupt: SHA-256"), "{error}");
}

/// Builds an index of one file and returns its passages, or the error without the folder's path.
fn passages_of(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let request = BuildRequest { corpus: vec![path], ..request(folder.path(), &[]) };
    let shown = format!("{}/", folder.path().display());
    run(&request).map_err(|error| error.to_string().replace(&shown, ""))?;
    Ok(stored(&request.index))
}

fn stored(index: &Path) -> Vec<(String, String)> {
    let passages = PassageStore::open(index).unwrap();
    let all = (0..passages.len() as u32).map(|row| passages.get(row).unwrap());
    all.map(|passage| (passage.id, passage.contents)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn corpora_are_indexed_in_the_forms_in_which_they_are_published() {
    let oslo = "\"Oslo\"\nOslo is the capital of Norway.";
    let rome = "\"Rome\"\nRome is the capital of Italy.";
    let expected = |first: &str, second: &str| {
        Ok(vec![(first.to_owned(), oslo.to_owned()), (second.to_owned(), rome.to_owned())])
    };
    let plain = format!("{OSLO}\n{ROME}\n");
    let parts = "{\"id\": \"1\", \"title\": \"Oslo\", \"text\": \"Oslo is the capital of Norway.\"}\n\
                 {\"_id\": \"2\", \"title\": \"Rome\", \"text\": \"Rome is the capital of Italy.\"}";
    let dpr = "id\ttext\ttitle\n1\t\"Oslo is the capital of Norway.\"\tOslo\n\
               2\tRome is the capital of Italy.\tRome\n";
    let kilt = r#"{"_id":"1","wikipedia_title":"Oslo","text":["Oslo\n","Oslo is the capital of Norway.\n"],"a":NaN}
{"_id":"2","wikipedia_title":"Rome","text":["Rome\n","Rome is the capital of Italy.\n"],"b":"\ud800"}"#;
    let odd_keys = r#"{"id":1,"contents":"\"Oslo\"\nOslo is the capital of Norway.","text":["x"],"url":7}
{"id":2,"contents":"\"Rome\"\nRome is the capital of Italy.","title":1}"#;
    for (name, bytes) in [
        ("marked.jsonl", [b"\xef\xbb\xbf".as_slice(), plain.as_bytes()].concat()),
        ("crlf.jsonl", plain.replace('\n', "\r\n").into_bytes()),
        ("list.json", format!("[{OSLO},\n{ROME}]").into_bytes()),
        ("corpus.jsonl.gz", gzip(plain.as_bytes())),
        ("corpus.jsonl.zst", zstd::encode_all(plain.as_bytes(), 0).unwrap()),
        ("parts.jsonl", parts.as_bytes().to_vec()),
        ("psgs_w100.tsv", dpr.as_bytes().to_vec()),
        ("psgs_w100.tsv.gz", gzip(dpr.as_bytes())),
        ("kilt.json", kilt.as_bytes().to_vec()),
        ("odd.jsonl", odd_keys.as_bytes().to_vec()),
    ] {
        assert_eq!(passages_of(name, &bytes), expected("1", "2"), "{name}");
    }
    let parquet = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/rows/corpus.parquet");
    let parquet = fs::read(parquet).unwrap();
    assert_eq!(passages_of("corpus.parquet", &parquet), expected("7", "8"));
    let marco = passages_of("collection.tsv", b"0\tThe \"presence\" of it.\n1\tx\n").unwrap();
    assert_eq!(marco[0], ("0".to_owned(), "The \"presence\" of it.".to_owned()));
}

#[test]
fn a_folder_of_parts_is_one_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("part-10.jsonl"), ROME).unwrap();
    fs::write(parts.join("part-9.jsonl"), OSLO).unwrap();
    fs::write(parts.join("_SUCCESS"), "").unwrap();
    let request = BuildRequest { corpus: vec![parts.clone()], ..request(folder.path(), &[]) };
    let BuildOutcome::Built(manifest) = run(&request).unwrap() else { panic!("not built") };
    assert_eq!(stored(&request.index)[0].0, "1");
    assert_eq!(manifest.corpus[0].path, parts.join("part-9.jsonl"));
    assert!(matches!(run(&request).unwrap(), BuildOutcome::UpToDate(_)));
    let same = |corpus: &[PathBuf]| {
        let found = corpus_match::compare(&manifest, corpus, Verification::Digests);
        matches!(found, corpus_match::CorpusMatch::Same { unread } if unread.is_empty())
    };
    assert!(same(std::slice::from_ref(&parts)));
    assert!(same(&[parts.join("part-9.jsonl"), parts.join("part-10.jsonl")]));
    fs::write(parts.join("part-11.jsonl"), OSLO).unwrap();
    assert!(!same(std::slice::from_ref(&parts)));
    let error = run(&BuildRequest { force: true, ..request }).unwrap_err().to_string();
    assert!(error.contains("part-11.jsonl:1: id \"1\" was used before"), "{error}");
    assert!(error.contains("part-9.jsonl:1"), "{error}");
}

#[test]
fn a_file_that_is_no_corpus_is_named_for_what_it_is() {
    for (bytes, expected) in [
        (b"print(\"no corpus\")\n".as_slice(), "x: is a Python script, expected rows"),
        (b"PK\x03\x04zip", "x: is a zip archive"),
        (b"IxFI\x40\0\0\0", "x: is a faiss index"),
        (b"{\"id\":\"1\"}", "x:1: contents is missing"),
        (b"id\ttext\ttitle\n\ta\tb\n", "x:2: id is empty"),
        (b"", "the corpus has no passages"),
    ] {
        let error = passages_of("x", bytes).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
