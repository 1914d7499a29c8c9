//! Files of vectors that others wrote. faiss: `IndexFlatIP`, `IndexFlatL2`, `IndexScalarQuantizer`,
//! `IndexHNSWFlat` and `IndexHNSWSQ` over these, `IndexIVFFlat`, and all of them in an `IndexIDMap` or
//! `IndexIDMap2` whose identifiers are passage rows. numpy: arrays and raw rows. Neither is needed.
//!
//! A file, whole or in parts, is memory-mapped. 32-bit and 16-bit floats in the order of the passages are
//! read in place, so opening such a file takes no time, and its memory is that of the page cache. Other
//! vectors are copied: those of inverted lists, of identifiers out of order, and of 8-bit quantisers. The
//! notes say so. Opening an HNSW file reads its graph once, because every link is checked. No content of
//! a file makes this module panic, or allocate much more than the file has. A file must not change while
//! it is open.
//!
//! The format of faiss 1.15 and of older versions: a code of four characters, then the fields of the
//! class without gaps, little endian. A vector of items is a 64-bit count followed by the items. So the
//! rows of a flat file start at byte 45 and are not aligned.

pub(super) mod cursor;
mod error;
mod flat;
mod quantised;
mod identified;
mod hnsw;
mod numpy;
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
pub use numpy::Expected;
use parts::Parts;

pub use super::gather::Metric;
use crate::processor::mapped;

/// An index file of a supported kind.
#[derive(Debug)]
pub enum FaissIndex {
    /// Vectors alone.
    Flat(FlatFile),
    /// Vectors with a graph that leads to the nearest ones.
    Hnsw(Box<HnswFile>),
}

impl FaissIndex {
    /// Maps a file of faiss or an array of numpy, and checks that its fields agree with each other. For a
    /// file that was split, the path of any part opens all of them.
    pub fn open(path: &Path) -> Result<Self, FaissError> {
        Self::open_as(path, None)
    }

    /// Opens a file as [`FaissIndex::open`] does, or one of raw rows of the expected vectors.
    pub fn open_expecting(path: &Path, expected: Expected) -> Result<Self, FaissError> {
        Self::open_as(path, Some(expected))
    }

    fn open_as(path: &Path, expected: Option<Expected>) -> Result<Self, FaissError> {
        let bytes = mapped::map(path)?;
        Self::read(&bytes, expected).or_else(|fault| {
            let is_partial =
                matches!(fault, FormatFault::Truncated { .. } | FormatFault::Foreign { .. });
            match is_partial.then(|| Parts::list(path)).flatten() {
                Some(parts) => Self::read(&parts.map()?, expected)
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

    /// Returns remarks about the reading of the file, for people.
    pub fn notes(&self) -> &[String] {
        self.vectors().notes()
    }

    fn read(bytes: &OwnedBytes, expected: Option<Expected>) -> Result<Self, FormatFault> {
        if numpy::is_array(bytes) {
            return numpy::read_array(bytes).map(Self::Flat);
        }
        let mut cursor = FieldReader::new(bytes.clone());
        let index = Self::read_index(&mut cursor).and_then(|index| {
            cursor.finish()?;
            Ok(index)
        });
        match (index, expected) {
            (Err(FormatFault::Foreign { found, name, .. }), Some(expected)) => {
                numpy::read_raw(bytes, expected).map_or_else(
                    || {
                        let (size, sizes) = (bytes.len(), numpy::sizes(expected));
                        let raw = format!("; a file of raw rows has {sizes}, not {size}");
                        Err(FormatFault::Foreign { found, name, raw })
                    },
                    |flat| flat.map(Self::Flat),
                )
            }
            (index, _) => index,
        }
    }

    fn read_index(cursor: &mut FieldReader) -> Result<Self, FormatFault> {
        let code = cursor.array("kind of index")?;
        match &code {
            b"IxMp" | b"IxM2" => {
                let header = cursor.header(None)?;
                let code = cursor.array("kind of index")?;
                let (start, inner) = (cursor.offset_bytes(), Self::read_plain(code, cursor)?);
                let (count, expected) = (inner.vectors().count(), header.count.to_string());
                if count != header.count as usize {
                    let field = "number of vectors with identifiers";
                    return Err(FormatFault::value(field, start, count as i128, expected));
                }
                let rows = identified::read(cursor, header.count)?;
                Ok(match inner {
                    Self::Flat(flat) => Self::Flat(flat.in_order_of(&rows)),
                    Self::Hnsw(hnsw) => Self::Hnsw(Box::new(hnsw.in_order_of(rows))),
                })
            }
            _ => Self::read_plain(code, cursor),
        }
    }

    /// Reads an index without identifiers around it.
    fn read_plain(code: [u8; 4], cursor: &mut FieldReader) -> Result<Self, FormatFault> {
        Ok(match &code {
            b"IHNf" | b"IHNs" => Self::Hnsw(Box::new(HnswFile::read(cursor)?)),
            b"IwFl" => {
                let header = cursor.header(None)?;
                Self::Flat(identified::read_lists(cursor, header, |cursor| {
                    let code = cursor.array("kind of clusters")?;
                    match &code {
                        b"IHNf" => HnswFile::read(cursor).map(drop),
                        _ => FlatFile::read(code, cursor).map(drop),
                    }
                })?)
            }
            _ => Self::Flat(FlatFile::read(code, cursor)?),
        })
    }
}
