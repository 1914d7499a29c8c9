//! The index folder, which the `index` command writes and [`open`] opens.
//!
//! ```text
//! manifest.json       format, analysis, counts, and the size and SHA-256 of every other file
//! passages.jsonl      the passages, in corpus order
//! passages.offsets    the start of each passage
//! passages.zst        replaces passages.jsonl, with passages.dictionary: see [`crate::corpus::compact`]
//! lexical/            tantivy's postings, and bounds of the terms' contributions
//! dense/              vectors of the passages, if requested: see [`dense`]
//! ```
//!
//! A folder is complete or absent: it is written under another name and then renamed.

pub mod manifest;
pub mod later;
pub mod progress;
mod duplicates;
pub mod corpus_match;
mod compaction;
pub mod build;
pub mod dense;

use std::path::{Path, PathBuf};

use shared::contract::rows::RowsError;
use shared::machine::atomic_file::AtomicError;
use thiserror::Error;

use crate::corpus::store::{PassageStore, StoreError};
use crate::lexical::LexicalError;
use crate::lexical::bm25::Bm25Parameters;
use crate::lexical::reader::LexicalReader;
use crate::processor::mapped::MapError;
use manifest::{Manifest, Verification};

/// The name of the folder of the postings.
pub(crate) const LEXICAL_FOLDER: &str = "lexical";

/// An index could not be built or opened.
#[derive(Debug, Error)]
pub enum IndexError {
    /// There is no index.
    #[error("there is no index at {}: build one with `retriever-server index`", .0.display())]
    Missing(PathBuf),
    /// The path exists and is not an index.
    #[error("{} exists and is not an index: choose another folder or remove it", .0.display())]
    NotAnIndex(PathBuf),
    /// The folder holds an index of another corpus.
    #[error(
        "{} is an index of another corpus or version: give --force to replace it", .0.display()
    )]
    Differs(PathBuf),
    /// The index was written by a version with another file format or analysis.
    #[error(
        "{} has {property} {found}, this version reads {expected}: build it again", path.display()
    )]
    Incompatible {
        /// The manifest.
        path: PathBuf,
        /// The name of the property that differs.
        property: &'static str,
        /// Its value in the manifest.
        found: String,
        /// The value that this version reads.
        expected: String,
    },
    /// A file differs from its entry in the manifest.
    #[error("{} is corrupt: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The difference: the value in the file, and the expected value.
        reason: String,
    },
    /// The index has no vectors.
    #[error(
        "the index at {} has no vectors: add them with `retriever-server index --backend dense`, or \
         with ann for a graph",
        .0.display()
    )]
    NoVectors(PathBuf),
    /// The vectors are missing in the format to be searched.
    #[error(
        "the index at {} has no vectors in {format}: add them with `retriever-server index \
         --backend dense --vector-format {format}`", index.display()
    )]
    NoFormat {
        /// The index.
        index: PathBuf,
        /// The format.
        format: &'static str,
    },
    /// The index has no such graph.
    #[error(
        "the index at {} has no {kind} graph: add it with `retriever-server index --backend ann \
         --ann {kind}{options}`", index.display()
    )]
    NoGraph {
        /// The index.
        index: PathBuf,
        /// The kind of graph.
        kind: &'static str,
        /// Further options of the command, each after a space.
        options: String,
    },
    /// The vectors belong to other passages or to another encoder.
    #[error(
        "{} was made by another encoder ({}) or for other passages: \
         build it again with `retriever-server index --backend dense`",
        folder.display(), model.display()
    )]
    OtherVectors {
        /// The folder of the vectors.
        folder: PathBuf,
        /// The path of the encoder's folder when the vectors were built.
        model: PathBuf,
    },
    /// Passages could not be turned into vectors.
    #[error("cannot encode passages: {0}")]
    Encode(String),
    /// No corpus file was named.
    #[error("no corpus file was given")]
    NoCorpus,
    /// The corpus has no passages.
    #[error("the corpus has no passages")]
    Empty,
    /// The corpus has more passages than there are row numbers.
    #[error("the corpus has more than {0} passages")]
    TooLarge(u32),
    /// Two lines have the same identifier.
    #[error("{}:{line}: id {id:?} was used before, at {}:{first_line}",
        path.display(), first_path.display())]
    DuplicateId {
        /// The file of the second line.
        path: PathBuf,
        /// The second line.
        line: u64,
        /// The identifier.
        id: String,
        /// The file of the first line.
        first_path: PathBuf,
        /// The first line.
        first_line: u64,
    },
    /// A row of the corpus is invalid, or the corpus cannot be read.
    #[error(transparent)]
    Row(#[from] RowsError),
    /// The passages could not be read back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The postings could not be written or read.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// A file could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A file or folder could not be moved into place.
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// Attaches a path to an I/O error.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.to_owned();
    move |source| IndexError::Io { path, source }
}

/// An open index.
#[derive(Debug)]
pub struct OpenIndex {
    /// The description of the index.
    pub manifest: Manifest,
    /// The passages.
    pub passages: PassageStore,
    /// The postings.
    pub lexical: LexicalReader,
}

/// Opens the index in `folder` after comparing its files with its manifest.
pub fn open(
    folder: &Path,
    parameters: Bm25Parameters,
    verification: Verification<'_>,
) -> Result<OpenIndex, IndexError> {
    let manifest = Manifest::load(folder)?;
    manifest.check_files(folder, verification)?;
    let passages = PassageStore::open(folder)?;
    let lexical = LexicalReader::open(&folder.join(LEXICAL_FOLDER), parameters)?;
    let counts = [passages.len() as u64, u64::from(lexical.passage_count())];
    if counts != [manifest.passage_count; 2] {
        return Err(IndexError::Corrupt {
            path: folder.to_owned(),
            reason: format!(
                "{} passages and {} rows of postings, expected {}",
                counts[0], counts[1], manifest.passage_count
            ),
        });
    }
    Ok(OpenIndex { manifest, passages, lexical })
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
