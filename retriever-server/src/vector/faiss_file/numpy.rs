//! Vectors as numpy keeps them: a `.npy` file, or the raw rows of a `numpy.memmap`, such as the
//! `emb_*.memmap` of Search-R1's index builder.

use tantivy::directory::OwnedBytes;

use super::cursor::Header;
use super::flat::FlatFile;
use super::{FormatFault, Metric};
use crate::vector::rows::RowFormat;

/// The first bytes of a `.npy` file.
const MAGIC: &[u8] = b"\x93NUMPY";

/// The vectors that a file should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The numbers of a vector.
    pub dimension: usize,
    /// The number of vectors, if it is known.
    pub passage_count: Option<u64>,
}

fn header(dimension: usize, count: u64, offset_bytes: usize) -> Result<Header, FormatFault> {
    let count = u32::try_from(count).map_err(|_| {
        FormatFault::value("number of vectors", offset_bytes, count, "0 to 4294967295")
    })?;
    Ok(Header { dimension, count, metric: Metric::InnerProduct })
}

/// Reads raw rows: 32-bit or 16-bit floats, as the size of the file tells. Returns `None` if it fits
/// neither.
pub(super) fn read_raw(
    bytes: &OwnedBytes,
    expected: Expected,
) -> Option<Result<FlatFile, FormatFault>> {
    let Expected { dimension, passage_count } = expected;
    let fits = |format: &RowFormat| match passage_count {
        Some(count) => bytes.len() as u128 == rows_bytes(*format, dimension, count),
        // Only the more usual format can be told from the size of a row.
        None => {
            *format == RowFormat::F32 && bytes.len().is_multiple_of(format.row_bytes(dimension))
        }
    };
    let format = [RowFormat::F32, RowFormat::F16].into_iter().find(fits)?;
    let count = (bytes.len() / format.row_bytes(dimension)) as u64;
    let note =
        format!("the file is read as raw rows of {} numbers in {}", dimension, format.name());
    let header = header(dimension, count, 0);
    Some(
        header.and_then(|header| Ok(FlatFile::new(bytes.clone(), format, header)?.with_note(note))),
    )
}

fn rows_bytes(format: RowFormat, dimension: usize, count: u64) -> u128 {
    format.row_bytes(dimension) as u128 * u128::from(count)
}

/// Says which sizes raw rows would have.
pub(super) fn sizes(expected: Expected) -> String {
    let Expected { dimension, passage_count } = expected;
    match passage_count {
        Some(count) => {
            let [full, half] =
                [RowFormat::F32, RowFormat::F16].map(|format| rows_bytes(format, dimension, count));
            format!(
                "{full} (32-bit floats) or {half} (16-bit floats) bytes for {count} passages of \
                 {dimension} numbers"
            )
        }
        None => format!("a multiple of {} bytes", RowFormat::F32.row_bytes(dimension)),
    }
}

/// Returns `true` for a `.npy` file.
pub(super) fn is_array(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a `.npy` file of the versions 1 to 3: a magic number, the version, the length of the header, and
/// the header, which is the text of a Python dictionary.
pub(super) fn read_array(bytes: &OwnedBytes) -> Result<FlatFile, FormatFault> {
    let truncated = |needed: usize| FormatFault::Truncated {
        field: "header of the array",
        offset_bytes: MAGIC.len(),
        needed_bytes: needed as u128,
        size_bytes: bytes.len(),
    };
    let version = *bytes.get(MAGIC.len()).ok_or_else(|| truncated(2))?;
    let length_at = MAGIC.len() + 2;
    let (start, length) = match version {
        1 => {
            let length = bytes[length_at.min(bytes.len())..].first_chunk();
            let length = length.ok_or_else(|| truncated(4))?;
            (length_at + 2, usize::from(u16::from_le_bytes(*length)))
        }
        2 | 3 => {
            let length = bytes[length_at.min(bytes.len())..].first_chunk();
            let length = length.ok_or_else(|| truncated(6))?;
            (length_at + 4, u32::from_le_bytes(*length) as usize)
        }
        other => {
            let field = "version of the array format";
            return Err(FormatFault::value(field, MAGIC.len(), other, "1, 2 or 3"));
        }
    };
    let end = start.saturating_add(length);
    let text = bytes.get(start..end).ok_or_else(|| truncated(length))?;
    let text = String::from_utf8_lossy(text);
    let array = |field, found: &str, expected| {
        Err(FormatFault::Array { field, found: found.to_owned(), expected })
    };
    let format = match entry(&text, "descr").unwrap_or_default().trim_matches(['\'', '"']) {
        "<f4" | "=f4" => RowFormat::F32,
        "<f2" | "=f2" => RowFormat::F16,
        other => return array("descr", other, "<f4 or <f2 (float32 or float16, little endian)"),
    };
    match entry(&text, "fortran_order") {
        Some("False") => {}
        other => {
            let expected = "False (save it with numpy.ascontiguousarray)";
            return array("fortran_order", other.unwrap_or_default(), expected);
        }
    }
    let shape = entry(&text, "shape").unwrap_or_default();
    let inner = shape.strip_prefix('(').and_then(|shape| shape.strip_suffix(')'));
    let sizes = inner.unwrap_or_default().split(',').map(|size| size.trim().parse::<u64>().ok());
    let sizes: Option<Vec<u64>> = sizes.collect();
    let Some([count, dimension]) = sizes.and_then(|sizes| <[u64; 2]>::try_from(sizes).ok()) else {
        return array("shape", shape, "(vectors, numbers), such as (1000, 384)");
    };
    let dimension = usize::try_from(dimension).unwrap_or(usize::MAX);
    let (stored, needed) = (bytes.len() - end, dimension as u128 * u128::from(count));
    let needed_bytes = needed * format.number_bytes() as u128;
    if stored as u128 != needed_bytes {
        return Err(FormatFault::value(
            "bytes of the array",
            end,
            stored as i128,
            format!("{needed_bytes} for the shape {shape}"),
        ));
    }
    FlatFile::new(bytes.slice(end..bytes.len()), format, header(dimension, count, end)?)
}

/// Returns the text of the value of `key` in the text of a dictionary.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let behind = ['\'', '"'].iter().find_map(|quote| {
        let key = format!("{quote}{key}{quote}:");
        text.split_once(&key).map(|(_, behind)| behind)
    })?;
    let value = behind.trim_start();
    let end = match value.chars().next()? {
        '(' => value.find(')')? + 1,
        _ => value.find([',', '}'])?,
    };
    Some(value[..end].trim_end())
}
