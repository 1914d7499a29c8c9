//! Rows of numbers in bytes that somebody else owns, and what one row says.

use half::f16;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest number of numbers in a row.
pub const DIMENSION_MAX: usize = 65_536;

/// Largest number that an `i8` row stores, so that the range is symmetric.
const I8_MAX: f32 = 127.0;

/// How rows are stored, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// IEEE single precision, 4 bytes a number.
    F32,
    /// IEEE half precision, 2 bytes a number.
    F16,
    /// One signed byte a number, then the `f32` that all numbers of the row are multiplied by.
    I8,
}

impl RowFormat {
    /// Name in configuration, manifests and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::I8].into_iter().find(|format| format.name() == name)
    }

    /// Bytes of one number.
    pub fn number_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes of a row of `dimension` numbers.
    pub fn row_bytes(self, dimension: usize) -> usize {
        let scale_bytes = if self == Self::I8 { size_of::<f32>() } else { 0 };
        self.number_bytes() * dimension + scale_bytes
    }

    /// Appends a row to `bytes`. `I8` divides by the largest magnitude / 127 and rounds.
    pub fn append_row(self, numbers: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
            Self::F16 => {
                bytes
                    .extend(numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()));
            }
            Self::I8 => {
                let largest =
                    numbers.iter().fold(0f32, |largest, number| largest.max(number.abs()));
                let scale = if largest == 0.0 { 1.0 } else { largest / I8_MAX };
                bytes.extend(numbers.iter().map(|number| (number / scale).round() as i8 as u8));
                bytes.extend(scale.to_le_bytes());
            }
        }
    }
}

/// Why bytes are not rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RowsError {
    /// Rows of no numbers, or of too many.
    #[error("dimension is {0}, expected 1 to {DIMENSION_MAX}")]
    Dimension(usize),
    /// The last row is cut off.
    #[error(
        "rows are {length_bytes} bytes, expected a multiple of {row_bytes} ({dimension} numbers a row)"
    )]
    Length {
        /// Bytes that are there.
        length_bytes: usize,
        /// Bytes of one row.
        row_bytes: usize,
        /// Numbers of one row.
        dimension: usize,
    },
    /// Row numbers would not fit.
    #[error("there are {0} rows, expected at most {max}", max = u32::MAX)]
    Count(usize),
}

/// Rows of `dimension` numbers each, in bytes of any alignment, such as a part of a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    format: RowFormat,
    dimension: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// Rows without a gap between them.
    pub fn new(bytes: &'a [u8], format: RowFormat, dimension: usize) -> Result<Self, RowsError> {
        if !(1..=DIMENSION_MAX).contains(&dimension) {
            return Err(RowsError::Dimension(dimension));
        }
        let row_bytes = format.row_bytes(dimension);
        let length_bytes = bytes.len();
        if !length_bytes.is_multiple_of(row_bytes) {
            return Err(RowsError::Length { length_bytes, row_bytes, dimension });
        }
        let count = length_bytes / row_bytes;
        if u32::try_from(count).is_err() {
            return Err(RowsError::Count(count));
        }
        Ok(Self { bytes, format, dimension, count })
    }

    /// No rows at all.
    pub(super) fn none() -> Self {
        Self { bytes: &[], format: RowFormat::F32, dimension: 1, count: 0 }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Numbers in a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How the rows are stored.
    pub fn format(&self) -> RowFormat {
        self.format
    }

    /// The bytes of `count` rows from `first` on.
    pub(super) fn bytes_of(&self, first: usize, count: usize) -> &'a [u8] {
        let row_bytes = self.format.row_bytes(self.dimension);
        &self.bytes[first * row_bytes..][..count * row_bytes]
    }

    /// Writes the numbers of a row to `numbers`.
    ///
    /// # Panics
    /// If there is no such row, or `numbers` is not `dimension` long.
    pub fn read_row(&self, row: usize, numbers: &mut [f32]) {
        assert_eq!(numbers.len(), self.dimension, "a row has this many numbers");
        decode_part(self.bytes_of(row, 1), self.format, 0, numbers);
    }
}

/// The numbers of one row from position `first` on.
pub(super) fn decode_part(row: &[u8], format: RowFormat, first: usize, numbers: &mut [f32]) {
    let stored = &row[first * format.number_bytes()..][..numbers.len() * format.number_bytes()];
    match format {
        RowFormat::F32 => {
            let (stored, _) = stored.as_chunks();
            for (number, &stored) in numbers.iter_mut().zip(stored) {
                *number = f32::from_le_bytes(stored);
            }
        }
        RowFormat::F16 => {
            let (stored, _) = stored.as_chunks();
            for (number, &stored) in numbers.iter_mut().zip(stored) {
                *number = f16::from_le_bytes(stored).to_f32();
            }
        }
        RowFormat::I8 => {
            let scale = scale(row);
            for (number, &stored) in numbers.iter_mut().zip(stored) {
                *number = f32::from(stored.cast_signed()) * scale;
            }
        }
    }
}

/// What the numbers of an `I8` row are multiplied by.
pub(super) fn scale(row: &[u8]) -> f32 {
    row.last_chunk().map_or(f32::NAN, |&bytes| f32::from_le_bytes(bytes))
}
