//! Calls of services behind this server: providers of web search, and engines that hold the passages.
//! A call ends before its deadline with an answer or with the reason why there is none. The room knows
//! nothing of queries or of any service's protocol.
//!
//! In reading order: keys that are never shown ([`secret`]), the request that a call belongs to ([`context`]), one exchange over HTTP ([`exchange`]), the
//! rate of requests ([`pace`]), the breaker that spares a broken service ([`breaker`]), and all of them
//! around a service, with retries ([`service`]).

pub mod secret;
pub mod context;
pub mod exchange;
pub mod pace;
pub mod breaker;
pub mod service;
