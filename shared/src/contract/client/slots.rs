//! The results of the queries of one request, which fill up over several attempts.

use super::reply::Answer;
use super::server::Server;
use super::{SearchError, SearchResult};

/// One result for each query, once there is one.
#[derive(Debug)]
pub(super) struct Slots(Vec<Option<SearchResult>>);

impl Slots {
    pub(super) fn new(queries: usize) -> Self {
        Self(vec![None; queries])
    }

    /// Returns the positions of the queries without a result.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|&slot| self.0[slot].is_none()).collect()
    }

    /// Puts the answers of a server to the queries `open` into their slots. Returns the error code of a query that may
    /// be retried, if there is one.
    pub(super) fn fill(
        &mut self,
        server: &Server,
        open: &[usize],
        answers: Vec<Answer>,
    ) -> Option<String> {
        let mut retryable = None;
        for (&slot, answer) in open.iter().zip(answers) {
            self.0[slot] = match answer {
                Answer::Passages(passages) => Some(Ok(passages)),
                Answer::Malformed(reason) => Some(Err(server.malformed(reason))),
                Answer::Failed { code, retryable: false } => {
                    Some(Err(SearchError::Failed { url: server.shown.clone(), code }))
                }
                Answer::Failed { code, retryable: true } => {
                    retryable = Some(code);
                    None
                }
            };
        }
        retryable
    }

    /// Gives every query without a result the same error.
    pub(super) fn close(&mut self, error: &SearchError) {
        for open in self.0.iter_mut().filter(|result| result.is_none()) {
            *open = Some(Err(error.clone()));
        }
    }

    /// Returns the results once no query is open.
    pub(super) fn into_results(self) -> Vec<SearchResult> {
        let closed = "no query is open";
        self.0.into_iter().map(|result| result.expect(closed)).collect()
    }
}
