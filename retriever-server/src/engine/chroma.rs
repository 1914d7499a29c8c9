//! Chroma, over its REST interface of version 2.
//!
//! A collection has the exact vectors and a graph over them, which Chroma keeps up to date by itself. The note is
//! the collection's metadata. The address may name a tenant and a database: `/api/v2/tenants/T/databases/D`.

use reqwest::header::HeaderName;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::http::{Body, Call, Http};
use super::{
    AnswersFuture, Engine, EngineAnswers, EngineConfig, EngineError, EngineFuture, Found, Note,
    Queries, Record, Search, fields,
};
use crate::query::Answer;

/// The key of the note in the metadata of a collection.
const NOTE: &str = "retriever_note";
/// The path of the database that exists from the start.
const DEFAULT_DATABASE: [&str; 6] =
    ["api", "v2", "tenants", "default_tenant", "databases", "default_database"];
/// Candidates while the graph is built, and connections of its nodes.
const EF_CONSTRUCTION: usize = 200;
const MAX_NEIGHBOURS: usize = 32;

/// A collection of Chroma.
#[derive(Debug)]
pub(super) struct Chroma {
    http: Http,
    config: EngineConfig,
    /// The path of the database, below the address.
    database: Vec<&'static str>,
    /// The identifier of the collection, once it was found.
    id: OnceCell<String>,
}

impl Chroma {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        let key = config
            .key
            .as_ref()
            .map(|key| (HeaderName::from_static("x-chroma-token"), key.expose().to_owned()));
        let is_named = config.url.expose().path().contains("/databases/");
        let database = if is_named { Vec::new() } else { DEFAULT_DATABASE.to_vec() };
        let http = Http::new(config, key)?;
        Ok(Self { http, config: config.clone(), database, id: OnceCell::new() })
    }

    fn path<'a>(&'a self, below: &[&'a str]) -> Vec<&'a str> {
        [&self.database[..], &["collections"], below].concat()
    }

    /// Asks for the collection; `None` if there is none.
    async fn collection(&self) -> Result<Option<Value>, EngineError> {
        let path = self.path(&[&self.config.collection]);
        let reply = self.http.send(Call::new(Method::GET, &path)).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.http.parse(&reply).map(Some)
    }

    /// Returns the identifier of the collection, which requests name it by.
    async fn id(&self) -> Result<&str, EngineError> {
        let ask = async || {
            let collection = self.collection().await?.ok_or_else(|| self.config.missing())?;
            self.id_in(&collection)
        };
        self.id.get_or_try_init(ask).await.map(String::as_str)
    }

    fn id_in(&self, collection: &Value) -> Result<String, EngineError> {
        let id = collection["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| self.http.malformed("a collection without \"id\"".to_owned()))
    }

    /// Sends a request about the collection. One that was made again has another identifier.
    async fn ask(&self, method: Method, action: &[&str], body: Body) -> Result<Value, EngineError> {
        let id = self.id().await?;
        let path = self.path(&[&[id], action].concat());
        let reply = self.http.send(Call { method, path: &path, parameters: &[], body }).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Err(self.config.missing());
        }
        self.http.parse(&reply)
    }

    fn read(&self, reply: &Value, count: usize) -> EngineAnswers {
        let lists = |name: &str| {
            let lists = reply[name].as_array().filter(|lists| lists.len() == count);
            lists.ok_or_else(|| {
                self.http.malformed(format!(
                    "no list {name:?} with an entry for each of {count} queries"
                ))
            })
        };
        let read = || -> Result<EngineAnswers, EngineError> {
            let (ids, documents) = (lists("ids")?, lists("documents")?);
            let (distances, metadatas) = (lists("distances")?, lists("metadatas")?);
            let lists = ids.iter().zip(documents).zip(distances).zip(metadatas);
            let answers = lists.map(|(((ids, documents), distances), metadatas)| {
                let hits = ids.as_array().map_or(0, Vec::len);
                let hit = |n: usize| hit(&ids[n], &documents[n], &distances[n], &metadatas[n]);
                let answers: Result<Vec<Answer>, String> = (0..hits).map(hit).collect();
                answers.map_err(|reason| self.http.malformed(reason))
            });
            Ok(answers.collect())
        };
        read().unwrap_or_else(|error| vec![Err(error); count])
    }
}

fn hit(id: &Value, document: &Value, distance: &Value, metadata: &Value) -> Result<Answer, String> {
    let mut record = metadata.as_object().cloned().unwrap_or_default();
    if !document.is_null() {
        record.insert(fields::CONTENTS.to_owned(), document.clone());
    }
    let passage = fields::passage(id.as_str(), &Value::Object(record))?;
    // The distance of inner products is 1 minus the product.
    Ok(Answer { passage, score: 1.0 - fields::score(distance)? })
}

/// Returns the settings of a collection's graph.
fn graph(ef: usize) -> Value {
    json!({
        "hnsw": {
            "space": "ip",
            "ef_construction": EF_CONSTRUCTION,
            "ef_search": ef,
            "max_neighbors": MAX_NEIGHBOURS,
        }
    })
}

fn metadata(note: &Note) -> Value {
    let text = serde_json::to_string(note).expect("a note has no map with odd keys");
    json!({NOTE: text})
}

impl Engine for Chroma {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async move {
            let Some(collection) = self.collection().await? else { return Ok(Found::Nothing) };
            let note = collection["metadata"][NOTE].as_str().map(serde_json::from_str::<Note>);
            Ok(note.and_then(Result::ok).map_or(Found::Foreign, Found::Ours))
        })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = json!({
                "name": self.config.collection,
                "metadata": metadata(note),
                "configuration": graph(self.config.ef),
            });
            let path = self.path(&[]);
            let collection = self.http.ask(Call::new(Method::POST, &path).with(body)).await?;
            // An engine that was searched before its collection was made would keep the old identifier.
            let id = self.id_in(&collection)?;
            self.id.get_or_init(async || id).await;
            Ok(())
        })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let path = self.path(&[&self.config.collection]);
            self.http.ask(Call::new(Method::DELETE, &path)).await.map(drop)
        })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let ids: Vec<&str> = records.iter().map(|record| record.passage.id.as_str()).collect();
            let vectors: Vec<&[f32]> = records.iter().map(|record| &record.vector[..]).collect();
            let documents: Vec<&str> =
                records.iter().map(|record| record.passage.contents.as_str()).collect();
            let metadatas = records.iter().map(|record| {
                let set = fields::optional(&record.passage).into_iter();
                let set = set.filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
                let set: Map<String, Value> = set.collect();
                // Chroma refuses metadata without an entry.
                if set.is_empty() { Value::Null } else { Value::Object(set) }
            });
            let body = json!({
                "ids": ids,
                "embeddings": vectors,
                "documents": documents,
                "metadatas": metadatas.collect::<Vec<_>>(),
            });
            self.ask(Method::POST, &["upsert"], Body::Json(body)).await.map(drop)
        })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async move {
            let count = self.ask(Method::GET, &["count"], Body::Nothing).await?;
            count.as_u64().ok_or_else(|| self.http.malformed(format!("the count is {count}")))
        })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let body = Body::Json(json!({"new_metadata": metadata(note)}));
            self.ask(Method::PUT, &[], body).await.map(drop)
        })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a> {
        Box::pin(async move {
            let count = queries.len();
            let asked = async {
                let vectors = queries.vectors(self.config.kind)?;
                let body = json!({
                    "query_embeddings": vectors,
                    "n_results": search.top_k,
                    "include": ["documents", "distances", "metadatas"],
                });
                self.ask(Method::POST, &["query"], Body::Json(body)).await
            };
            match asked.await {
                Ok(reply) => self.read(&reply, count),
                Err(error) => vec![Err(error); count],
            }
        })
    }
}
