//! Rows of numbers in bytes that the caller owns, and the decoding of a row.

use half::f16;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest dimension of a row.
pub const DIMENSION_MAX: usize = 65_536;

/// The largest number that an `i8` row stores; the range is symmetric.
const I8_MAX: f32 = 127.0;

/// The storage format of rows, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// IEEE single precision, 4 bytes a number.
    F32,
    /// IEEE half precision, 2 bytes a number.
    F16,
    /// One signed byte for each number, then the row's `f32` scale factor.
    I8,
}

impl RowFormat {
    /// Returns the name in configuration, manifests and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }

    /// Returns the format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::I8].into_iter().find(|format| format.name() == name)
    }

    /// Returns the bytes of one number.
    pub fn number_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Returns the bytes of a row of `dimension` numbers.
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

/// A reason why bytes are not rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RowsError {
    /// The dimension is zero or too large.
    #[error("dimension is {0}, expected 1 to {DIMENSION_MAX}")]
    Dimension(usize),
    /// The last row is incomplete.
    #[error(
        "rows are {length_bytes} bytes, expected a multiple of {row_bytes} ({dimension} numbers a row)"
    )]
    Length {
        /// The number of bytes.
        length_bytes: usize,
        /// The bytes of one row.
        row_bytes: usize,
        /// The numbers of one row.
        dimension: usize,
    },
    /// There are more rows than a row number can express.
    #[error("there are {0} rows, expected at most {max}", max = u32::MAX)]
    Count(usize),
}

/// Rows of `dimension` numbers each, in bytes of any alignment, for example part of a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    format: RowFormat,
    dimension: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// Interprets bytes as rows without gaps.
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

    /// Returns the number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the dimension of a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Returns the storage format of the rows.
    pub fn format(&self) -> RowFormat {
        self.format
    }

    /// Returns the bytes of `count` rows from row `first` on.
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

/// Decodes numbers of one row, from position `first` on.
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

/// Returns the scale factor of an `I8` row.
pub(super) fn scale(row: &[u8]) -> f32 {
    f32::from_le_bytes(*row.last_chunk().expect("an i8 row ends with its scale"))
}
