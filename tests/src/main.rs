//! The behaviour of both services, one module a topic. Services run in process on free ports.

mod harness;

mod index_command;
mod retrieve;
mod retrieve_faults;
mod retrieve_lifecycle;
mod tidy;
