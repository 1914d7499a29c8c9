//! Behaviour tests of both services, one module per topic. Services run in this process on free ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails by panicking")]

mod harness;

mod ann;
mod bench_command;
mod compatibility_page;
mod configuration_page;
mod dense;
mod encoder;
mod eval_command;
mod held_out;
mod hub;
mod hybrid;
mod index_command;
mod index_killed;
mod lint_command;
mod module_order;
mod plan_command;
mod reload;
mod rerank;
mod retrieve;
mod retrieve_clients;
mod retrieve_faults;
mod retrieve_hostile;
mod retrieve_lifecycle;
mod retrieve_load;
mod retrieve_start;
mod retriever_corpus;
mod run_folder;
mod stopping;
mod tidy;
mod tls;
mod train_ahead;
mod train_algorithms;
mod train_carried;
mod train_determinism;
mod train_external;
mod train_failed_update;
mod train_inputs;
mod train_lora;
mod train_outage;
mod train_resume;
mod train_timeline;
mod trainer_eval;
mod trainer_serve;
mod warm_start;
