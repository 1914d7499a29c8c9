//! Building, reusing and refusing indexes.

use super::*;
use crate::index;

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
    assert!(message.ends_with("corpus.jsonl:2: contents is missing"), "{message}");
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
