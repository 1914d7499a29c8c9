//! `POST /retrieve`: a request from bytes to bytes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use shared::contract::passage::Passage;
use shared::contract::wire::{QueryError, QueryErrorCode, RankedPassage, RetrieveResponse};

use super::body;
use super::dialect::{self, Call, Shape};
use super::respond::{self, HttpError};
use crate::admission::Overloaded;
use crate::config::PassageFields;
use crate::pool::JobLost;
use crate::query::{Answer, QueryAnswer, SearchFault};
use crate::state::AppState;

/// The largest body that is parsed on an async thread. Larger ones are parsed on the pool, because they
/// would block the thread: parsing runs at some hundred megabytes per second.
pub(super) const INLINE_PARSE_BYTES: usize = 64 * 1024;
/// The most queries whose results are serialised on an async thread; more are serialised on the pool.
const INLINE_RENDER_QUERIES: usize = 16;

/// Answers a request.
pub(crate) async fn retrieve(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let outcome = answer(&state, request).await;
    state.counters.count_request(&outcome);
    outcome.unwrap_or_else(respond::error)
}

async fn answer(state: &Arc<AppState>, request: Request) -> Result<Response, HttpError> {
    state.check_admits().map_err(HttpError::NotReady)?;
    let limits = state.config.request;
    let _permit = state.admission.enter().map_err(|Overloaded| HttpError::Overloaded)?;
    let body = body::read(request, limits.max_body_bytes, limits.deadline).await?;
    let parsed = if body.len() <= INLINE_PARSE_BYTES {
        dialect::parse(&body, &limits)
    } else {
        let parse = move || dialect::parse(&body, &limits);
        state.pool.run(parse).await.map_err(|JobLost| HttpError::Internal)?
    };
    let call = parsed.map_err(HttpError::Invalid)?;
    let Call { batch, shape, is_partial, is_top_k_limited } = call;
    let count = batch.queries.len();
    let ticket = state
        .admission
        .admit(count, limits.deadline)
        .map_err(|Overloaded| HttpError::Overloaded)?;
    let loaded = state.ready_by(ticket.deadline()).await.map_err(HttpError::NotReady)?;
    state.counters.count_cut(&batch.queries, limits.max_query_bytes);
    if is_top_k_limited {
        state.counters.count_limited(limits.max_top_k);
    }
    let queries = Arc::clone(&batch.queries);
    let answers = loaded.pipeline.answer(batch, ticket).await;
    state.counters.count_queries(&answers);
    if let Some(error) = failure(&answers, is_partial) {
        return Err(error);
    }
    let rendering = Rendering {
        shape,
        fields: state.config.passage_fields,
        method: state.config.backend.kind.name(),
        queries,
    };
    let bytes = if count <= INLINE_RENDER_QUERIES {
        rendering.write(answers)
    } else {
        let write = move || rendering.write(answers);
        state.pool.run(write).await.map_err(|JobLost| HttpError::Internal)?
    };
    bytes.map(|bytes| respond::json_bytes(StatusCode::OK, bytes)).map_err(|_| HttpError::Internal)
}

/// Returns the error of the whole request, if one of its queries failed; if they may fail `is_partial`ly, only
/// if all did. Most clients do not read `errors`, and would take a failed query for one that finds nothing.
pub(super) fn failure<T>(
    answers: &[Result<T, SearchFault>],
    is_partial: bool,
) -> Option<HttpError> {
    let faults: Vec<SearchFault> =
        answers.iter().filter_map(|answer| answer.as_ref().err().copied()).collect();
    let (failed, total) = (faults.len(), answers.len());
    if failed == 0 || (is_partial && failed < total) {
        return None;
    }
    // Another attempt may help the request if it may help any of its queries.
    let worst = [SearchFault::Internal, SearchFault::Upstream, SearchFault::DeadlineExceeded];
    let retryable = worst.into_iter().find(|fault| faults.contains(fault));
    let fault = retryable.unwrap_or(SearchFault::Refused);
    Some(HttpError::Unanswered { failed, total, fault })
}

/// The serialisation of answers.
struct Rendering {
    shape: Shape,
    fields: PassageFields,
    method: &'static str,
    queries: Arc<[String]>,
}

/// The response that rLLM's client reads.
#[derive(Debug, Serialize)]
struct RllmResponse<'a> {
    query: &'a str,
    method: &'static str,
    results: Vec<RllmResult>,
    num_results: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<QueryError>,
}

#[derive(Debug, Serialize)]
struct RllmResult {
    id: String,
    content: String,
    score: f64,
}

impl Rendering {
    fn write(&self, answers: Vec<QueryAnswer>) -> serde_json::Result<Vec<u8>> {
        let errors = errors(&answers);
        let lists = answers.into_iter().map(Result::unwrap_or_default);
        match self.shape {
            Shape::Rllm => {
                let results: Vec<RllmResult> = lists.flatten().map(rllm_result).collect();
                serde_json::to_vec(&RllmResponse {
                    query: self.queries.first().map_or("", String::as_str),
                    method: self.method,
                    num_results: results.len(),
                    results,
                    errors,
                })
            }
            Shape::Scored | Shape::Bare => {
                let result = lists
                    .map(|list| list.into_iter().map(|answer| self.ranked(answer)).collect())
                    .collect();
                serde_json::to_vec(&RetrieveResponse { result, errors })
            }
        }
    }

    fn ranked(&self, answer: Answer) -> RankedPassage {
        let document = match self.fields {
            PassageFields::Full => answer.passage,
            PassageFields::Minimal => Passage { title: None, text: None, ..answer.passage },
            PassageFields::Url => {
                let url = Some(answer.passage.url.unwrap_or_default());
                Passage { title: None, text: None, url, ..answer.passage }
            }
        };
        if self.shape == Shape::Scored {
            RankedPassage::Scored { document, score: f64::from(answer.score) }
        } else {
            RankedPassage::Bare(document)
        }
    }
}

fn rllm_result(answer: Answer) -> RllmResult {
    let Answer { passage, score } = answer;
    RllmResult { id: passage.id, content: passage.contents, score: f64::from(score) }
}

/// Returns the errors of the queries that failed.
pub(super) fn errors<T>(answers: &[Result<T, SearchFault>]) -> Vec<QueryError> {
    let error = |(index, answer): (usize, &Result<T, SearchFault>)| {
        let fault = answer.as_ref().err()?;
        let code = match fault {
            SearchFault::DeadlineExceeded => QueryErrorCode::DeadlineExceeded,
            SearchFault::Upstream => QueryErrorCode::UpstreamFailed,
            SearchFault::Refused => QueryErrorCode::UpstreamRefused,
            SearchFault::Internal => QueryErrorCode::Internal,
        };
        Some(QueryError { index, code, retryable: fault.is_retryable() })
    };
    answers.iter().enumerate().filter_map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: QueryAnswer = Err(SearchFault::DeadlineExceeded);
    const INTERNAL: QueryAnswer = Err(SearchFault::Internal);

    #[test]
    fn a_request_fails_with_any_of_its_queries_unless_it_may_be_partial() {
        use SearchFault::{DeadlineExceeded, Internal};
        let found = || Ok(Vec::new());
        for (answers, whole, partial) in [
            (vec![], None, None),
            (vec![found(), found()], None, None),
            (vec![found(), DEADLINE], Some((1, 2, DeadlineExceeded)), None),
            (vec![INTERNAL, DEADLINE, found()], Some((2, 3, Internal)), None),
            (vec![DEADLINE; 2], Some((2, 2, DeadlineExceeded)), Some((2, 2, DeadlineExceeded))),
            (vec![DEADLINE, INTERNAL], Some((2, 2, Internal)), Some((2, 2, Internal))),
        ] {
            for (is_partial, expected) in [(false, whole), (true, partial)] {
                let failed = failure(&answers, is_partial).map(|error| match error {
                    HttpError::Unanswered { failed, total, fault } => (failed, total, fault),
                    other => panic!("{other:?}"),
                });
                assert_eq!(failed, expected, "{answers:?}, partial {is_partial}");
            }
        }
    }

    #[test]
    fn a_failed_query_is_marked_in_its_slot() {
        let rendering = Rendering {
            shape: Shape::Bare,
            fields: PassageFields::Minimal,
            method: "bm25",
            queries: ["a".to_owned(), "b".to_owned()].into(),
        };
        let passage = Passage {
            id: "1".to_owned(),
            contents: "x".to_owned(),
            title: Some("t".to_owned()),
            url: Some("u".to_owned()),
            ..Passage::default()
        };
        let answers = vec![Ok(vec![Answer { passage, score: 1.5 }]), DEADLINE];
        let text = String::from_utf8(rendering.write(answers).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"result":[[{"id":"1","contents":"x","url":"u"}],[]],"errors":[{"index":1,"code":"deadline_exceeded","retryable":true}]}"#
        );
    }
}
