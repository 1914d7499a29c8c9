//! Milvus and milvus-lite, over gRPC.
//!
//! The project's client crate of Milvus is not used: it has 91,000 lines, brings a second HTTP client, reports to
//! the server on its own, and cannot search servers before 2.4. The dozen messages that are needed are in
//! [`wire`] instead. Milvus' REST interface would not reach milvus-lite.
//!
//! The note is a property of the collection.

mod records;
mod wire;

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use serde_json::json;
use tokio::sync::OnceCell;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{
    AnswersFuture, Engine, EngineAnswers, EngineConfig, EngineError, EngineFuture, Found, Note,
    Queries, Record, Search, fields,
};
use crate::query::Answer;
use records::{EXTRA, NOTE, VECTOR, check, extra, hit, noted, pair, schema, texts};
use wire::{DataType, FieldData, FieldValues, Outcome, ScalarData, Status};

/// Connections of a node of the graph, and candidates while it is built.
const GRAPH: &str = "{\"M\":16,\"efConstruction\":200}";
/// Longest time to open a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time after which a silent connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The levels of consistency: everything that was stored, or everything that was stored until some seconds ago. Below
/// that, a node answers from what it has taken in so far, which after a start or a load may be any part of the collection.
const STRONG: i32 = 0;
const BOUNDED: i32 = 2;

/// A collection of Milvus.
#[derive(Debug)]
pub(super) struct Milvus {
    config: EngineConfig,
    endpoint: Endpoint,
    channel: OnceCell<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    /// The database in the path of the address.
    database: Option<MetadataValue<Ascii>>,
}

impl Milvus {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        // An error means that a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = config.url.expose();
        let unfit =
            |reason: &str| EngineError::Unfit(format!("milvus at {}: {reason}", config.url));
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(19530);
        let address = format!("{}://{host}:{port}", url.scheme());
        let endpoint = Endpoint::from_shared(address).map_err(|_| unfit("this is no address"))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let endpoint = if url.scheme() == "https" {
            let tls = ClientTlsConfig::new().with_enabled_roots();
            endpoint.tls_config(tls).map_err(|_| unfit("TLS cannot be set up"))?
        } else {
            endpoint
        };
        let authorization = config.key.as_ref().map(|key| {
            let text = BASE64_STANDARD.encode(key.expose());
            let mut value: MetadataValue<Ascii> =
                text.parse().expect("base64 has only letters that a header may have");
            value.set_sensitive(true);
            value
        });
        let database = match url.path().trim_matches('/') {
            "" => None,
            name => Some(name.parse().map_err(|_| unfit("the path is no name of a database"))?),
        };
        Ok(Self {
            config: config.clone(),
            endpoint,
            channel: OnceCell::new(),
            authorization,
            database,
        })
    }

    fn name(&self) -> String {
        self.config.collection.clone()
    }

    /// Calls a method of the service. An answer whose status is a failure is an error.
    async fn call<Q, A>(&self, method: &str, message: Q) -> Result<A, EngineError>
    where
        Q: Message + Send + Sync + 'static,
        A: Outcome + Send + Sync,
    {
        // The connection is made, and made again, when it is needed.
        let channel = self.channel.get_or_init(async || self.endpoint.connect_lazy()).await;
        let mut client = Grpc::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        client
            .ready()
            .await
            .map_err(|error| self.unavailable(shared::machine::http::with_causes(&error)))?;
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        if let Some(value) = &self.database {
            request.metadata_mut().insert("dbname", value.clone());
        }
        let path = format!("/{}/{method}", wire::SERVICE);
        let path = PathAndQuery::try_from(path).expect("names of methods are paths");
        let codec = ProstCodec::<Q, A>::default();
        let answer = client.unary(request, path, codec).await;
        let answer = answer.map_err(|status| self.broken(&status))?.into_inner();
        match answer.status() {
            Some(status) if status.error_code != 0 || status.code != 0 => Err(self.failed(status)),
            // An empty status is left out on the wire.
            _ => Ok(answer),
        }
    }

    fn place(&self) -> (&'static str, String) {
        (self.config.kind.name(), self.config.url.to_string())
    }

    fn unavailable(&self, reason: String) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Unavailable { engine, url, reason, pause: None }
    }

    fn refused(&self, reason: String) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Refused { engine, url, reason }
    }

    fn malformed(&self, reason: impl Into<String>) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Malformed { engine, url, reason: reason.into() }
    }

    /// Returns the error of a call without an answer.
    fn broken(&self, status: &tonic::Status) -> EngineError {
        let mut reason = format!("{:?}: {}", status.code(), status.message());
        if let Some(source) = std::error::Error::source(status) {
            reason = format!("{reason}: {}", shared::machine::http::with_causes(source));
        }
        match status.code() {
            Code::ResourceExhausted if status.message().contains("larger than max") => {
                let (engine, url) = self.place();
                EngineError::TooLarge { engine, url, reason }
            }
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown => self.unavailable(reason),
            Code::Unauthenticated | Code::PermissionDenied => {
                let key = "RETRIEVER_ENGINE_KEY is missing, wrong, or may not do this";
                self.refused(format!("{key} ({reason})"))
            }
            _ => self.refused(reason),
        }
    }

    /// Returns the error of an answer. Newer servers number their errors in `code`, older ones in `error_code`.
    fn failed(&self, status: &Status) -> EngineError {
        const MISSING: (i32, i32) = (100, 4);
        const PASSING: [i32; 3] = [2, 3, 8];
        const PASSING_OLD: [i32; 7] = [48, 49, 53, 54, 55, 56, 57];
        let reason = format!("code {} ({}): {}", status.code, status.error_code, status.reason);
        let says_missing = status.reason.contains("can't find collection")
            || status.reason.contains("collection not found");
        if status.code == MISSING.0 || status.error_code == MISSING.1 || says_missing {
            return self.config.missing();
        }
        let is_passing = status.retriable
            || PASSING.contains(&status.code)
            || PASSING_OLD.contains(&status.error_code);
        if is_passing { self.unavailable(reason) } else { self.refused(reason) }
    }

    /// Counts the records. All that were stored count.
    async fn count(&self) -> Result<u64, EngineError> {
        let request = wire::QueryRequest {
            collection_name: self.name(),
            output_fields: vec!["count(*)".to_owned()],
            consistency_level: STRONG,
            ..wire::QueryRequest::default()
        };
        let results: wire::QueryResults = self.call("Query", request).await?;
        let count = results.fields.iter().find_map(|field| match &field.values {
            Some(FieldValues::Scalars(wire::Scalars { data: Some(ScalarData::Longs(longs)) })) => {
                longs.data.first().copied()
            }
            _ => None,
        });
        let count = count.ok_or_else(|| self.malformed("a count without a number"))?;
        Ok(count as u64)
    }

    /// Waits until everything that was stored is in the index and in memory.
    async fn indexed(&self) -> Result<(), EngineError> {
        let request = wire::DescribeIndex {
            collection_name: self.name(),
            field_name: VECTOR.to_owned(),
            ..wire::DescribeIndex::default()
        };
        let described: wire::DescribedIndex = self.call("DescribeIndex", request).await?;
        for index in &described.descriptions {
            const FAILED: i32 = 4;
            if index.state == FAILED {
                return Err(self.refused(format!("the index failed: {}", index.fail_reason)));
            }
            // Milvus keeps no total, or an old one, for segments that are still growing.
            if index.pending_rows > 0 || index.indexed_rows < index.total_rows {
                let (done, total) = (index.indexed_rows, index.total_rows);
                return Err(self.unavailable(format!("{done} of {total} rows are indexed")));
            }
        }
        Ok(())
    }

    async fn load_collection(&self) -> Result<(), EngineError> {
        let request = wire::LoadCollection { collection_name: self.name(), replica_number: 1 };
        self.call::<_, Status>("LoadCollection", request).await?;
        let request = wire::GetLoadingProgress { collection_name: self.name() };
        let loading: wire::LoadingProgress = self.call("GetLoadingProgress", request).await?;
        if loading.progress < 100 {
            let progress = loading.progress;
            return Err(self.unavailable(format!("{progress} % of the collection are in memory")));
        }
        Ok(())
    }

    fn read(&self, data: wire::ResultData, count: usize) -> Result<EngineAnswers, EngineError> {
        let ids = data.ids.and_then(|ids| ids.strings).unwrap_or_default().data;
        let total: i64 = data.counts.iter().sum();
        let hits = data.scores.len();
        if data.counts.len() != count || total != hits as i64 || ids.len() != hits {
            return Err(self.malformed(format!(
                "{} lists for {count} queries, {total} hits, {hits} scores, {} identifiers",
                data.counts.len(),
                ids.len()
            )));
        }
        let texts = |name: &str| {
            let field = data.fields.iter().find(|field| field.field_name == name);
            match field.and_then(|field| field.values.as_ref()) {
                Some(FieldValues::Scalars(wire::Scalars {
                    data: Some(ScalarData::Strings(texts)),
                })) if texts.data.len() == hits => Ok(&texts.data),
                // Without a hit, fields may be left out.
                _ if hits == 0 => Ok(&ids),
                _ => Err(self.malformed(format!("no text {name:?} for each of {hits} hits"))),
            }
        };
        let (contents, extra) = (texts(fields::CONTENTS)?, texts(EXTRA)?);
        let mut next = 0;
        let list = |&count: &i64| {
            let rows = next..next + count as usize;
            next = rows.end;
            let hit = |row: usize| hit(&ids[row], &contents[row], &extra[row], data.scores[row]);
            let answers: Result<Vec<Answer>, String> = rows.map(hit).collect();
            answers.map_err(|reason| self.malformed(reason))
        };
        Ok(data.counts.iter().map(list).collect())
    }
}

impl Engine for Milvus {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async move {
            let request = wire::Named { collection_name: self.name() };
            let described = match self.call("DescribeCollection", request).await {
                Err(EngineError::Missing { .. }) => return Ok(Found::Nothing),
                other => other?,
            };
            let wire::Described { properties, .. } = described;
            let note = properties.into_iter().find(|property| property.key == NOTE);
            let note = note.and_then(|property| serde_json::from_str(&property.value).ok());
            Ok(note.map_or(Found::Foreign, Found::Ours))
        })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let request = wire::CreateCollection {
                collection_name: self.name(),
                schema: schema(self.name(), note.dimension),
                properties: vec![noted(note)],
                // The server's own number.
                shards_num: 0,
                consistency_level: BOUNDED,
            };
            self.call::<_, Status>("CreateCollection", request).await?;
            let request = wire::CreateIndex {
                collection_name: self.name(),
                field_name: VECTOR.to_owned(),
                extra_params: vec![
                    pair("index_type", "HNSW"),
                    pair("metric_type", "IP"),
                    pair("params", GRAPH),
                ],
                index_name: VECTOR.to_owned(),
            };
            self.call::<_, Status>("CreateIndex", request).await.map(drop)
        })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let request = wire::Named { collection_name: self.name() };
            self.call::<_, Status>("DropCollection", request).await.map(drop)
        })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            records.iter().try_for_each(check)?;
            let column = |text: &dyn Fn(&Record) -> String| records.iter().map(text).collect();
            let numbers = records.iter().flat_map(|record| record.vector.iter().copied()).collect();
            let vectors = wire::Vectors {
                dimension: records.first().map_or(0, |record| record.vector.len() as i64),
                floats: Some(wire::FloatArray { data: numbers }),
            };
            let request = wire::Upsert {
                collection_name: self.name(),
                fields: vec![
                    texts(fields::ID, column(&|record| record.passage.id.clone())),
                    texts(fields::CONTENTS, column(&|record| record.passage.contents.clone())),
                    texts(EXTRA, column(&extra)),
                    FieldData {
                        data_type: DataType::FloatVector.into(),
                        field_name: VECTOR.to_owned(),
                        values: Some(FieldValues::Vectors(vectors)),
                    },
                ],
                num_rows: records.len() as u32,
            };
            let mutated: wire::Mutated = self.call("Upsert", request).await?;
            let stored = mutated.upsert_count.max(mutated.insert_count);
            if stored != records.len() as i64 {
                let sent = records.len();
                return Err(self.malformed(format!("{stored} of {sent} records were stored")));
            }
            Ok(())
        })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async move {
            let request = wire::Flush { collection_names: vec![self.name()] };
            self.call::<_, wire::Flushed>("Flush", request).await?;
            self.indexed().await?;
            self.load_collection().await?;
            self.count().await
        })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let properties = vec![noted(note)];
            let request = wire::AlterCollection { collection_name: self.name(), properties };
            self.call::<_, Status>("AlterCollection", request).await.map(drop)
        })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a> {
        Box::pin(async move {
            let count = queries.len();
            let asked = async {
                let vectors = queries.vectors(self.config.kind)?;
                let bytes = |vector: &Vec<f32>| {
                    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
                };
                let placeholder = wire::Placeholder {
                    tag: "$0".to_owned(),
                    data_type: DataType::FloatVector.into(),
                    values: vectors.iter().map(bytes).collect(),
                };
                let group = wire::PlaceholderGroup { placeholders: vec![placeholder] };
                let ef = search.ef.max(search.top_k);
                let request = wire::SearchRequest {
                    collection_name: self.name(),
                    filter: String::new(),
                    placeholder_group: group.encode_to_vec(),
                    filter_kind: 1,
                    output_fields: vec![fields::CONTENTS.to_owned(), EXTRA.to_owned()],
                    search_params: vec![
                        pair("anns_field", VECTOR),
                        pair("topk", search.top_k),
                        pair("metric_type", "IP"),
                        pair("round_decimal", -1),
                        pair("params", json!({"ef": ef})),
                    ],
                    // The level decides. A time here would decide in its place: 1, for one, is eventual consistency.
                    guarantee_timestamp: 0,
                    query_count: count as i64,
                    consistency_level: BOUNDED,
                };
                let results: wire::SearchResults = self.call("Search", request).await?;
                let data = results.results.unwrap_or_default();
                self.read(data, count)
            };
            asked.await.unwrap_or_else(|error| vec![Err(error); count])
        })
    }
}
