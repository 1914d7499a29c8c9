//! `PostgreSQL` with the extension pgvector, over `PostgreSQL`'s own protocol.
//!
//! A collection is a table. The exact vectors are a column, and the graph is an index over their halves, which
//! takes half the memory; its candidates are ordered by the exact vectors. The note is the table's comment.
//! Records travel in binary COPY through a table of the session, so that a batch is stored whole or not at all.

mod sql;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgvector::Vector;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, info, warn};

use shared::contract::passage::Passage;
use shared::machine::http::with_causes;

use super::{
    AnswersFuture, Engine, EngineAnswers, EngineConfig, EngineError, EngineFuture, Found, Note,
    Queries, Record, Search,
};
use crate::query::Answer;
use sql::{Version, graph_column, has_nul, quoted};

/// The most connections.
const MAX_CONNECTIONS: usize = 8;
/// Longest time to open a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Candidates from the graph for each requested passage; exact vectors order them.
const CANDIDATES_PER_HIT: usize = 2;
/// The largest `hnsw.ef_search`.
const MAX_EF: usize = 1000;
/// Connections of a node of the graph and candidates while it is built; more raise recall and building time.
const GRAPH: &str = "m = 24, ef_construction = 200";

/// A table of `PostgreSQL`.
#[derive(Debug)]
pub(super) struct Pgvector {
    config: EngineConfig,
    connecting: tokio_postgres::Config,
    tls: MakeTls,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

/// The maker of encrypted connections, which has no `Debug` of its own.
#[derive(Clone)]
struct MakeTls(MakeRustlsConnect);

impl std::fmt::Debug for MakeTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MakeTls")
    }
}

/// An open connection with what is known of it.
#[derive(Debug)]
struct Session {
    client: Client,
    version: Version,
    /// The candidates that searches of this session keep.
    ef: usize,
    /// The statement of a search, by the dimension.
    search: Option<(usize, Statement)>,
    has_staging: bool,
}

/// A session in use.
struct Lease {
    session: Session,
    _place: OwnedSemaphorePermit,
}

impl Pgvector {
    pub(super) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        // The error of this parser may repeat a part of the address.
        let mut connecting: tokio_postgres::Config =
            config.url.expose().as_str().parse().map_err(|_| {
                EngineError::Unfit(format!("{} is no address of PostgreSQL", config.url))
            })?;
        if let Some(key) = &config.key {
            connecting.password(key.expose());
        }
        connecting.connect_timeout(CONNECT_LIMIT).application_name("retriever-server");
        // An error means that a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ClientConfig::builder()
            .with_platform_verifier()
            .map_err(|error| EngineError::Unfit(format!("cannot set up TLS: {error}")))?
            .with_no_client_auth();
        Ok(Self {
            config: config.clone(),
            connecting,
            tls: MakeTls(MakeRustlsConnect::new(tls)),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Takes an idle session, or opens one.
    async fn lease(&self) -> Result<Lease, EngineError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let idle = self.idle().pop().filter(|session| !session.client.is_closed());
        let session = match idle {
            Some(session) => session,
            None => self.connect().await?,
        };
        Ok(Lease { session, _place: place })
    }

    /// Keeps a session for later. One that failed, or whose future was dropped, may be in the middle of
    /// something and is closed instead.
    fn keep(&self, lease: Lease) {
        self.idle().push(lease.session);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Session, EngineError> {
        let (client, connection) = self
            .connecting
            .connect(self.tls.0.clone())
            .await
            .map_err(|error| self.error(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        let asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
        let row = client.query_opt(asked, &[]).await.map_err(|error| self.error(&error))?;
        let version = row.and_then(|row| Version::parse(row.get::<_, &str>(0)));
        let mut session = Session {
            client,
            version: version.unwrap_or(Version(0, 0)),
            ef: 0,
            search: None,
            has_staging: false,
        };
        self.prepare(&mut session).await?;
        Ok(session)
    }

    /// Sets what searches of a session need.
    async fn prepare(&self, session: &mut Session) -> Result<(), EngineError> {
        if session.version.scans_on() {
            self.run(&session.client, "SET hnsw.iterative_scan = relaxed_order").await?;
        }
        Ok(())
    }

    async fn run(&self, client: &Client, statements: &str) -> Result<(), EngineError> {
        client.batch_execute(statements).await.map_err(|error| self.error(&error))
    }

    /// Returns the name of the table as SQL writes it.
    fn table(&self) -> String {
        quoted(&self.config.collection)
    }

    /// Returns the error of a statement or a connection.
    fn error(&self, error: &tokio_postgres::Error) -> EngineError {
        let (engine, url) = (self.config.kind.name(), self.config.url.to_string());
        let Some(fault) = error.as_db_error() else {
            return EngineError::Unavailable {
                engine,
                url,
                reason: with_causes(error),
                pause: None,
            };
        };
        let reason = format!("{} ({})", fault.message(), fault.code().code());
        let state = fault.code();
        let class = state.code().get(..2).unwrap_or_default();
        // Connections, rollbacks, resources, interventions of an operator: the next attempt may succeed.
        if matches!(class, "08" | "40" | "53" | "57" | "58")
            || *state == SqlState::LOCK_NOT_AVAILABLE
        {
            return EngineError::Unavailable { engine, url, reason, pause: None };
        }
        match class {
            _ if *state == SqlState::UNDEFINED_TABLE => self.config.missing(),
            "28" => {
                let reason = format!(
                    "the user or password in RETRIEVER_ENGINE_URL or RETRIEVER_ENGINE_KEY: {reason}"
                );
                EngineError::Refused { engine, url, reason }
            }
            _ => EngineError::Refused { engine, url, reason },
        }
    }

    async fn find_note(&self, session: &Session) -> Result<Found, EngineError> {
        let asked =
            "SELECT obj_description(to_regclass($1)::oid, 'pg_class'), to_regclass($1) IS NULL";
        let row = session.client.query_one(asked, &[&self.table()]).await;
        let row = row.map_err(|error| self.error(&error))?;
        let (comment, is_missing): (Option<String>, bool) = (row.get(0), row.get(1));
        Ok(match comment {
            _ if is_missing => Found::Nothing,
            Some(text) => serde_json::from_str(&text).map_or(Found::Foreign, Found::Ours),
            None => Found::Foreign,
        })
    }

    fn comment(&self, note: &Note) -> String {
        let text = serde_json::to_string(note).expect("a note has no map with odd keys");
        format!("COMMENT ON TABLE {} IS '{}'", self.table(), text.replace('\'', "''"))
    }

    async fn make(&self, session: &Session, note: &Note) -> Result<(), EngineError> {
        let (table, dimension) = (self.table(), note.dimension);
        self.run(&session.client, "CREATE EXTENSION IF NOT EXISTS vector").await?;
        let comment = self.comment(note);
        self.run(
            &session.client,
            &format!(
                "BEGIN; CREATE TABLE {table} (id text PRIMARY KEY, contents text NOT NULL, title text, \
                 \"text\" text, url text, vector vector({dimension}) NOT NULL); {comment}; COMMIT"
            ),
        )
        .await
    }

    async fn store(&self, session: &mut Session, records: &[Record]) -> Result<(), EngineError> {
        if let Some(record) = records.iter().find(|record| has_nul(&record.passage)) {
            let id = &record.passage.id;
            let reason =
                format!("the passage {id:?} has a NUL character, which PostgreSQL cannot store");
            return Err(EngineError::Unfit(reason));
        }
        let table = self.table();
        if !session.has_staging {
            let staging = format!(
                "CREATE TEMPORARY TABLE retriever_staging (LIKE {table}) ON COMMIT DELETE ROWS"
            );
            self.run(&session.client, &staging).await?;
            session.has_staging = true;
        }
        self.copy(session, records, &table).await.map_err(|error| self.error(&error))
    }

    async fn copy(
        &self,
        session: &mut Session,
        records: &[Record],
        table: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let transaction = session.client.transaction().await?;
        let columns = "id, contents, title, \"text\", url, vector";
        let shape =
            transaction.prepare(&format!("SELECT {columns} FROM retriever_staging")).await?;
        let types: Vec<Type> =
            shape.columns().iter().map(|column| column.type_().clone()).collect();
        let copy = format!("COPY retriever_staging ({columns}) FROM STDIN (FORMAT binary)");
        let sink = transaction.copy_in(&copy).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        for Record { passage, vector } in records {
            let vector = Vector::from(vector.clone());
            let Passage { id, contents, title, text, url } = passage;
            writer.as_mut().write(&[id, contents, title, text, url, &vector]).await?;
        }
        writer.finish().await?;
        // Passages of a batch whose answer was lost are there already, from the same index.
        let merge = format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM retriever_staging ON CONFLICT DO NOTHING"
        );
        transaction.execute(&merge, &[]).await?;
        transaction.commit().await
    }

    /// Builds the index along which searches go.
    async fn index(&self, session: &Session, dimension: usize) -> Result<(), EngineError> {
        let (table, version) = (self.table(), session.version);
        let Some(column) = graph_column(version, dimension) else {
            warn!(dimension, "the vectors are too long for an index, so every search reads all");
            return Ok(());
        };
        let name = quoted(&format!("{}_vector", self.config.collection));
        info!(table, "building the index over the vectors; a large one takes hours");
        self.run(
            &session.client,
            &format!(
                "CREATE INDEX IF NOT EXISTS {name} ON {table} USING hnsw ({column}) WITH ({GRAPH}); \
                 ANALYZE {table}"
            ),
        )
        .await
    }

    async fn search_all(
        &self,
        session: &mut Session,
        vectors: &[Vec<f32>],
        search: Search,
    ) -> Result<EngineAnswers, EngineError> {
        let Some(dimension) = vectors.first().map(Vec::len) else { return Ok(Vec::new()) };
        let candidates = (search.top_k * CANDIDATES_PER_HIT).max(search.top_k + 10);
        let ef = search.ef.max(candidates).min(MAX_EF);
        if session.ef != ef {
            let limit = search.limit.as_millis();
            let set = format!("SET hnsw.ef_search = {ef}; SET statement_timeout = {limit}");
            self.run(&session.client, &set).await?;
            session.ef = ef;
        }
        let prepared = session.search.as_ref().filter(|(prepared, _)| *prepared == dimension);
        let statement = if let Some((_, statement)) = prepared {
            statement.clone()
        } else {
            let text = sql::search(&self.table(), session.version, dimension);
            let statement = session.client.prepare(&text).await;
            let statement = statement.map_err(|error| self.error(&error))?;
            session.search = Some((dimension, statement.clone()));
            statement
        };
        let (client, limits) = (&session.client, (candidates as i64, search.top_k as i64));
        // The statements travel together and are answered in turn.
        let asked = vectors.iter().map(|vector| {
            let (vector, statement) = (Vector::from(vector.clone()), &statement);
            async move { client.query(statement, &[&vector, &limits.0, &limits.1]).await }
        });
        let answered = futures_util::future::join_all(asked).await;
        let read = |rows: Result<Vec<Row>, tokio_postgres::Error>| {
            rows.map_err(|error| self.error(&error))?.iter().map(|row| self.read(row)).collect()
        };
        Ok(answered.into_iter().map(read).collect())
    }

    fn read(&self, row: &Row) -> Result<Answer, EngineError> {
        let malformed = |error: tokio_postgres::Error| EngineError::Malformed {
            engine: self.config.kind.name(),
            url: self.config.url.to_string(),
            reason: with_causes(&error),
        };
        let passage = Passage {
            id: row.try_get(0).map_err(malformed)?,
            contents: row.try_get(1).map_err(malformed)?,
            title: row.try_get(2).map_err(malformed)?,
            text: row.try_get(3).map_err(malformed)?,
            url: row.try_get(4).map_err(malformed)?,
        };
        Ok(Answer { passage, score: row.try_get::<_, f64>(5).map_err(malformed)? as f32 })
    }
}

impl Engine for Pgvector {
    fn find(&self) -> EngineFuture<'_, Found> {
        Box::pin(async move {
            let lease = self.lease().await?;
            let found = self.find_note(&lease.session).await?;
            self.keep(lease);
            Ok(found)
        })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            self.make(&self.lease().await?.session, note).await?;
            // The extension may be new; sessions learn its version when they are opened.
            self.idle().clear();
            Ok(())
        })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let statement = format!("DROP TABLE {}", self.table());
            self.run(&self.lease().await?.session.client, &statement).await?;
            // A staging table has the shape of the old one.
            self.idle().clear();
            Ok(())
        })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let mut lease = self.lease().await?;
            self.store(&mut lease.session, records).await?;
            self.keep(lease);
            Ok(())
        })
    }

    fn settle<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, u64> {
        Box::pin(async move {
            let lease = self.lease().await?;
            self.index(&lease.session, note.dimension).await?;
            let count = format!("SELECT count(*) FROM {}", self.table());
            let row = lease.session.client.query_one(&count, &[]).await;
            let count: i64 = row.map_err(|error| self.error(&error))?.get(0);
            self.keep(lease);
            Ok(count as u64)
        })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            let lease = self.lease().await?;
            self.run(&lease.session.client, &self.comment(note)).await?;
            self.keep(lease);
            Ok(())
        })
    }

    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a> {
        Box::pin(async move {
            let vectors = match queries.vectors(self.config.kind) {
                Ok(vectors) => vectors,
                Err(error) => return vec![Err(error); queries.len()],
            };
            let answers = async {
                let mut lease = self.lease().await?;
                let answers = self.search_all(&mut lease.session, vectors, search).await?;
                self.keep(lease);
                Ok(answers)
            };
            answers.await.unwrap_or_else(|error: EngineError| vec![Err(error); vectors.len()])
        })
    }
}
