//! One request as it is observed: its stages go to the counts, and to its trace if there is one.

use std::sync::Arc;
use std::time::Instant;

use shared::machine::traces::Span;

use super::{Metrics, Stage};

/// The counts of the server and the span of a request.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The counts.
    pub metrics: Arc<Metrics>,
    /// The span, which is not recorded without a collector.
    pub span: Span,
}

impl Observation {
    /// Records that a stage that began at `began` ends now. Returns the time now.
    pub fn stage(&self, stage: Stage, began: Instant) -> Instant {
        self.span.record(stage.name(), began);
        self.metrics.stage(stage, began)
    }
}
