//! The behaviour of both services, one module a topic. Services run in process on free ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod harness;

mod index_command;
mod retrieve;
mod retrieve_faults;
mod retrieve_lifecycle;
mod tidy;
