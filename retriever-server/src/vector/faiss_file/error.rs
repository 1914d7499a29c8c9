use std::path::PathBuf;

use thiserror::Error;

pub use crate::processor::mapped::MapError;

/// A faiss index file cannot be read.
#[derive(Debug, Error)]
pub enum FaissError {
    /// The file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file is one part of several, and cannot be mapped behind the one before it.
    #[error(
        "{} has {bytes} bytes: to be read in place, every part of a file but the last must be of \
         whole pages of {page_bytes} bytes; join the parts with `{command}`", path.display()
    )]
    Part {
        /// The part.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// Bytes of a page of memory.
        page_bytes: usize,
        /// What joins them.
        command: String,
    },
    /// Of several parts, one is not there.
    #[error("{} is not there, a part of the file whose other parts are beside it", path.display())]
    MissingPart {
        /// The part.
        path: PathBuf,
    },
    /// The file does not hold what is read here.
    #[error("{}: {fault}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FormatFault,
    },
}

/// Why bytes are no index that is read here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatFault {
    /// An index of faiss, but of another kind.
    #[error(
        "holds {found} ({meaning}), which is not read here; accepted are IndexFlatIP, IndexFlatL2 \
         and IndexHNSWFlat"
    )]
    Kind {
        /// The four characters that faiss knows the kind by.
        found: String,
        /// The kind, as faiss's classes name it.
        meaning: &'static str,
    },
    /// Nothing that faiss writes starts so.
    #[error(
        "starts with \"{found}\", which is no kind of faiss index; the later parts of a split file \
         must stand beside the first"
    )]
    Foreign {
        /// The first four bytes, escaped.
        found: String,
    },
    /// The file ends too early.
    #[error(
        "{field} at byte {offset_bytes} takes {needed_bytes} bytes, but the file ends at byte \
         {size_bytes}; the parts of a split file must stand side by side"
    )]
    Truncated {
        /// What was to be read.
        field: &'static str,
        /// Where it starts.
        offset_bytes: usize,
        /// How long it is.
        needed_bytes: u128,
        /// How long the file is.
        size_bytes: usize,
    },
    /// A number that cannot be, or that contradicts another.
    #[error("{field} at byte {offset_bytes} is {found}, expected {expected}")]
    Value {
        /// What was read.
        field: &'static str,
        /// Where it stands.
        offset_bytes: usize,
        /// Its value.
        found: i128,
        /// What is accepted.
        expected: String,
    },
    /// More bytes than the index has.
    #[error("the index ends at byte {end_bytes}, but the file at byte {size_bytes}")]
    Trailing {
        /// Where the index ends.
        end_bytes: usize,
        /// How long the file is.
        size_bytes: usize,
    },
}

impl FormatFault {
    /// The fault of a number.
    pub(in crate::vector) fn value(
        field: &'static str,
        offset_bytes: usize,
        found: impl Into<i128>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { field, offset_bytes, found: found.into(), expected: expected.into() }
    }

    /// The fault of a code that is not read here.
    pub(super) fn kind(code: [u8; 4]) -> Self {
        let found = code.escape_ascii().to_string();
        match meaning(code) {
            Some(meaning) => Self::Kind { found, meaning },
            None => Self::Foreign { found },
        }
    }
}

/// What faiss writes under a code that is not read here. The start of a code names a family, where
/// its members are many.
fn meaning(code: [u8; 4]) -> Option<&'static str> {
    Some(match &code {
        b"null" => "no vectors: the index was written without its storage",
        b"IxMp" | b"IxM2" => "IndexIDMap: identifiers of its own in place of row numbers",
        b"IxPT" => "IndexPreTransform: vectors transformed before they are stored",
        b"IxRF" => "IndexRefine: one index over another",
        b"IxSQ" => "IndexScalarQuantizer: vectors in fewer bits",
        b"IxPQ" | b"IxPo" | b"IxPq" | b"IPfs" => "IndexPQ: product quantisation",
        b"IxHE" | b"IxHe" => "IndexLSH: hashes of vectors",
        b"IxFP" | b"IxFp" => "IndexFlatPanorama: vectors in another layout",
        b"IHNf" => "IndexHNSWFlat within another index",
        [b'I', b'v' | b'w', ..] | b"IVLf" | b"IVRf" | b"NPLf" | b"NPRf" => {
            "IndexIVF: inverted lists"
        }
        [b'I', b'H', ..] => "IndexHNSW: a graph over vectors that are not flat",
        [b'I', b'N', ..] => "IndexNSG or IndexNNDescent: a graph of another kind",
        [b'I', b'B', ..] => "IndexBinary: vectors of bits",
        [b'I', b'm' | b'x' | b'L' | b'P' | b'R', ..] => "quantised vectors",
        _ => return None,
    })
}
