//! `manifest.json`: the digests of what a run was made from. A run resumes only from the same.
//!
//! Every byte of every file counts; a path does not. Files are read in parallel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};
use shared::contract::digest::Digest;
use shared::contract::rows;
use shared::machine::atomic_file;

use crate::checkpoint::{self, CheckpointError, Inputs};
use crate::policy::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, ModelPlace, TEMPLATES_FOLDER, weight_files,
};

const FILE: &str = "manifest.json";
/// Longest list of files whose digests are computed at the same time.
const PARALLEL_FILES_MAX: usize = 8;
/// Keys that manifests of earlier versions lack.
const LATER_KEYS: [&str; 4] =
    ["model configuration", "tokenizer configuration", "chat template", "adapter configuration"];
/// Files that older manifests lack. A file that is absent has the digest of no bytes, so that one which is added later
/// shows.
const OPTIONAL_FILES: [(&str, &str); 3] = [
    ("generation configuration", "generation_config.json"),
    ("special tokens", "special_tokens_map.json"),
    ("added tokens", "added_tokens.json"),
];
/// Keys of `adapter_config.json` that say where the base is, which may move.
const PLACE_KEYS: [&str; 2] = ["base_model_name_or_path", "revision"];

/// The files that a run is made from.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Path and digest by the name of what a file holds.
    entries: BTreeMap<String, (PathBuf, Digest)>,
}

impl Manifest {
    /// Computes the digests of model, tokenizer, adapters and questions.
    ///
    /// # Errors
    /// A file that cannot be read, or a folder of questions that are not parts of one file.
    pub(super) fn of(place: &ModelPlace, questions: &[(String, PathBuf)]) -> anyhow::Result<Self> {
        let beside = |name: &str| place.folder_with(name).join(name);
        let mut files = vec![
            ("model configuration".to_owned(), place.base.join("config.json")),
            ("tokenizer".to_owned(), beside("tokenizer.json")),
            ("tokenizer configuration".to_owned(), beside("tokenizer_config.json")),
            ("chat template".to_owned(), beside("chat_template.jinja")),
        ];
        files.extend(OPTIONAL_FILES.map(|(name, file)| (name.to_owned(), beside(file))));
        for (name, path) in questions {
            files.extend(numbered(name, "part", rows::parts(path)?));
        }
        files.extend(named_templates(place)?);
        if let Some(adapters) = &place.adapters {
            files.push(("adapters".to_owned(), adapters.folder.join(ADAPTER_FILE)));
            let path = adapters.folder.join(ADAPTER_CONFIG_FILE);
            files.push(("adapter configuration".to_owned(), path));
        }
        files.extend(numbered("model", "file", weight_files(&place.base)?));
        files.retain(|(_, path)| path.is_file());
        let absent =
            |(name, file): (&str, &str)| (name.to_owned(), (beside(file), Digest::of_bytes(&[])));
        let mut entries: BTreeMap<_, _> = OPTIONAL_FILES.map(absent).into();
        entries.extend(digests(&files)?);
        Ok(Self { entries })
    }

    /// Writes the digests, and the version of the program, into the run directory.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write(&self, run_dir: &Path) -> anyhow::Result<()> {
        let mut facts = Map::new();
        facts.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
        for (name, (path, digest)) in &self.entries {
            let fact = format!("{} {}", path.display(), shown(*digest));
            facts.insert(name.clone(), Value::from(fact));
        }
        let text = serde_json::to_vec_pretty(&facts)?;
        Ok(atomic_file::write(&run_dir.join(FILE), &text)?)
    }

    /// Returns what a checkpoint keeps of it.
    pub(super) fn inputs(&self) -> Inputs {
        self.entries.iter().map(|(name, (_, digest))| (name.clone(), *digest)).collect()
    }

    /// Checks that the run that wrote the checkpoint `folder` began with the same. A checkpoint of an earlier version
    /// does not say so itself; the manifest in `run_dir` then does.
    ///
    /// # Errors
    /// Every input that differs, named; and a file that cannot be read.
    pub(super) fn check_resumed(&self, run_dir: &Path, folder: &Path) -> anyhow::Result<()> {
        let (begun, is_whole) = if let Some(inputs) = checkpoint::inputs(folder)? {
            (inputs, true)
        } else {
            let inputs = read(&run_dir.join(FILE))?;
            let is_whole = LATER_KEYS.iter().any(|key| inputs.contains_key(*key));
            (inputs, is_whole)
        };
        if begun.is_empty() {
            return Ok(());
        }
        let differences = self.differences(&begun, is_whole);
        if differences.is_empty() {
            return Ok(());
        }
        let difference = differences.join("; ");
        Err(CheckpointError::OtherInputs { path: folder.to_owned(), difference }.into())
    }

    fn differences(&self, begun: &Inputs, is_whole: bool) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, digest) in begun {
            match self.entries.get(name) {
                Some((_, own)) if own == digest => {}
                Some((path, own)) => differences.push(format!(
                    "{name}: the run began with {}, {}",
                    shown(*digest),
                    if *own == Digest::of_bytes(&[]) {
                        "now there is none".to_owned()
                    } else {
                        format!("{} has sha256:{own}", path.display())
                    }
                )),
                None => differences.push(format!(
                    "{name}: the run began with {}, now there is none",
                    shown(*digest)
                )),
            }
        }
        let is_optional = |name: &str| OPTIONAL_FILES.iter().any(|(optional, _)| *optional == name);
        let is_known = |name: &str| !is_optional(name) && (is_whole || !LATER_KEYS.contains(&name));
        let added = self.entries.iter().filter(|(name, _)| !begun.contains_key(*name));
        for (name, (path, _)) in added.filter(|(name, _)| is_known(name)) {
            differences
                .push(format!("{name}: the run began without, now it is {}", path.display()));
        }
        differences
    }
}

/// Names `files`, with their numbers if there are several.
fn numbered(
    name: &str,
    kind: &str,
    files: Vec<PathBuf>,
) -> impl Iterator<Item = (String, PathBuf)> {
    let count = files.len();
    files.into_iter().enumerate().map(move |(index, path)| {
        let number = index + 1;
        (if count == 1 { name.to_owned() } else { format!("{name}, {kind} {number}") }, path)
    })
}

fn shown(digest: Digest) -> String {
    if digest == Digest::of_bytes(&[]) { "none".to_owned() } else { format!("sha256:{digest}") }
}

/// Returns the templates with names, if there are any.
fn named_templates(place: &ModelPlace) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let Some(folder) = place.subfolder(TEMPLATES_FOLDER) else { return Ok(Vec::new()) };
    let named = || format!("cannot list {}", folder.display());
    let mut templates = Vec::new();
    for entry in fs::read_dir(&folder).with_context(named)? {
        let path = entry.with_context(named)?.path();
        if let Some(name) = path.file_stem().filter(|_| path.is_file()) {
            templates.push((format!("chat template {}", name.to_string_lossy()), path.clone()));
        }
    }
    Ok(templates)
}

/// Reads the digests of a manifest; a missing file has none.
fn read(path: &Path) -> anyhow::Result<Inputs> {
    if !path.is_file() {
        return Ok(Inputs::new());
    }
    let named = || format!("cannot read {}", path.display());
    let facts: Map<String, Value> =
        serde_json::from_slice(&fs::read(path).with_context(named)?).with_context(named)?;
    let digest = |(name, fact): (String, Value)| {
        let (_, digest) = fact.as_str()?.rsplit_once(" sha256:")?;
        Some((name, digest.parse().ok()?))
    };
    Ok(facts.into_iter().filter_map(digest).collect())
}

fn digests(files: &[(String, PathBuf)]) -> anyhow::Result<BTreeMap<String, (PathBuf, Digest)>> {
    let mut entries = BTreeMap::new();
    for part in files.chunks(PARALLEL_FILES_MAX) {
        let digests: Vec<anyhow::Result<Digest>> = std::thread::scope(|scope| {
            let started: Vec<_> =
                part.iter().map(|(_, path)| scope.spawn(|| digest(path))).collect();
            started
                .into_iter()
                .map(|thread| thread.join().expect("a digest panics never"))
                .collect()
        });
        for ((name, path), digest) in part.iter().zip(digests) {
            entries.insert(name.clone(), (path.clone(), digest?));
        }
    }
    Ok(entries)
}

/// Computes the digest of a file; of a description of adapters, without the place of the base.
fn digest(path: &Path) -> anyhow::Result<Digest> {
    let named = || format!("cannot read {}", path.display());
    if path.file_name().is_some_and(|name| name == ADAPTER_CONFIG_FILE) {
        let bytes = fs::read(path).with_context(named)?;
        let mut keys: Map<String, Value> = serde_json::from_slice(&bytes).with_context(named)?;
        keys.retain(|key, _| !PLACE_KEYS.contains(&key.as_str()));
        return Ok(Digest::of_bytes(&serde_json::to_vec(&keys)?));
    }
    Digest::of_file(path).with_context(named)
}
