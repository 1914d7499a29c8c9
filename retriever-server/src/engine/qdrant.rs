//! Qdrant, over its REST interface.
//!
//! A point's number is made from the passage's identifier, because Qdrant takes only integers and UUIDs; the
//! identifier itself is in the payload. The note is the collection's metadata (Qdrant 1.16 and later). While a
//! collection is loaded, its index is off; [`Engine::settle`] turns it on and waits for it.

use reqwest::header::HeaderName;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::contract::digest::Digest;

use super::http::{Body, Call, Http, Reply};
use super::{
    AnswersFuture, Engine, EngineAnswers, EngineConfig, EngineError, EngineFuture, Found, Note,
    Queries, Record, Search, fields,
};
use crate::query::Answer;

/// The key of the note in the metadata of a collection.
const NOTE: &str = "retriever_note";
/// The size of a segment, in kB of vectors, from which on Qdrant builds its index; its default.
const INDEXED_FROM_KB: u64 = 10_000;
/// Connections of a node of the graph, and candidates while it is built.
const CONNECTIONS: usize = 16;
const EF_CONSTRUCT: usize = 128;

/// A collection of Qdrant.
#[derive(Debug)]
pub(super) struct Qdrant {
    http: Http,
    config: EngineConfig,
}

impl Qdrant {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        let key = config.key.as_ref();
        let key = key.map(|key| (HeaderName::from_static("api-key"), key.expose().to_owned()));
        Ok(Self { http: Http::new(config, key)?, config: config.clone() })
    }

    /// Sends a request about the collection and returns the part `result` of its answer.
    async fn ask(
        &self,
        method: Method,
        action: &[&str],
        parameters: &[(&str, &str)],
        body: Body,
    ) -> Result<Value, EngineError> {
        let reply = self.send(method, action, parameters, body).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Err(self.config.missing());
        }
        let mut answer = self.http.parse(&reply)?;
        match answer["status"].as_str() {
            Some("ok") => Ok(answer["result"].take()),
            _ => Err(self.http.malformed(format!("its status is {}", answer["status"]))),
        }
    }

    async fn send(
        &self,
        method: Method,
        action: &[&str],
        parameters: &[(&str, &str)],
        body: Body,
    ) -> Result<Reply, EngineError> {
        let path = [&["collections", self.config.collection.as_str()], action].concat();
        self.http.send(Call { method, path: &path, parameters, body }).await
    }

    fn read(&self, result: &Value, count: usize) -> EngineAnswers {
        let Some(lists) = result.as_array().filter(|lists| lists.len() == count) else {
            let error =
                self.http.malformed(format!("no list of points for each of {count} queries"));
            return vec![Err(error); count];
        };
        let read = |list: &Value| {
            let Some(points) = list["points"].as_array() else {
                return Err(self.http.malformed("an entry without a list \"points\"".to_owned()));
            };
            let answers: Result<Vec<Answer>, String> = points.iter().map(hit).collect();
            answers.map_err(|reason| self.http.malformed(reason))
        };
        lists.iter().map(read).collect()
    }
}

fn hit(point: &Value) -> Result<Answer, String> {
    let passage = fields::passage(None, &point["payload"])?;
    Ok(Answer { passage, score: fields::score(&point["score"])? })
}

/// Returns the number of a point as a UUID of version 8 (RFC 9562), from the digest of the identifier.
fn point_id(id: &str) -> String {
    let digest = Digest::of_bytes(id.as_bytes()).to_string();
    let (version, variant) = ("8", "a");
    format!(
        "{}-{}-{version}{}-{variant}{}-{}",
        &digest[..8],
        &digest[8..12],
        &digest[12..15],
        &digest[15..18],
        &digest[18..30]
    )
}

impl Engine for Qdrant {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async move {
            let reply = self.send(Method::GET, &[], &[], Body::Nothing).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(Found::Nothing);
            }
            let collection = self.http.parse(&reply)?;
            let note = &collection["result"]["config"]["metadata"][NOTE];
            let note = serde_json::from_value(note.clone()).ok();
            Ok(note.map_or(Found::Foreign, Found::Ours))
        })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = json!({
                "vectors": {"size": note.dimension, "distance": "Dot"},
                "hnsw_config": {"m": CONNECTIONS, "ef_construct": EF_CONSTRUCT},
                "optimizers_config": {"indexing_threshold": 0},
                "metadata": {NOTE: note},
            });
            self.ask(Method::PUT, &[], &[], Body::Json(body)).await.map(drop)?;
            // An older Qdrant ignores the metadata, and then nothing says what the vectors are.
            if let Found::Ours(_) = self.find().await? {
                Ok(())
            } else {
                self.remove().await?;
                let reason = "it keeps no metadata of a collection: Qdrant 1.16 or later is needed";
                Err(self.http.refused(reason.to_owned()))
            }
        })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move { self.ask(Method::DELETE, &[], &[], Body::Nothing).await.map(drop) })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let points: Vec<Value> = records
                .iter()
                .map(|Record { passage, vector }| {
                    json!({
                        "id": point_id(&passage.id),
                        "vector": vector,
                        "payload": fields::of(passage),
                    })
                })
                .collect();
            let body = Body::Json(json!({"points": points}));
            // Without `wait`, the answer comes before the points are stored.
            let done = self.ask(Method::PUT, &["points"], &[("wait", "true")], body).await?;
            match done["status"].as_str() {
                Some("completed") => Ok(()),
                _ => Err(self.http.unavailable(format!("the points are {}", done["status"]), None)),
            }
        })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async move {
            let body = json!({"optimizers_config": {"indexing_threshold": INDEXED_FROM_KB}});
            self.ask(Method::PATCH, &[], &[], Body::Json(body)).await?;
            let state = self.ask(Method::GET, &[], &[], Body::Nothing).await?;
            // Grey waits for the first update after a restart; both mean that the index is not whole.
            if let Some(colour @ ("yellow" | "grey")) = state["status"].as_str() {
                return Err(self
                    .http
                    .unavailable(format!("it still builds its index (status {colour})"), None));
            }
            if state["status"] != "green" {
                return Err(self.http.refused(format!(
                    "the collection's status is {}: {}",
                    state["status"], state["optimizer_status"]
                )));
            }
            let body = Body::Json(json!({"exact": true}));
            let count = self.ask(Method::POST, &["points", "count"], &[], body).await?;
            let found = count["count"].as_u64();
            found.ok_or_else(|| self.http.malformed(format!("the count is {count}")))
        })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = Body::Json(json!({"metadata": {NOTE: note}}));
            self.ask(Method::PATCH, &[], &[], body).await.map(drop)
        })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a> {
        Box::pin(async move {
            let count = queries.len();
            let asked = async {
                let vectors = queries.vectors(self.config.kind)?.iter();
                let searches: Vec<Value> = vectors
                    .map(|vector| {
                        json!({
                            "query": vector,
                            "limit": search.top_k,
                            "with_payload": true,
                            "params": {"hnsw_ef": search.ef.max(search.top_k)},
                        })
                    })
                    .collect();
                // Seconds, at least one; Qdrant then ends the search itself.
                let limit = search.limit.as_secs().max(1).to_string();
                let (action, parameters) =
                    (["points", "query", "batch"], [("timeout", limit.as_str())]);
                let body = Body::Json(json!({"searches": searches}));
                self.ask(Method::POST, &action, &parameters, body).await
            };
            match asked.await {
                Ok(result) => self.read(&result, count),
                Err(error) => vec![Err(error); count],
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_point_is_a_uuid_that_depends_on_the_identifier() {
        // SHA-256 of "a" begins with ca978112ca1bbdcafac231b39a23dc4d.
        assert_eq!(point_id("a"), "ca978112-ca1b-8bdc-aafa-c231b39a23dc");
        assert_ne!(point_id("a"), point_id("b"));
    }
}
