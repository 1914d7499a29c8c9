//! A key is a score with its row in 64 bits, so ordered that the better hit is the greater number:
//! higher scores first, then lower rows. 0 is no key.

use crate::query::Hit;

const SIGN: u32 = 1 << 31;

/// The key of a finite score.
pub(super) fn make(score: f32, row: u32) -> u64 {
    // One spelling of zero, as the order of keys tells two apart.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(ordered) << 32 | u64::from(!row)
}

/// The score in a key; minus infinity if it is none.
pub(super) fn score(key: u64) -> f32 {
    if key == 0 {
        return f32::NEG_INFINITY;
    }
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
}

/// What a key says; `None` if it is none.
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
        assert!(score(0) == f32::NEG_INFINITY);
    }
}
