//! Rows and queries in the format of the devices: numbers of few bits, each row padded with zeros to
//! whole slabs.

use half::f16;

use super::shape::SLAB_BYTES;
use crate::vector::RowFormat;

/// The storage format of numbers on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFormat {
    /// IEEE half precision, 2 bytes a number.
    Halves,
    /// One signed byte for each number, and one `f32` scale factor for each row.
    Bytes,
}

impl DeviceFormat {
    /// Returns the format on a device of rows that the host stores as `format`; single precision
    /// becomes half.
    pub fn for_rows(format: RowFormat) -> Self {
        match format {
            RowFormat::F32 | RowFormat::F16 => Self::Halves,
            RowFormat::I8 => Self::Bytes,
        }
    }

    /// Returns the name of the format in the kernels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Halves => "Halves",
            Self::Bytes => "Bytes",
        }
    }

    /// Returns the bytes of a number.
    pub fn number_bytes(self) -> usize {
        match self {
            Self::Halves => 2,
            Self::Bytes => 1,
        }
    }

    /// Returns the number of hits that a device keeps for a query that requests `top_k`. More are
    /// needed because scoring them again changes their order: halves are accurate to 1 part in 2,000,
    /// bytes to 1 in 127.
    pub(super) fn keep(self, top_k: usize) -> usize {
        match self {
            Self::Halves => top_k + (top_k / 4).max(16),
            Self::Bytes => top_k * 2 + 64,
        }
    }
}

/// The layout of a row in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The storage format of the numbers.
    pub format: DeviceFormat,
    /// The dimension of a row.
    pub dimension: usize,
}

impl Layout {
    /// Returns the bytes from one row to the next.
    pub fn pitch(self) -> usize {
        (self.dimension * self.format.number_bytes()).next_multiple_of(SLAB_BYTES)
    }

    /// Returns the bytes of a row with its factor.
    pub fn row_bytes(self) -> usize {
        let factor_bytes = if self.format == DeviceFormat::Bytes { size_of::<f32>() } else { 0 };
        self.pitch() + factor_bytes
    }

    /// Writes a row to `packed` and returns its scale factor. `packed` has `pitch` bytes, which must be
    /// zero past the numbers. A row with a number that is not finite is stored so that its score is not
    /// finite either.
    pub fn pack(self, numbers: &[f32], packed: &mut [u8]) -> f32 {
        let finite = numbers.iter().all(|number| number.is_finite());
        match self.format {
            DeviceFormat::Halves => {
                let largest = f32::from(f16::MAX);
                let (halves, _) = packed.as_chunks_mut();
                for (half, &number) in halves.iter_mut().zip(numbers) {
                    let stored = if finite { number.clamp(-largest, largest) } else { f32::NAN };
                    *half = f16::from_f32(stored).to_le_bytes();
                }
                1.0
            }
            DeviceFormat::Bytes => {
                let largest = numbers.iter().fold(0f32, |most, number| most.max(number.abs()));
                let scale = if largest == 0.0 { 1.0 } else { largest / 127.0 };
                for (byte, &number) in packed.iter_mut().zip(numbers) {
                    *byte = (number / scale).round() as i8 as u8;
                }
                if finite { scale } else { f32::NAN }
            }
        }
    }
}

/// Queries in the format of a device.
#[derive(Clone, Debug)]
pub struct PackedQueries {
    /// The packed queries, `pitch` bytes each.
    pub(super) bytes: Vec<u8>,
    /// The factor of each query's scores.
    factors: Vec<f32>,
}

impl PackedQueries {
    /// Packs queries of `dimension` numbers each.
    pub fn pack(layout: Layout, queries: &[f32]) -> Self {
        let count = queries.len() / layout.dimension;
        let mut bytes = vec![0; count * layout.pitch()];
        let packed = bytes.chunks_mut(layout.pitch());
        let factors = queries
            .chunks_exact(layout.dimension)
            .zip(packed)
            .map(|(query, packed)| {
                let factor = power_of_two_above(query);
                let scaled: Vec<f32> = query.iter().map(|number| number / factor).collect();
                layout.pack(&scaled, packed) * factor
            })
            .collect();
        Self { bytes, factors }
    }

    /// Returns the number of queries.
    pub fn count(&self) -> usize {
        self.factors.len()
    }

    /// Returns the factor that the device's scores for this query must be multiplied with.
    pub(super) fn factor(&self, query: usize) -> f32 {
        self.factors[query]
    }
}

/// Returns a power of two that brings the largest magnitude to between 1/2 and 2, so that neither
/// halves nor sums overflow; 1 for zeros. Dividing by it changes no digit and no order of hits.
fn power_of_two_above(numbers: &[f32]) -> f32 {
    let largest = numbers.iter().fold(0f32, |most, number| most.max(number.abs()));
    if largest.is_normal() {
        // Keeps only the bits of the exponent.
        f32::from_bits(largest.to_bits() & 0x7f80_0000)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_keep_their_numbers() {
        let halves = Layout { format: DeviceFormat::Halves, dimension: 65 };
        let bytes = Layout { format: DeviceFormat::Bytes, dimension: 65 };
        assert_eq!((halves.pitch(), halves.row_bytes()), (256, 256));
        assert_eq!((bytes.pitch(), bytes.row_bytes()), (128, 132));
        let numbers: Vec<f32> = (0..65u8).map(|number| f32::from(number) - 30.5).collect();
        let mut packed = vec![0; 256];
        assert_eq!(halves.pack(&numbers, &mut packed).to_bits(), 1f32.to_bits());
        let stored = |index: usize| f16::from_le_bytes([packed[2 * index], packed[2 * index + 1]]);
        assert!((0..65).all(|index| stored(index) == f16::from_f32(numbers[index])));
        assert!(packed[130..].iter().all(|&byte| byte == 0));
        let mut packed = vec![0; 128];
        let scale = bytes.pack(&numbers, &mut packed);
        for (&byte, number) in packed.iter().zip(&numbers) {
            assert!((f32::from(byte.cast_signed()) * scale - number).abs() <= scale * 0.51);
        }
        assert!(packed[65..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn numbers_out_of_range_are_clamped_and_infinities_become_nan() {
        let layout = Layout { format: DeviceFormat::Halves, dimension: 2 };
        let mut packed = vec![0; layout.pitch()];
        layout.pack(&[1e9, -1e9], &mut packed);
        assert_eq!(packed[..4], [0xff, 0x7b, 0xff, 0xfb], "the largest halves");
        layout.pack(&[1.0, f32::INFINITY], &mut packed);
        assert!(f16::from_le_bytes([packed[0], packed[1]]).is_nan());
        let layout = Layout { format: DeviceFormat::Bytes, ..layout };
        assert!(layout.pack(&[1.0, f32::NAN], &mut packed).is_nan());
    }

    #[test]
    fn queries_of_any_magnitude_are_packed_equally() {
        let layout = Layout { format: DeviceFormat::Halves, dimension: 3 };
        let small = PackedQueries::pack(layout, &[1.0, -0.5, 0.25]);
        let large = PackedQueries::pack(layout, &[65536.0, -32768.0, 16384.0]);
        assert_eq!(small.bytes, large.bytes);
        assert_eq!(large.factor(0).to_bits(), 65536f32.to_bits());
        assert_eq!(PackedQueries::pack(layout, &[0.0; 6]).count(), 2);
    }
}
