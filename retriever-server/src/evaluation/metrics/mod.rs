//! Measures of one ranking, as trec_eval defines them. A ranking holds identifiers of passages,
//! best first, none twice. Ties stand as the back end ranked them, where trec_eval would order
//! them by identifier.

use super::judgements::Relevance;

/// Normalised discounted cumulative gain of the first `cutoff` passages (K. Järvelin and
/// J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002) with the grade itself
/// as gain and log₂(rank + 1) as discount, which is `ndcg_cut` of trec_eval. 0 if no passage is
/// relevant.
pub fn ndcg(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let gains = ranking.iter().take(cutoff).map(|id| relevance.grade(id));
    let ideal = discounted(relevance.grades_descending().into_iter().take(cutoff));
    if ideal > 0.0 { discounted(gains) / ideal } else { 0.0 }
}

/// Σ gain / log₂(rank + 1), ranks from 1; a negative grade has no gain.
fn discounted(grades: impl Iterator<Item = i32>) -> f64 {
    grades
        .zip(2_u32..)
        .map(|(grade, rank_plus_one)| f64::from(grade.max(0)) / f64::from(rank_plus_one).log2())
        .sum()
}

/// Share of the relevant passages that are among the first `cutoff`; 0 if none is relevant.
pub fn recall(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let relevant = relevance.relevant_count();
    if relevant == 0 {
        return 0.0;
    }
    let found = ranking.iter().take(cutoff).filter(|id| relevance.is_relevant(id)).count();
    found as f64 / relevant as f64
}

/// 1 / rank of the first relevant passage, 0 if there is none among the first `cutoff`.
pub fn reciprocal_rank(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let place = ranking.iter().take(cutoff).position(|id| relevance.is_relevant(id));
    place.map_or(0.0, |place| 1.0 / (place + 1) as f64)
}

#[cfg(test)]
mod tests;
