//! The retrieval server: answers `POST /retrieve` with passages of a corpus. It holds no training
//! state and knows nothing of the trainer but the HTTP API.
//!
//! The way of a query: `http::retrieve` (bytes to batch) → [`admission`] (bounded) → [`pipeline`]
//! (each text once) → [`backend`] (ranked rows) → [`corpus`] (passages) → [`rerank`], if there is a
//! re-ranker → `http::respond`.

pub mod admission;
pub mod app;
pub mod backend;
pub mod batcher;
pub mod bench;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod corpus;
pub mod encode;
pub mod evaluation;
pub mod gpu;
mod http;
pub mod index;
mod json_kind;
pub mod lexical;
mod loading;
mod mapped;
pub mod pipeline;
pub mod pool;
pub mod query;
pub mod rerank;
mod state;
pub mod ticket;
pub mod vector;

pub use app::{Drained, ServeError, Server};
pub use state::Phase;
