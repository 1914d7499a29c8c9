//! Building, interrupting, refusing and reading of vectors, with an encoder that counts texts.

use std::cell::{Cell, RefCell};

use shared::contract::digest::Digest;

use super::*;
use crate::index::dense::DenseRows;
use crate::index::fixture::IndexWorld;
use crate::index::manifest::Verification;
use crate::vector;

const DIMENSION: usize = 3;

/// An encoder that makes the vector (row, 0.5, 1) of a text and fails after `limit` texts.
struct Counting {
    made: Cell<usize>,
    limit: usize,
    asked: RefCell<Vec<String>>,
}

impl Counting {
    fn new(limit: usize) -> Self {
        Self { made: Cell::new(0), limit, asked: RefCell::default() }
    }
}

impl PassageEncoder for Counting {
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        if self.made.get() + texts.len() > self.limit {
            return Err("no more".to_owned());
        }
        self.made.set(self.made.get() + texts.len());
        self.asked.borrow_mut().extend(texts.iter().map(|&text| text.to_owned()));
        let row = |text: &str| text.trim_start_matches("passage ").parse().unwrap_or(f32::NAN);
        Ok(texts.iter().flat_map(|text| [row(text), 0.5, 1.0]).collect())
    }
}

struct World {
    index: PathBuf,
    passages: PassageStore,
    base: IndexWorld,
}

impl World {
    fn new(count: usize) -> Self {
        let base = IndexWorld::new(count, |row| format!("passage {row}"), false);
        Self { index: base.index.clone(), passages: base.passages(), base }
    }

    fn source(&self, encoder: &str) -> VectorSource {
        VectorSource::from_parts(
            &self.base.manifest,
            Digest::of_bytes(encoder.as_bytes()),
            DIMENSION,
        )
    }

    fn build(&self, name: &str, encoder: &Counting) -> Result<Vec<Progress>, IndexError> {
        let mut reports = Vec::new();
        let report = &mut |progress| reports.push(progress);
        let (source, model) = (self.source(name), Path::new("model"));
        build(&self.index, &source, model, &self.passages, encoder, report)?;
        Ok(reports)
    }

    fn open(&self, encoder: &str) -> Result<DenseRows, IndexError> {
        DenseRows::open(&self.index, &self.source(encoder), Verification::Digests)
    }

    fn vectors(&self) -> PathBuf {
        self.index.join(DENSE_FOLDER).join(VECTORS_FILE)
    }
}

#[test]
fn vectors_are_built_in_row_order_and_searched() {
    let world = World::new(600);
    assert!(!exist(&world.index, &world.source("e")).unwrap());
    assert!(matches!(world.open("e"), Err(IndexError::NoVectors(_))));
    let reports = world.build("e", &Counting::new(600)).unwrap();
    let last = Progress::Encoding { passages: 600, total: 600, done_before: 0 };
    assert_eq!(reports[reports.len() - 2..], [last, Progress::Sealing]);
    assert!(exist(&world.index, &world.source("e")).unwrap());
    let rows = world.open("e").unwrap();
    let hits = vector::top_k(&rows.rows().unwrap(), &[1.0, 0.0, 0.0], 2, 1, &|| false).unwrap();
    let ids: Vec<u32> = hits[0].iter().map(|hit| hit.row).collect();
    assert_eq!(ids, [599, 598]);
    assert!((hits[0][0].score - 599.0).abs() < 1e-3);
}

#[test]
fn an_interrupted_build_resumes_and_encodes_nothing_twice() {
    let world = World::new(700);
    let first = Counting::new(BATCH_PASSAGES * 2 + 10);
    assert!(
        matches!(world.build("e", &first), Err(IndexError::Encode(reason)) if reason == "no more")
    );
    assert!(!world.index.join(DENSE_FOLDER).exists());
    // A kill in the middle of a write leaves an incomplete row.
    let partial = world.index.join(PARTIAL_FOLDER).join(VECTORS_FILE);
    let mut torn = OpenOptions::new().append(true).open(&partial).unwrap();
    torn.write_all(&[1, 2, 3, 4, 5]).unwrap();
    drop(torn);

    let second = Counting::new(700);
    let reports = world.build("e", &second).unwrap();
    let done_before = (BATCH_PASSAGES * 2) as u64;
    assert_eq!(reports[0], Progress::Encoding { passages: done_before, total: 700, done_before });
    assert_eq!(second.made.get(), 700 - BATCH_PASSAGES * 2);
    assert_eq!(second.asked.borrow()[0], format!("passage {done_before}"));

    let whole = World::new(700);
    whole.build("e", &Counting::new(700)).unwrap();
    assert!(fs::read(world.vectors()).unwrap() == fs::read(whole.vectors()).unwrap());
    let left = fs::read_dir(world.index.join(DENSE_FOLDER)).unwrap().count();
    assert_eq!(left, 2, "the manifest and the vectors");
}

#[test]
fn a_build_killed_before_its_last_renaming_costs_nothing() {
    let world = World::new(300);
    world.build("e", &Counting::new(300)).unwrap();
    // The state between the two renamings: everything is written, but under the partial name.
    let (dense, partial) = (world.index.join(DENSE_FOLDER), world.index.join(PARTIAL_FOLDER));
    fs::rename(&dense, &partial).unwrap();
    let note = serde_json::to_vec(&world.source("e")).unwrap();
    fs::write(partial.join(SOURCE_FILE), note).unwrap();
    world.build("e", &Counting::new(0)).unwrap();
    assert!(world.open("e").is_ok());
}

#[test]
fn another_encoder_starts_again_and_replaces_the_vectors_at_the_end() {
    let world = World::new(300);
    world.build("old", &Counting::new(300)).unwrap();
    assert!(world.build("new", &Counting::new(256)).is_err());
    assert!(world.open("old").is_ok(), "the old vectors stay until the new ones are whole");
    assert!(matches!(world.open("new"), Err(IndexError::OtherVectors { .. })));
    let third = Counting::new(300);
    world.build("third", &third).unwrap();
    assert_eq!(third.made.get(), 300, "no vector of another encoder is kept");
    assert!(world.open("third").is_ok() && world.open("old").is_err());
}

/// On a file system that cannot exchange names, the old vectors are set aside for a moment.
#[test]
fn old_vectors_that_a_killed_build_has_set_aside_are_put_back() {
    let world = World::new(20);
    world.build("old", &Counting::new(20)).unwrap();
    let dense = world.index.join(DENSE_FOLDER);
    fs::rename(&dense, world.index.join(".dense.retired")).unwrap();
    assert!(world.open("old").is_ok());
    assert!(dense.try_exists().unwrap());
}

/// A build was killed right after the old and the new vectors had exchanged names. The partial folder
/// now holds the old vectors with half a graph over them.
#[test]
fn no_build_resumes_from_a_replaced_folder() {
    let world = World::new(20);
    world.build("old", &Counting::new(20)).unwrap();
    let partial = world.index.join(PARTIAL_FOLDER);
    fs::rename(world.index.join(DENSE_FOLDER), &partial).unwrap();
    fs::write(partial.join(".vectors.hnsw.partial"), "of other vectors").unwrap();
    world.build("new", &Counting::new(20)).unwrap();
    let entries = fs::read_dir(world.index.join(DENSE_FOLDER)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [MANIFEST_FILE, VECTORS_FILE]);
}

#[test]
fn vectors_that_were_replaced_are_removed_and_unfinished_ones_are_not() {
    let world = World::new(300);
    world.build("old", &Counting::new(300)).unwrap();
    assert!(world.build("new", &Counting::new(256)).is_err());
    let (dense, partial) = (world.index.join(DENSE_FOLDER), world.index.join(PARTIAL_FOLDER));
    let retired = world.index.join(".dense.retired");
    fs::create_dir(&retired).unwrap();
    remove_leftovers(&world.index).unwrap();
    assert!(!retired.exists() && partial.exists() && dense.exists());
    fs::remove_file(partial.join(SOURCE_FILE)).unwrap();
    remove_leftovers(&world.index).unwrap();
    assert!(!partial.exists() && world.open("old").is_ok());
}

#[test]
fn damaged_vectors_are_refused_by_name() {
    let world = World::new(10);
    world.build("e", &Counting::new(10)).unwrap();
    let path = world.vectors();
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[7] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &flipped[..], b""] {
        fs::write(&path, damaged).unwrap();
        let message = world.open("e").unwrap_err().to_string();
        assert!(message.contains(VECTORS_FILE) && message.contains("corrupt"), "{message}");
    }
    fs::write(&path, &whole).unwrap();
    let manifest = world.index.join(DENSE_FOLDER).join(MANIFEST_FILE);
    fs::write(&manifest, b"{").unwrap();
    assert!(matches!(world.open("e"), Err(IndexError::Corrupt { path, .. }) if path == manifest));
}

#[test]
fn an_encoder_that_fails_leaves_no_vectors() {
    struct Odd(Vec<f32>);
    impl PassageEncoder for Odd {
        fn encode(&self, _: &[&str]) -> Result<Vec<f32>, String> {
            Ok(self.0.clone())
        }
    }
    let world = World::new(1);
    for (numbers, expected) in [(vec![1.0], "not 3"), (vec![1.0, f32::NAN, 1.0], "NaN")] {
        let source = world.source("e");
        let built = build(
            &world.index,
            &source,
            Path::new("m"),
            &world.passages,
            &Odd(numbers),
            &mut |_| {},
        );
        let message = built.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(!world.index.join(DENSE_FOLDER).exists());
}
