//! Ranks passages again by a model that reads query and passage together. It sees the first
//! passages of a list only, and what it has scored stands before what it has not.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use crate::encode::Pair;
use crate::encode::cross_encoder::CrossEncoder;
use crate::pool::Pool;
use crate::query::{Answer, QueryAnswer, QueryBatch, SearchFault};
use crate::ticket::Ticket;

/// Gives pairs of texts a score.
pub trait PairScorer: Debug + Send + Sync {
    /// The finite score of each pair, higher is better; `None` for those that were left when
    /// `stop` first said so. What comes first is scored first, more or less.
    fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, String>;
}

impl PairScorer for CrossEncoder {
    fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, String> {
        Self::score(self, pairs, stop).map_err(|error| error.to_string())
    }
}

/// A scorer on a pool of threads.
#[derive(Debug)]
pub struct Reranker {
    scorer: Arc<dyn PairScorer>,
    pool: Arc<Pool>,
    depth: usize,
    budget: Option<Duration>,
}

/// Scores of the texts of one query, `None` for those that were left, or why there are none.
pub type Scores = Result<Vec<Option<f32>>, SearchFault>;

impl Reranker {
    /// Looks at `depth` passages of a query, and takes no longer than `budget` for those of a
    /// request.
    pub fn new(
        scorer: Box<dyn PairScorer>,
        pool: Arc<Pool>,
        depth: usize,
        budget: Option<Duration>,
    ) -> Self {
        Self { scorer: scorer.into(), pool, depth, budget }
    }

    /// Passages of a query that are looked at.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Ranks the answers of each query of `batch` again and keeps the best `top_k`.
    ///
    /// What is beyond the depth, or was not scored within the budget, stands behind the rest in
    /// the order in which it came, with the least score of its list. If no answer of a query was
    /// scored, the list stays as it came.
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
                seen.map(|one| one.passage.contents.clone()).collect()
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

/// The scores of all texts. The first text of every query is scored before the second of any, so
/// that a budget that runs out is spent on what was thought best. A query with a text that was
/// left because the ticket is over has run out of time.
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
    let places: Vec<(usize, usize)> = (0..deepest)
        .flat_map(|rank| (0..texts.len()).map(move |query| (query, rank)))
        .filter(|&(query, rank)| rank < texts[query].len())
        .collect();
    let pair = |&(query, rank): &(usize, usize)| Pair {
        query: queries.get(query).map_or("", String::as_str),
        passage: &texts[query][rank],
    };
    let pairs: Vec<Pair<'_>> = places.iter().map(pair).collect();
    let found = match scorer.score(&pairs, &stop) {
        Ok(found) if found.len() == pairs.len() => found,
        other => {
            error!(fault = ?other.map(|found| found.len()), "passages could not be scored");
            return vec![Err(SearchFault::Internal); texts.len()];
        }
    };
    let mut scores: Vec<Vec<Option<f32>>> =
        texts.iter().map(|texts| vec![None; texts.len()]).collect();
    for (&(query, rank), score) in places.iter().zip(found) {
        scores[query][rank] = score;
    }
    let late = ticket.is_over();
    let of_query = |scores: Vec<Option<f32>>| {
        let left = late && scores.iter().any(Option::is_none);
        if left { Err(SearchFault::DeadlineExceeded) } else { Ok(scores) }
    };
    scores.into_iter().map(of_query).collect()
}

/// The places of a list in their new order: what has a score by its score, equal ones in the order
/// in which they came, and then what has none.
pub fn order(scores: &[Option<f32>]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&one, &other| match (scores[one], scores[other]) {
        (Some(one), Some(other)) => other.total_cmp(&one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    });
    places
}

/// A list in its new order, with the new scores.
fn apply(answers: Vec<Answer>, mut scores: Vec<Option<f32>>, top_k: usize) -> Vec<Answer> {
    let least = scores.iter().flatten().copied().min_by(f32::total_cmp);
    let Some(least) = least else {
        return answers.into_iter().take(top_k).collect();
    };
    scores.resize(answers.len(), None);
    let places = order(&scores);
    let mut answers: Vec<Option<Answer>> = answers.into_iter().map(Some).collect();
    let moved = places.into_iter().filter_map(|place| {
        let answer = answers[place].take()?;
        Some(Answer { score: scores[place].unwrap_or(least), ..answer })
    });
    moved.take(top_k).collect()
}

#[cfg(test)]
mod tests;
