//! Encodes the passages of an index. A killed build loses only the batch in progress: the next build
//! keeps the rows on disk and encodes the rest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use shared::machine::atomic_file;

use super::{
    DENSE_FOLDER, DenseManifest, MANIFEST_FILE, VECTORS_FILE, VectorSource, ignore_missing,
    lock_folder,
};
use crate::corpus::store::PassageStore;
use crate::index::manifest::FileEntry;
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};

/// The name of the folder of incomplete vectors, in the index folder.
pub(super) const PARTIAL_FOLDER: &str = ".dense.partial";
const SOURCE_FILE: &str = "source.json";
/// The number of passages to encode, write and sync at a time. This is seconds of work on a CPU, and
/// the most that a kill costs.
const BATCH_PASSAGES: usize = 256;

/// An encoder that turns passages into vectors.
pub trait PassageEncoder {
    /// Returns the rows of `texts` in order, each with `dimension` finite components.
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, String>;
}

/// Returns `true` if the index has the vectors of `source`.
pub fn exist(index: &Path, source: &VectorSource) -> Result<bool, IndexError> {
    Ok(DenseManifest::load(index)?.is_some_and(|manifest| manifest.source == *source))
}

/// Removes old vectors that a build replaced shortly before it was killed. The vectors of an
/// incomplete build that can resume are kept.
pub fn remove_leftovers(index: &Path) -> Result<(), IndexError> {
    let folder = index.join(PARTIAL_FOLDER);
    if folder.is_dir() && read_source(&folder)?.is_none() {
        let _lock = lock_folder(&folder, index)?;
        fs::remove_dir_all(&folder).map_err(io_error(&folder))?;
    }
    Ok(atomic_file::remove_retired(&index.join(DENSE_FOLDER))?)
}

/// Writes the vectors of all `passages` to the index folder `index`. They replace older ones once they
/// are complete. `model` is the folder of the encoder, which the manifest records.
pub fn build(
    index: &Path,
    source: &VectorSource,
    model: &Path,
    passages: &PassageStore,
    encoder: &dyn PassageEncoder,
    report: &mut dyn FnMut(Progress),
) -> Result<DenseManifest, IndexError> {
    let mut partial = Partial::open(index, source)?;
    let total = source.passage_count;
    let mut row = partial.rows_done;
    report(Progress::Encoding { passages: row, total, done_before: partial.rows_done });
    while row < total {
        let end = total.min(row + BATCH_PASSAGES as u64);
        let contents = (row..end)
            .map(|row| Ok(passages.get(row as u32)?.contents))
            .collect::<Result<Vec<String>, IndexError>>()?;
        let texts: Vec<&str> = contents.iter().map(String::as_str).collect();
        let numbers = encoder.encode(&texts).map_err(IndexError::Encode)?;
        check(&numbers, texts.len() * source.dimension as usize, row)?;
        partial.append(&numbers)?;
        row = end;
        report(Progress::Encoding { passages: row, total, done_before: partial.rows_done });
    }
    report(Progress::Sealing);
    partial.commit(index, source, model)
}

/// Checks that an encoder returned rows of finite numbers, so that no others get into an index.
fn check(numbers: &[f32], expected: usize, row: u64) -> Result<(), IndexError> {
    if numbers.len() != expected {
        let reason =
            format!("{} numbers for passages from row {row}, not {expected}", numbers.len());
        return Err(IndexError::Encode(reason));
    }
    match numbers.iter().find(|number| !number.is_finite()) {
        Some(number) => {
            let reason = format!("{number} among the vectors of passages from row {row}");
            Err(IndexError::Encode(reason))
        }
        None => Ok(()),
    }
}

/// An incomplete set of vectors that only this process can write.
struct Partial {
    folder: PathBuf,
    vectors: File,
    rows_done: u64,
    /// The lock that keeps other builds out until it is closed.
    _lock: File,
}

impl Partial {
    /// Opens the incomplete vectors of an earlier build from the same source, or starts with none.
    fn open(index: &Path, source: &VectorSource) -> Result<Self, IndexError> {
        let folder = index.join(PARTIAL_FOLDER);
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let lock = lock_folder(&folder, index)?;
        let resumes = read_source(&folder)?.as_ref() == Some(source);
        if !resumes {
            // The folder holds vectors of another source, or it is a replaced folder that was not
            // removed and may have graphs.
            clear(&folder)?;
        }
        let path = folder.join(VECTORS_FILE);
        let mut vectors = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error(&path))?;
        let row_bytes = source.dimension * size_of::<f32>() as u64;
        let length = vectors.metadata().map_err(io_error(&path))?.len();
        let rows_done = (length / row_bytes).min(source.passage_count);
        // The last row may be incomplete.
        vectors.set_len(rows_done * row_bytes).map_err(io_error(&path))?;
        vectors.seek(SeekFrom::End(0)).map_err(io_error(&path))?;
        if !resumes {
            let text = serde_json::to_vec_pretty(source)
                .map_err(|error| io_error(&folder)(error.into()))?;
            atomic_file::write(&folder.join(SOURCE_FILE), &text)?;
        }
        Ok(Self { folder, vectors, rows_done, _lock: lock })
    }

    /// Writes rows and waits until they are on the disk.
    fn append(&mut self, numbers: &[f32]) -> Result<(), IndexError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let written = self.vectors.write_all(&bytes).and_then(|()| self.vectors.sync_data());
        written.map_err(io_error(&self.folder.join(VECTORS_FILE)))
    }

    /// Writes the manifest and moves the folder to its final name, where it replaces an older one.
    fn commit(
        self,
        index: &Path,
        source: &VectorSource,
        model: &Path,
    ) -> Result<DenseManifest, IndexError> {
        let path = self.folder.join(VECTORS_FILE);
        let vectors = FileEntry::of_file(&path).map_err(io_error(&path))?;
        let manifest = DenseManifest {
            source: source.clone(),
            writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: model.to_owned(),
            vectors: FileEntry { path: PathBuf::from(VECTORS_FILE), ..vectors },
            formats: Vec::new(),
            graphs: Vec::new(),
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| io_error(&self.folder)(error.into()))?;
        atomic_file::write(&self.folder.join(MANIFEST_FILE), &text)?;
        let folder = index.join(DENSE_FOLDER);
        atomic_file::replace_folder(&self.folder, &folder)?;
        // Removed only now: without this file, a kill before the renaming would cost all vectors.
        let note = folder.join(SOURCE_FILE);
        ignore_missing(fs::remove_file(&note)).map_err(io_error(&note))?;
        Ok(manifest)
    }
}

/// Removes the files in `folder`, which has no subfolders.
fn clear(folder: &Path) -> Result<(), IndexError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        fs::remove_file(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Reads the source of the incomplete vectors in `folder`. Returns `None` if the note of it is missing
/// or unreadable: a build cannot resume from such a folder.
fn read_source(folder: &Path) -> Result<Option<VectorSource>, IndexError> {
    let path = folder.join(SOURCE_FILE);
    let mut text = String::new();
    match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) => Ok(serde_json::from_str(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&path)(error)),
    }
}

#[cfg(test)]
mod tests;
