//! The retrieval server: answers `POST /retrieve` with passages of a corpus.

pub mod admission;
pub mod backend;
pub mod corpus;
pub mod index;
pub mod lexical;
pub mod pipeline;
pub mod pool;
pub mod query;
pub mod ticket;
