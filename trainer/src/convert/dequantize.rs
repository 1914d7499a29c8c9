//! Converts ggml's block formats into f32 values. Every step rounds as ggml does, and the result is the same
//! to the bit. Owns the layout of the blocks; does not know tensors.
//!
//! The layouts are those of `ggml-common.h` and `ggml-quants.c`. Every block has one or two scales.
//! "Legacy" blocks hold 32 values; "K" blocks hold 256 values in sub-blocks with their own scales.

use half::bf16;
use half::f16;

use super::error::GgufError;

/// The storage format of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4Zero,
    Q4One,
    Q5Zero,
    Q5One,
    Q8Zero,
    Q4K,
    Q5K,
    Q6K,
}

/// Number of values in a legacy block.
const LEGACY_VALUES: usize = 32;
/// Number of values in a K block.
const K_VALUES: usize = 256;

impl BlockType {
    const ALL: [(u32, Self); 11] = [
        (0, Self::F32),
        (1, Self::F16),
        (2, Self::Q4Zero),
        (3, Self::Q4One),
        (6, Self::Q5Zero),
        (7, Self::Q5One),
        (8, Self::Q8Zero),
        (12, Self::Q4K),
        (13, Self::Q5K),
        (14, Self::Q6K),
        (30, Self::Bf16),
    ];

    /// Returns the type with ggml's number `code`. An error names the tensor `name`.
    pub(super) fn from_code(code: u32, name: &str) -> Result<Self, GgufError> {
        let known = Self::ALL.iter().find(|(number, _)| *number == code);
        known.map(|(_, block_type)| *block_type).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, known)| known.name()).collect();
            let expected = format!("one of the types {}", names.join(", "));
            GgufError::tensor(name, expected, format!("type number {code}"))
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4Zero => "Q4_0",
            Self::Q4One => "Q4_1",
            Self::Q5Zero => "Q5_0",
            Self::Q5One => "Q5_1",
            Self::Q8Zero => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    pub(super) fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4Zero | Self::Q4One | Self::Q5Zero | Self::Q5One | Self::Q8Zero => LEGACY_VALUES,
            Self::Q4K | Self::Q5K | Self::Q6K => K_VALUES,
        }
    }

    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4Zero => 2 + 16,
            Self::Q4One => 2 + 2 + 16,
            Self::Q5Zero => 2 + 4 + 16,
            Self::Q5One => 2 + 2 + 4 + 16,
            Self::Q8Zero => 2 + 32,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Returns all values of `data`, which holds whole blocks of this type.
    pub(super) fn dequantize(self, data: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; data.len() / self.block_bytes() * self.block_values()];
        let blocks = data.chunks_exact(self.block_bytes());
        for (block, out) in blocks.zip(values.chunks_exact_mut(self.block_values())) {
            match self {
                Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => out[0] = half(block, 0),
                Self::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::Q4Zero => four_bits(half(block, 0), Zero::Centred(8), &block[2..], out),
                Self::Q4One => {
                    four_bits(half(block, 0), Zero::Least(half(block, 2)), &block[4..], out);
                }
                Self::Q5Zero => five_bits(half(block, 0), Zero::Centred(16), &block[2..], out),
                Self::Q5One => {
                    five_bits(half(block, 0), Zero::Least(half(block, 2)), &block[4..], out);
                }
                Self::Q8Zero => {
                    let scale = half(block, 0);
                    for (value, byte) in out.iter_mut().zip(&block[2..]) {
                        *value = scale * f32::from(byte.cast_signed());
                    }
                }
                Self::Q4K => four_bits_k(block, out),
                Self::Q5K => five_bits_k(block, out),
                Self::Q6K => six_bits_k(block, out),
            }
        }
        values
    }
}

fn half(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// The zero point of a legacy block.
#[derive(Clone, Copy)]
enum Zero {
    /// The number subtracted before scaling ("_0" types).
    Centred(i8),
    /// The number added after scaling ("_1" types).
    Least(f32),
}

impl Zero {
    fn value(self, scale: f32, quantised: u8) -> f32 {
        match self {
            Self::Centred(shift) => scale * f32::from(quantised.cast_signed() - shift),
            Self::Least(least) => scale * f32::from(quantised) + least,
        }
    }
}

/// Decodes 16 bytes: byte `i` holds value `i` in its low half and value `i + 16` in its high half.
fn four_bits(scale: f32, zero: Zero, nibbles: &[u8], out: &mut [f32]) {
    for (i, byte) in nibbles.iter().enumerate() {
        out[i] = zero.value(scale, byte & 0x0f);
        out[i + 16] = zero.value(scale, byte >> 4);
    }
}

/// Decodes 4 bytes with the fifth bit of each value, then 16 bytes as in [`four_bits`].
fn five_bits(scale: f32, zero: Zero, block: &[u8], out: &mut [f32]) {
    let (bits, nibbles) = block.split_at(4);
    let fifth = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let high = |index: usize| ((fifth >> index & 1) << 4) as u8;
    for (i, byte) in nibbles.iter().enumerate() {
        out[i] = zero.value(scale, byte & 0x0f | high(i));
        out[i + 16] = zero.value(scale, byte >> 4 | high(i + 16));
    }
}

/// Returns the eight scales and minima of a Q4_K or Q5_K block: 6-bit numbers times the block's two scales.
/// Scales 0 to 3 and minima 0 to 3 are the low six bits of bytes 0 to 7. The others have their low four bits
/// in bytes 8 to 11 and their high two bits at the top of bytes 0 to 7.
fn scales_k(block: &[u8]) -> [(f32, f32); 8] {
    let (scale, least) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    std::array::from_fn(|j| {
        let (step, offset) = if j < 4 {
            (packed[j] & 0x3f, packed[j + 4] & 0x3f)
        } else {
            let low = packed[j + 4];
            (low & 0x0f | packed[j - 4] >> 6 << 4, low >> 4 | packed[j] >> 6 << 4)
        };
        (scale * f32::from(step), least * f32::from(offset))
    })
}

/// Decodes eight sub-blocks of 32 values. Two sub-blocks share 32 bytes; the first is in the low halves.
fn four_bits_k(block: &[u8], out: &mut [f32]) {
    let scales = scales_k(block);
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let bytes = &block[16 + j / 2 * 32..][..32];
        for (value, byte) in values.iter_mut().zip(bytes) {
            let quantised = byte >> (j % 2 * 4) & 0x0f;
            *value = scales[j].0 * f32::from(quantised) - scales[j].1;
        }
    }
}

/// Decodes a block as [`four_bits_k`] does. 32 more bytes hold the fifth bits, bit `j` for sub-block `j`.
fn five_bits_k(block: &[u8], out: &mut [f32]) {
    let scales = scales_k(block);
    let (fifth, nibbles) = block[16..].split_at(32);
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let bytes = &nibbles[j / 2 * 32..][..32];
        for (i, value) in values.iter_mut().enumerate() {
            let quantised = bytes[i] >> (j % 2 * 4) & 0x0f | (fifth[i] >> j & 1) << 4;
            *value = scales[j].0 * f32::from(quantised) - scales[j].1;
        }
    }
}

/// Decodes two halves of 128 values. In each half, 64 bytes hold the low four bits and 32 bytes the high two
/// bits; such a byte serves four values, 32 apart. Every 16 values share a signed scale.
fn six_bits_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, scale) = (&rest[..16], half(rest, 16));
    for (index, value) in out.iter_mut().enumerate() {
        let (half_index, within) = (index / 128, index % 128);
        let (quarter, lane) = (within / 32, within % 32);
        let four = low[half_index * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 0x0f;
        let two = high[half_index * 32 + lane] >> (quarter * 2) & 0x03;
        let quantised = (four | two << 4).cast_signed() - 32;
        let step = scale * f32::from(scales[index / 16].cast_signed());
        *value = step * f32::from(quantised);
    }
}
