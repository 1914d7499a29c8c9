//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): the
//! one source of draws that are decided by counters and seeds.

/// What the state grows by from one number to the next.
pub const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// The next number of the stream whose state is `state`.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(INCREMENT);
    finalise(*state)
}

/// Spreads every bit of `value` over all bits of the result; one to one.
pub fn finalise(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number in [0, 1) from the upper 53 bits of `value`.
pub fn unit(value: u64) -> f64 {
    (value >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of seed 0, as the authors' program prints them.
    #[test]
    fn the_stream_is_the_published_one() {
        let mut state = 0;
        let first = [next(&mut state), next(&mut state)];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }
}
