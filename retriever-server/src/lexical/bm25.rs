//! The BM25 formula as Lucene computes it, with the same document frequencies, one-byte lengths and
//! single-precision steps. Scores therefore equal published ones to the last printed digit.
//!
//! score(q, d) = Σ over the distinct terms t of q of  n(t, q) · idf(t) · tf / (tf + K(d)),
//! idf(t) = ln(1 + (N − df + ½) / (df + ½)),  K(d) = k1 · (1 − b + b · |d| / avgdl).

use tantivy::fieldnorm::FieldNormReader;
use thiserror::Error;

/// The two free constants of BM25.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bm25Parameters {
    k1: f32,
    b: f32,
}

/// A constant is out of range.
#[derive(Debug, Error, PartialEq)]
pub enum Bm25Error {
    /// k1 is negative, infinite or not a number.
    #[error("k1 must be a number of at least 0, not {0}")]
    K1(f32),
    /// b is not between 0 and 1.
    #[error("b must be a number from 0 to 1, not {0}")]
    B(f32),
}

impl Default for Bm25Parameters {
    /// Returns Anserini's constants, which published BM25 figures use.
    fn default() -> Self {
        Self { k1: 0.9, b: 0.4 }
    }
}

impl Bm25Parameters {
    /// Checks the constants.
    pub fn new(k1: f32, b: f32) -> Result<Self, Bm25Error> {
        if !k1.is_finite() || k1 < 0.0 {
            return Err(Bm25Error::K1(k1));
        }
        if !(0.0..=1.0).contains(&b) {
            return Err(Bm25Error::B(b));
        }
        Ok(Self { k1, b })
    }

    /// Returns k1, which controls how fast the term frequency saturates.
    pub fn k1(self) -> f32 {
        self.k1
    }

    /// Returns b, the strength of the length normalisation.
    pub fn b(self) -> f32 {
        self.b
    }
}

/// The facts about the whole collection that BM25 needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionStatistics {
    /// The number of passages with at least one term.
    pub passage_count: u64,
    /// The number of terms in all passages, including repetitions.
    pub token_count: u64,
}

impl CollectionStatistics {
    /// Returns the idf of a term that occurs in `document_frequency` passages: rare terms weigh more.
    pub fn inverse_document_frequency(&self, document_frequency: u32) -> f32 {
        let passages = self.passage_count as f64;
        let frequency = f64::from(document_frequency);
        (1.0 + (passages - frequency + 0.5) / (frequency + 0.5)).ln() as f32
    }
}

/// A table of 1 / K(d) for each of the 256 lengths that the index distinguishes.
#[derive(Clone, Debug)]
pub struct LengthNorms([f32; 256]);

impl LengthNorms {
    /// Computes the table for a collection.
    pub fn new(parameters: Bm25Parameters, statistics: CollectionStatistics) -> Self {
        let Bm25Parameters { k1, b } = parameters;
        let average =
            (statistics.token_count as f64 / statistics.passage_count.max(1) as f64) as f32;
        Self(std::array::from_fn(|id| {
            let length = FieldNormReader::id_to_fieldnorm(id as u8) as f32;
            1.0 / (k1 * ((1.0 - b) + b * length / average))
        }))
    }

    /// Returns the contribution of one term to the score of a passage. It is between 0 and `weight`
    /// and does not decrease when the frequency rises or the passage gets shorter.
    #[inline]
    pub fn contribution(&self, weight: f32, frequency: u32, length_id: u8) -> f32 {
        Self::saturated(weight, frequency, self.inverse(length_id))
    }

    /// Returns 1 / K(d) for a length.
    #[inline]
    pub(crate) fn inverse(&self, length_id: u8) -> f32 {
        self.0[usize::from(length_id)]
    }

    /// Computes [`Self::contribution`] from a norm that the caller has looked up.
    #[inline]
    pub(crate) fn saturated(weight: f32, frequency: u32, inverse_norm: f32) -> f32 {
        weight - weight / (1.0 + frequency as f32 * inverse_norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATISTICS: CollectionStatistics =
        CollectionStatistics { passage_count: 100, token_count: 1_000 };

    #[test]
    fn hand_computed_contribution() {
        let parameters = Bm25Parameters::new(0.9, 0.4).unwrap();
        let norms = LengthNorms::new(parameters, STATISTICS);
        // Length 20 is twice the average: K = 0.9 · (0.6 + 0.8) = 1.26; 3 / 4.26 of the weight.
        let length_id = FieldNormReader::fieldnorm_to_id(20);
        let contribution = norms.contribution(2.0, 3, length_id);
        assert!((contribution - 2.0 * 3.0 / 4.26).abs() < 1e-6, "{contribution}");
        let idf = STATISTICS.inverse_document_frequency(10);
        assert!((idf - (1.0f32 + 90.5 / 10.5).ln()).abs() < 1e-6, "{idf}");
    }

    #[test]
    fn extreme_constants_stay_finite_and_bounded() {
        for (k1, b) in [(0.0, 0.0), (0.0, 1.0), (1e30, 0.5), (0.9, 1.0)] {
            let norms = LengthNorms::new(Bm25Parameters::new(k1, b).unwrap(), STATISTICS);
            for length_id in [0, 1, 40, 255] {
                let contribution = norms.contribution(3.0, 1, length_id);
                assert!((0.0..=3.0).contains(&contribution), "{k1} {b}: {contribution}");
            }
        }
    }

    #[test]
    fn constants_out_of_range_are_refused() {
        for k1 in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Bm25Parameters::new(k1, 0.4), Err(Bm25Error::K1(_))));
        }
        for b in [-0.1, 1.1, f32::NAN] {
            assert!(Bm25Parameters::new(0.9, b).is_err());
        }
    }
}
