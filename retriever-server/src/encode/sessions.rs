//! One model in one session or several. A session computes a run on all its threads, which wait for
//! each other many times in it; several sessions of one thread each compute more runs in all, while
//! each run takes longer and each session keeps weights of its own.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ort::environment::Environment;

use crate::encode::device::Provider;
use crate::encode::session::{Model, Reading, Rows};

/// Each session costs memory of about 1.6 times the model's file.
pub(super) const MAX_SESSIONS: usize = 8;
/// Runs for each session that callers should give at a time: few enough to be stopped soon, and
/// enough that no session is without work for long.
const RUNS_AT_A_TIME: usize = 4;

/// What a model is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Single texts as soon as possible, in little memory: one session.
    #[default]
    Latency,
    /// As many texts as possible: on the CPU a session for every thread, up to eight.
    Throughput,
}

impl Goal {
    /// Sessions that `threads` are shared among.
    fn sessions(self, provider: Provider, threads: NonZeroUsize) -> usize {
        match (self, provider) {
            (Self::Throughput, Provider::Cpu) => threads.get().min(MAX_SESSIONS),
            (Self::Throughput, Provider::Cuda(_)) | (Self::Latency, _) => 1,
        }
    }
}

/// A model file to open.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) environment: &'a Environment,
    pub(super) path: &'a Path,
    pub(super) reading: Reading,
    pub(super) threads: NonZeroUsize,
    pub(super) goal: Goal,
}

/// The open sessions, at least one.
pub(super) struct Sessions(Vec<Mutex<Model>>);

impl Sessions {
    /// Opens the model. Its errors, and those of [`Self::run`], are texts for
    /// [`super::EncodeError`].
    pub(super) fn open(source: Source<'_>, provider: Provider) -> Result<Self, String> {
        let count = source.goal.sessions(provider, source.threads);
        let share = source.threads.get() / count;
        let share = NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN);
        // One after the other: while a session is opened it needs more memory than afterwards.
        (0..count)
            .map(|_| Model::open(source, provider, share).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Runs that callers should give at a time.
    pub(super) fn runs_at_a_time(&self) -> usize {
        match self.0.len() {
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
        let (first, others) = self.0.split_first().ok_or("there is no session")?;
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
