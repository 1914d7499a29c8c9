//! Index files of faiss, read in place: `IndexFlatIP`, `IndexFlatL2`, and `IndexHNSWFlat` over either.
//! faiss itself is not needed.
//!
//! A file, whole or in parts, is memory-mapped and never copied. So opening a flat file takes no time,
//! and its memory is that of the page cache. Opening an HNSW file reads its graph once, because every
//! link is checked. No content of a file makes this module panic, or allocate more than one bit for
//! each row. A file must not change while it is open.
//!
//! The format of faiss 1.15 and of older versions: a code of four characters, then the fields of the
//! class without gaps, little endian. A vector of items is a 64-bit count followed by the items. So the
//! rows of a flat file start at byte 45 and are not aligned.

pub(super) mod cursor;
mod error;
mod flat;
mod hnsw;
mod joined;
mod parts;

#[cfg(test)]
mod tests;

use std::path::Path;

use tantivy::directory::OwnedBytes;

use cursor::FieldReader;
pub use error::{FaissError, FormatFault, MapError};
pub use flat::FlatFile;
pub use hnsw::HnswFile;
use parts::Parts;

pub use super::gather::Metric;
use crate::processor::mapped;

/// An index file of a supported kind.
#[derive(Debug)]
pub enum FaissIndex {
    /// Vectors alone.
    Flat(FlatFile),
    /// Vectors with a graph that leads to the nearest ones.
    Hnsw(HnswFile),
}

impl FaissIndex {
    /// Maps the file and checks that its fields agree with each other. For a file that was split, the
    /// path of any part opens all of them.
    pub fn open(path: &Path) -> Result<Self, FaissError> {
        let bytes = mapped::map(path)?;
        Self::read(bytes).or_else(|fault| {
            let is_partial =
                matches!(fault, FormatFault::Truncated { .. } | FormatFault::Foreign { .. });
            match is_partial.then(|| Parts::list(path)).flatten() {
                Some(parts) => Self::read(parts.map()?)
                    .map_err(|fault| FaissError::Format { path: parts.first(), fault }),
                None => Err(FaissError::Format { path: path.to_owned(), fault }),
            }
        })
    }

    /// Returns the vectors.
    pub fn vectors(&self) -> &FlatFile {
        match self {
            Self::Flat(flat) => flat,
            Self::Hnsw(hnsw) => hnsw.vectors(),
        }
    }

    fn read(bytes: OwnedBytes) -> Result<Self, FormatFault> {
        let mut cursor = FieldReader::new(bytes);
        let code = cursor.array("kind of index")?;
        let index = match &code {
            b"IHNf" => Self::Hnsw(HnswFile::read(&mut cursor)?),
            _ => Self::Flat(FlatFile::read(code, &mut cursor)?),
        };
        cursor.finish()?;
        Ok(index)
    }
}
