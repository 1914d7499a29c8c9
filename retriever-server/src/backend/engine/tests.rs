//! Searches over an engine that answers as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::contract::passage::Passage;

use super::*;
use crate::engine::config::Address;
use crate::engine::{AnswersFuture, EngineFuture, EngineKind, Found, Note, Record};
use crate::query::Answer;

/// An engine of words. Each request takes the next script; without one, it finds its query as a passage.
#[derive(Debug, Default)]
struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    requests: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
enum Script {
    /// All queries fail for now.
    Overloaded,
    /// Queries with this text fail for now, the others are answered.
    Some(&'static str),
    /// Nothing is answered.
    Hangs,
    /// All queries are refused.
    Refuses,
    /// Only the first query is answered.
    Forgets,
}

fn unavailable() -> EngineError {
    let (engine, url, reason) = ("opensearch", "http://host".to_owned(), "status 429".to_owned());
    EngineError::Unavailable { engine, url, reason, pause: None }
}

impl Engine for Scripted {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async { Ok(Found::Foreign) })
    }

    fn create<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn insert<'a>(&'a self, _records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async { Ok(0) })
    }

    fn annotate<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, _search: Search) -> AnswersFuture<'a> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let script = self.scripts.lock().unwrap().pop_front();
        let Queries::Words(texts) = queries else { panic!("these are words") };
        let found = |text: &String| -> Result<Vec<Answer>, EngineError> {
            Ok(vec![Answer { passage: Passage::new("p", text), score: 1.0 }])
        };
        Box::pin(async move {
            match script {
                None => texts.iter().map(found).collect(),
                Some(Script::Overloaded) => vec![Err(unavailable()); texts.len()],
                Some(Script::Some(failing)) => {
                    let one = |text: &String| match text.as_str() {
                        text if text == failing => Err(unavailable()),
                        _ => found(text),
                    };
                    texts.iter().map(one).collect()
                }
                Some(Script::Hangs) => std::future::pending().await,
                Some(Script::Refuses) => {
                    vec![Err(EngineError::Unfit("no".to_owned())); texts.len()]
                }
                Some(Script::Forgets) => texts.iter().take(1).map(found).collect(),
            }
        })
    }
}

/// Searches for `queries` and returns for each the found text or the fault, and the number of requests.
async fn search(
    scripts: &[Script],
    queries: &[&str],
    limit: Duration,
) -> (Vec<Result<Vec<String>, SearchFault>>, usize) {
    let engine = Arc::new(Scripted::default());
    engine.scripts.lock().unwrap().extend(scripts);
    let kind = EngineKind::OpenSearch;
    let config = EngineConfig {
        kind,
        url: Address::parse(kind, "http://host").unwrap(),
        collection: "passages".to_owned(),
        key: None,
        ef: 10,
    };
    let pool = Arc::new(Pool::start(1, 100).unwrap());
    let shared: Arc<dyn Engine> = Arc::clone(&engine) as Arc<dyn Engine>;
    let source = EngineSource::new(shared, &config, None, &pool);
    let queries = queries.iter().map(|query| (*query).to_owned()).collect();
    let ticket = Arc::new(Ticket::new(limit, None));
    let answers = source.search(QueryBatch { queries, top_k: 3 }, ticket).await;
    let contents = |answers: Vec<Answer>| -> Vec<String> {
        answers.into_iter().map(|answer| answer.passage.contents).collect()
    };
    let shapes = answers.into_iter().map(|answer| answer.map(contents)).collect();
    (shapes, engine.requests.load(Ordering::Relaxed))
}

#[expect(clippy::unnecessary_wraps, reason = "answers are compared with it")]
fn found(text: &str) -> Result<Vec<String>, SearchFault> {
    Ok(vec![text.to_owned()])
}

const LONG: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn many_queries_travel_in_several_requests_and_keep_their_order() {
    let queries: Vec<String> = (0..=(REQUEST_QUERIES * 2)).map(|n| n.to_string()).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let (answers, requests) = search(&[], &queries, LONG).await;
    let expected: Vec<_> = queries.iter().map(|query| found(query)).collect();
    assert_eq!((answers, requests), (expected, 3));
}

#[tokio::test(start_paused = true)]
async fn a_query_without_text_has_no_hits_and_is_not_sent() {
    let (answers, requests) = search(&[], &["", " \n"], LONG).await;
    assert_eq!((answers, requests), (vec![Ok(Vec::new()), Ok(Vec::new())], 0));
}

#[tokio::test(start_paused = true)]
async fn only_the_queries_that_failed_are_asked_again() {
    let scripts = [Script::Some("b"), Script::Overloaded];
    let (answers, requests) = search(&scripts, &["a", "", "b", "c"], LONG).await;
    assert_eq!(answers, [found("a"), Ok(Vec::new()), found("b"), found("c")]);
    assert_eq!(requests, 3);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stays_down_is_a_fault_and_not_an_empty_list() {
    let scripts = [Script::Overloaded; 100];
    let (answers, requests) = search(&scripts, &["a", "b"], Duration::from_secs(5)).await;
    assert_eq!(answers, [Err(SearchFault::Upstream), Err(SearchFault::Upstream)]);
    assert!(requests > 1, "it was asked {requests} times");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_once_is_asked_again_in_time() {
    let (answers, requests) = search(&[Script::Hangs], &["a"], Duration::from_mins(1)).await;
    assert_eq!((answers, requests), (vec![found("a")], 2));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_final_and_forgotten_queries_have_failed() {
    let (answers, requests) = search(&[Script::Refuses], &["a"], LONG).await;
    assert_eq!((answers, requests), (vec![Err(SearchFault::Refused)], 1));
    let (answers, _) = search(&[Script::Forgets], &["a", "b"], LONG).await;
    assert_eq!(answers, [found("a"), Err(SearchFault::Upstream)]);
}
