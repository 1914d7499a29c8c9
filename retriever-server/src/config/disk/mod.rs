//! The configuration together with what it points to: whether there is an index, whether one can
//! be built, and from what. Manifests, names and sizes are looked at, no more, and nothing is left
//! behind, so that a start and a mere check cost and find the same.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::reader::{Noted, Reader, path, paths};
use crate::config::source::Source;
use crate::config::variables::{self as var, VARIABLES, Variable};
use crate::config::{
    BadValue, ConfigError, EncoderConfig, IndexConfig, LogConfig, ServeConfig, shown,
};
use crate::encode::cross_encoder;
use crate::encode::device::Device;
use crate::encode::settings::Settings;
use crate::gpu;
use crate::index::IndexError;
use crate::index::corpus_match::{self, CorpusMatch};
use crate::index::manifest::{Manifest, Verification};

/// Everything that `serve` is told, with what it will do for its index.
#[derive(Clone, Debug)]
pub struct CheckedServe {
    /// The server.
    pub serve: ServeConfig,
    /// The log.
    pub log: LogConfig,
    /// The index.
    pub plan: IndexPlan,
}

/// Everything that `index` is told.
#[derive(Clone, Debug)]
pub struct CheckedIndex {
    /// The index and its corpus.
    pub index: IndexConfig,
    /// The log.
    pub log: LogConfig,
}

/// What a start does for its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexPlan {
    /// It is there.
    Open {
        /// Passages in it.
        passage_count: u64,
    },
    /// It has to be built from the corpus.
    Build,
}

impl CheckedServe {
    /// Reads every variable and looks at what it points to. The error has all faults of both.
    pub fn resolve(source: &dyn Source) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let serve = noted(ServeConfig::resolve(source), &mut faults);
        let log = noted(LogConfig::resolve(source), &mut faults);
        let mut vars = Reader::new(source);
        let (backend, runtime) = (vars.backend(), vars.runtime());
        faults.extend(encoder_faults(vars.encoder(backend.as_ref(), runtime.as_ref())));
        faults.extend(unusable_reranker(source));
        let (index, corpus) = places(source);
        let plan = index.map(|index| plan(&index, corpus.as_deref(), &mut faults));
        match (serve, log, plan) {
            (Some(serve), Some(log), Some(plan)) if faults.is_empty() => {
                Ok(Self { serve, log, plan })
            }
            _ => Err(in_order(faults)),
        }
    }
}

impl CheckedIndex {
    /// Like [`CheckedServe::resolve`]. `force` says that an index may be there that is unfit.
    pub fn resolve(source: &dyn Source, force: bool) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let config = noted(IndexConfig::resolve(source), &mut faults);
        let log = noted(LogConfig::resolve(source), &mut faults);
        let mut vars = Reader::new(source);
        let backends = vars.backends();
        let runtime = vars.runtime();
        let encoder = vars.encoder_of_index(backends.as_deref(), runtime.as_ref());
        faults.extend(encoder_faults(encoder));
        let (index, corpus) = places(source);
        faults.extend(corpus.and_then(|corpus| unreadable(&corpus)));
        faults.extend(index.and_then(|index| match Manifest::load(&index) {
            Ok(_) => None,
            Err(IndexError::Missing(_)) => unbuildable(&index),
            Err(IndexError::Incompatible { .. } | IndexError::Corrupt { .. }) if force => {
                unbuildable(&index)
            }
            Err(error) => Some(unfit(&index, &error)),
        }));
        match (config, log) {
            (Some(index), Some(log)) if faults.is_empty() => Ok(Self { index, log }),
            _ => Err(in_order(faults)),
        }
    }
}

/// The values that point to something, each `None` if it is bad.
fn places(source: &dyn Source) -> (Option<PathBuf>, Option<Vec<PathBuf>>) {
    let mut vars = Reader::new(source);
    (vars.take(&var::INDEX, path).ok(), vars.take_optional(&var::CORPUS, paths).ok())
}

fn noted<T>(resolved: Result<T, ConfigError>, faults: &mut Vec<BadValue>) -> Option<T> {
    resolved.map_err(|error| faults.extend(error.faults)).ok()
}

/// The faults in the order of the reference page, wherever they were found.
fn in_order(mut faults: Vec<BadValue>) -> ConfigError {
    let place = |fault: &BadValue| VARIABLES.iter().position(|one| one.name == fault.variable);
    faults.sort_by_key(place);
    ConfigError { faults }
}

/// What `serve` will do for this index, once there are no faults. A corpus of `None` is one whose
/// value is bad, which is noted already.
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

/// Refuses to serve an index of another corpus than the one that is named. Returns the corpus files
/// that could not be compared, with the reason: an index is whole without them.
pub(crate) fn compare(
    corpus: &[PathBuf],
    index: &Path,
    manifest: &Manifest,
    verification: Verification,
) -> Result<Vec<(PathBuf, io::Error)>, BadValue> {
    if corpus.is_empty() {
        return Ok(Vec::new());
    }
    match corpus_match::compare(manifest, corpus, verification) {
        CorpusMatch::Same { unread } => Ok(unread),
        CorpusMatch::Other(difference) => {
            let made_from: Vec<_> = manifest.corpus.iter().map(|one| one.path.clone()).collect();
            let (index, made_from) = (index.display(), shown(&made_from));
            let found = format!("the index in {index} was built from {made_from} ({difference})");
            let accepts = "the corpus of that index, another RETRIEVER_INDEX, or \
                           `retriever-server index --force`";
            Err(corpus_fault(corpus, found, accepts))
        }
    }
}

/// What is wrong with the files of the encoder, if there is to be one. A bad value is noted already.
fn encoder_faults(encoder: Result<Option<EncoderConfig>, Noted>) -> Vec<BadValue> {
    let Ok(Some(encoder)) = encoder else { return Vec::new() };
    let faults = [unusable_model(&encoder), no_device(&encoder), no_vectors(&encoder)];
    faults.into_iter().flatten().collect()
}

/// What is wrong with the files of the re-ranker, if there is to be one.
fn unusable_reranker(source: &dyn Source) -> Option<BadValue> {
    let folder = Reader::new(source).take_optional(&var::RERANKER, |text| path(text).map(Some));
    let folder = folder.ok().flatten()?;
    let found = match cross_encoder::Settings::load(&folder) {
        Err(error) => error.to_string(),
        Ok(settings) => missing([&settings.model, &settings.tokenizer])?,
    };
    Some(fault(&var::RERANKER, folder.display().to_string(), found, var::RERANKER.accepts))
}

fn missing(files: [&PathBuf; 2]) -> Option<String> {
    let missing = files.into_iter().find(|path| !path.is_file())?;
    Some(format!("{} is not there", missing.display()))
}

/// What is wrong with the folder of an encoder, as far as that can be seen without loading it.
fn unusable_model(encoder: &EncoderConfig) -> Option<BadValue> {
    let found = match Settings::load(&encoder.model) {
        Err(error) => error.to_string(),
        Ok(settings) => missing([&settings.model, &settings.tokenizer])?,
    };
    let value = encoder.model.display().to_string();
    Some(fault(
        &var::MODEL,
        value,
        found,
        "a folder with model.onnx, tokenizer.json and retriever.toml",
    ))
}

/// Whether the CUDA device that is asked for is there.
fn no_device(encoder: &EncoderConfig) -> Option<BadValue> {
    let asked = encoder.runtime.device;
    if asked == Device::Auto {
        return None;
    }
    let found = gpu::choose(asked).err()?.to_string();
    Some(fault(&var::DEVICE, asked.to_string(), found, "auto, cpu or a device that is there"))
}

/// Whether the file of vectors is there.
fn no_vectors(encoder: &EncoderConfig) -> Option<BadValue> {
    let path = encoder.vectors.as_ref().filter(|path| !path.is_file())?;
    let value = path.display().to_string();
    Some(fault(&var::VECTORS, value, "it is not there".to_owned(), var::VECTORS.accepts))
}

/// There is something at `index` that cannot be served.
fn unfit(index: &Path, error: &IndexError) -> BadValue {
    match error {
        IndexError::NotAnIndex(_) => index_fault(
            index,
            "something is there that is no index".to_owned(),
            "a folder with an index, or one that is new or empty",
        ),
        IndexError::Incompatible { what, found, expected, .. } => index_fault(
            index,
            format!("the index there has {what} {found}"),
            &format!("an index with {what} {expected}; `retriever-server index --force` makes it"),
        ),
        error => index_fault(index, error.to_string(), "a folder with an index that can be read"),
    }
}

/// Why no index can be built at `index`, as far as that can be seen without building it.
fn unbuildable(index: &Path) -> Option<BadValue> {
    if index.file_name().is_none() {
        let found = "there is no index and the path ends without a name".to_owned();
        return Some(index_fault(index, found, "a folder that can be created by its name"));
    }
    if is_mount_point(index) {
        // A finished index is put in place by renaming, which no mount point can take part in.
        let found = "there is no index and the folder is a mount point".to_owned();
        return Some(index_fault(index, found, "a folder below it, where an index can be built"));
    }
    let error = probe(index).err()?;
    let found = format!("there is no index and the folder cannot be created: {error}");
    Some(index_fault(index, found, "a folder that can be created, to build an index there"))
}

fn is_mount_point(folder: &Path) -> bool {
    match (fs::metadata(folder), fs::metadata(folder.join(".."))) {
        (Ok(inside), Ok(outside)) => inside.dev() != outside.dev(),
        _ => false,
    }
}

/// Creates and removes an empty folder where `folder` would be created. Permissions alone do not
/// tell: the file system may be mounted read-only, or the user be root.
fn probe(folder: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let above = folder.ancestors().skip(1);
    let mut above = above.map(|above| if above.as_os_str().is_empty() { here } else { above });
    // What cannot be looked at is there, and the attempt tells what is wrong with it.
    let existing = above.find(|above| above.try_exists().unwrap_or(true));
    let probe = existing.unwrap_or(here).join(format!(".retriever-{}.probe", std::process::id()));
    match fs::create_dir(&probe) {
        Ok(()) => fs::remove_dir(&probe),
        // Another thread of this process asks the same.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Names every corpus file that cannot be read.
fn unreadable(corpus: &[PathBuf]) -> Option<BadValue> {
    let faults: Vec<String> = corpus.iter().filter_map(|path| unreadable_file(path)).collect();
    let accepts = "files that can be read, to build the index from";
    (!faults.is_empty()).then(|| corpus_fault(corpus, faults.join(", "), accepts))
}

fn unreadable_file(path: &Path) -> Option<String> {
    let readable = fs::metadata(path).and_then(|found| {
        // A pipe is not opened here: that would wait for its writer.
        if found.is_file() { File::open(path).map(|_| found) } else { Ok(found) }
    });
    match readable {
        Ok(found) => found.is_dir().then(|| format!("{} is a folder", path.display())),
        Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
    }
}

fn index_fault(index: &Path, found: String, accepts: &str) -> BadValue {
    fault(&var::INDEX, index.display().to_string(), found, accepts)
}

fn corpus_fault(corpus: &[PathBuf], found: String, accepts: &str) -> BadValue {
    fault(&var::CORPUS, shown(corpus), found, accepts)
}

fn fault(variable: &Variable, value: String, found: String, accepts: &str) -> BadValue {
    BadValue {
        variable: variable.name,
        flag: variable.flag,
        value: Some(value),
        found: Some(found),
        accepts: accepts.to_owned(),
    }
}

#[cfg(test)]
mod tests;
