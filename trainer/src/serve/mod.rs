//! The trained agent behind an endpoint that speaks OpenAI's protocol for chat completions.
//!
//! One thread owns engine and episodes (`desk`); requests reach it through a channel, and what happens to
//! an episode comes back through another. A client that goes away takes its episode with it.
//!
//! Owns: the protocol, its bounds, the life of the server. Refuses to know how a model computes.

mod desk;
mod error;
mod http;
mod request;
mod response;

pub use desk::{Desk, Inbox, Question};
pub use http::{Served, ServerSettings, router};
