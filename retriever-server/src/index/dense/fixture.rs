//! A small index with vectors, for tests.

use std::path::{Path, PathBuf};

use shared::contract::digest::Digest;
use shared::contract::splitmix;

use super::build::{self, PassageEncoder};
use super::{DENSE_FOLDER, VectorSource};
use crate::index::fixture::IndexWorld;

pub(super) const DIMENSION: usize = 16;

/// An encoder whose vectors have length 1 and depend on the text alone.
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
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.iter().map(|number| number / length).collect()
}

/// An index with vectors.
pub(in crate::index) struct DenseWorld {
    world: IndexWorld,
    pub(in crate::index) index: PathBuf,
    pub(in crate::index) source: VectorSource,
}

impl DenseWorld {
    pub(in crate::index) fn new(count: usize) -> Self {
        Self::with_texts(count, |row| format!("passage {row}"))
    }

    /// Makes an index of passages with these texts.
    pub(in crate::index) fn with_texts(count: usize, text: impl Fn(usize) -> String) -> Self {
        let world = IndexWorld::new(count, text, false);
        let index = world.index.clone();
        let source =
            VectorSource::from_parts(&world.manifest, Digest::of_bytes(b"encoder"), DIMENSION);
        let (model, passages) = (Path::new("m"), world.passages());
        build::build(&index, &source, model, &passages, &Hashing, &mut |_| {}).unwrap();
        Self { world, index, source }
    }

    pub(in crate::index) fn corpus(&self) -> PathBuf {
        self.world.corpus()
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
