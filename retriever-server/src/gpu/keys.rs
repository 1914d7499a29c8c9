//! Keys: a score and its row packed into 64 bits. The better hit has the greater key: a higher score
//! wins, then a lower row. 0 is not a key.

use crate::query::Hit;

const SIGN: u32 = 1 << 31;

/// Returns the key of a finite score.
pub(super) fn make(score: f32, row: u32) -> u64 {
    // -0 becomes 0, because their keys would differ.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(ordered) << 32 | u64::from(!row)
}

/// Returns the score in a key.
fn score(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
}

/// Returns the hit that a key encodes; `None` for 0.
pub(super) fn open(key: u64) -> Option<Hit> {
    (key != 0).then(|| Hit { row: !(key as u32), score: score(key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_hits_are() {
        let scores = [f32::MIN, -2.5, -1e-40, 0.0, 1e-40, 0.25, 2.5, f32::MAX];
        let mut last = 0;
        for score in scores {
            for row in [u32::MAX, 7, 0] {
                let key = make(score, row);
                assert!(key > last, "{score} {row}");
                assert_eq!(open(key), Some(Hit { row, score }));
                last = key;
            }
        }
        assert_eq!(make(-0.0, 3), make(0.0, 3));
        assert_eq!(open(0), None);
    }
}
