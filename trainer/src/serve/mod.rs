//! The trained agent behind an endpoint for OpenAI's chat completions.
//!
//! One thread owns engine and episodes (`conversations`). Requests reach it through one channel; the events
//! of each episode return through another. An episode ends when its client disconnects.
//!
//! Owns the protocol, its limits and the lifetime of the server. Does not know how a model computes.

mod conversations;
mod error;
mod http;
mod request;
mod response;

pub use conversations::{Conversations, Question, QuestionArrivals};
pub use http::{Served, ServerSettings, router};
