//! A batch of queries, checked once at the rim: what is below may rely on it.

use std::sync::Arc;

/// Queries that want the same number of passages. One query is a batch of one; none is a batch
/// too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryBatch {
    /// Any text, the empty one included.
    pub queries: Arc<[String]>,
    /// Passages wanted per query, at least 1.
    pub top_k: usize,
}
