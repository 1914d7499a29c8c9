//! The end of `retriever-server index --to`: an engine that is loaded from the index.

use std::io::Write;
use std::time::Instant;

use super::progress::ProgressPrinter;
use crate::config::ConfigError;
use crate::config::variables as var;
use crate::corpus::store::PassageStore;
use crate::encode::Encoder;
use crate::engine::load::{self, LoadSource};
use crate::engine::{self, EngineConfig};
use crate::index::build::BuildRequest;
use crate::index::dense::{DenseRows, VectorSource};
use crate::index::manifest::{Manifest, Verification};

/// Loads the index of `request` into an engine.
pub(super) fn load(
    config: &EngineConfig,
    request: &BuildRequest,
    encoder: Option<&Encoder>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let manifest = Manifest::load(&request.index)?;
    let passages = PassageStore::open(&request.index)?;
    let opened = if config.kind.searches_vectors() {
        let encoder = encoder.ok_or_else(|| ConfigError::unset(&var::MODEL))?;
        let vectors = VectorSource::new(&manifest, encoder)?;
        let rows = DenseRows::open(&request.index, &vectors, Verification::Sizes)?;
        Some((rows, vectors.encoder))
    } else {
        None
    };
    let vectors = match &opened {
        Some((rows, encoder)) => Some((rows.rows()?, *encoder)),
        None => None,
    };
    let source =
        LoadSource { index: &request.index, digest: manifest.digest, passages: &passages, vectors };
    let engine = engine::open(config)?;
    let mut printer = ProgressPrinter::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let loaded =
        runtime.block_on(load::load(&*engine, config, source, request.force, &mut |progress| {
            printer.report(progress);
        }))?;
    printer.finish();
    let (name, url, collection) = (config.kind.name(), &config.url, &config.collection);
    let place = format!("collection {collection:?} of {name} at {url}");
    let count = loaded.passage_count;
    if loaded.stored_before == count {
        writeln!(out, "up to date, {count} passages: {place}")?;
        return Ok(());
    }
    let resumed = match loaded.stored_before {
        0 => String::new(),
        before => format!(" ({before} of them before)"),
    };
    let seconds = started.elapsed().as_secs_f64();
    writeln!(out, "loaded {count} passages{resumed} in {seconds:.1} s: {place}")?;
    Ok(())
}
