//! One or several sessions of one model.
//!
//! A session computes a run on all its threads, which wait for each other many times per run. Several
//! sessions of one thread each finish more runs per second, but each run takes longer. Sessions share
//! split weights, so a model with them has both: one session for single runs, and several for more.
//! Otherwise each session keeps weights of its own.

use std::num::NonZeroUsize;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::session::{Goal, GraphShape, Model, SessionSpec, TokenRows};
use super::split::SplitModel;
use crate::device::Provider;
use crate::processor::fork_join::fork_join;

/// The most sessions. Each one with weights of its own takes about 1.6 times the size of the model's
/// file in memory.
pub(super) const MAX_SESSIONS: usize = 8;
/// The number of runs per session that callers should pass at a time: few enough for a quick stop, and
/// enough to keep every session busy.
const RUNS_AT_A_TIME: usize = 4;

impl Goal {
    /// Returns the number of sessions that share `threads`.
    fn sessions(self, provider: Provider, threads: NonZeroUsize) -> usize {
        match (self, provider) {
            (Self::Throughput, Provider::Cpu) => threads.get().min(MAX_SESSIONS),
            (Self::Throughput, Provider::Cuda(_)) | (Self::Latency, _) => 1,
        }
    }
}

/// The open sessions of a model.
pub(super) struct Sessions {
    /// The sessions that share the threads, at least one.
    shared: Vec<Mutex<Model>>,
    /// A session with all threads for single runs, if the weights are split and there are several
    /// shared sessions.
    single: Option<Mutex<Model>>,
    /// The name of the method that multiplies with the weights.
    products: &'static str,
    shape: GraphShape,
}

impl Sessions {
    /// Opens the model. Its errors, and those of [`Self::run`], are texts for
    /// [`super::EncodeError`].
    pub(super) fn open(source: SessionSpec<'_>, provider: Provider) -> Result<Self, String> {
        let multiplier = source.products.multiplier().filter(|_| provider == Provider::Cpu);
        let split = multiplier
            .and_then(|multiplier| SplitModel::read(source.path, multiplier, source.threads));
        match Self::open_split(source, provider, split.as_ref()) {
            Err(reason) if split.is_some() => {
                let model = source.path.display();
                warn!(%model, reason, "cannot use split weights, using ONNX Runtime's products");
                Self::open_split(source, provider, None)
            }
            opened => opened,
        }
    }

    /// Opens the model with split weights, if there are any.
    fn open_split(
        source: SessionSpec<'_>,
        provider: Provider,
        split: Option<&SplitModel>,
    ) -> Result<Self, String> {
        let SessionSpec { threads, goal, .. } = source;
        let goal = if split.is_some() { Goal::Throughput } else { goal };
        let count = goal.sessions(provider, threads);
        let share = NonZeroUsize::new(threads.get() / count)
            .expect("there are no more sessions than threads");
        // One after the other, because a session needs more memory while it is opened than later.
        let open = |threads| Model::open(source, provider, threads, split);
        let shared: Vec<Model> = (0..count).map(|_| open(share)).collect::<Result<_, _>>()?;
        let single = (split.is_some() && count > 1).then(|| open(threads)).transpose()?;
        let products = split.map_or("ONNX Runtime", |split| split.multiplier.name());
        let shape = shared.first().expect("there is at least one session").shape();
        let shared = shared.into_iter().map(Mutex::new).collect();
        Ok(Self { shared, single: single.map(Mutex::new), products, shape })
    }

    /// Returns the properties of the model's graph.
    pub(super) fn shape(&self) -> GraphShape {
        self.shape
    }

    /// Returns the name of the method that multiplies with the weights.
    pub(super) fn products(&self) -> &'static str {
        self.products
    }

    /// Returns the number of sessions that share runs.
    pub(super) fn count(&self) -> usize {
        self.shared.len()
    }

    /// Returns the number of runs that callers should pass at a time.
    pub(super) fn runs_at_a_time(&self) -> usize {
        match self.count() {
            1 => 1,
            sessions => sessions * RUNS_AT_A_TIME,
        }
    }

    /// Returns the model's results for each of `runs`, in order.
    pub(super) fn run(&self, runs: &[TokenRows]) -> Result<Vec<Vec<f32>>, String> {
        let sessions = match (&self.single, runs) {
            (Some(single), [_]) => slice::from_ref(single),
            _ => &self.shared[..self.shared.len().min(runs.len())],
        };
        let next = AtomicUsize::new(0);
        let work = |session: &Mutex<Model>| {
            let mut results = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(rows) = runs.get(number) else { return Ok(results) };
                // A run that panicked left no incomplete state in the session.
                let mut model = session.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((number, model.run(rows)?));
            }
        };
        let parts: Result<Vec<_>, String> = fork_join(sessions, work).into_iter().collect();
        let mut results: Vec<_> = parts?.into_iter().flatten().collect();
        results.sort_unstable_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, values)| values).collect())
    }
}
