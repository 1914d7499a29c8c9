//! Inner product and squared distance of a query and a row as it stands in the file.

/// Sums kept side by side, so that the compiler can use wide registers, and several of them.
const LANES: usize = 32;
const NUMBER_BYTES: usize = size_of::<f32>();

/// Of as many numbers as the shorter one has.
pub(super) fn inner_product(query: &[f32], row: &[u8]) -> f32 {
    sum(query, row, |left, right| left * right)
}

/// Of as many numbers as the shorter one has.
pub(super) fn squared(query: &[f32], row: &[u8]) -> f32 {
    sum(query, row, |left, right| (left - right) * (left - right))
}

#[inline]
fn sum(query: &[f32], row: &[u8], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (numbers, _) = row.as_chunks::<NUMBER_BYTES>();
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let (row_blocks, row_rest) = numbers.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (left, right) in query_blocks.iter().zip(row_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(left[lane], f32::from_le_bytes(right[lane]));
        }
    }
    for (lane, (left, right)) in query_rest.iter().zip(row_rest).enumerate() {
        sums[lane] += term(*left, f32::from_le_bytes(*right));
    }
    sums.iter().sum()
}
