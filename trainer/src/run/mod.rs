//! The commands' work; the only module that sees every stage.
//!
//! Read `training::step` first: it shows every stage of a training step, from top to bottom. `settings` translates
//! the configuration for the parts; below the commands nothing else reads it, except `lint`, which explains it.

mod audit;
mod chat;
mod compare;
mod convert;
mod curriculum;
mod data;
mod demonstrations;
mod eval;
mod failed_batch;
mod learner;
mod lint;
mod manifest;
mod memory;
mod mixture;
mod model;
mod optimizer;
mod question_order;
mod replay;
mod rollouts;
mod run_lock;
mod serve;
mod settings;
mod sft;
mod stopping;
mod training;

pub use audit::{AuditOptions, Named, audit};
pub use chat::{ChatOptions, chat};
pub use compare::{CompareOptions, compare};
pub use convert::convert;
pub use data::{
    DescribeOptions, SampleOptions, convert_questions, describe_questions, fetch_data, print_sizes,
    sample_questions,
};
pub use eval::{
    Baseline, EvalOptions, SuiteOptions, eval, eval_suite, eval_suite_until, eval_until,
};
pub use lint::{LintOptions, lint};
pub use replay::replay;
pub use serve::{serve, serve_on};
pub use sft::{sft, sft_until};
pub use stopping::Interrupted;
pub use training::{Collapsed, NotWritten, train, train_until};

/// Returns `true` if what happens after `every` steps (0: never) happens after this one.
fn is_due(every: usize, step: u64) -> bool {
    every > 0 && step > 0 && step.is_multiple_of(every as u64)
}
