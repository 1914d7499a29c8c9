//! Scores back ends with queries whose answers are known: by judged passages (qrels) or by the
//! answer's text in what was found. Nothing that is left out is left out silently: [`coverage`]
//! counts it.

pub mod queries;
pub mod judgements;
pub mod answers;
pub mod metrics;
pub mod coverage;
pub mod scores;
