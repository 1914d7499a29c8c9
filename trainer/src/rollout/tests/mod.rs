//! Tests of the loop with a scripted model and a scripted retriever.

mod arrivals;
mod carried;
mod crowd;
mod episodes;
mod observations;
mod properties;
mod scheduling;
mod scripted;
mod stopping;
mod vectors;
