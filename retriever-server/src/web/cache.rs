//! The cache of answers: in memory, and in a file behind it if one is named. It never keeps a failure, and
//! no failure of its own fails a search.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moka::future::Cache;

use super::budget::Spent;
use super::result::{WebFault, WebResult};
use super::settings::CacheSettings;
use super::store::Store;
use crate::upstream::context;

/// The results of a query, shared by all that asked for it.
type Answer = Arc<[WebResult]>;

/// Bytes that an entry takes besides its texts.
const ENTRY_BYTES: usize = 128;

/// The cache.
#[derive(Debug)]
pub(super) struct AnswerCache {
    memory: Cache<String, Answer>,
    store: Option<Arc<Store>>,
}

impl AnswerCache {
    /// Opens the cache. A file that cannot be used is reported and left out.
    pub(super) fn open(settings: &CacheSettings) -> Self {
        let memory = Cache::builder()
            .max_capacity(settings.max_bytes)
            .time_to_live(settings.ttl)
            .weigher(|key: &String, answer: &Answer| {
                let bytes: usize = answer.iter().map(size).sum();
                u32::try_from(key.len() + bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
            })
            .build();
        let store = settings
            .path
            .as_ref()
            .and_then(|path| Store::open(path, settings.max_bytes, settings.ttl))
            .map(Arc::new);
        Self { memory, store }
    }

    /// Returns the answer of a key, which `ask` gives if it is not there. Callers with one key at one time share one
    /// `ask`, and another caller's takes over if the future of the first is dropped.
    pub(super) async fn get_or(
        &self,
        key: &str,
        ask: impl Future<Output = Result<Vec<WebResult>, WebFault>>,
    ) -> Result<Answer, WebFault> {
        let is_asked = AtomicBool::new(false);
        let find = async {
            if let Some(stored) = self.stored(key).await {
                return Ok(Answer::from(stored));
            }
            is_asked.store(true, Ordering::Relaxed);
            let results = ask.await?;
            if let Some(store) = &self.store {
                store.keep(key, &results);
            }
            Ok(Answer::from(results))
        };
        let found = self.memory.try_get_with_by_ref(key, find).await;
        let is_hit = found.is_ok() && !is_asked.load(Ordering::Relaxed);
        context::observe(|observation| observation.metrics.lookup(is_hit));
        found.map_err(|fault: Arc<WebFault>| (*fault).clone())
    }

    async fn stored(&self, key: &str) -> Option<Vec<WebResult>> {
        let (store, key) = (Arc::clone(self.store.as_ref()?), key.to_owned());
        // A thread that panicked has no answer, like a store without the key.
        tokio::task::spawn_blocking(move || store.get(&key)).await.ok().flatten()
    }

    /// Returns what was spent before the start.
    pub(super) fn spent(&self) -> Spent {
        self.store.as_ref().and_then(|store| store.spent()).unwrap_or_default()
    }

    /// Returns a function that keeps expenses in the file.
    pub(super) fn keeper_of_expenses(&self) -> impl Fn(Spent) + Send + Sync + 'static {
        let store = self.store.clone();
        move |spent| {
            if let Some(store) = &store {
                store.keep_spent(spent);
            }
        }
    }
}

fn size(result: &WebResult) -> usize {
    let url = result.url.as_ref().map_or(0, String::len);
    result.title.len() + result.text.len() + url + size_of::<WebResult>()
}
