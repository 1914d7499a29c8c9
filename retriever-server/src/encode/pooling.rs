//! Pooling of the vectors of tokens into the vector of a text. Padding is at the end of a row, behind
//! the length of the text, and does not count.

use super::settings::Pooling;

/// The least divisor of a normalised vector, as in PyTorch's `normalize`. Shorter vectors stay shorter
/// than 1.
const LENGTH_LEAST: f32 = 1e-12;

/// Pools the vectors in `tokens` into the one vector `pooled`. With [`Pooling::Pooler`], `tokens` is
/// the single vector that the model returned.
pub(super) fn pool(pooling: Pooling, tokens: &[f32], pooled: &mut [f32]) {
    match pooling {
        Pooling::Cls | Pooling::Pooler => pooled.copy_from_slice(&tokens[..pooled.len()]),
        Pooling::Mean => {
            pooled.fill(0.0);
            let mut count = 0usize;
            for token in tokens.chunks_exact(pooled.len()) {
                for (sum, value) in pooled.iter_mut().zip(token) {
                    *sum += value;
                }
                count += 1;
            }
            let count = count.max(1) as f32;
            for sum in pooled.iter_mut() {
                *sum /= count;
            }
        }
    }
}

/// Scales a vector to length 1. A zero vector does not change.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(LENGTH_LEAST);
    for value in vector {
        *value /= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0];

    /// Compares bit by bit.
    #[track_caller]
    fn check_pooled(pooling: Pooling, tokens: &[f32], expected: [f32; 2]) {
        let mut pooled = [9.0; 2];
        pool(pooling, tokens, &mut pooled);
        assert_eq!(pooled.map(f32::to_bits), expected.map(f32::to_bits), "{pooling:?}");
    }

    /// Compares bit by bit.
    #[track_caller]
    fn check_normalized(mut vector: [f32; 2], expected: [f32; 2]) {
        normalize(&mut vector);
        assert_eq!(vector.map(f32::to_bits), expected.map(f32::to_bits));
    }

    #[test]
    fn tokens_become_one_vector() {
        check_pooled(Pooling::Mean, &TOKENS, [4.0, 2.0]);
        check_pooled(Pooling::Mean, &TOKENS[..2], [1.0, 2.0]);
        check_pooled(Pooling::Cls, &TOKENS, [1.0, 2.0]);
        check_pooled(Pooling::Pooler, &TOKENS[4..], [8.0, 0.0]);
    }

    #[test]
    fn a_vector_is_scaled_to_length_one() {
        check_normalized([3.0, 4.0], [0.6, 0.8]);
        check_normalized([0.0; 2], [0.0; 2]);
    }
}
