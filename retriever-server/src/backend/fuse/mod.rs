//! Two ranked lists to one. Only what a list of positive weight has can be in the result, equal
//! scores stand in the order of their rows, and sums are taken in 64 bits.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::query::Hit;

/// How two lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusionConfig {
    /// The formula.
    pub method: Fusion,
    /// Weight of each list: finite, at least 0, not both 0.
    pub weights: [f64; 2],
    /// Fewest passages that each back end is asked for.
    pub depth: usize,
}

/// The formula by which lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// By ranks alone, with this constant, above 0.
    ReciprocalRank {
        /// Added to every rank.
        k: f64,
    },
    /// By scores, each list's brought to 0..1.
    Weighted,
}

/// A list with its weight.
#[derive(Clone, Copy, Debug)]
pub struct Weighed<'a> {
    /// Best first, each row once.
    pub hits: &'a [Hit],
    /// Finite and at least 0; a list of weight 0 is left out.
    pub weight: f64,
}

/// The best `top_k` rows of all lists, each row once, with their fused scores.
///
/// - [`Fusion::ReciprocalRank`]: the sum of weight / (k + rank) over the lists that have the row,
///   where the first rank is 1. With weights of 1 that is reciprocal rank fusion of Cormack,
///   Clarke and Büttcher (SIGIR 2009).
/// - [`Fusion::Weighted`]: the sum of weight · (score − least) / (greatest − least), where least
///   and greatest are those of the list: min-max normalisation and a convex combination, as in
///   Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023).
///   If all scores of a list are equal, each counts as 1.
///
/// A list that lacks a row adds nothing to it, which by score is what its last row gets.
pub fn fuse(lists: &[Weighed<'_>], method: Fusion, top_k: usize) -> Vec<Hit> {
    let mut sums: HashMap<u32, f64> = HashMap::new();
    for list in lists.iter().filter(|list| list.weight > 0.0) {
        let scale = Scale::of(list.hits);
        for (place, hit) in list.hits.iter().enumerate() {
            let part = match method {
                Fusion::ReciprocalRank { k } => 1.0 / (k + (place + 1) as f64),
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

fn better_first(one: &(u32, f64), other: &(u32, f64)) -> Ordering {
    other.1.total_cmp(&one.1).then(one.0.cmp(&other.0))
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

    /// Where a score of the list stands between the least and the greatest, from 0 to 1.
    fn share(&self, score: f32) -> f64 {
        let range = self.greatest - self.least;
        if range > 0.0 { (f64::from(score) - self.least) / range } else { 1.0 }
    }
}

#[cfg(test)]
mod tests;
