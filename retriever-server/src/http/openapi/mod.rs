//! The description of the interface in OpenAPI 3.1, made from the types of requests and responses.
//!
//! It describes what this server answers: without a re-ranker it has no `/rerank`, and with keys it says that they are
//! needed. Requests are described in the form of Search-R1; keys of other dialects are among the unknown ones.
//! The paths of other clients (`/search`, `/batch_search`, `/queries`, `/access`) are described in their own forms.

pub(super) mod retrieval;

use serde_json::{Value, json};
use shared::contract::wire::{ErrorBody, RetrieveResponse, ServerInfo, ValidationErrors};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr, SecurityRequirement};
use utoipa::{IntoResponses, OpenApi, ToSchema};

use super::Door;
use crate::config::ServeConfig;
use retrieval::{FoundDocument, truth, whole_number};

/// A document to rank: its text is `contents`, and it is returned as it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(super) struct RankedDocument {
    contents: String,
}

/// The body of `POST /rerank`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(super) struct RerankBody {
    /// The queries.
    queries: Vec<String>,
    /// The documents of each query: as many lists as queries.
    documents: Vec<Vec<RankedDocument>>,
    /// Documents per query; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    rerank_topk: usize,
    /// `true` if every document is to come with its score.
    #[schema(schema_with = truth, required = false)]
    return_scores: bool,
    /// `true` if queries may fail alone; else one that fails fails the request.
    #[schema(schema_with = truth, required = false)]
    partial: bool,
}

/// The answers to a request without a result.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(super) enum Failure {
    /// The body ended early, or the one query of `/search` is empty.
    #[response(status = 400)]
    Broken(ErrorBody),
    /// The body did not arrive in time.
    #[response(status = 408)]
    BodyTimeout(ErrorBody),
    /// The body is larger than the limit.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not a request; the faults are listed with their places.
    #[response(status = 422)]
    Invalid(ValidationErrors),
    /// A service behind the server refused a query, and would refuse it again.
    #[response(status = 424)]
    Refused(ErrorBody),
    /// The server failed.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The server is starting, ending or overloaded, or queries failed that may succeed later; `Retry-After` says when.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// The answer of a server that is starting or ending.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(super) enum NotReady {
    /// The server is starting or ending; `Retry-After` says when it may be ready.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "retriever-server", description = "Answers queries with passages of a corpus."),
    paths(
        super::retrieve::retrieve,
        super::retrieve::search,
        super::retrieve::batch_search,
        super::retrieve::queries,
        super::access::access,
        super::rerank::rerank,
        super::admin::livez,
        super::admin::readyz,
        super::admin::info,
        super::admin::stats,
        super::admin::metrics,
        super::admin::reload_index,
    ),
    components(schemas(ErrorBody, FoundDocument, RetrieveResponse, ServerInfo, ValidationErrors))
)]
struct Interface;

/// Returns the description of the routes of a door.
pub(super) fn document(config: &ServeConfig, door: Door) -> Value {
    let mut document = Interface::openapi();
    let service = &config.service;
    let (is_operators, keys) = match door {
        Door::Clients => (false, &service.files.keys),
        Door::Operators => (true, &service.files.admin_keys),
    };
    document.paths.paths.retain(|path, _| match path.as_str() {
        "/retrieve" | "/search" | "/batch_search" | "/queries" => !is_operators,
        "/access" => !is_operators && !config.backend.kind.is_remote(),
        "/rerank" => !is_operators && config.reranker.is_some(),
        "/metrics" => is_operators || service.admin_addr.is_none(),
        "/admin/reload" => is_operators,
        _ => true,
    });
    if keys.is_some() {
        require_keys(&mut document);
    }
    let mut document = serde_json::to_value(document).expect("a document has only text keys");
    let limit = json!(config.request.max_batch_queries);
    for path in [
        "ManyQueries/properties/queries",
        "OneQuery/properties/query/anyOf/1",
        "BatchSearchBody/properties/query",
        "QueriesBody/properties/queries",
        "AccessBody/properties/urls",
    ] {
        let list = document.pointer_mut(&format!("/components/schemas/{path}"));
        list.expect("the schema has this list")["maxItems"] = limit.clone();
    }
    let number = serde_json::to_value(whole_number()).expect("a schema has only text keys");
    let single = document.pointer_mut("/components/schemas/OneQuery");
    // Without `topk`, the number is read as rLLM names it: from `top_k`, and from `k` without that too.
    single.expect("the document has this schema")["anyOf"] = json!([
        {"required": ["topk"]},
        {"required": ["top_k"], "properties": {"top_k": number}},
        {"not": {"required": ["top_k"]}, "properties": {"k": number}},
    ]);
    document
}

/// Says that every route but the probes needs a key.
fn require_keys(document: &mut Document) {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let header = ApiKey::Header(ApiKeyValue::new("X-Api-Key"));
    components.add_security_scheme("header", SecurityScheme::ApiKey(header));
    let either = ["bearer", "header"].map(|name| SecurityRequirement::new(name, [""; 0]));
    for (path, item) in &mut document.paths.paths {
        if path == "/livez" || path == "/readyz" {
            continue;
        }
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.security = Some(either.to_vec());
            let description = "The request has no accepted key.";
            let response = utoipa::openapi::ResponseBuilder::new()
                .description(description)
                .content("application/json", error_content())
                .build();
            operation.responses.responses.insert("401".to_owned(), RefOr::T(response));
        }
    }
}

fn error_content() -> utoipa::openapi::Content {
    let reference = utoipa::openapi::Ref::from_schema_name("ErrorBody");
    utoipa::openapi::Content::new(Some(reference))
}
