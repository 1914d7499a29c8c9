//! Measures of one ranking, as defined by trec_eval. A ranking has distinct identifiers of passages,
//! best first. Ties keep the order of the back end, while trec_eval would order them by identifier.

use super::judgements::Relevance;

/// Returns the normalised discounted cumulative gain of the first `cutoff` passages (K. Järvelin and
/// J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002). The gain is the grade
/// itself and the discount is log₂(rank + 1), as in `ndcg_cut` of trec_eval. Returns 0 if no passage is
/// relevant.
pub fn ndcg(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let gains = ranking.iter().take(cutoff).map(|id| relevance.grade(id));
    let ideal = discounted(relevance.grades_descending().into_iter().take(cutoff));
    if ideal > 0.0 { discounted(gains) / ideal } else { 0.0 }
}

/// Returns Σ gain / log₂(rank + 1) over ranks from 1. A negative grade has no gain.
fn discounted(grades: impl Iterator<Item = i32>) -> f64 {
    grades
        .zip(2_u32..)
        .map(|(grade, rank_plus_one)| f64::from(grade.max(0)) / f64::from(rank_plus_one).log2())
        .sum()
}

/// Returns the share of the relevant passages that are among the first `cutoff`, or 0 if none is relevant.
pub fn recall(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let relevant = relevance.relevant_count();
    if relevant == 0 {
        return 0.0;
    }
    let matches = ranking.iter().take(cutoff).filter(|id| relevance.is_relevant(id)).count();
    matches as f64 / relevant as f64
}

/// Returns 1 / rank of the first relevant passage, or 0 if none is among the first `cutoff`.
pub fn reciprocal_rank(ranking: &[&str], relevance: &Relevance, cutoff: usize) -> f64 {
    let position = ranking.iter().take(cutoff).position(|id| relevance.is_relevant(id));
    position.map_or(0.0, |position| 1.0 / (position + 1) as f64)
}

#[cfg(test)]
mod tests;
