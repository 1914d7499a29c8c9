//! What terms add to a passage in whole units, so that sums are exact.

use super::BLOCK_LENGTH;
use crate::lexical::bm25::LengthNorms;
use crate::lexical::ranges::{ABSENT, CODES, LengthClasses, Peak};

/// Two to this power is the most units that all terms of a query have together. A unit is then
/// finer than the last digit of a single-precision score, and a sum fits 32 bits.
const TOTAL_BITS: i32 = 30;
/// Finest and coarsest unit, as powers of two, so that a query of whatever weight has one.
const EXPONENTS: (i32, i32) = (-60, 60);

/// A number of this size has no digits behind the point, and its mantissa is the whole number that
/// was added to it: a conversion for which every processor has vector instructions.
const ROUNDING: f64 = (1u64 << 52) as f64;

/// The unit of one query.
#[derive(Debug)]
pub(super) struct Units<'a> {
    norms: &'a LengthNorms,
    /// Units in a score of 1: a power of two.
    scale: f64,
}

impl<'a> Units<'a> {
    pub(super) fn new(norms: &'a LengthNorms, weights: impl Iterator<Item = f32>) -> Self {
        let total: f64 = weights.map(f64::from).sum();
        // A total of 0 has the finest unit.
        let exponent = TOTAL_BITS.saturating_sub(total.log2().ceil() as i32);
        Self { norms, scale: 2f64.powi(exponent.clamp(EXPONENTS.0, EXPONENTS.1)) }
    }

    /// The score that a sum stands for.
    pub(super) fn score(&self, sum: u32) -> f32 {
        (f64::from(sum) / self.scale) as f32
    }

    /// The most that a term adds to any passage.
    pub(super) fn bound(&self, weight: f32, peaks: &[Peak]) -> u32 {
        let of = |peak: &Peak| self.of(weight, peak.frequency, peak.length_id);
        peaks.iter().map(of).max().unwrap_or_else(|| self.round(weight))
    }

    /// The most that a term adds to a document of a range, by the code of the range.
    pub(super) fn range_bounds(
        &self,
        weight: f32,
        bound: u32,
        classes: &LengthClasses,
    ) -> Vec<u32> {
        let of = |code| match classes.peak(code) {
            Some(peak) => self.of(weight, peak.frequency, peak.length_id).min(bound),
            None if code == ABSENT => 0,
            None => bound,
        };
        (0..CODES as u8).map(of).collect()
    }

    /// What a term adds to a passage, at least one unit.
    #[inline]
    pub(super) fn of(&self, weight: f32, frequency: u32, length_id: u8) -> u32 {
        self.round(self.norms.contribution(weight, frequency, length_id))
    }

    /// What a term adds to each of some documents.
    #[inline]
    pub(super) fn of_all(
        &self,
        weight: f32,
        documents: &[u32],
        frequencies: &[u32],
        length_ids: &[u8],
        parts: &mut [u32; BLOCK_LENGTH],
    ) {
        // Two loops: the first looks up, the second has no branch and is done by vectors.
        let mut inverse_norms = [0f32; BLOCK_LENGTH];
        for (norm, &document) in inverse_norms.iter_mut().zip(documents) {
            *norm = self.norms.inverse(length_ids[document as usize]);
        }
        for ((part, norm), &frequency) in parts.iter_mut().zip(inverse_norms).zip(frequencies) {
            *part = self.round(LengthNorms::saturated(weight, frequency, norm));
        }
    }

    /// Rising contributions have rising units, as bounds must.
    #[inline]
    fn round(&self, contribution: f32) -> u32 {
        let units = f64::from(contribution) * self.scale;
        ((units + ROUNDING).to_bits() as i32).max(1) as u32
    }
}
