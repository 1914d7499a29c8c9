//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), the source of all
//! random draws that depend on counters and seeds.

/// The increment of the state from one number to the next.
pub const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the next number of the stream with this state.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(INCREMENT);
    finalise(*state)
}

/// Spreads every bit of `value` over all bits of the result. Different values have different results.
pub fn finalise(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Returns a number in [0, 1), made of the upper 53 bits of `value`.
pub fn unit(value: u64) -> f64 {
    (value >> 11) as f64 / (1_u64 << 53) as f64
}

/// Returns the next `count` numbers of the stream, scaled to [-1, 1), for tests and benchmarks that need arbitrary
/// vectors.
pub fn numbers(count: usize, state: &mut u64) -> Vec<f32> {
    // An f32 holds 24 bits.
    (0..count).map(|_| (next(state) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected numbers are the first of seed 0, as printed by the authors' program.
    #[test]
    fn the_stream_is_the_published_one() {
        let mut state = 0;
        let first = [next(&mut state), next(&mut state)];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn numbers_continue_the_stream() {
        let (mut state, mut other) = (0, 0);
        let whole = numbers(1000, &mut state);
        let parts = [numbers(400, &mut other), numbers(600, &mut other)].concat();
        assert_eq!(whole, parts);
        assert!(whole.iter().all(|number| (-1.0..1.0).contains(number)));
        // The first draw as above: 0xe220a8 / 2^23 - 1.
        assert!((whole[0] - 0.766_622_5).abs() < 1e-6, "{}", whole[0]);
    }
}
