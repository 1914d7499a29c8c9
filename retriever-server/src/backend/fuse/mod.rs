//! Fuses ranked lists. The result contains only rows of lists with positive weight, equal scores are
//! in the order of their rows, and sums are computed in 64 bits.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::query::Hit;

/// The configuration of a fusion of two lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusionConfig {
    /// The formula.
    pub method: Fusion,
    /// The weight of each list: finite, at least 0, not both 0.
    pub weights: [f64; 2],
    /// The fewest passages that each back end is asked for.
    pub depth: usize,
}

/// The formula of a fusion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion, which looks at ranks alone.
    ReciprocalRank {
        /// The constant that is added to every rank, above 0.
        k: f64,
    },
    /// A weighted sum of scores; those of each list are scaled to 0..1.
    Weighted,
}

/// A ranked list with its weight.
#[derive(Clone, Copy, Debug)]
pub struct Weighed<'a> {
    /// The hits, best first, each row once.
    pub hits: &'a [Hit],
    /// The weight: finite and at least 0. A list of weight 0 is left out.
    pub weight: f64,
}

/// Returns the `top_k` rows with the highest fused scores, each row once.
///
/// - [`Fusion::ReciprocalRank`]: the sum of weight / (k + rank) over the lists that contain the row;
///   the first rank is 1. With weights of 1 it is the reciprocal rank fusion of Cormack, Clarke and
///   Büttcher (SIGIR 2009).
/// - [`Fusion::Weighted`]: the sum of weight · (score − least) / (greatest − least), with the least
///   and greatest score of the list. This is min-max normalisation and a convex combination, as in
///   Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023). If all
///   scores of a list are equal, each counts as 1.
///
/// A list without a row adds 0 to its score; by score, the last row of a list also gets 0.
pub fn fuse(lists: &[Weighed<'_>], method: Fusion, top_k: usize) -> Vec<Hit> {
    let mut sums: HashMap<u32, f64> = HashMap::new();
    for list in lists.iter().filter(|list| list.weight > 0.0) {
        let scale = Scale::of(list.hits);
        for (index, hit) in list.hits.iter().enumerate() {
            let part = match method {
                Fusion::ReciprocalRank { k } => 1.0 / (k + (index + 1) as f64),
                Fusion::Weighted => scale.share(hit.score),
            };
            *sums.entry(hit.row).or_insert(0.0) += list.weight * part;
        }
    }
    let mut fused: Vec<(u32, f64)> = sums.into_iter().collect();
    if top_k < fused.len() && top_k > 0 {
        fused.select_nth_unstable_by(top_k - 1, better_first);
    }
    fused.truncate(top_k);
    fused.sort_unstable_by(better_first);
    fused.into_iter().map(|(row, score)| Hit { row, score: score as f32 }).collect()
}

/// Orders rows by descending score, then by row.
fn better_first(left: &(u32, f64), right: &(u32, f64)) -> Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// The range of a list's scores.
struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn of(hits: &[Hit]) -> Self {
        let scores = || hits.iter().map(|hit| f64::from(hit.score));
        let least = scores().fold(f64::INFINITY, f64::min);
        let greatest = scores().fold(f64::NEG_INFINITY, f64::max);
        Self { least, greatest }
    }

    /// Scales a score of the list to 0..1.
    fn share(&self, score: f32) -> f64 {
        let range = self.greatest - self.least;
        if range > 0.0 { (f64::from(score) - self.least) / range } else { 1.0 }
    }
}

#[cfg(test)]
mod tests;
