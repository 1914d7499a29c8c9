//! The names of engines and the settings that reach one.

use std::fmt;

use super::EngineError;
use crate::upstream::secret::Secret;

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// PostgreSQL with the extension pgvector.
    Pgvector,
    /// Qdrant.
    Qdrant,
    /// Chroma.
    Chroma,
    /// Milvus, or milvus-lite.
    Milvus,
    /// OpenSearch.
    OpenSearch,
    /// Elasticsearch.
    Elasticsearch,
    /// Quickwit.
    Quickwit,
}

impl EngineKind {
    /// All engines, in the order of the reference page.
    pub const ALL: [Self; 7] = [
        Self::Pgvector,
        Self::Qdrant,
        Self::Chroma,
        Self::Milvus,
        Self::OpenSearch,
        Self::Elasticsearch,
        Self::Quickwit,
    ];

    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pgvector => "pgvector",
            Self::Qdrant => "qdrant",
            Self::Chroma => "chroma",
            Self::Milvus => "milvus",
            Self::OpenSearch => "opensearch",
            Self::Elasticsearch => "elasticsearch",
            Self::Quickwit => "quickwit",
        }
    }

    /// Returns the engine with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns `true` if queries have to become vectors.
    pub fn searches_vectors(self) -> bool {
        match self {
            Self::Pgvector | Self::Qdrant | Self::Chroma | Self::Milvus => true,
            Self::OpenSearch | Self::Elasticsearch | Self::Quickwit => false,
        }
    }

    /// Returns `true` if a collection's name may have dashes and dots.
    pub fn has_dashes(self) -> bool {
        match self {
            Self::Pgvector
            | Self::Qdrant
            | Self::Chroma
            | Self::OpenSearch
            | Self::Elasticsearch
            | Self::Quickwit => true,
            Self::Milvus => false,
        }
    }

    /// Returns the schemes of the engine's addresses.
    pub fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Pgvector => &["postgres", "postgresql"],
            Self::Qdrant
            | Self::Chroma
            | Self::Milvus
            | Self::OpenSearch
            | Self::Elasticsearch
            | Self::Quickwit => &shared::machine::http::SCHEMES,
        }
    }
}

/// The engine to load or to search.
#[derive(Clone)]
pub struct EngineConfig {
    /// The engine.
    pub kind: EngineKind,
    /// Its address, which may contain a password.
    pub url: Address,
    /// The name of the collection, table or index.
    pub collection: String,
    /// The key or password, if there is one.
    pub key: Option<Secret>,
    /// The number of candidates that a search along a graph keeps.
    pub ef: usize,
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EngineConfig")
            .field("kind", &self.kind)
            .field("url", &self.url)
            .field("collection", &self.collection)
            .field("ef", &self.ef)
            .finish_non_exhaustive()
    }
}

impl EngineConfig {
    /// Returns the error of a collection that does not exist.
    pub(super) fn missing(&self) -> EngineError {
        EngineError::Missing {
            collection: self.collection.clone(),
            url: self.url.to_string(),
            engine: self.kind.name(),
        }
    }
}

/// The address of an engine. What is shown of it has neither user nor password nor parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(reqwest::Url);

impl Address {
    /// Parses an address of the engine. The reason of a refusal does not repeat the address.
    pub fn parse(kind: EngineKind, text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
        if !kind.schemes().contains(&url.scheme()) {
            return Err(format!("its scheme is {:?}", url.scheme()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("it names no host".to_owned());
        }
        Ok(Self(url))
    }

    /// Returns the address as it was written, to connect to.
    pub(super) fn expose(&self) -> &reqwest::Url {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        write!(formatter, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        url.port().map_or(Ok(()), |port| write!(formatter, ":{port}"))?;
        formatter.write_str(url.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let text = "postgres://reader:hunter2@db.example:5433/corpora?sslmode=require&password=p4";
        let url = Address::parse(EngineKind::Pgvector, text).unwrap();
        assert_eq!(url.to_string(), "postgres://db.example:5433/corpora");
        let key = Secret::new("hunter3");
        let (kind, collection) = (EngineKind::Pgvector, "passages".to_owned());
        let config = EngineConfig { kind, url, collection, key, ef: 128 };
        let shown = format!("{config:?} {:?}", config.key);
        assert!(!shown.contains("hunter") && !shown.contains("p4"), "{shown}");
    }

    #[test]
    fn an_address_of_another_scheme_is_refused_without_repeating_it() {
        for (text, reason) in [
            ("mysql://u:hunter2@host/db", "its scheme is \"mysql\""),
            ("hunter2", "it is no URL: relative URL without a base"),
            ("postgres:///db", "it names no host"),
        ] {
            assert_eq!(Address::parse(EngineKind::Pgvector, text).unwrap_err(), reason);
        }
    }
}
