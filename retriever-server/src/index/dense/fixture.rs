//! A small index with vectors, for tests.

use std::path::{Path, PathBuf};

use shared::digest::Digest;
use shared::splitmix;

use super::build::{self, PassageEncoder};
use super::{DENSE_FOLDER, Source};
use crate::corpus::store::PassageStore;
use crate::index::build::{BuildRequest, build as build_index};
use crate::index::manifest::Manifest;

pub(super) const DIMENSION: usize = 16;

/// Makes vectors of length 1 that depend on the text alone.
struct Hashing;

impl PassageEncoder for Hashing {
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        Ok(texts.iter().flat_map(|text| vector(text)).collect())
    }
}

pub(super) fn vector(text: &str) -> Vec<f32> {
    let mut state = text.bytes().fold(0, |hash, byte| splitmix::finalise(hash ^ u64::from(byte)));
    let draw = |_| splitmix::unit(splitmix::next(&mut state)) as f32 - 0.5;
    let numbers: Vec<f32> = (0..DIMENSION).map(draw).collect();
    let length = numbers.iter().map(|one| one * one).sum::<f32>().sqrt();
    numbers.iter().map(|one| one / length).collect()
}

/// An index whose vectors are there.
pub(super) struct DenseWorld {
    _folder: tempfile::TempDir,
    pub(super) index: PathBuf,
    pub(super) source: Source,
}

impl DenseWorld {
    pub(super) fn of(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corpus = folder.path().join("corpus.jsonl");
        let line = |n| format!("{{\"id\":\"{n}\",\"contents\":\"passage {n}\"}}");
        std::fs::write(&corpus, (0..count).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let index = folder.path().join("index");
        let request = BuildRequest {
            corpus: vec![corpus],
            index: index.clone(),
            force: false,
            threads: 1,
            compact: false,
        };
        build_index(&request, &mut |_| {}).unwrap();
        let manifest = Manifest::load(&index).unwrap();
        let source = Source::new(&manifest, Digest::of_bytes(b"encoder"), DIMENSION);
        let passages = PassageStore::open(&index).unwrap();
        build::build(&index, &source, Path::new("m"), &passages, &Hashing, &mut |_| {}).unwrap();
        Self { _folder: folder, index, source }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.index.join(DENSE_FOLDER).join(name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.index.join(DENSE_FOLDER)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
