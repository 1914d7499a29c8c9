//! Checks the files that a configuration points to: if there is an index, if one can be built, and
//! from which corpus. Only manifests, names, sizes and first passages are looked at, and nothing is left behind, so a
//! start and a mere check cost and report the same.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::{FaultNoted, Reader};
use super::source::Source;
use super::variables::{self as var, Variable};
use super::{
    BadValue, ConfigError, EncoderConfig, IndexConfig, LogConfig, ServeConfig, service, shown,
};
use crate::corpus::record;
use crate::device::Device;
use crate::encode::cross_encoder;
use crate::encode::settings::EncoderSettings;
use crate::engine::EngineKind;
use crate::gpu;
use crate::index::IndexError;
use crate::index::corpus_match::{self, CorpusMatch};
use crate::index::manifest::{Manifest, Verification};

/// The checked configuration of `serve`, with the plan for its index.
#[derive(Clone, Debug)]
pub struct CheckedServe {
    /// The configuration of the server.
    pub serve: ServeConfig,
    /// The configuration of the log.
    pub log: LogConfig,
    /// The plan for the index.
    pub plan: IndexPlan,
}

/// The checked configuration of `index`.
#[derive(Clone, Debug)]
pub struct CheckedIndex {
    /// The configuration of the index and its corpus.
    pub index: IndexConfig,
    /// The configuration of the log.
    pub log: LogConfig,
}

/// The step that makes the index ready at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexPlan {
    /// An existing index is opened.
    Open {
        /// The number of passages in it.
        passage_count: u64,
    },
    /// The index is built from the corpus.
    Build,
    /// Another service holds the passages.
    Remote,
}

impl CheckedServe {
    /// Reads every variable and looks at what the values point to. The error has the faults of both.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let (serve, pointers) = ServeConfig::read(&mut vars);
        let log = LogConfig::read(&mut vars);
        let mut faults = Vec::new();
        faults.extend(pointers.encoder.as_ref().map(encoder_faults).unwrap_or_default());
        faults.extend(pointers.reranker.as_deref().and_then(unusable_reranker));
        faults.extend(pointers.files.as_ref().map(service::file_faults).unwrap_or_default());
        let is_remote = serve.as_ref().is_ok_and(|serve| serve.backend.kind.is_remote());
        let plan = if is_remote {
            Ok(IndexPlan::Remote)
        } else {
            let index = pointers.index.ok_or(FaultNoted);
            index.map(|index| plan(&index, pointers.corpus.as_deref(), &mut faults))
        };
        vars.add_faults(faults);
        let checked = || Ok(Self { serve: serve?, log: log?, plan: plan? });
        vars.finish(checked())
    }
}

impl CheckedIndex {
    /// Checks the configuration as [`CheckedServe::resolve`] does. With `force`, an unfit index is
    /// accepted, because it will be replaced. `to` is the engine to load.
    pub fn resolve(
        source: &dyn Source,
        force: bool,
        to: Option<EngineKind>,
    ) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(source);
        let (index, pointers) = IndexConfig::read(&mut vars, to);
        let log = LogConfig::read(&mut vars);
        let mut faults = pointers.encoder.as_ref().map(encoder_faults).unwrap_or_default();
        let corpus = pointers.corpus.as_deref();
        faults.extend(corpus.and_then(unreadable));
        let loaded = pointers.index.map(|index| (Manifest::load(&index), index));
        // An index that is there needs no corpus, unless it is to be built again.
        let is_there = matches!(&loaded, Some((Ok(_), _)));
        if corpus.is_some_and(<[_]>::is_empty) && (force || !is_there) {
            faults.extend(ConfigError::unset(&var::CORPUS).faults);
        }
        faults.extend(loaded.and_then(|(manifest, index)| match manifest {
            Ok(_) => None,
            Err(IndexError::Missing(_)) => unbuildable(&index),
            Err(IndexError::Incompatible { .. } | IndexError::Corrupt { .. }) if force => {
                unbuildable(&index)
            }
            Err(error) => Some(unfit(&index, &error)),
        }));
        vars.add_faults(faults);
        let checked = || Ok(Self { index: index?, log: log? });
        vars.finish(checked())
    }
}

/// Returns the plan for an index, which holds if no faults were added. A corpus of `None` has a bad value,
/// which is noted already.
fn plan(index: &Path, corpus: Option<&[PathBuf]>, faults: &mut Vec<BadValue>) -> IndexPlan {
    match Manifest::load(index) {
        Ok(manifest) => {
            let corpus = corpus.unwrap_or_default();
            faults.extend(compare(corpus, index, &manifest, Verification::Sizes).err());
            return IndexPlan::Open { passage_count: manifest.passage_count };
        }
        Err(IndexError::Missing(_)) if corpus.is_some_and(<[_]>::is_empty) => {
            faults.push(index_fault(
                index,
                "there is no index".to_owned(),
                "a folder with an index (or RETRIEVER_CORPUS set, to build one there)",
            ));
        }
        Err(IndexError::Missing(_)) => {
            faults.extend(unbuildable(index));
            faults.extend(corpus.and_then(unreadable));
        }
        Err(error) => faults.push(unfit(index, &error)),
    }
    IndexPlan::Build
}

/// Refuses to serve an index that was built from another corpus than the named one. Returns the corpus
/// files that could not be compared, with the reason; an index is whole without them.
pub(crate) fn compare(
    corpus: &[PathBuf],
    index: &Path,
    manifest: &Manifest,
    verification: Verification<'_>,
) -> Result<Vec<(PathBuf, io::Error)>, BadValue> {
    if corpus.is_empty() {
        return Ok(Vec::new());
    }
    match corpus_match::compare(manifest, corpus, verification) {
        CorpusMatch::Same { unread } => Ok(unread),
        CorpusMatch::Other(difference) => {
            let made_from: Vec<_> = manifest.corpus.iter().map(|file| file.path.clone()).collect();
            let (index, made_from) = (index.display(), shown(&made_from));
            let problem = format!("the index in {index} was built from {made_from} ({difference})");
            let accepts = "the corpus of that index, another RETRIEVER_INDEX, or \
                           `retriever-server index --force`";
            Err(corpus_fault(corpus, problem, accepts))
        }
    }
}

/// Returns the faults of the encoder's files and device.
fn encoder_faults(encoder: &EncoderConfig) -> Vec<BadValue> {
    let faults = [unusable_model(encoder), no_device(encoder), no_vectors(encoder)];
    faults.into_iter().flatten().collect()
}

/// Returns the fault of the re-ranker's files, if there is one.
fn unusable_reranker(folder: &Path) -> Option<BadValue> {
    let problem = match cross_encoder::CrossEncoderSettings::load(folder) {
        Err(error) => error.to_string(),
        Ok(settings) => missing([&settings.model, &settings.tokenizer.path])?,
    };
    Some(fault(&var::RERANKER, folder.display().to_string(), problem, var::RERANKER.accepts))
}

/// Says which of the files does not exist.
fn missing(files: [&PathBuf; 2]) -> Option<String> {
    let missing = files.into_iter().find(|path| !path.is_file())?;
    Some(format!("{} does not exist", missing.display()))
}

/// Returns the fault of an encoder's folder that shows without loading the model, if there is one.
fn unusable_model(encoder: &EncoderConfig) -> Option<BadValue> {
    let problem = match EncoderSettings::load(&encoder.model) {
        Err(error) => error.to_string(),
        Ok(settings) => missing([&settings.model, &settings.tokenizer.path])?,
    };
    let value = encoder.model.display().to_string();
    Some(fault(
        &var::MODEL,
        value,
        problem,
        "a folder of sentence-transformers with model.onnx or onnx/model.onnx, or one with model.onnx, \
         tokenizer.json and retriever.toml",
    ))
}

/// Returns the fault of a requested CUDA device that does not exist.
fn no_device(encoder: &EncoderConfig) -> Option<BadValue> {
    let requested = encoder.runtime.device;
    if requested == Device::Auto {
        return None;
    }
    let problem = gpu::choose(requested).err()?.to_string();
    Some(fault(&var::DEVICE, requested.to_string(), problem, "auto, cpu or an existing device"))
}

/// Returns the fault of a file of vectors that does not exist.
fn no_vectors(encoder: &EncoderConfig) -> Option<BadValue> {
    let path = encoder.vectors.as_ref().filter(|path| !path.is_file())?;
    let value = path.display().to_string();
    Some(fault(&var::VECTORS, value, "it does not exist".to_owned(), var::VECTORS.accepts))
}

/// Returns the fault of something at `index` that cannot be served.
fn unfit(index: &Path, error: &IndexError) -> BadValue {
    match error {
        IndexError::NotAnIndex(_) => index_fault(
            index,
            "the existing folder or file is not an index".to_owned(),
            "a folder with an index, or a new or empty folder",
        ),
        IndexError::Incompatible { property, found, expected, .. } => index_fault(
            index,
            format!("the index there has {property} {found}"),
            &format!(
                "an index with {property} {expected}; `retriever-server index --force` builds it"
            ),
        ),
        error => index_fault(index, error.to_string(), "a folder with an index that can be read"),
    }
}

/// Returns the fault of a folder that no index can be built in, as far as it shows without building one.
fn unbuildable(index: &Path) -> Option<BadValue> {
    if index.file_name().is_none() {
        let problem = "there is no index and the path ends without a name".to_owned();
        return Some(index_fault(index, problem, "a folder that can be created by its name"));
    }
    if is_mount_point(index) {
        // A finished index is put in place by renaming, which does not work for a mount point.
        let problem = "there is no index and the folder is a mount point".to_owned();
        return Some(index_fault(
            index,
            problem,
            "a folder below it, in which an index can be built",
        ));
    }
    let error = probe(index).err()?;
    let problem = format!("there is no index and the folder cannot be created: {error}");
    Some(index_fault(index, problem, "a folder that can be created, to build an index there"))
}

fn is_mount_point(folder: &Path) -> bool {
    match (fs::metadata(folder), fs::metadata(folder.join(".."))) {
        (Ok(inside), Ok(outside)) => inside.dev() != outside.dev(),
        _ => false,
    }
}

/// Creates and removes an empty folder next to `folder`. Permissions alone are not enough: the file
/// system may be mounted read-only, or the user may be root.
fn probe(folder: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let above = folder.ancestors().skip(1);
    let mut above = above.map(|above| if above.as_os_str().is_empty() { here } else { above });
    // A folder that cannot be looked at exists, and the attempt shows what is wrong with it.
    let existing = above.find(|above| above.try_exists().unwrap_or(true));
    let probe = existing.unwrap_or(here).join(format!(".retriever-{}.probe", std::process::id()));
    match fs::create_dir(&probe) {
        Ok(()) => fs::remove_dir(&probe),
        // Another thread of this process probes the same folder.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the fault of a corpus with files that cannot be read, which names each of them.
pub(crate) fn unreadable(corpus: &[PathBuf]) -> Option<BadValue> {
    let faults: Vec<String> = corpus.iter().filter_map(|path| unreadable_file(path)).collect();
    let accepts = "files that can be read, to build the index from";
    (!faults.is_empty()).then(|| corpus_fault(corpus, faults.join(", "), accepts))
}

/// Reads the first passage of a corpus file or of a folder of parts.
fn unreadable_file(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        // A pipe is not opened, as that would wait for its writer.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => None,
        Ok(_) => record::check_head(path).err().map(|error| error.to_string()),
        Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
    }
}

fn index_fault(index: &Path, problem: String, accepts: &str) -> BadValue {
    fault(&var::INDEX, index.display().to_string(), problem, accepts)
}

fn corpus_fault(corpus: &[PathBuf], problem: String, accepts: &str) -> BadValue {
    fault(&var::CORPUS, shown(corpus), problem, accepts)
}

fn fault(variable: &Variable, value: String, problem: String, accepts: &str) -> BadValue {
    BadValue {
        variable: variable.name,
        flag: variable.flag,
        value: Some(value),
        problem: Some(problem),
        accepts: accepts.to_owned(),
    }
}

#[cfg(test)]
mod tests;
