//! Pooling of the vectors of tokens into the vector of a text. Padding does not count.

use super::settings::Pooling;

/// The least divisor of a normalised vector, as in PyTorch's `normalize`. Shorter vectors stay shorter
/// than 1.
const LENGTH_LEAST: f32 = 1e-12;

/// Pools the vectors in `tokens` into the one vector `pooled`. The first `skipped` tokens, a prefix, do
/// not count, except for the positions of a weighted mean. If there are no others, the results are those
/// of sentence-transformers: zeros, or the first token. With [`Pooling::Pooler`], `tokens` is the single
/// vector that the model returned.
pub(super) fn pool(pooling: Pooling, tokens: &[f32], skipped: usize, pooled: &mut [f32]) {
    let dimension = pooled.len();
    let counted = tokens.get(skipped * dimension..).unwrap_or_default();
    let sum = |pooled: &mut [f32], weight: &dyn Fn(usize) -> f32| {
        pooled.fill(0.0);
        for (number, token) in counted.chunks_exact(dimension).enumerate() {
            let weight = weight(number);
            for (sum, value) in pooled.iter_mut().zip(token) {
                *sum += weight * value;
            }
        }
    };
    let count = counted.len() / dimension;
    let divide = |pooled: &mut [f32], divisor: f32| {
        for value in pooled.iter_mut() {
            *value /= divisor;
        }
    };
    match pooling {
        Pooling::Cls | Pooling::Pooler => {
            let first = if counted.is_empty() { tokens } else { counted };
            pooled.copy_from_slice(&first[..dimension]);
        }
        Pooling::Mean => {
            sum(pooled, &|_| 1.0);
            divide(pooled, count.max(1) as f32);
        }
        Pooling::MeanSqrtLength => {
            sum(pooled, &|_| 1.0);
            divide(pooled, (count.max(1) as f32).sqrt());
        }
        Pooling::WeightedMean => {
            let weight = |number| (skipped + number + 1) as f32;
            sum(pooled, &weight);
            divide(pooled, (0..count).map(weight).sum::<f32>().max(1.0));
        }
        Pooling::Max => {
            pooled.fill(if counted.is_empty() { 0.0 } else { f32::NEG_INFINITY });
            for token in counted.chunks_exact(dimension) {
                for (greatest, &value) in pooled.iter_mut().zip(token) {
                    *greatest = greatest.max(value);
                }
            }
        }
        Pooling::LastToken => match counted.rchunks_exact(dimension).next() {
            Some(last) => pooled.copy_from_slice(last),
            None => pooled.fill(0.0),
        },
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
    fn check_pooled(pooling: Pooling, tokens: &[f32], skipped: usize, expected: [f32; 2]) {
        let mut pooled = [9.0; 2];
        pool(pooling, tokens, skipped, &mut pooled);
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
        check_pooled(Pooling::Mean, &TOKENS, 0, [4.0, 2.0]);
        check_pooled(Pooling::Mean, &TOKENS[..2], 0, [1.0, 2.0]);
        check_pooled(Pooling::Cls, &TOKENS, 0, [1.0, 2.0]);
        check_pooled(Pooling::Pooler, &TOKENS[4..], 0, [8.0, 0.0]);
        check_pooled(Pooling::Max, &TOKENS, 0, [8.0, 4.0]);
        check_pooled(Pooling::LastToken, &TOKENS, 0, [8.0, 0.0]);
        check_pooled(
            Pooling::MeanSqrtLength,
            &[1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 2.0],
            0,
            [6.0, 4.0],
        );
        check_pooled(Pooling::WeightedMean, &[1.0, 6.0, 4.0, 0.0], 0, [3.0, 2.0]);
    }

    #[test]
    fn a_prefix_does_not_count() {
        check_pooled(Pooling::Mean, &TOKENS, 1, [5.5, 2.0]);
        check_pooled(Pooling::Cls, &TOKENS, 1, [3.0, 4.0]);
        check_pooled(Pooling::Max, &TOKENS, 2, [8.0, 0.0]);
        check_pooled(Pooling::LastToken, &TOKENS, 2, [8.0, 0.0]);
        check_pooled(Pooling::WeightedMean, &TOKENS, 1, [6.0, 1.6]);
        for (pooling, expected) in [
            (Pooling::Mean, [0.0, 0.0]),
            (Pooling::MeanSqrtLength, [0.0, 0.0]),
            (Pooling::WeightedMean, [0.0, 0.0]),
            (Pooling::Max, [0.0, 0.0]),
            (Pooling::LastToken, [0.0, 0.0]),
            (Pooling::Cls, [1.0, 2.0]),
        ] {
            check_pooled(pooling, &TOKENS, 3, expected);
            check_pooled(pooling, &TOKENS, 7, expected);
        }
    }

    #[test]
    fn a_vector_is_scaled_to_length_one() {
        check_normalized([3.0, 4.0], [0.6, 0.8]);
        check_normalized([0.0; 2], [0.0; 2]);
    }
}
