//! Contributions of terms in whole units, which makes their sums exact.
//!
//! A unit is a power of two that depends on the query's weights. The rounded contributions of a
//! passage's terms add up to the same sum in any order.

use super::BLOCK_LENGTH;
use crate::lexical::bm25::LengthNorms;
use crate::lexical::ranges::{ABSENT, CODES, LengthClasses, Peak};

/// The base-2 logarithm of the most units that all terms of a query have together. With 30 bits, a
/// unit is finer than the last digit of a single-precision score, and a sum fits in 32 bits.
const TOTAL_BITS: i32 = 30;
/// The limits of the scale's exponent, from the coarsest to the finest unit, for extreme weights.
const EXPONENTS: (i32, i32) = (-60, 60);

/// The addend that rounds a number to a whole one: at 2^52 an f64 has no fractional digits, so the
/// mantissa of the sum is the rounded number. Every processor has vector instructions for this.
const ROUNDING: f64 = (1u64 << 52) as f64;

/// The unit of one query.
#[derive(Debug)]
pub(super) struct Units<'a> {
    norms: &'a LengthNorms,
    /// The number of units in a score of 1, a power of two.
    scale: f64,
}

impl<'a> Units<'a> {
    pub(super) fn new(norms: &'a LengthNorms, weights: impl Iterator<Item = f32>) -> Self {
        let total: f64 = weights.map(f64::from).sum();
        // A total of 0 gets the finest unit: its logarithm is −∞, which saturates.
        let exponent = TOTAL_BITS.saturating_sub(total.log2().ceil() as i32);
        Self { norms, scale: 2f64.powi(exponent.clamp(EXPONENTS.0, EXPONENTS.1)) }
    }

    /// Converts a sum of units to a score.
    pub(super) fn score(&self, sum: u32) -> f32 {
        (f64::from(sum) / self.scale) as f32
    }

    /// Returns the most that a term can add to any passage: its highest peak, or its weight if the
    /// peaks are unknown.
    pub(super) fn bound(&self, weight: f32, peaks: &[Peak]) -> u32 {
        let height = |peak: &Peak| self.contribution(weight, peak.frequency, peak.length_id);
        peaks.iter().map(height).max().unwrap_or_else(|| self.round(weight))
    }

    /// Returns the most that a term can add to a document of a range, by the code of the range.
    pub(super) fn range_bounds(
        &self,
        weight: f32,
        bound: u32,
        classes: &LengthClasses,
    ) -> Vec<u32> {
        let range_bound = |code| match classes.peak(code) {
            Some(peak) => self.contribution(weight, peak.frequency, peak.length_id).min(bound),
            None if code == ABSENT => 0,
            None => bound,
        };
        (0..CODES as u8).map(range_bound).collect()
    }

    /// Returns the contribution of a term to a passage, at least one unit.
    #[inline]
    pub(super) fn contribution(&self, weight: f32, frequency: u32, length_id: u8) -> u32 {
        self.round(self.norms.contribution(weight, frequency, length_id))
    }

    /// Writes the contribution of a term to each of `documents` into `parts`.
    #[inline]
    pub(super) fn contributions(
        &self,
        weight: f32,
        documents: &[u32],
        frequencies: &[u32],
        length_ids: &[u8],
        parts: &mut [u32; BLOCK_LENGTH],
    ) {
        // The first loop looks up norms at scattered addresses. The second has no look-up and no
        // branch, so the compiler makes vector instructions of it.
        let mut inverse_norms = [0f32; BLOCK_LENGTH];
        for (norm, &document) in inverse_norms.iter_mut().zip(documents) {
            *norm = self.norms.inverse(length_ids[document as usize]);
        }
        for ((part, norm), &frequency) in parts.iter_mut().zip(inverse_norms).zip(frequencies) {
            *part = self.round(LengthNorms::saturated(weight, frequency, norm));
        }
    }

    /// Rounds to whole units, at least one. Rounding keeps the order, so a bound stays a bound.
    #[inline]
    fn round(&self, contribution: f32) -> u32 {
        let units = f64::from(contribution) * self.scale;
        ((units + ROUNDING).to_bits() as i32).max(1) as u32
    }
}
