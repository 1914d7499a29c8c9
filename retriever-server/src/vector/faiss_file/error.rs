use std::path::PathBuf;

use thiserror::Error;

pub use crate::processor::mapped::MapError;

/// A reason why a faiss index file cannot be read.
#[derive(Debug, Error)]
pub enum FaissError {
    /// The file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file is a part of several, and its size prevents mapping the next part after it.
    #[error(
        "{} has {bytes} bytes: to be read in place, every part of a file except the last must \
         consist of whole pages of {page_bytes} bytes; join the parts with `{command}`", path.display()
    )]
    Part {
        /// The part.
        path: PathBuf,
        /// The part's size.
        bytes: usize,
        /// The bytes of a page of memory.
        page_bytes: usize,
        /// The command that joins the parts.
        command: String,
    },
    /// One of several parts is missing.
    #[error("{} is missing: the folder holds other parts of the same file", path.display())]
    MissingPart {
        /// The part.
        path: PathBuf,
    },
    /// The content of the file is invalid or not supported.
    #[error("{}: {fault}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: FormatFault,
    },
}

/// A reason why bytes are not a supported index.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatFault {
    /// An index of faiss of a kind that is not supported.
    #[error(
        "holds {found} ({meaning}), which is not supported; accepted are IndexFlat, IndexIVFFlat, \
         IndexScalarQuantizer and IndexHNSW over flat or scalar-quantised vectors, alone or in an \
         IndexIDMap, and arrays of numpy"
    )]
    Kind {
        /// The code of four characters that faiss gives the kind.
        found: String,
        /// The name of its class in faiss, with an explanation.
        meaning: &'static str,
    },
    /// No file of faiss starts with these bytes.
    #[error(
        "starts with \"{found}\"{name}, which is not a kind of faiss index; the later parts of a split \
         file must be in the folder of the first{raw}"
    )]
    Foreign {
        /// The first four bytes, escaped.
        found: String,
        /// The kind of file that starts so, as an addition to the sentence; may be empty.
        name: &'static str,
        /// The sizes of files of raw rows, as an addition to the sentence; may be empty.
        raw: String,
    },
    /// The header of an array of numpy has another value than those that can be read.
    #[error("the array's {field} is {found}, expected {expected}")]
    Array {
        /// The key.
        field: &'static str,
        /// Its value.
        found: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// The file ends too early.
    #[error(
        "{field} at byte {offset_bytes} takes {needed_bytes} bytes, but the file ends at byte \
         {size_bytes}; all parts of a split file must be in one folder"
    )]
    Truncated {
        /// The field.
        field: &'static str,
        /// The field's offset.
        offset_bytes: usize,
        /// The field's length.
        needed_bytes: u128,
        /// The file's length.
        size_bytes: usize,
    },
    /// A number that is invalid, or that contradicts another.
    #[error("{field} at byte {offset_bytes} is {found}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// The field's offset.
        offset_bytes: usize,
        /// The field's value.
        found: i128,
        /// The accepted values.
        expected: String,
    },
    /// The file is longer than the index.
    #[error("the index ends at byte {end_bytes}, but the file ends at byte {size_bytes}")]
    Trailing {
        /// The end of the index.
        end_bytes: usize,
        /// The file's length.
        size_bytes: usize,
    },
}

impl FormatFault {
    /// Returns the fault of an invalid number.
    pub(in crate::vector) fn value(
        field: &'static str,
        offset_bytes: usize,
        found: impl Into<i128>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { field, offset_bytes, found: found.into(), expected: expected.into() }
    }

    /// Returns the fault of a code that is not supported.
    pub(super) fn kind(code: [u8; 4]) -> Self {
        let start = code.escape_ascii().to_string();
        match meaning(code) {
            Some(meaning) => Self::Kind { found: start, meaning },
            None => Self::Foreign { found: start, name: foreign(code), raw: String::new() },
        }
    }
}

/// Names files in which other programs keep vectors, and says what makes them readable.
fn foreign(code: [u8; 4]) -> &'static str {
    match &code {
        b"PK\x03\x04" => {
            " (a zip archive, as numpy.savez and torch.save write it: save the array with numpy.save)"
        }
        [0x80, 2..=5, ..] => " (a Python pickle: save the array with numpy.save)",
        b"PAR1" => " (a parquet file: save the vectors with numpy.save)",
        b"\x89HDF" => " (an HDF5 file: save the vectors with numpy.save)",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => " (a compressed file: unpack it first)",
        _ => "",
    }
}

/// Returns the kind of index that a code denotes in faiss, if it is known. Large families of kinds are
/// recognised by the start of the code.
fn meaning(code: [u8; 4]) -> Option<&'static str> {
    Some(match &code {
        b"null" => "no vectors: the index was written without its storage",
        b"IxMp" | b"IxM2" => "IndexIDMap within another index",
        b"IxPT" => "IndexPreTransform: vectors transformed before they are stored",
        b"IxRF" => "IndexRefine: one index over another",
        b"ilod" | b"ilar" | b"il00" => "inverted lists that are stored in another way",
        b"IxPQ" | b"IxPo" | b"IxPq" | b"IPfs" => "IndexPQ: product quantisation",
        b"IxHE" | b"IxHe" => "IndexLSH: hashes of vectors",
        b"IxFP" | b"IxFp" => "IndexFlatPanorama: vectors in another layout",
        b"IHNf" | b"IHNs" => "IndexHNSW within another index",
        b"IwFl" => "IndexIVFFlat within another index",
        [b'I', b'v' | b'w', ..] | b"IVLf" | b"IVRf" | b"NPLf" | b"NPRf" => {
            "IndexIVF: inverted lists of vectors that are not flat"
        }
        [b'I', b'H', ..] => "IndexHNSW: a graph over vectors that are not flat",
        [b'I', b'N', ..] => "IndexNSG or IndexNNDescent: a graph of another kind",
        [b'I', b'B', ..] => "IndexBinary: vectors of bits",
        [b'I', b'm' | b'x' | b'L' | b'P' | b'R', ..] => "quantised vectors",
        _ => return None,
    })
}
