//! Ranks passages again by a model that reads a query and a passage together. It scores only the first
//! passages of a list, and scored passages come before the others.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use crate::encode::cross_encoder::CrossEncoder;
use crate::encode::{EncodeError, Pair};
use crate::pool::Pool;
use crate::query::{Answer, QueryAnswer, QueryBatch, SearchFault};
use crate::ticket::Ticket;

/// A model that scores pairs of texts.
pub trait PairScorer: Debug + Send + Sync {
    /// Returns the finite score of each pair; higher is better. Pairs that are not scored when `stop`
    /// first returns `true` have `None`. Earlier pairs are scored first, approximately.
    fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, EncodeError>;
}

impl PairScorer for CrossEncoder {
    fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, EncodeError> {
        Self::score(self, pairs, stop)
    }
}

/// A scorer with the threads that run it.
#[derive(Debug)]
pub struct Reranker {
    scorer: Arc<dyn PairScorer>,
    pool: Arc<Pool>,
    depth: usize,
    budget: Option<Duration>,
}

/// The scores of the texts of one query, `None` for texts that were not scored, or the reason why there
/// are none.
pub type Scores = Result<Vec<Option<f32>>, SearchFault>;

impl Reranker {
    /// Creates a re-ranker that scores `depth` passages per query, and takes at most `budget` for a
    /// request.
    pub fn new(
        scorer: Box<dyn PairScorer>,
        pool: Arc<Pool>,
        depth: usize,
        budget: Option<Duration>,
    ) -> Self {
        Self { scorer: scorer.into(), pool, depth, budget }
    }

    /// Returns the number of passages per query that are scored.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Ranks the answers of each query of `batch` again and keeps the best `top_k`.
    ///
    /// Answers beyond the depth, or not scored within the budget, follow the others in their old order,
    /// with the least score of their list. If no answer of a query was scored, its list is unchanged.
    pub async fn rank_answers(
        &self,
        batch: QueryBatch,
        answers: Vec<QueryAnswer>,
        ticket: Arc<Ticket>,
    ) -> Vec<QueryAnswer> {
        let count = answers.len();
        let (scorer, depth, budget) = (Arc::clone(&self.scorer), self.depth, self.budget);
        let job = move || {
            let texts = |answer: &QueryAnswer| -> Vec<String> {
                let seen = answer.iter().flatten().take(depth);
                seen.map(|answer| answer.passage.contents.clone()).collect()
            };
            let texts: Vec<Vec<String>> = answers.iter().map(texts).collect();
            let scores = score(&*scorer, &batch.queries, &texts, budget, &ticket);
            let ranked = answers.into_iter().zip(scores);
            ranked.map(|(answer, scores)| Ok(apply(answer?, scores?, batch.top_k))).collect()
        };
        let ranked: Result<Vec<QueryAnswer>, _> = self.pool.run(job).await;
        ranked.unwrap_or_else(|_| vec![Err(SearchFault::Internal); count])
    }

    /// Scores all `texts` of each query, without a depth or a budget.
    pub async fn score_texts(
        &self,
        queries: Arc<[String]>,
        texts: Vec<Vec<String>>,
        ticket: Arc<Ticket>,
    ) -> Vec<Scores> {
        let (count, scorer) = (texts.len(), Arc::clone(&self.scorer));
        let scores = self.pool.run(move || score(&*scorer, &queries, &texts, None, &ticket)).await;
        scores.unwrap_or_else(|_| vec![Err(SearchFault::Internal); count])
    }
}

/// Scores all texts. The first text of every query comes before the second of any, so a budget that runs
/// out is spent on the best candidates. If the ticket is over, a query with an unscored text has exceeded
/// its deadline.
fn score(
    scorer: &dyn PairScorer,
    queries: &[String],
    texts: &[Vec<String>],
    budget: Option<Duration>,
    ticket: &Ticket,
) -> Vec<Scores> {
    let end = budget.map(|budget| Instant::now() + budget);
    let stop = || ticket.is_over() || end.is_some_and(|end| Instant::now() >= end);
    let deepest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let order: Vec<(usize, usize)> = (0..deepest)
        .flat_map(|rank| (0..texts.len()).map(move |query| (query, rank)))
        .filter(|&(query, rank)| rank < texts[query].len())
        .collect();
    let pair = |&(query, rank): &(usize, usize)| Pair {
        query: &queries[query],
        passage: &texts[query][rank],
    };
    let pairs: Vec<Pair<'_>> = order.iter().map(pair).collect();
    let pair_scores = match scorer.score(&pairs, &stop) {
        Ok(scores) if scores.len() == pairs.len() => scores,
        Ok(scores) => {
            error!(scores = scores.len(), pairs = pairs.len(), "the number of scores is wrong");
            return vec![Err(SearchFault::Internal); texts.len()];
        }
        Err(fault) => {
            error!(%fault, "passages could not be scored");
            return vec![Err(SearchFault::Internal); texts.len()];
        }
    };
    let mut scores: Vec<Vec<Option<f32>>> =
        texts.iter().map(|texts| vec![None; texts.len()]).collect();
    for (&(query, rank), score) in order.iter().zip(pair_scores) {
        scores[query][rank] = score;
    }
    let late = ticket.is_over();
    let of_query = |scores: Vec<Option<f32>>| {
        let is_late = late && scores.iter().any(Option::is_none);
        if is_late { Err(SearchFault::DeadlineExceeded) } else { Ok(scores) }
    };
    scores.into_iter().map(of_query).collect()
}

/// Returns the indices of a list in their new order: those with a score by descending score, equal
/// scores in their old order, then those without a score.
pub fn order(scores: &[Option<f32>]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    indices.sort_by(|&left, &right| match (scores[left], scores[right]) {
        (Some(left), Some(right)) => right.total_cmp(&left),
        (left, right) => right.is_some().cmp(&left.is_some()),
    });
    indices
}

/// Sorts a list by its new scores and keeps the best `top_k`.
fn apply(answers: Vec<Answer>, mut scores: Vec<Option<f32>>, top_k: usize) -> Vec<Answer> {
    let least = scores.iter().flatten().copied().min_by(f32::total_cmp);
    let Some(least) = least else {
        return answers.into_iter().take(top_k).collect();
    };
    scores.resize(answers.len(), None);
    let indices = order(&scores);
    let mut answers: Vec<Option<Answer>> = answers.into_iter().map(Some).collect();
    let moved = indices.into_iter().map(|index| {
        let answer = answers[index].take().expect("an order has every index once");
        Answer { score: scores[index].unwrap_or(least), ..answer }
    });
    moved.take(top_k).collect()
}

#[cfg(test)]
mod tests;
