//! The index folder: what the `index` command leaves on disk, and how it is opened.
//!
//! ```text
//! manifest.json       format, analysis, counts, and the size and SHA-256 of every other file
//! passages.jsonl      the passages, in corpus order
//! passages.offsets    where each of them starts
//! passages.zst        instead of passages.jsonl, with passages.dictionary: see [`crate::corpus::compact`]
//! lexical/            tantivy's postings, and bounds of what terms add
//! dense/              vectors of the passages, where they were asked for: see [`dense`]
//! ```
//!
//! A folder is complete or absent: it is written under another name and renamed.

pub mod manifest;
pub mod progress;
mod duplicates;
pub mod corpus_match;
mod compaction;
pub mod build;
pub mod dense;

use std::path::{Path, PathBuf};

use shared::atomic_file::AtomicError;
use shared::jsonl::JsonlError;
use thiserror::Error;

use crate::corpus::store::{PassageStore, StoreError};
use crate::lexical::LexicalError;
use crate::lexical::bm25::Bm25Parameters;
use crate::lexical::reader::LexicalReader;
use manifest::{Manifest, Verification};

/// Folder of the postings.
pub(crate) const LEXICAL_FOLDER: &str = "lexical";

/// An index could not be built or opened.
#[derive(Debug, Error)]
pub enum IndexError {
    /// There is no index.
    #[error("there is no index at {}: build one with `retriever-server index`", .0.display())]
    Missing(PathBuf),
    /// There is something else.
    #[error("{} exists and is not an index: choose another folder or remove it", .0.display())]
    NotAnIndex(PathBuf),
    /// There is an index of another corpus.
    #[error(
        "{} is an index of another corpus or version: give --force to replace it", .0.display()
    )]
    Differs(PathBuf),
    /// The index was written by a version with another file format or analysis.
    #[error("{} has {what} {found}, this version reads {expected}: build it again", path.display())]
    Incompatible {
        /// The manifest.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the manifest says.
        found: String,
        /// What is read.
        expected: String,
    },
    /// A file is not as the manifest says.
    #[error("{} is corrupt: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The index has no vectors.
    #[error(
        "the index at {} has no vectors: add them with `retriever-server index --backend dense`",
        .0.display()
    )]
    NoVectors(PathBuf),
    /// The vectors are not there in the format that is to be searched.
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
        /// The kind.
        kind: &'static str,
        /// What else the command is to be told, each part after a space.
        options: String,
    },
    /// The vectors are those of other passages or of another encoder.
    #[error(
        "{} was made by another encoder ({}) or for other passages: \
         make it anew with `retriever-server index --backend dense`",
        folder.display(), model.display()
    )]
    OtherVectors {
        /// Folder of the vectors.
        folder: PathBuf,
        /// The encoder's folder as it was given then.
        model: PathBuf,
    },
    /// Passages could not be turned into vectors.
    #[error("cannot encode passages: {0}")]
    Encode(String),
    /// No corpus file was named.
    #[error("no corpus file was given")]
    NoCorpus,
    /// The corpus has no passage.
    #[error("the corpus has no passages")]
    Empty,
    /// The corpus has more passages than row numbers.
    #[error("the corpus has more than {0} passages")]
    TooLarge(u32),
    /// Two lines have one identifier.
    #[error("{}:{line}: id {id:?} was used before, at {}:{first_line}",
        path.display(), first_path.display())]
    DuplicateId {
        /// File of the second line.
        path: PathBuf,
        /// The second line.
        line: u64,
        /// The identifier.
        id: String,
        /// File of the first line.
        first_path: PathBuf,
        /// The first line.
        first_line: u64,
    },
    /// A corpus line is bad.
    #[error(transparent)]
    Line(#[from] JsonlError),
    /// The passages could not be read back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The postings could not be written or read.
    #[error(transparent)]
    Lexical(#[from] LexicalError),
    /// The folder could not be put in place.
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// Attaches a path to an I/O error.
fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.to_owned();
    move |source| IndexError::Io { path, source }
}

/// An open index.
#[derive(Debug)]
pub struct OpenIndex {
    /// What the index says of itself.
    pub manifest: Manifest,
    /// The passages.
    pub passages: PassageStore,
    /// The postings.
    pub lexical: LexicalReader,
}

/// Opens the index in `folder`, after checking its files against its manifest.
pub fn open(
    folder: &Path,
    parameters: Bm25Parameters,
    verification: Verification,
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
