//! Re-ranking with a simple scorer in place of a model.

use std::sync::Mutex;

use proptest::prelude::*;
use shared::contract::passage::Passage;

use super::*;

/// A scorer that scores the first `allowed` passages by the number in them. It fails at text that is not a
/// number.
#[derive(Debug)]
struct Numbers {
    allowed: usize,
    asked: Mutex<Vec<(String, String)>>,
}

impl Numbers {
    fn new(allowed: usize) -> Self {
        Self { allowed, asked: Mutex::default() }
    }
}

impl PairScorer for Numbers {
    fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, EncodeError> {
        let mut scores = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            self.asked.lock().unwrap().push((pair.query.to_owned(), pair.passage.to_owned()));
            let number = pair
                .passage
                .parse()
                .map_err(|_| EncodeError::Tokenize("not a number".to_owned()))?;
            scores.push((index < self.allowed && !stop()).then_some(number));
        }
        Ok(scores)
    }
}

fn answers(list: &[&str]) -> Vec<Answer> {
    let answer = |(rank, contents): (usize, &&str)| Answer {
        passage: Passage { contents: (*contents).to_owned(), ..Passage::default() },
        score: 100.0 - rank as f32,
    };
    list.iter().enumerate().map(answer).collect()
}

fn reranker(allowed: usize, depth: usize) -> Reranker {
    let pool = Arc::new(Pool::start(1, 10).unwrap());
    Reranker::new(Box::new(Numbers::new(allowed)), pool, depth, None)
}

async fn rank(
    reranker: &Reranker,
    lists: Vec<QueryAnswer>,
    top_k: usize,
    limit: Duration,
) -> Vec<Result<Vec<(String, f32)>, SearchFault>> {
    let queries = (0..lists.len()).map(|number| format!("q{number}")).collect();
    let ticket = Arc::new(Ticket::new(limit, None));
    let ranked = reranker.rank_answers(QueryBatch { queries, top_k }, lists, ticket).await;
    let shown = |answer: Answer| (answer.passage.contents, answer.score);
    ranked.into_iter().map(|list| list.map(|list| list.into_iter().map(shown).collect())).collect()
}

fn shown(list: &[(&str, f32)]) -> Vec<(String, f32)> {
    list.iter().map(|(text, score)| ((*text).to_owned(), *score)).collect()
}

const LIMIT: Duration = Duration::from_hours(1);

#[tokio::test]
async fn what_the_model_scores_higher_comes_first_with_its_score() {
    let lists = vec![Ok(answers(&["1", "3", "2"])), Err(SearchFault::Internal), Ok(answers(&[]))];
    let ranked = rank(&reranker(99, 10), lists, 2, LIMIT).await;
    let expected = [Ok(shown(&[("3", 3.0), ("2", 2.0)])), Err(SearchFault::Internal), Ok(vec![])];
    assert_eq!(ranked, expected);
}

#[tokio::test]
async fn what_is_beyond_the_depth_stays_behind() {
    let ranked = rank(&reranker(99, 2), vec![Ok(answers(&["1", "2", "9", "8"]))], 4, LIMIT).await;
    let expected = [Ok(shown(&[("2", 2.0), ("1", 1.0), ("9", 1.0), ("8", 1.0)]))];
    assert_eq!(ranked, expected);
}

/// Five pairs are scored: the first two of each query, and the third of the first query.
#[tokio::test]
async fn a_budget_that_runs_out_is_spent_on_the_first_of_every_query() {
    let lists = vec![Ok(answers(&["1", "2", "3"])), Ok(answers(&["1", "2", "3"]))];
    let ranked = rank(&reranker(5, 10), lists, 3, LIMIT).await;
    let expected = [
        Ok(shown(&[("3", 3.0), ("2", 2.0), ("1", 1.0)])),
        Ok(shown(&[("2", 2.0), ("1", 1.0), ("3", 1.0)])),
    ];
    assert_eq!(ranked, expected);
    let ranked = rank(&reranker(0, 10), vec![Ok(answers(&["1", "2"]))], 2, LIMIT).await;
    assert_eq!(
        ranked,
        [Ok(shown(&[("1", 100.0), ("2", 99.0)]))],
        "nothing scored, nothing changed"
    );
}

#[tokio::test]
async fn a_request_that_is_out_of_time_has_failed() {
    let lists = vec![Ok(answers(&["1", "2"])), Ok(answers(&[]))];
    let ranked = rank(&reranker(99, 10), lists, 2, Duration::ZERO).await;
    assert_eq!(ranked, [Err(SearchFault::DeadlineExceeded), Ok(vec![])]);
}

#[tokio::test]
async fn a_model_that_fails_is_a_fault_and_not_the_old_order() {
    let ranked = rank(&reranker(99, 10), vec![Ok(answers(&["1", "x"]))], 2, LIMIT).await;
    assert_eq!(ranked, [Err(SearchFault::Internal)]);
}

#[test]
fn every_query_is_paired_with_its_own_texts() {
    let scorer = Numbers::new(99);
    let texts = [vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()]];
    let ticket = Ticket::new(LIMIT, None);
    let scores = score(&scorer, &["a".to_owned(), "b".to_owned()], &texts, None, &ticket);
    assert_eq!(scores, [Ok(vec![Some(1.0), Some(2.0)]), Ok(vec![Some(3.0)])]);
    let asked = scorer.asked.into_inner().unwrap();
    let expected = [("a", "1"), ("b", "3"), ("a", "2")];
    assert_eq!(asked, expected.map(|(query, text)| (query.to_owned(), text.to_owned())));
}

proptest! {
    #[test]
    fn the_order_is_a_permutation_by_score(
        scores in prop::collection::vec(prop::option::of(-3i8..3), 0..20),
    ) {
        let scores: Vec<Option<f32>> =
            scores.into_iter().map(|score| score.map(f32::from)).collect();
        let indices = order(&scores);
        let mut sorted = indices.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..scores.len()).collect::<Vec<_>>());
        for pair in indices.windows(2) {
            let [one, other] = [scores[pair[0]], scores[pair[1]]];
            prop_assert!(one > other || (one == other && pair[0] < pair[1]), "{one:?} {other:?}");
        }
    }
}
