//! The bodies of the routes that search, as the description has them: Search-R1's and those of other clients.

use serde_json::{Value, json};
use shared::contract::wire::{QueryError, RetrieveResponse};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

/// The place of the schema of a document.
const DOCUMENT: &str = "#/components/schemas/FoundDocument";

/// Several queries in one request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct ManyQueries {
    /// The queries, in the order of their results. A list of none is answered with none.
    queries: Vec<String>,
    /// Passages per query; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    topk: usize,
    /// `true` if every passage is to come with its score.
    #[schema(schema_with = truth, required = false)]
    return_scores: bool,
    /// `true` if queries may fail alone; else one that fails fails the request.
    #[schema(schema_with = truth, required = false)]
    partial: bool,
}

/// One query, or several under the key of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct OneQuery {
    /// The query, or a list of queries.
    #[schema(schema_with = text_or_texts)]
    query: String,
    /// Absent or null: otherwise it is read in place of `query`.
    #[schema(schema_with = nothing, required = false)]
    queries: (),
    /// Passages per query; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    topk: usize,
    /// `true` if every passage is to come with its score.
    #[schema(schema_with = truth, required = false)]
    return_scores: bool,
    /// `true` if queries may fail alone; else one that fails fails the request.
    #[schema(schema_with = truth, required = false)]
    partial: bool,
}

/// The body of `POST /retrieve`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is only described")]
pub(in crate::http) enum RetrieveBody {
    Many(ManyQueries),
    One(OneQuery),
}

/// The answer to one query that asks for `top_k` or `k` passages, as rLLM does.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct NamedAnswer {
    query: String,
    method: String,
    results: Vec<NamedPassage>,
    num_results: usize,
    #[schema(required = false)]
    errors: Vec<QueryError>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct NamedPassage {
    id: String,
    content: String,
    score: f64,
}

/// The answer to `POST /retrieve`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is only described")]
pub(in crate::http) enum RetrieveAnswer {
    Lists(RetrieveResponse),
    Named(NamedAnswer),
}

/// The body of `POST /search`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct SearchBody {
    /// The query, which has more than white space.
    #[schema(pattern = r"\S")]
    query: String,
    /// Documents to return; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    top_n: usize,
    /// `true` if the scores are to follow the documents.
    #[schema(schema_with = truth, required = false)]
    return_score: bool,
}

/// The body of `POST /batch_search`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct BatchSearchBody {
    /// The queries.
    query: Vec<String>,
    /// Documents per query; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    top_n: usize,
    /// `true` if the scores are to follow the documents.
    #[schema(schema_with = truth, required = false)]
    return_score: bool,
}

/// A passage as ReCall and ReSearch read it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct FoundDocument {
    id: String,
    contents: String,
}

/// The answer to `POST /search`: documents, or documents and scores.
pub(in crate::http) struct SearchAnswer;

impl PartialSchema for SearchAnswer {
    fn schema() -> RefOr<Schema> {
        documents_or_pair(&json!({"$ref": DOCUMENT}), &json!({"type": "number"}))
    }
}

impl ToSchema for SearchAnswer {}

/// The answer to `POST /batch_search`: the documents of each query, or these and their scores.
pub(in crate::http) struct BatchSearchAnswer;

impl PartialSchema for BatchSearchAnswer {
    fn schema() -> RefOr<Schema> {
        documents_or_pair(&list(&json!({"$ref": DOCUMENT})), &list(&json!({"type": "number"})))
    }
}

impl ToSchema for BatchSearchAnswer {}

/// The body of `POST /queries`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct QueriesBody {
    /// The queries.
    queries: Vec<String>,
    /// Texts per query; absent, null or 0 is the server's default.
    #[schema(schema_with = whole_number, required = false)]
    k: usize,
}

/// The answer to `POST /queries`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct QueriesAnswer {
    /// The queries of the request.
    queries: Vec<String>,
    /// The texts of each query, each with its number and a tab in front.
    answers: Vec<Vec<String>>,
}

/// The body of `POST /access`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are only described")]
pub(in crate::http) struct AccessBody {
    /// The addresses of pages.
    urls: Vec<String>,
}

/// Describes a list of documents, or a list of two lists: of documents and of their scores. Two queries that find nothing
/// have an answer that is both.
fn documents_or_pair(document: &Value, score: &Value) -> RefOr<Schema> {
    let documents = list(document);
    let either = json!({"anyOf": [documents, list(score)]});
    let pair = json!({"type": "array", "minItems": 2, "maxItems": 2, "items": either});
    schema(json!({"anyOf": [documents, pair]}))
}

fn list(item: &Value) -> Value {
    json!({"type": "array", "items": item})
}

fn schema(value: Value) -> RefOr<Schema> {
    serde_json::from_value(value).expect("the description is a schema")
}

/// Describes a whole number in the forms that are read as one.
pub(super) fn whole_number() -> RefOr<Schema> {
    schema(json!({"anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[ \t\n\r]*(\+?[0-9]+(_[0-9]+)*(\.0+)?|-0+(\.0+)?)[ \t\n\r]*$"},
        {"type": "boolean"},
        {"type": "null"},
    ]}))
}

/// Describes a truth value in the forms that are read as one.
pub(super) fn truth() -> RefOr<Schema> {
    let pattern = r"^([01]|[oO][nN]|[oO][fF][fF]|[tT]([rR][uU][eE])?|[fF]([aA][lL][sS][eE])?|[yY]([eE][sS])?|[nN][oO]?)$";
    schema(json!({"anyOf": [
        {"type": "boolean"},
        {"type": "integer", "enum": [0, 1]},
        {"type": "string", "pattern": pattern},
        {"type": "null"},
    ]}))
}

fn text_or_texts() -> RefOr<Schema> {
    schema(json!({"anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
    ]}))
}

fn nothing() -> RefOr<Schema> {
    schema(json!({"type": "null"}))
}
