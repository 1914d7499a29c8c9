//! Lexical search: English analysis, BM25, and the tantivy index that holds the postings. This
//! module deals with words and row numbers only, never with passages, requests or threads.
//!
//! `bm25.rs` has the BM25 formula; `maxscore/units.rs` rounds each term's contribution to whole
//! units, and `maxscore` adds these up and keeps the best passages. `analyzer` turns a text into
//! terms (with `words` and `porter`), `writer` indexes the terms of the passages, and `reader` ranks passages for a query.

mod words;
mod porter;
pub mod analyzer;
pub mod bm25;
pub mod ranges;
pub mod maxscore;
pub(crate) mod bounds;
mod bounds_writer;
pub mod reader;
pub mod writer;

use thiserror::Error;

use crate::processor::mapped::MapError;

/// The name of the field of terms.
const CONTENTS_FIELD: &str = "contents";
/// The name of the column of rows.
const ROW_FIELD: &str = "row";

/// A lexical index could not be written or read.
#[derive(Debug, Error)]
pub enum LexicalError {
    /// tantivy reported an error.
    #[error("lexical index: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
    /// A file could not be mapped.
    #[error("lexical index: {0}")]
    Map(#[from] MapError),
    /// The operating system reported an error.
    #[error("lexical index: {0}")]
    Io(#[from] std::io::Error),
    /// The files can be read, but this program did not write them.
    #[error("lexical index: {0}")]
    Malformed(String),
}
