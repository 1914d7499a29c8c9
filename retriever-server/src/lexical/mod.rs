//! Lexical search: English analysis, BM25, and the tantivy index that holds the postings. This
//! module knows words and row numbers; passages, requests and threads are not its matter.

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

/// Field of the terms.
const CONTENTS_FIELD: &str = "contents";
/// Column of the passage's row.
const ROW_FIELD: &str = "row";

/// A lexical index could not be written or read.
#[derive(Debug, Error)]
pub enum LexicalError {
    /// tantivy refused.
    #[error("lexical index: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
    /// The operating system refused.
    #[error("lexical index: {0}")]
    Io(#[from] std::io::Error),
    /// The files are readable but not what this program writes.
    #[error("lexical index: {0}")]
    Malformed(String),
}
