//! One model in one session or several. A session computes a run on all its threads, which wait for
//! each other many times in it; several sessions of one thread each compute more runs in all, while
//! each run takes longer. Where weights are split, sessions share them, and there are both: one for
//! single runs, and several for more. Else each session keeps weights of its own.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tracing::warn;

use super::session::{Goal, Model, Rows, Source};
use super::split::SplitModel;
use crate::device::Provider;

/// Each session with weights of its own costs memory of about 1.6 times the model's file.
pub(super) const MAX_SESSIONS: usize = 8;
/// Runs for each session that callers should give at a time: few enough to be stopped soon, and
/// enough that no session is without work for long.
const RUNS_AT_A_TIME: usize = 4;

impl Goal {
    /// Sessions that `threads` are shared among.
    fn sessions(self, provider: Provider, threads: NonZeroUsize) -> usize {
        match (self, provider) {
            (Self::Throughput, Provider::Cpu) => threads.get().min(MAX_SESSIONS),
            (Self::Throughput, Provider::Cuda(_)) | (Self::Latency, _) => 1,
        }
    }
}

/// The open sessions.
pub(super) struct Sessions {
    /// At least one, each with a share of the threads.
    shared: Vec<Mutex<Model>>,
    /// One with all threads for a single run, where it costs little memory and is not the only one.
    single: Option<Mutex<Model>>,
    /// What multiplies with the weights.
    products: &'static str,
}

impl Sessions {
    /// Opens the model. Its errors, and those of [`Self::run`], are texts for
    /// [`super::EncodeError`].
    pub(super) fn open(source: Source<'_>, provider: Provider) -> Result<Self, String> {
        let with = source.products.multiplier().filter(|_| provider == Provider::Cpu);
        let split = with.and_then(|with| SplitModel::read(source.path, with, source.threads));
        match Self::open_with(source, provider, split.as_ref()) {
            Err(reason) if split.is_some() => {
                let model = source.path.display();
                warn!(%model, reason, "cannot split the weights, ONNX Runtime multiplies");
                Self::open_with(source, provider, None)
            }
            opened => opened,
        }
    }

    fn open_with(
        source: Source<'_>,
        provider: Provider,
        split: Option<&SplitModel>,
    ) -> Result<Self, String> {
        let Source { threads, goal, .. } = source;
        let goal = if split.is_some() { Goal::Throughput } else { goal };
        let count = goal.sessions(provider, threads);
        let share = NonZeroUsize::new(threads.get() / count).unwrap_or(NonZeroUsize::MIN);
        // One after the other: while a session is opened it needs more memory than afterwards.
        let open = |threads| Model::open(source, provider, threads, split).map(Mutex::new);
        let shared = (0..count).map(|_| open(share)).collect::<Result<_, _>>()?;
        let single = (split.is_some() && count > 1).then(|| open(threads)).transpose()?;
        let products = split.map_or("ONNX Runtime", |split| split.with.name());
        Ok(Self { shared, single, products })
    }

    /// What multiplies with the weights.
    pub(super) fn products(&self) -> &'static str {
        self.products
    }

    /// Sessions that runs are shared among.
    pub(super) fn count(&self) -> usize {
        self.shared.len()
    }

    /// Runs that callers should give at a time.
    pub(super) fn runs_at_a_time(&self) -> usize {
        match self.count() {
            1 => 1,
            sessions => sessions * RUNS_AT_A_TIME,
        }
    }

    /// What the model makes of each of `runs`, in their order.
    pub(super) fn run(&self, runs: &[Rows]) -> Result<Vec<Vec<f32>>, String> {
        let next = AtomicUsize::new(0);
        let work = |session: &Mutex<Model>| {
            let mut found = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(rows) = runs.get(number) else { return Ok(found) };
                // A run that panicked left nothing half done in the session.
                let mut model = session.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((number, model.run(rows)?));
            }
        };
        let work = &work;
        let (first, others) = match (&self.single, runs) {
            (Some(single), [_]) => (single, [].as_slice()),
            _ => self.shared.split_first().ok_or("there is no session")?,
        };
        let parts: Vec<Result<_, String>> = thread::scope(|scope| {
            // A thread that does not start leaves its runs to the others.
            let others: Vec<_> = others
                .iter()
                .take(runs.len().saturating_sub(1))
                .filter_map(|session| {
                    thread::Builder::new().spawn_scoped(scope, move || work(session)).ok()
                })
                .collect();
            let mut parts = vec![work(first)];
            parts.extend(
                others
                    .into_iter()
                    .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))),
            );
            parts
        });
        let mut found = vec![Vec::new(); runs.len()];
        for part in parts {
            for (number, values) in part? {
                found[number] = values;
            }
        }
        Ok(found)
    }
}
