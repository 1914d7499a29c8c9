//! The vectors in fewer bits, converted from those in 32. A search of them reads less memory. Its
//! hits are scored again by the exact vectors, of which it reads only the candidates' rows.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DENSE_FOLDER, DenseManifest, DenseRows, VectorSource, lock, rows_file};
use crate::index::manifest::{FileEntry, Verification};
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};
use crate::vector::RowFormat;

/// The number of rows between two progress reports.
const ROWS_PER_REPORT: usize = 4096;

/// The file of the vectors in another format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatEntry {
    /// The format.
    pub format: RowFormat,
    /// The file of the rows.
    pub file: FileEntry,
}

/// Returns `true` if the index has the vectors of `source` in `format`.
pub fn exist(index: &Path, source: &VectorSource, format: RowFormat) -> Result<bool, IndexError> {
    let manifest = DenseManifest::load_for(index, source)?;
    let has_format = || manifest.formats.iter().any(|entry| entry.format == format);
    Ok(format == RowFormat::F32 || has_format())
}

/// Writes the vectors of `source` in `format`. It reads all of them once. A file that a killed
/// conversion leaves does not count.
pub fn build(
    index: &Path,
    source: &VectorSource,
    format: RowFormat,
    report: &mut dyn FnMut(Progress),
) -> Result<(), IndexError> {
    let _lock = lock(index)?;
    let rows = DenseRows::open(index, source, Verification::Sizes)?;
    let (exact, folder) = (rows.rows()?, index.join(DENSE_FOLDER));
    let path = folder.join(rows_file(format));
    let partial = folder.join(format!(".{}.partial", rows_file(format)));
    let mut file = BufWriter::new(File::create(&partial).map_err(io_error(&partial))?);
    let mut numbers = vec![0.0; rows.dimension()];
    let mut bytes = Vec::with_capacity(format.row_bytes(rows.dimension()));
    let mut report_at = |row: usize| {
        let (rows, total) = (row as u64, source.passage_count);
        report(Progress::Rows { action: "converted", rows, total, done_before: 0 });
    };
    for row in 0..exact.count() {
        if row % ROWS_PER_REPORT == 0 {
            report_at(row);
        }
        exact.read_row(row, &mut numbers);
        bytes.clear();
        format.append_row(&numbers, &mut bytes);
        file.write_all(&bytes).map_err(io_error(&partial))?;
    }
    report_at(exact.count());
    let file = file.into_inner().map_err(|error| io_error(&partial)(error.into_error()))?;
    file.sync_all().map_err(io_error(&partial))?;
    let entry = FileEntry::of_file(&partial).map_err(io_error(&partial))?;
    fs::rename(&partial, &path).map_err(io_error(&path))?;
    let file = FileEntry { path: PathBuf::from(rows_file(format)), ..entry };
    let mut manifest = DenseManifest::load_for(index, source)?;
    manifest.formats.retain(|entry| entry.format != format);
    manifest.formats.push(FormatEntry { format, file });
    manifest.save(index)
}

#[cfg(test)]
mod tests;
