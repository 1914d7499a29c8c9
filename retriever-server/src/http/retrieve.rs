//! `POST /retrieve`, and the same for `/search`, `/batch_search` and `/queries`: a request from bytes to bytes.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use shared::contract::wire::{IDENTITY_HEADER, QueryError, QueryErrorCode};
use tracing::Instrument;

use super::dialect::{self, Call, Route};
use super::entry::Entered;
use super::openapi::Failure;
use super::openapi::retrieval::{
    BatchSearchAnswer, BatchSearchBody, QueriesAnswer, QueriesBody, RetrieveAnswer, RetrieveBody,
    SearchAnswer, SearchBody,
};
use super::render::Rendering;
use super::respond::{self, HttpError};
use super::scope::Scope;
use crate::metrics::{Route as Counted, Stage};
use crate::pool::JobLost;
use crate::query::SearchFault;
use crate::state::AppState;

/// The largest body that is parsed on an async thread. Larger ones are parsed on the pool, because they
/// would block the thread: parsing runs at some hundred megabytes per second.
pub(super) const INLINE_PARSE_BYTES: usize = 64 * 1024;
/// The most queries whose results are serialised on an async thread; more are serialised on the pool.
const INLINE_RENDER_QUERIES: usize = 16;

/// Returns passages for each query.
#[utoipa::path(
    post,
    path = "/retrieve",
    request_body = RetrieveBody,
    responses((status = 200, description = "One list of passages for each query.", body = RetrieveAnswer), Failure)
)]
pub(crate) async fn retrieve(state: State<Arc<AppState>>, request: Request) -> Response {
    respond(state, Route::Retrieve, request).await
}

/// Returns documents for one query, as ReCall and ReSearch ask for them.
#[utoipa::path(
    post,
    path = "/search",
    request_body = SearchBody,
    responses((status = 200, description = "The documents of the query.", body = SearchAnswer), Failure)
)]
pub(crate) async fn search(state: State<Arc<AppState>>, request: Request) -> Response {
    respond(state, Route::Search, request).await
}

/// Returns documents for each query, as ReCall and ReSearch ask for them.
#[utoipa::path(
    post,
    path = "/batch_search",
    request_body = BatchSearchBody,
    responses((status = 200, description = "The documents of each query.", body = BatchSearchAnswer), Failure)
)]
pub(crate) async fn batch_search(state: State<Arc<AppState>>, request: Request) -> Response {
    respond(state, Route::BatchSearch, request).await
}

/// Returns numbered texts for each query, as R1-Searcher asks for them.
#[utoipa::path(
    post,
    path = "/queries",
    request_body = QueriesBody,
    responses((status = 200, description = "The texts of each query.", body = QueriesAnswer), Failure)
)]
pub(crate) async fn queries(state: State<Arc<AppState>>, request: Request) -> Response {
    respond(state, Route::Queries, request).await
}

async fn respond(State(state): State<Arc<AppState>>, route: Route, request: Request) -> Response {
    let scope = Scope::begin(&state, Counted::Retrieve, request.headers());
    let outcome = answer(&state, route, request, &scope).instrument(scope.log_span()).await;
    scope.end(outcome)
}

async fn answer(
    state: &Arc<AppState>,
    route: Route,
    request: Request,
    scope: &Scope,
) -> Result<Response, HttpError> {
    let (limits, profile) = (state.config.request, state.config.profile);
    let mut entered = Entered::read(state, request, scope).await?;
    let observation = scope.observation();
    let began = Instant::now();
    let body = entered.take_body();
    let parsed = if body.len() <= INLINE_PARSE_BYTES {
        dialect::parse(&body, &limits, route, profile)
    } else {
        let parse = move || dialect::parse(&body, &limits, route, profile);
        state.pool.run(parse).await.map_err(|JobLost| HttpError::Internal)?
    };
    observation.stage(Stage::Parse, began);
    let call = parsed.map_err(HttpError::invalid)?;
    let Call { batch, shape, encoding, is_partial, is_top_k_limited } = call;
    let count = batch.queries.len();
    let ticket = entered.admit(state, count)?;
    let loaded = state.ready_by(ticket.deadline()).await.map_err(HttpError::NotReady)?;
    state.count_cut(&batch.queries);
    if is_top_k_limited {
        state.count_limited();
    }
    let queries = Arc::clone(&batch.queries);
    let answers = loaded.pipeline.answer(batch, ticket).await;
    state.count_queries(&answers);
    if let Some(error) = failure(&answers, is_partial) {
        return Err(error);
    }
    let rendering = Rendering {
        shape,
        encoding,
        fields: state.config.passage_fields,
        method: state.config.backend.kind.name(),
        queries,
    };
    let began = Instant::now();
    let bytes = if count <= INLINE_RENDER_QUERIES {
        rendering.write(answers)
    } else {
        let write = move || rendering.write(answers);
        state.pool.run(write).await.map_err(|JobLost| HttpError::Internal)?
    };
    observation.stage(Stage::Render, began);
    let mut response =
        bytes.map(|bytes| respond::encoded(encoding, bytes)).ok_or(HttpError::Internal)?;
    // The index may have been replaced since the client read `/info`.
    let identity = HeaderValue::from_str(&loaded.identity.to_string());
    let identity = identity.expect("hexadecimal digits are visible ASCII");
    response.headers_mut().insert(IDENTITY_HEADER, identity);
    Ok(response)
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
    use crate::query::QueryAnswer;

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
}
