//! `POST /rerank`: ranks the documents of a request, in the request format of Search-R1's own re-ranking
//! server.
//!
//! ```text
//! {"queries": [..], "documents": [[{"contents": ..}]], "rerank_topk": 3, "return_scores": true}
//! ```
//!
//! A document may also be wrapped as `{"document": {..}}`, as in answers of `/retrieve`. Each query is
//! paired with its own documents, which are returned as objects, unchanged.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use shared::contract::rows::kind_of;
use shared::contract::wire::{Location, QueryError, ValidationError};
use tracing::Instrument;
use utoipa::ToSchema;

use super::dialect::{Encoding, MAX_FAULTS, TopK, fault, is_true, object, query_list, top_k};
use super::entry::Entered;
use super::openapi::{Failure, RerankBody};
use super::respond::{self, HttpError};
use super::retrieve::{INLINE_PARSE_BYTES, errors, failure};
use super::scope::Scope;
use crate::config::RequestLimits;
use crate::metrics::{Route, Stage};
use crate::pool::JobLost;
use crate::query::cut;
use crate::rerank::{Reranker, Scores, order};
use crate::state::AppState;
use crate::ticket::{AbandonOnDrop, Ticket};

const TOP_K_KEY: &str = "rerank_topk";

/// A parsed request.
#[derive(Debug)]
struct Call {
    queries: Arc<[String]>,
    /// The documents of each query, unchanged.
    documents: Vec<Vec<Map<String, Value>>>,
    top_k: usize,
    is_top_k_limited: bool,
    with_scores: bool,
    /// `true` if queries may fail alone.
    is_partial: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct RerankResponse {
    result: Vec<Vec<Ranked>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<QueryError>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Ranked {
    Scored { document: Map<String, Value>, score: f64 },
    Bare(Map<String, Value>),
}

/// Ranks the documents of each query.
#[utoipa::path(
    post,
    path = "/rerank",
    request_body = RerankBody,
    responses((status = 200, description = "The documents of each query, best first.", body = RerankResponse), Failure)
)]
pub(crate) async fn rerank(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let scope = Scope::begin(&state, Route::Rerank, request.headers());
    let outcome = answer(&state, request, &scope).instrument(scope.log_span()).await;
    scope.end(outcome)
}

async fn answer(
    state: &Arc<AppState>,
    request: Request,
    scope: &Scope,
) -> Result<Response, HttpError> {
    let limits = state.config.request;
    let mut entered = Entered::read(state, request, scope).await?;
    if state.config.reranker.is_none() {
        return Err(HttpError::NoReranker);
    }
    let observation = scope.observation();
    let began = Instant::now();
    let body = entered.take_body();
    let encoding = Encoding::of(&body);
    let parsed = if body.len() <= INLINE_PARSE_BYTES {
        parse(&body, &limits)
    } else {
        let parse = move || parse(&body, &limits);
        state.pool.run(parse).await.map_err(|JobLost| HttpError::Internal)?
    };
    observation.stage(Stage::Parse, began);
    let call = parsed.map_err(HttpError::Invalid)?;
    let ticket = entered.admit(state, call.queries.len())?;
    let loaded = state.ready_by(ticket.deadline()).await.map_err(HttpError::NotReady)?;
    let reranker = loaded.reranker.as_ref().ok_or(HttpError::NoReranker)?;
    state.count_cut(&call.queries);
    if call.is_top_k_limited {
        state.count_limited();
    }
    let began = Instant::now();
    let scores = scores(reranker, &call, limits.max_query_bytes, Arc::new(ticket)).await;
    let began = observation.stage(Stage::Rerank, began);
    state.count_queries(&scores);
    if let Some(error) = failure(&scores, call.is_partial) {
        return Err(error);
    }
    let write = move || respond::encode(encoding, &response(call, scores));
    let bytes = state.pool.run(write).await.map_err(|JobLost| HttpError::Internal)?;
    observation.stage(Stage::Render, began);
    bytes.map(|bytes| respond::encoded(encoding, bytes)).ok_or(HttpError::Internal)
}

/// Scores the documents of each query. A query that is too long is cut.
async fn scores(
    reranker: &Reranker,
    call: &Call,
    max_query_bytes: usize,
    ticket: Arc<Ticket>,
) -> Vec<Scores> {
    let _guard = AbandonOnDrop(Arc::clone(&ticket));
    let turn = match ticket.turn(call.queries.len()).await {
        Ok(turn) => turn,
        Err(fault) => return call.queries.iter().map(|_| Err(fault)).collect(),
    };
    let queries = call.queries.iter().map(|query| cut(query, max_query_bytes).to_owned()).collect();
    let texts = call
        .documents
        .iter()
        .map(|documents| documents.iter().map(|document| contents(document).to_owned()).collect());
    reranker.score_texts(queries, texts.collect(), turn).await
}

/// Sorts the documents of each query by their scores.
fn response(call: Call, scores: Vec<Scores>) -> RerankResponse {
    let Call { documents, top_k, with_scores, .. } = call;
    let errors = errors(&scores);
    let ranked = |(documents, scores): (Vec<Map<String, Value>>, Scores)| {
        let Ok(scores) = scores else { return Vec::new() };
        let mut documents: Vec<Option<_>> = documents.into_iter().map(Some).collect();
        let best = order(&scores).into_iter().take(top_k).map(|index| {
            let document = documents[index].take().expect("an order has every index once");
            let score = scores[index].expect("a text is left out only if its query fails");
            if with_scores {
                Ranked::Scored { document, score: f64::from(score) }
            } else {
                Ranked::Bare(document)
            }
        });
        best.collect()
    };
    RerankResponse { result: documents.into_iter().zip(scores).map(ranked).collect(), errors }
}

/// Returns the text of a document, which [`document`] has checked.
fn contents(document: &Map<String, Value>) -> &str {
    document["contents"].as_str().expect("only documents with a text are accepted")
}

/// Parses a request.
fn parse(body: &[u8], limits: &RequestLimits) -> Result<Call, Vec<ValidationError>> {
    let mut fields = object(body).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let queries = if let Some(queries) = fields.get("queries") {
        query_list("queries", queries, limits, &mut faults)
    } else {
        let message = "field required: queries, a list of strings";
        faults.push(fault(&["queries"], None, message, "missing"));
        Vec::new()
    };
    let top_k = top_k(&fields, TOP_K_KEY, limits, &mut faults);
    let with_scores = is_true(&fields, "return_scores", &mut faults);
    let is_partial = is_true(&fields, "partial", &mut faults);
    let queries_fit = faults.iter().all(|fault| !fault.loc.contains(&key("queries")));
    let count = queries_fit.then_some(queries.len());
    let documents = fields.remove("documents");
    let documents = document_lists(documents, count, limits, &mut faults);
    if faults.is_empty() {
        let TopK { passages: top_k, is_limited: is_top_k_limited } = top_k;
        let queries = queries.into();
        Ok(Call { queries, documents, top_k, is_top_k_limited, with_scores, is_partial })
    } else {
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }
}

/// Reads the lists of documents, one for each of `count` queries; `None` if their number is unknown.
fn document_lists(
    value: Option<Value>,
    count: Option<usize>,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> Vec<Vec<Map<String, Value>>> {
    let mut note = |message: String, kind: &str| {
        faults.push(fault(&["documents"], None, &message, kind));
        Vec::new()
    };
    let lists = match value {
        None => {
            let message = "field required: documents, a list of documents for each query";
            return note(message.to_owned(), "missing");
        }
        Some(Value::Array(lists)) => lists,
        Some(other) => {
            let message = format!("is {}, expected a list of lists", kind_of(&other));
            return note(message, "list_type");
        }
    };
    if let Some(count) = count.filter(|&count| count != lists.len()) {
        let message = format!("has {} lists, expected {count} as queries", lists.len());
        return note(message, "length");
    }
    let total: usize = lists.iter().filter_map(Value::as_array).map(Vec::len).sum();
    let most = limits.max_rerank_documents;
    if total > most {
        return note(format!("has {total} documents, expected at most {most}"), "too_long");
    }
    let list = |(query, list): (usize, Value)| match list {
        Value::Array(documents) => documents
            .into_iter()
            .enumerate()
            .filter_map(|(index, value)| {
                document(value, query, index).map_err(|fault| faults.push(fault)).ok()
            })
            .collect(),
        other => {
            let message = format!("is {}, expected a list of documents", kind_of(&other));
            faults.push(fault(&["documents"], Some(query), &message, "list_type"));
            Vec::new()
        }
    };
    lists.into_iter().enumerate().map(list).collect()
}

/// Reads the document at `index` in the list of a query, without its wrapper.
fn document(
    value: Value,
    query: usize,
    index: usize,
) -> Result<Map<String, Value>, ValidationError> {
    let refuse = |keys: &[&str], message: String, kind: &str| {
        let mut refused = fault(&["documents"], Some(query), &message, kind);
        refused.loc.push(Location::Index(index));
        refused.loc.extend(keys.iter().map(|name| key(name)));
        Err(refused)
    };
    let (mut fields, mut keys) = match value {
        Value::Object(fields) => (fields, vec![]),
        other => {
            let message = format!("is {}, expected an object", kind_of(&other));
            return refuse(&[], message, "object_type");
        }
    };
    match fields.remove("document") {
        Some(Value::Object(inner)) => {
            fields = inner;
            keys.push("document");
        }
        Some(other) => {
            let message = format!("is {}, expected an object", kind_of(&other));
            return refuse(&["document"], message, "object_type");
        }
        None => {}
    }
    keys.push("contents");
    match fields.get("contents") {
        Some(Value::String(_)) => Ok(fields),
        Some(other) => {
            let message = format!("is {}, expected a string", kind_of(other));
            refuse(&keys, message, "string_type")
        }
        None => refuse(&keys, "field required: contents, a string".to_owned(), "missing"),
    }
}

fn key(name: &str) -> Location {
    Location::Key(name.to_owned())
}
