//! Tests of the loop with a scripted model and a scripted retriever.

mod crowd;
mod episodes;
pub(crate) mod golden;
mod observations;
mod properties;
mod scheduling;
mod scripted;
mod stopping;
mod vectors;
