//! Scores of back ends for queries with known answers, by judged passages (qrels) or by the text of an
//! answer in the results. Queries and judgements that cannot be used are counted in [`coverage`].

pub mod queries;
pub mod judgements;
pub mod answers;
pub mod metrics;
pub mod coverage;
pub mod scores;
