//! Vectors of a scalar quantiser of faiss, which keeps each number in 16 or 8 bits.
//!
//! Half precision is searched in place. Every other type becomes 32-bit floats in memory, by the same
//! formulas as faiss decodes it, so the scores are those of faiss.

use half::bf16;
use tantivy::directory::OwnedBytes;

use super::FormatFault;
use super::cursor::{FieldReader, Header};
use super::flat::FlatFile;
use crate::vector::rows::RowFormat;

/// The steps of a byte between the least and the largest number.
const BYTE_STEPS: f32 = 255.0;
/// The number that a signed byte adds to become unsigned.
const SIGNED_SHIFT: f32 = 128.0;

/// The types that are read, by their numbers in faiss.
const BYTE: i32 = 0;
const BYTE_UNIFORM: i32 = 2;
const HALF: i32 = 4;
const BYTE_DIRECT: i32 = 5;
const BRAIN: i32 = 7;
const BYTE_SIGNED: i32 = 8;

/// Reads the fields after `header`.
pub(super) fn read(cursor: &mut FieldReader, header: Header) -> Result<FlatFile, FormatFault> {
    let start = cursor.offset_bytes();
    let kind = cursor.i32("type of the scalar quantiser")?;
    let (name, code_bytes, trained) = match kind {
        BYTE => ("QT_8bit", 1, 2 * header.dimension),
        BYTE_UNIFORM => ("QT_8bit_uniform", 1, 2),
        HALF => ("QT_fp16", 2, 0),
        BYTE_DIRECT => ("QT_8bit_direct", 1, 0),
        BRAIN => ("QT_bf16", 2, 0),
        BYTE_SIGNED => ("QT_8bit_direct_signed", 1, 0),
        other => {
            let expected = "0 (QT_8bit), 2 (QT_8bit_uniform), 4 (QT_fp16), 5 (QT_8bit_direct), 7 \
                            (QT_bf16) or 8 (QT_8bit_direct_signed)";
            return Err(FormatFault::value("type of the scalar quantiser", start, other, expected));
        }
    };
    cursor.i32("statistic of ranges")?;
    cursor.i32("argument of the statistic")?;
    let dimension = header.dimension as u64;
    cursor.number("dimension of the quantiser", dimension)?;
    cursor.number("bytes of a code", dimension * code_bytes)?;
    let trained = cursor.exactly("trained numbers", size_of::<f32>(), trained as u128)?.bytes;
    let bytes = u128::from(header.count) * u128::from(dimension * code_bytes);
    let codes = cursor.exactly("codes", 1, bytes)?.bytes;
    if kind == HALF {
        return FlatFile::new(codes, RowFormat::F16, header);
    }
    let trained: Vec<f32> =
        trained.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let rows = decoded(kind, &codes, &trained, header.dimension);
    let note = format!(
        "the {name} vectors are decoded to {} bytes of memory; their scores are those of faiss",
        rows.len()
    );
    Ok(FlatFile::new(OwnedBytes::new(rows), RowFormat::F32, header)?.with_note(note))
}

/// Decodes the codes of rows to 32-bit floats.
fn decoded(kind: i32, codes: &[u8], trained: &[f32], dimension: usize) -> Vec<u8> {
    if kind == BRAIN {
        let numbers = codes.as_chunks().0.iter().map(|code| bf16::from_le_bytes(*code).to_f32());
        return numbers.flat_map(f32::to_le_bytes).collect();
    }
    let decode = |(index, &code): (usize, &u8)| {
        let position = index % dimension;
        let between = |least: f32, width: f32| least + (f32::from(code) + 0.5) / BYTE_STEPS * width;
        let number = match kind {
            BYTE => between(trained[position], trained[dimension + position]),
            BYTE_UNIFORM => between(trained[0], trained[1]),
            BYTE_SIGNED => f32::from(code) - SIGNED_SHIFT,
            _ => f32::from(code),
        };
        number.to_le_bytes()
    };
    codes.iter().enumerate().flat_map(decode).collect()
}
