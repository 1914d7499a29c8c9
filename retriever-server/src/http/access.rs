//! `POST /access`: the passages of pages by their addresses, for clients of ASearcher's server.
//!
//! ```text
//! {"urls": [..]} → {"result": [{"url": .., "contents": ..} or null]}
//! ```

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use shared::contract::wire::ValidationError;
use tracing::Instrument;
use utoipa::ToSchema;

use super::dialect::{Encoding, fault, object, query_list};
use super::entry::Entered;
use super::openapi::Failure;
use super::openapi::retrieval::AccessBody;
use super::respond::{self, HttpError};
use super::scope::Scope;
use crate::config::RequestLimits;
use crate::corpus::pages::Page;
use crate::metrics::Route;
use crate::pool::JobLost;
use crate::state::AppState;

#[derive(Debug, Serialize, ToSchema)]
struct AccessResponse {
    result: Vec<Option<PageResponse>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PageResponse {
    url: String,
    contents: String,
}

/// Returns the passages of pages by their addresses.
#[utoipa::path(
    post,
    path = "/access",
    request_body = AccessBody,
    responses(
        (status = 200, description = "Each page, or null for one that is not in the corpus.", body = AccessResponse),
        Failure
    )
)]
pub(crate) async fn access(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let scope = Scope::begin(&state, Route::Access, request.headers());
    let outcome = answer(&state, request, &scope).instrument(scope.log_span()).await;
    scope.end(outcome)
}

async fn answer(
    state: &Arc<AppState>,
    request: Request,
    scope: &Scope,
) -> Result<Response, HttpError> {
    let mut entered = Entered::read(state, request, scope).await?;
    let body = entered.take_body();
    let encoding = Encoding::of(&body);
    let urls = parse(&body, &state.config.request).map_err(HttpError::Invalid)?;
    let ticket = entered.admit(state, urls.len())?;
    let loaded = state.ready_by(ticket.deadline()).await.map_err(HttpError::NotReady)?;
    let pages = loaded.pipeline.pages().map(Arc::clone).ok_or(HttpError::NoPages)?;
    let read = move || {
        let read = |url: String| match pages.get(&url, &|| ticket.is_over())? {
            Some(Page { contents }) => Ok(Some(PageResponse { url, contents })),
            None => Ok(None),
        };
        urls.into_iter().map(read).collect::<Result<_, _>>()
    };
    let result = state.pool.run(read).await.map_err(|JobLost| HttpError::Internal)?;
    let result = result.map_err(|fault| HttpError::Unanswered { failed: 1, total: 1, fault })?;
    let bytes = respond::encode(encoding, &AccessResponse { result });
    bytes.map(|bytes| respond::encoded(encoding, bytes)).ok_or(HttpError::Internal)
}

fn parse(body: &[u8], limits: &RequestLimits) -> Result<Vec<String>, Vec<ValidationError>> {
    let fields = object(body).map_err(|fault| vec![fault])?;
    let Some(urls) = fields.get("urls") else {
        return Err(vec![fault(
            &["urls"],
            None,
            "field required: urls, a list of strings",
            "missing",
        )]);
    };
    let mut faults = Vec::new();
    let urls = query_list("urls", urls, limits, &mut faults);
    if faults.is_empty() { Ok(urls) } else { Err(faults) }
}
