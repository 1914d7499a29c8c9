//! The identity of a server: a digest that changes when its answers may change. Clients compare it in every response.

use serde_json::json;
use shared::contract::digest::Digest;

use crate::config::ServeConfig;
use crate::state::IndexFacts;

/// Returns the digest of what the answers of a server depend on: its back end, its index, and the settings of the search.
pub(super) fn identity(config: &ServeConfig, index: Option<&IndexFacts>) -> Digest {
    let components = config.backend.components();
    let engine = config.engine.as_ref().filter(|_| config.backend.kind.is_remote());
    let providers = config.web.as_ref().map(|web| {
        let names = web.providers.iter().map(|settings| settings.provider.name);
        (names.collect::<Vec<_>>(), web.reads_pages)
    });
    let facts = json!({
        "backend": config.backend.kind.name(),
        "components": components.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
        "index_digest": index.map(|index| index.digest),
        "analyzer": index.and_then(|index| index.analyzer.as_ref()),
        "has_reranker": config.reranker.is_some(),
        "k1": config.bm25.k1(),
        "b": config.bm25.b(),
        "collection": engine.map(|engine| &engine.collection),
        "web": providers,
    });
    Digest::of_bytes(facts.to_string().as_bytes())
}
