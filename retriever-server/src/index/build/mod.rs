//! Builds an index from corpus files. The index appears under its name only after everything is
//! written, checked and synced. A build that fails or is killed leaves the old state unchanged.

use std::fs;
use std::path::{Path, PathBuf};

use shared::contract::digest::Digest;
use shared::contract::rows::{self, RowsError};
use shared::machine::atomic_file::{self, AtomicDir};

use super::duplicates::Identifiers;
use super::manifest::{FORMAT, FileEntry, Manifest, Verification, content_digest};
use super::progress::Progress;
use super::{IndexError, LEXICAL_FOLDER, compaction, io_error};
use crate::corpus::compact;
use crate::corpus::record::Passages;
use crate::corpus::store::{PASSAGES_FILE, PassageStore, PassageWriter};
use crate::lexical::analyzer::ANALYZER;
use crate::lexical::bm25::{Bm25Parameters, CollectionStatistics};
use crate::lexical::reader::LexicalReader;
use crate::lexical::writer::LexicalWriter;

/// The most passages of an index: document numbers stay below tantivy's `TERMINATED`.
const MAX_PASSAGES: u32 = i32::MAX as u32 - 1;

/// The number of passages between two progress reports.
const PASSAGES_PER_REPORT: u32 = 512;

/// The number of passages of a corpus file that a check reads.
const HEAD_PASSAGES: usize = 100;

/// The inputs and options of a build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The corpus files, in the order of their passages. A folder stands for its parts. An existing index needs none.
    pub corpus: Vec<PathBuf>,
    /// The folder of the index.
    pub index: PathBuf,
    /// `true` to replace an index of another corpus.
    pub force: bool,
    /// The number of threads that analyse text.
    pub threads: usize,
    /// `true` to store the passages compressed. Compressed passages stay compressed in any case.
    pub compact: bool,
}

/// The outcome of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildOutcome {
    /// The index was written.
    Built(Manifest),
    /// An index of the same corpus existed, and its passages were compressed.
    Compressed(Manifest),
    /// An index of the same corpus existed and was not changed.
    UpToDate(Manifest),
}

/// Builds an index. An existing index of the same corpus is kept, or any if no corpus is named; if requested,
/// its passages are compressed.
pub fn build(
    request: &BuildRequest,
    report: &mut dyn FnMut(Progress),
) -> Result<BuildOutcome, IndexError> {
    let corpus = files(&request.corpus)?;
    if let Some(manifest) = reusable(request, &corpus)? {
        atomic_file::remove_leftovers(&request.index)?;
        if !request.compact || compaction::is_compact(&manifest) {
            return Ok(BuildOutcome::UpToDate(manifest));
        }
        return compaction::compress(&request.index, &manifest, report)
            .map(BuildOutcome::Compressed);
    }
    if request.corpus.is_empty() {
        return Err(IndexError::NoCorpus);
    }
    let folder = AtomicDir::create(&request.index)?;
    let corpus = write_passages(&corpus, request.threads, folder.path(), report)?;
    // The digest is over the passages' lines, so it does not depend on compression.
    let path = folder.path().join(PASSAGES_FILE);
    let passages = Digest::of_file(&path).map_err(io_error(&path))?;
    if request.compact {
        report(Progress::Compressing);
        compact::compress(folder.path())?;
    }
    report(Progress::Sealing);
    let manifest = seal(folder.path(), corpus, passages)?;
    folder.commit()?;
    Ok(BuildOutcome::Built(manifest))
}

/// Returns the files of a corpus, with the parts of a folder in its place.
fn files(corpus: &[PathBuf]) -> Result<Vec<PathBuf>, IndexError> {
    let mut files = Vec::new();
    for path in corpus {
        files.extend(rows::parts(path)?);
    }
    Ok(files)
}

/// Reads the first passages of each corpus file, as a build reads them.
pub fn read_head(corpus: &[PathBuf]) -> Result<(), IndexError> {
    for path in files(corpus)? {
        let mut passages = Passages::open(&path)?;
        for _ in 0..HEAD_PASSAGES {
            if passages.next_passage()?.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Returns the manifest of an existing index of the same corpus, or of any if no corpus is named; or `None` if a
/// new one must be built.
fn reusable(request: &BuildRequest, corpus: &[PathBuf]) -> Result<Option<Manifest>, IndexError> {
    match Manifest::load(&request.index) {
        Err(IndexError::Missing(_)) => Ok(None),
        Ok(manifest) if request.corpus.is_empty() && !request.force => {
            manifest.check_files(&request.index, Verification::Sizes)?;
            Ok(Some(manifest))
        }
        Ok(manifest) => {
            let corpus = corpus
                .iter()
                .map(|path| FileEntry::of_file(path).map_err(io_error(path)))
                .collect::<Result<Vec<_>, _>>()?;
            let whole = manifest.check_files(&request.index, Verification::Sizes).is_ok();
            if manifest.is_made_from(&corpus) && whole {
                Ok(Some(manifest))
            } else if request.force {
                Ok(None)
            } else {
                Err(IndexError::Differs(request.index.clone()))
            }
        }
        // An index of another version, or a damaged one, is replaced on request.
        Err(IndexError::Incompatible { .. } | IndexError::Corrupt { .. }) if request.force => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes the passages and the postings, and returns the entries of the corpus files it read.
fn write_passages(
    files: &[PathBuf],
    threads: usize,
    folder: &Path,
    report: &mut dyn FnMut(Progress),
) -> Result<Vec<FileEntry>, IndexError> {
    let lexical_folder = folder.join(LEXICAL_FOLDER);
    fs::create_dir(&lexical_folder).map_err(io_error(&lexical_folder))?;
    let sizes = sizes(files)?;
    let bytes_total = sizes.iter().sum();
    let mut passages = PassageWriter::create(folder).map_err(io_error(folder))?;
    let mut lexical = LexicalWriter::create(&lexical_folder, threads)?;
    let mut identifiers = Identifiers::default();
    let mut corpus = Vec::new();
    let mut row: u32 = 0;
    let mut bytes_before = 0;
    for (path, bytes) in files.iter().zip(sizes) {
        identifiers.start_file(path.clone());
        let mut reader = Passages::open(path)?;
        while let Some((number, passage)) = reader.next_passage()? {
            if row == MAX_PASSAGES {
                return Err(IndexError::TooLarge(MAX_PASSAGES));
            }
            identifiers.add(&passage.id, number);
            passages.add(&passage).map_err(io_error(folder))?;
            lexical.add(row, &passage.contents)?;
            row += 1;
            if row.is_multiple_of(PASSAGES_PER_REPORT) {
                let bytes_read = bytes_before + reader.bytes_read();
                report(Progress::Reading { bytes_read, bytes_total, passages: u64::from(row) });
            }
        }
        bytes_before += bytes;
        corpus.push(FileEntry { path: path.clone(), bytes, sha256: reader.into_digest()? });
    }
    if row == 0 {
        return Err(IndexError::Empty);
    }
    report(Progress::Reading { bytes_read: bytes_before, bytes_total, passages: u64::from(row) });
    passages.finish().map_err(io_error(folder))?;
    identifiers.check(&PassageStore::open(folder)?)?;
    report(Progress::Merging);
    lexical.finish()?;
    Ok(corpus)
}

/// Returns the size of each file.
fn sizes(files: &[PathBuf]) -> Result<Vec<u64>, IndexError> {
    let mut sizes = Vec::new();
    for path in files {
        let metadata = fs::metadata(path).map_err(|error| RowsError::io(path, error))?;
        // Each file is opened here too, which reports a bad one before any work is done. A pipe can be opened once.
        if metadata.is_file() {
            Passages::open(path)?;
        }
        sizes.push(metadata.len());
    }
    Ok(sizes)
}

/// Writes the manifest, which lists all files of the folder.
fn seal(folder: &Path, corpus: Vec<FileEntry>, passages: Digest) -> Result<Manifest, IndexError> {
    let statistics = statistics(folder)?;
    let mut files = Vec::new();
    list_files(folder, Path::new(""), &mut files)?;
    files.sort_by(|left, right| left.path.cmp(&right.path));
    let manifest = Manifest {
        format: FORMAT,
        writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
        analyzer: ANALYZER.to_owned(),
        passage_count: PassageStore::open(folder)?.len() as u64,
        scored_passage_count: statistics.passage_count,
        token_count: statistics.token_count,
        digest: content_digest(passages),
        corpus,
        files,
        seal: None,
    };
    manifest.write(folder)
}

fn statistics(folder: &Path) -> Result<CollectionStatistics, IndexError> {
    // The counts do not depend on the constants.
    let parameters = Bm25Parameters::default();
    Ok(LexicalReader::open(&folder.join(LEXICAL_FOLDER), parameters)?.statistics())
}

/// Adds an entry to `files` for each file in the folder `below` of `folder`, recursively.
fn list_files(folder: &Path, below: &Path, files: &mut Vec<FileEntry>) -> Result<(), IndexError> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).map_err(io_error(&here))? {
        let entry = entry.map_err(io_error(&here))?;
        let relative = below.join(entry.file_name());
        if entry.file_type().map_err(io_error(&here))?.is_dir() {
            list_files(folder, &relative, files)?;
        } else {
            let path = entry.path();
            let described = FileEntry::of_file(&path).map_err(io_error(&path))?;
            files.push(FileEntry { path: relative, ..described });
        }
    }
    Ok(())
}

#[cfg(test)]
mod interruptions;
#[cfg(test)]
mod tests;
