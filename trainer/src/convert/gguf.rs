//! Parses GGUF files, versions 2 and 3: header, metadata and tensor table. Does not interpret metadata or
//! tensors.
//!
//! The format is published with ggml, in `docs/gguf.md`.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::dequantize::BlockType;
use super::error::GgufError;
use super::metadata::Metadata;
use super::metadata::Value;

const MAGIC: &[u8] = b"GGUF";
const METADATA_COUNT_MAX: usize = 65_536;
const TENSOR_COUNT_MAX: usize = 65_536;
const DIMENSION_COUNT_MAX: usize = 4;
const ALIGNMENT_BYTES_DEFAULT: u64 = 32;
const ALIGNMENT_BYTES_MAX: u64 = 65_536;
/// Fewest bytes of a metadata pair: a string's length, a value's type and the shortest value.
const METADATA_LEAST_BYTES: usize = 8 + 4 + 1;
/// Fewest bytes of a tensor's entry: a name's length, dimension count, type and offset.
const TENSOR_LEAST_BYTES: usize = 8 + 4 + 4 + 8;

/// A GGUF file, parsed in place.
#[derive(Debug)]
pub(super) struct Gguf<'a> {
    pub(super) metadata: Metadata<'a>,
    pub(super) tensors: BTreeMap<&'a str, Tensor<'a>>,
}

/// One tensor, still quantised.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    /// Row-major shape, outermost dimension first. (The file states the dimensions in reverse.)
    pub(super) shape: Vec<usize>,
    pub(super) block_type: BlockType,
    /// The bytes of the tensor.
    pub(super) data: &'a [u8],
}

/// A row of the tensor table, not yet linked to its bytes.
struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    block_type: BlockType,
    /// Offset of the row in the file, for messages.
    row_offset: usize,
    /// Offset of the data from the start of the data section.
    data_offset: u64,
}

impl<'a> Gguf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let (tensor_count, metadata_count) = header(&mut cursor)?;
        let mut metadata = Metadata::default();
        for _ in 0..metadata_count {
            let offset = cursor.offset();
            let key = cursor.text("a metadata key")?;
            let value = Value::parse(&mut cursor)?;
            if metadata.insert(key, value) {
                return Err(GgufError::form(offset, "a new metadata key", format!("{key} again")));
            }
        }
        let mut entries = Vec::with_capacity(tensor_count);
        for _ in 0..tensor_count {
            entries.push(entry(&mut cursor)?);
        }
        let alignment = alignment_bytes(&metadata)?;
        let data_start = cursor.offset().next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for entry in entries {
            let (name, row_offset) = (entry.name, entry.row_offset);
            let tensor = entry.locate(bytes, data_start, alignment)?;
            if tensors.insert(name, tensor).is_some() {
                return Err(GgufError::form(
                    row_offset,
                    "a new tensor name",
                    format!("{name} again"),
                ));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

/// Checks magic and version; returns the numbers of tensors and of metadata pairs.
fn header(cursor: &mut Cursor<'_>) -> Result<(usize, usize), GgufError> {
    let magic = cursor.take(MAGIC.len(), "the letters GGUF")?;
    if magic != MAGIC {
        return Err(GgufError::form(
            0,
            "the letters GGUF",
            format!("{:?}", magic.escape_ascii().to_string()),
        ));
    }
    let offset = cursor.offset();
    let version = cursor.u32("the format version")?;
    if !(2..=3).contains(&version) {
        let description = if (2..=3).contains(&version.swap_bytes()) {
            "a big-endian file".to_owned()
        } else {
            format!("version {version}")
        };
        return Err(GgufError::form(offset, "format version 2 or 3", description));
    }
    // Both counts come before all items, so each is checked against the whole rest of the file.
    let tensors = cursor.count("a number of tensors", TENSOR_LEAST_BYTES, TENSOR_COUNT_MAX)?;
    let pairs =
        cursor.count("a number of metadata pairs", METADATA_LEAST_BYTES, METADATA_COUNT_MAX)?;
    Ok((tensors, pairs))
}

fn alignment_bytes(metadata: &Metadata<'_>) -> Result<usize, GgufError> {
    let key = "general.alignment";
    let bytes = metadata.optional_unsigned(key)?.unwrap_or(ALIGNMENT_BYTES_DEFAULT);
    if !(1..=ALIGNMENT_BYTES_MAX).contains(&bytes) || bytes % 8 != 0 {
        let expected = format!("a multiple of 8 up to {ALIGNMENT_BYTES_MAX}");
        return Err(GgufError::metadata(key, expected, bytes.to_string()));
    }
    Ok(bytes as usize)
}

fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<Entry<'a>, GgufError> {
    let row_offset = cursor.offset();
    let name = cursor.text("a tensor name")?;
    let count_offset = cursor.offset();
    let dimension_count = cursor.u32("a number of dimensions")? as usize;
    if !(1..=DIMENSION_COUNT_MAX).contains(&dimension_count) {
        let expected = format!("1 to {DIMENSION_COUNT_MAX} dimensions of tensor {name}");
        return Err(GgufError::form(count_offset, expected, dimension_count.to_string()));
    }
    let mut shape = Vec::with_capacity(dimension_count);
    for _ in 0..dimension_count {
        let offset = cursor.offset();
        let length = cursor.u64("a dimension")?;
        let Ok(length @ 1..) = usize::try_from(length) else {
            let expected = format!("a dimension of tensor {name} that can be addressed");
            return Err(GgufError::form(offset, expected, length.to_string()));
        };
        shape.push(length);
    }
    shape.reverse();
    let block_type = BlockType::from_code(cursor.u32("a tensor type")?, name)?;
    let data_offset = cursor.u64("a tensor offset")?;
    Ok(Entry { name, shape, block_type, row_offset, data_offset })
}

impl<'a> Entry<'a> {
    /// Finds the bytes of the tensor, which start `data_offset` bytes into the data section.
    fn locate(
        self,
        bytes: &'a [u8],
        data_start: usize,
        alignment: usize,
    ) -> Result<Tensor<'a>, GgufError> {
        let wrong = |expected: String, found: String| GgufError::tensor(self.name, expected, found);
        let row_values = *self.shape.last().expect("a tensor has at least one dimension");
        let block_values = self.block_type.block_values();
        if !row_values.is_multiple_of(block_values) {
            return Err(wrong(
                format!("rows of a multiple of {block_values} values ({})", self.block_type.name()),
                format!("shape {:?}", self.shape),
            ));
        }
        let values =
            self.shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
        let size = values
            .map(|values| values / block_values)
            .and_then(|blocks| blocks.checked_mul(self.block_type.block_bytes()));
        let start = usize::try_from(self.data_offset)
            .ok()
            .filter(|offset| offset % alignment == 0)
            .and_then(|offset| offset.checked_add(data_start));
        let (Some(size), Some(start)) = (size, start) else {
            return Err(wrong(
                format!(
                    "an offset of a multiple of {alignment} bytes and a size that can be addressed"
                ),
                format!("offset {} and shape {:?}", self.data_offset, self.shape),
            ));
        };
        let data =
            start.checked_add(size).and_then(|end| bytes.get(start..end)).ok_or_else(|| {
                wrong(
                    format!("{size} bytes at byte {start}"),
                    format!("a file of {} bytes", bytes.len()),
                )
            })?;
        Ok(Tensor { shape: self.shape, block_type: self.block_type, data })
    }
}
