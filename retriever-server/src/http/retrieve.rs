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
    let loaded = state.ready().map_err(HttpError::NotReady)?;
    let limits = state.config.request;
    let _permit = state.admission.enter().map_err(|Overloaded| HttpError::Overloaded)?;
    let body = body::read(request, limits.max_body_bytes, limits.deadline).await?;
    let parsed = if body.len() <= INLINE_PARSE_BYTES {
        dialect::parse(&body, &limits)
    } else {
        let parse = move || dialect::parse(&body, &limits);
        state.pool.run(parse).await.map_err(|JobLost| HttpError::Internal)?
    };
    let Call { batch, shape } = parsed.map_err(HttpError::Invalid)?;
    let count = batch.queries.len();
    let ticket = state
        .admission
        .admit(count, limits.deadline)
        .map_err(|Overloaded| HttpError::Overloaded)?;
    let queries = Arc::clone(&batch.queries);
    let answers = loaded.pipeline.answer(batch, ticket).await;
    state.counters.count_queries(&answers);
    if let Some(error) = common_failure(&answers) {
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

/// Returns the error of the whole request, if no query was answered and a retry may help.
pub(super) fn common_failure<T>(answers: &[Result<T, SearchFault>]) -> Option<HttpError> {
    let faults = answers.iter().map(|answer| answer.as_ref().err().copied());
    let faults: Vec<SearchFault> = faults.collect::<Option<_>>()?;
    if faults.is_empty() || !faults.iter().all(|fault| fault.is_retryable()) {
        return None;
    }
    if faults.contains(&SearchFault::Internal) {
        Some(HttpError::Internal)
    } else {
        Some(HttpError::DeadlineExceeded)
    }
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
            SearchFault::QueryTooLong => QueryErrorCode::QueryTooLong,
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
    const TOO_LONG: QueryAnswer = Err(SearchFault::QueryTooLong);

    #[test]
    fn a_request_fails_as_a_whole_only_if_every_query_failed_retryably() {
        assert!(common_failure::<()>(&[]).is_none());
        assert!(common_failure(&[Ok(Vec::new()), DEADLINE]).is_none());
        assert!(common_failure(&[DEADLINE, TOO_LONG]).is_none());
        assert!(matches!(common_failure(&[DEADLINE; 2]), Some(HttpError::DeadlineExceeded)));
        assert!(matches!(common_failure(&[DEADLINE, INTERNAL]), Some(HttpError::Internal)));
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
