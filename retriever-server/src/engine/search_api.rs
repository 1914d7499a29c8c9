//! The `_search` protocol of OpenSearch, Elasticsearch and Quickwit: BM25 over words.
//!
//! Queries of a batch travel in one `_msearch`, each answered or failed on its own. The note is in `_meta` of the
//! mapping. Quickwit is searched but not loaded: it keeps no identifiers, so a load that was repeated would store
//! passages twice.
//!
//! **Invariant:** a list that timed out, or that only some shards contributed to, is a failure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::http::{Body, Call, Http, shown};
use super::{
    AnswersFuture, Engine, EngineConfig, EngineError, EngineFuture, EngineKind, Found, Note,
    Queries, Record, Search, fields,
};
use crate::lexical::bm25::Bm25Parameters;
use crate::query::Answer;

/// The key of the note in the mapping.
const NOTE: &str = "retriever_note";
/// The most words of a query that are searched for. Engines refuse a query of more than 1024 different words.
const MAX_WORDS: usize = 512;
/// The longest identifier of a document, a limit of the engines.
const MAX_ID_BYTES: usize = 512;

/// An index of an engine.
#[derive(Debug)]
pub(super) struct SearchApi {
    http: Http,
    config: EngineConfig,
}

impl SearchApi {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        let key = config.key.as_ref().map(|key| (AUTHORIZATION, authorization(key.expose())));
        Ok(Self { http: Http::new(config, key)?, config: config.clone() })
    }

    async fn ask(&self, method: Method, action: &[&str], body: Body) -> Result<Value, EngineError> {
        self.ask_with(method, action, &[], body).await
    }

    async fn ask_with(
        &self,
        method: Method,
        action: &[&str],
        parameters: &[(&str, &str)],
        body: Body,
    ) -> Result<Value, EngineError> {
        let path = [&[self.config.collection.as_str()], action].concat();
        let reply = self.http.send(Call { method, path: &path, parameters, body }).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Err(self.config.missing());
        }
        self.http.parse(&reply)
    }

    fn loads(&self) -> Result<(), EngineError> {
        if self.config.kind == EngineKind::Quickwit {
            let reason = "quickwit keeps no identifiers, so a load that is repeated would store passages \
                          twice: load it with `quickwit index ingest`, as docs/engines.md describes";
            return Err(EngineError::Unfit(reason.to_owned()));
        }
        Ok(())
    }

    /// Reads the outcome of one query.
    fn outcome(&self, response: &Value) -> Result<Vec<Answer>, EngineError> {
        if !response["error"].is_null() {
            return Err(self.failed(response));
        }
        let (shards, failed) = (&response["_shards"], response["_shards"]["failed"].as_u64());
        if response["timed_out"] == true {
            return Err(self
                .http
                .unavailable("the search timed out in the engine".to_owned(), None));
        }
        if failed.unwrap_or(0) > 0 {
            let (total, reason) = (&shards["total"], &shards["failures"][0]["reason"]);
            let reason = format!(
                "{} of {total} shards failed: {}",
                shards["failed"],
                shown(&reason.to_string())
            );
            return Err(self.http.unavailable(reason, None));
        }
        let Some(hits) = response["hits"]["hits"].as_array() else {
            return Err(self.http.malformed("an answer without a list \"hits.hits\"".to_owned()));
        };
        let hit = |hit: &Value| -> Result<Answer, String> {
            // Quickwit's `_id` is a position, not the identifier of the passage.
            let is_own = self.config.kind == EngineKind::Quickwit;
            let id = hit["_id"].as_str().filter(|_| !is_own);
            let passage = fields::passage(id, &hit["_source"])?;
            Ok(Answer { passage, score: fields::score(&hit["_score"])? })
        };
        let answers: Result<Vec<Answer>, String> = hits.iter().map(hit).collect();
        answers.map_err(|reason| self.http.malformed(reason))
    }

    /// Returns the error of one query, by the status in its answer.
    fn failed(&self, response: &Value) -> EngineError {
        let (status, error) = (response["status"].as_u64().unwrap_or(0), &response["error"]);
        if status == 404 && error["type"] == "index_not_found_exception" {
            return self.config.missing();
        }
        let reason = format!("status {status}: {}", reason(error));
        match status {
            408 | 429 | 500 | 502 | 503 | 504 => self.http.unavailable(reason, None),
            _ => self.http.refused(reason),
        }
    }
}

/// Returns the value of the header that a key belongs in: of a user with a password, or of an API key.
fn authorization(key: &str) -> String {
    if key.contains(':') {
        format!("Basic {}", BASE64_STANDARD.encode(key))
    } else {
        format!("ApiKey {key}")
    }
}

/// Returns type and reason of an error.
fn reason(error: &Value) -> String {
    match (error["type"].as_str(), error["reason"].as_str()) {
        (Some(kind), Some(reason)) => shown(&format!("{kind}: {reason}")),
        _ => shown(&error.to_string()),
    }
}

/// Returns the first words of a query, so that no engine finds too many in it.
fn words(query: &str) -> &str {
    let cut = query.split_whitespace().nth(MAX_WORDS);
    let start = cut.map(|word| word.as_ptr().addr() - query.as_ptr().addr());
    &query[..start.unwrap_or(query.len())]
}

/// Returns the settings of an index: words as this program's own index has them, and the same formula.
fn settings(note: &Note) -> Value {
    let formula = Bm25Parameters::default();
    let (k1, b) = (formula.k1(), formula.b());
    let stored = json!({"type": "keyword", "index": false, "doc_values": false});
    let properties = json!({
        fields::CONTENTS: {"type": "text", "analyzer": "english"},
        fields::ID: stored,
        fields::TITLE: stored,
        fields::TEXT: stored,
        fields::URL: stored,
    });
    json!({
        "settings": {"index": {"similarity": {"default": {"type": "BM25", "k1": k1, "b": b}}}},
        "mappings": {"_meta": {NOTE: note}, "dynamic": false, "properties": properties},
    })
}

/// Returns the body of a bulk request.
fn bulk(records: &[Record]) -> Result<String, EngineError> {
    let mut lines = String::new();
    for Record { passage, .. } in records {
        let bytes = passage.id.len();
        if bytes > MAX_ID_BYTES {
            let start: String = passage.id.chars().take(40).collect();
            return Err(EngineError::Unfit(format!(
                "the identifier {start:?}… has {bytes} bytes, and the engine takes at most {MAX_ID_BYTES}"
            )));
        }
        let fields = Value::Object(fields::of(passage));
        lines.extend([json!({"index": {"_id": passage.id}}).to_string(), format!("\n{fields}\n")]);
    }
    Ok(lines)
}

impl Engine for SearchApi {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async move {
            if self.config.kind == EngineKind::Quickwit {
                // Quickwit has no mapping to ask for; a search shows if the index exists.
                let body = Body::Json(json!({"query": {"match_all": {}}, "size": 0}));
                return match self.ask(Method::POST, &["_search"], body).await {
                    Err(EngineError::Missing { .. }) => Ok(Found::Nothing),
                    other => other.map(|_| Found::Foreign),
                };
            }
            let mapping = match self.ask(Method::GET, &["_mapping"], Body::Nothing).await {
                Err(EngineError::Missing { .. }) => return Ok(Found::Nothing),
                other => other?,
            };
            // Behind an alias, the answer has the name of the index itself.
            let index = mapping.as_object().and_then(|indexes| indexes.values().next());
            let note = index.map(|index| index["mappings"]["_meta"][NOTE].clone());
            let note = note.and_then(|note| serde_json::from_value(note).ok());
            Ok(note.map_or(Found::Foreign, Found::Ours))
        })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            self.loads()?;
            self.ask(Method::PUT, &[], Body::Json(settings(note))).await.map(drop)
        })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            self.loads()?;
            self.ask(Method::DELETE, &[], Body::Nothing).await.map(drop)
        })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = Body::Lines(bulk(records)?);
            let answer = self.ask(Method::POST, &["_bulk"], body).await?;
            let Some(items) =
                answer["items"].as_array().filter(|items| items.len() == records.len())
            else {
                let reason = format!(
                    "no list \"items\" with an entry for each of {} records",
                    records.len()
                );
                return Err(self.http.malformed(reason));
            };
            let status = |item: &Value| item["index"]["status"].as_u64().unwrap_or(0);
            let is_stored = |item: &Value| (200..300).contains(&status(item));
            let failed: Vec<usize> = (0..items.len()).filter(|&n| !is_stored(&items[n])).collect();
            // The worst failure decides: rows that are refused for good must not hide behind rows that may be
            // sent again.
            let is_passing = |n: &usize| matches!(status(&items[*n]), 429 | 503);
            let Some(&first) = failed.iter().find(|n| !is_passing(n)).or(failed.first()) else {
                return Ok(());
            };
            Err(EngineError::Partial {
                engine: self.config.kind.name(),
                stored: records.len() - failed.len(),
                sent: records.len(),
                id: records[first].passage.id.clone(),
                reason: format!(
                    "status {}: {}",
                    status(&items[first]),
                    reason(&items[first]["index"]["error"])
                ),
                retryable: failed.iter().all(is_passing),
            })
        })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async move {
            self.ask(Method::POST, &["_refresh"], Body::Nothing).await?;
            let count = self.ask(Method::GET, &["_count"], Body::Nothing).await?;
            if count["_shards"]["failed"].as_u64().unwrap_or(0) > 0 {
                return Err(self.http.unavailable("some shards cannot count".to_owned(), None));
            }
            let found = count["count"].as_u64();
            found.ok_or_else(|| self.http.malformed(format!("the count is {count}")))
        })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = Body::Json(json!({"_meta": {NOTE: note}}));
            self.ask(Method::PUT, &["_mapping"], body).await.map(drop)
        })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a> {
        Box::pin(async move {
            let count = queries.len();
            let Queries::Words(texts) = queries else {
                let reason = format!("{} searches words, not vectors", self.config.kind.name());
                return vec![Err(EngineError::Unfit(reason)); count];
            };
            let header = json!({"index": self.config.collection});
            let lines = texts.iter().map(|text| {
                let query = json!({"match": {fields::CONTENTS: {"query": words(text)}}});
                format!("{header}\n{}\n", json!({"query": query, "size": search.top_k}))
            });
            let path = ["_msearch"];
            let body = Body::Lines(lines.collect());
            let call = Call { method: Method::POST, path: &path, parameters: &[], body };
            let reply = match self.http.ask(call).await {
                Ok(reply) => reply,
                Err(error) => return vec![Err(error); count],
            };
            if let Some(responses) =
                reply["responses"].as_array().filter(|responses| responses.len() == count)
            {
                responses.iter().map(|one| self.outcome(one)).collect()
            } else {
                let reason =
                    format!("no list \"responses\" with an entry for each of {count} queries");
                vec![Err(self.http.malformed(reason)); count]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_a_user_or_of_an_application() {
        assert_eq!(authorization("elastic:secret"), "Basic ZWxhc3RpYzpzZWNyZXQ=");
        assert_eq!(authorization("VnVhQ2ZHY0JD"), "ApiKey VnVhQ2ZHY0JD");
    }

    #[test]
    fn only_so_many_words_are_searched_for() {
        let long = vec!["réservoir"; MAX_WORDS + 5].join(" ");
        assert_eq!(words(&long).split_whitespace().count(), MAX_WORDS);
        assert_eq!(words("two words"), "two words");
        assert_eq!(words(""), "");
    }

    #[test]
    fn an_identifier_that_the_engine_would_refuse_is_named() {
        let passage = shared::contract::passage::Passage::new("x".repeat(600), "text");
        let error = bulk(&[Record { passage, vector: Vec::new() }]).unwrap_err().to_string();
        assert!(error.contains("has 600 bytes, and the engine takes at most 512"), "{error}");
    }
}
