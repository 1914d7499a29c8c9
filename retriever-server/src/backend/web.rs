//! The `web` back end: passages are results of web search. The score of the result at rank `r` is `1/r`,
//! because the providers' own scores cannot be compared.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{PassageFuture, PassageSource};
use crate::query::{Answer, QueryAnswer, QueryBatch, SearchFault};
use crate::ticket::Ticket;
use crate::web::result::{WebFault, WebResult};
use crate::web::search::WebSearch;

/// Web search as a source of passages.
#[derive(Debug)]
pub struct WebBackend {
    search: WebSearch,
}

impl WebBackend {
    /// Creates a back end over `search`.
    pub fn new(search: WebSearch) -> Self {
        Self { search }
    }
}

impl PassageSource for WebBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> PassageFuture<'_> {
        Box::pin(async move {
            let remaining = ticket.deadline().saturating_duration_since(std::time::Instant::now());
            let deadline = Instant::now() + remaining;
            let QueryBatch { queries, top_k } = batch;
            let searches = queries.iter().map(|query| self.search.search(query, top_k, deadline));
            join_all(searches).await.into_iter().map(answer).collect()
        })
    }
}

fn answer(found: Result<Vec<WebResult>, WebFault>) -> QueryAnswer {
    let results = found.map_err(|fault| match fault {
        WebFault::Deadline(_) => SearchFault::DeadlineExceeded,
        WebFault::Upstream(_) => SearchFault::Upstream,
        WebFault::Refused(_) => SearchFault::Refused,
    })?;
    let passage = |(index, result): (usize, WebResult)| {
        let rank = index + 1;
        Answer { passage: result.into_passage(&format!("web-{rank}")), score: 1.0 / rank as f32 }
    };
    Ok(results.into_iter().enumerate().map(passage).collect())
}
