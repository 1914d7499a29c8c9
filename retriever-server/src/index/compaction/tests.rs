//! Compression of the passages of an existing index, which keeps its answers or the old index.

use super::*;
use crate::index;
use crate::index::build::{BuildOutcome, BuildRequest, build};
use crate::index::dense::fixture::DenseWorld;
use crate::lexical::bm25::Bm25Parameters;

const PASSAGES: usize = 400;

fn request(world: &DenseWorld, compact: bool) -> BuildRequest {
    BuildRequest {
        corpus: vec![world.corpus()],
        index: world.index.clone(),
        force: false,
        threads: 1,
        compact,
    }
}

/// Returns all passages and the number of hits of a query.
fn answers(world: &DenseWorld) -> (Vec<String>, usize) {
    let parameters = Bm25Parameters::default();
    let open = index::open(&world.index, parameters, Verification::Digests).unwrap();
    let rows = 0..open.passages.len() as u32;
    let contents = rows.map(|row| open.passages.get(row).unwrap().contents).collect();
    (contents, open.lexical.rank("passage", PASSAGES, &|| false).unwrap().len())
}

#[test]
fn passages_of_an_index_are_compressed_in_place() {
    let world = DenseWorld::new(PASSAGES);
    let (old, before) = (Manifest::load(&world.index).unwrap(), answers(&world));
    let mut reports = Vec::new();
    let outcome = build(&request(&world, true), &mut |report| reports.push(report)).unwrap();
    let BuildOutcome::Compressed(manifest) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reports, [Progress::Compressing, Progress::Sealing]);
    assert_eq!(manifest, Manifest::load(&world.index).unwrap());
    assert_eq!((manifest.digest, is_compact(&manifest)), (old.digest, true));
    assert!(!world.index.join(PASSAGES_FILE).try_exists().unwrap());
    assert_eq!(answers(&world), before);
    // The vectors still belong to these passages.
    let (source, verification) = (&world.source, Verification::Digests);
    assert!(dense::DenseRows::open(&world.index, source, verification).is_ok());
    for compact in [true, false] {
        let again = build(&request(&world, compact), &mut |_| {}).unwrap();
        assert_eq!(again, BuildOutcome::UpToDate(manifest.clone()));
    }
}

#[test]
fn a_copy_that_was_not_finished_changes_nothing() {
    let world = DenseWorld::new(PASSAGES);
    let (old, before) = (Manifest::load(&world.index).unwrap(), answers(&world));
    // The remains of a build that was killed while it compressed.
    let partial = world.index.with_file_name(".index.partial");
    fs::create_dir(&partial).unwrap();
    link_files(&world.index, &partial).unwrap();
    fs::remove_file(partial.join(MANIFEST_FILE)).unwrap();
    compact::compress(&partial).unwrap();
    assert_eq!((Manifest::load(&world.index).unwrap(), answers(&world)), (old, before.clone()));
    build(&request(&world, true), &mut |_| {}).unwrap();
    assert_eq!(answers(&world), before);
    assert!(!partial.try_exists().unwrap());
}

#[test]
fn damaged_passages_are_not_compressed() {
    let world = DenseWorld::new(PASSAGES);
    let path = world.index.join(PASSAGES_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = build(&request(&world, true), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("passages.jsonl is corrupt: SHA-256"), "{error}");
    assert!(path.try_exists().unwrap());
}

#[test]
fn vectors_that_are_being_written_keep_their_folder() {
    let world = DenseWorld::new(PASSAGES);
    let held = dense::lock_all(&world.index).unwrap();
    let busy = build(&request(&world, true), &mut |_| {});
    assert!(matches!(busy, Err(IndexError::Atomic(_))), "{busy:?}");
    drop(held);
    build(&request(&world, true), &mut |_| {}).unwrap();
}
