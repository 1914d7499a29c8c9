//! The retrieval server: answers `POST /retrieve` with passages of a corpus. It holds no training
//! state and knows the trainer only through the HTTP API.
//!
//! A query passes `http::retrieve` (bytes to a batch), [`admission`] (a bounded number of queries),
//! [`pipeline`] (each text once), [`backend`] (ranked rows), [`corpus`] (rows to passages),
//! [`rerank`], if there is a re-ranker, and `http::respond`.
//!
//! Modules are in the order of their floors: each uses only those above it in this file. The test
//! `tests/src/module_order.rs` holds that order.

// The ground: the machine, and values without behaviour.
mod processor;
pub mod device;
pub mod query;
pub mod metrics;
pub mod turns;
pub mod ticket;
pub mod pool;
pub mod upstream;
// Passages, and what finds them.
pub mod corpus;
pub mod lexical;
pub mod vector;
pub mod encode;
pub mod gpu;
pub mod index;
pub mod web;
pub mod engine;
// From queries to answers.
pub mod backend;
pub mod batcher;
pub mod rerank;
pub mod pipeline;
// The server.
pub mod access;
pub mod config;
pub mod admission;
mod state;
mod loading;
pub mod reload;
mod http;
pub mod app;
// The other commands.
pub mod evaluation;
pub mod capacity;
pub mod bench;
pub mod cli;

pub use app::{Drained, Listeners, Reloader, Server};
pub use loading::ServeError;
pub use state::Phase;
