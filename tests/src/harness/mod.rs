//! What the tests share: services to start and stop, data to feed them, requests to send.

pub(crate) mod corpus;
pub(crate) mod http;
pub(crate) mod retriever;
