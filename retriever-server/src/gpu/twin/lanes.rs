//! What the lanes of a warp do together, as the PTX ISA manual describes it: `ldmatrix` (chapter
//! 9.7.15.5.15) and `mma` with its fragments (9.7.15.5.8 for m16n8k16 of halves, 9.7.15.5.10 for
//! m16n8k32 of bytes). In bytes, the fragments of both are the same.

use half::f16;

/// Lanes of a warp.
pub(super) const WARP_LANES: usize = 32;

/// Bytes of a row or query in one `mma`.
const STEP_BYTES: usize = 32;

/// Four registers a lane.
pub(super) type Fragments = [[[u8; 4]; 4]; WARP_LANES];

/// `ldmatrix.x4`: lane 8 m + i names where line i of matrix m lies, 16 bytes; every lane gets four
/// bytes of each matrix.
pub(super) fn load_fragments(stage: &[u8], place: impl Fn(usize) -> usize) -> Fragments {
    std::array::from_fn(|lane| {
        std::array::from_fn(|matrix| {
            let start = place(matrix * 8 + lane / 4) + lane % 4 * 4;
            std::array::from_fn(|byte| stage[start + byte])
        })
    })
}

/// The arithmetic of a format.
pub(super) trait Numbers {
    /// What products are added up in.
    type Sum: Copy + Default;

    /// Adds the products of 16 bytes of numbers.
    fn add(sum: Self::Sum, one: &[u8], other: &[u8]) -> Self::Sum;

    /// The sum of two lanes.
    fn plus(one: Self::Sum, other: Self::Sum) -> Self::Sum;

    /// The score of a sum.
    fn score(sum: Self::Sum, scale: f32) -> f32;

    /// `mma`: adds the products of 16 rows and of the 8 queries in the registers `first` and
    /// `first + 1`, 32 bytes of each.
    fn multiply(
        sums: &mut [[Self::Sum; 4]; WARP_LANES],
        rows: &Fragments,
        queries: &Fragments,
        first: usize,
    ) {
        let mut lines = [[0u8; STEP_BYTES]; 16];
        let mut columns = [[0u8; STEP_BYTES]; 8];
        for lane in 0..WARP_LANES {
            let (group, place) = (lane / 4, lane % 4 * 4);
            for (register, bytes) in rows[lane].iter().enumerate() {
                let line = &mut lines[group + register % 2 * 8];
                line[register / 2 * 16 + place..][..4].copy_from_slice(bytes);
            }
            for half in 0..2 {
                columns[group][half * 16 + place..][..4]
                    .copy_from_slice(&queries[lane][first + half]);
            }
        }
        for (lane, sums) in sums.iter_mut().enumerate() {
            for (register, sum) in sums.iter_mut().enumerate() {
                let line = &lines[lane / 4 + register / 2 * 8];
                let column = &columns[lane % 4 * 2 + register % 2];
                *sum = Self::add(
                    Self::add(*sum, &line[..16], &column[..16]),
                    &line[16..],
                    &column[16..],
                );
            }
        }
    }
}

/// Half precision, added up in single precision. A device's tensor cores add in an order of their
/// own, so that sums differ in their last bits.
pub(super) struct Halves;

impl Numbers for Halves {
    type Sum = f32;

    fn add(sum: f32, one: &[u8], other: &[u8]) -> f32 {
        let number = |bytes: &[u8; 2]| f16::from_le_bytes(*bytes).to_f32();
        let pairs = one.as_chunks().0.iter().zip(other.as_chunks().0);
        pairs.fold(sum, |sum, (one, other)| number(one).mul_add(number(other), sum))
    }

    fn plus(one: f32, other: f32) -> f32 {
        one + other
    }

    fn score(sum: f32, _: f32) -> f32 {
        sum
    }
}

/// Signed bytes, added up exactly.
pub(super) struct Bytes;

impl Numbers for Bytes {
    type Sum = i32;

    fn add(sum: i32, one: &[u8], other: &[u8]) -> i32 {
        let pairs = one.iter().zip(other);
        pairs.fold(sum, |sum, (one, other)| {
            sum + i32::from(one.cast_signed()) * i32::from(other.cast_signed())
        })
    }

    fn plus(one: i32, other: i32) -> i32 {
        one + other
    }

    fn score(sum: i32, scale: f32) -> f32 {
        sum as f32 * scale
    }
}
