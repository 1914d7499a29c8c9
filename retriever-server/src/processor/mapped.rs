//! The one way to map a file into memory. The map is tantivy's, so no unsafe code is needed here. A mapped
//! file must not be changed in place; files of an index are only replaced as a whole.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tantivy::directory::error::{OpenDirectoryError, OpenReadError};
use tantivy::directory::{Directory, MmapDirectory, OwnedBytes};
use thiserror::Error;

/// The error of a file that cannot be mapped.
#[derive(Debug, Error)]
pub enum MapError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path does not name a regular file.
    #[error("cannot open {}: not a file", .0.display())]
    NotAFile(PathBuf),
    /// The folder of the file cannot be opened.
    #[error("cannot open {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: OpenDirectoryError,
    },
    /// The file cannot be mapped.
    #[error("cannot map an index: {0}")]
    Map(#[from] OpenReadError),
}

/// Maps a file. Its bytes are the page cache's and are read when they are looked at.
///
/// # Errors
/// If the file cannot be opened or is not a regular file.
pub(crate) fn map(path: &Path) -> Result<OwnedBytes, MapError> {
    let open = |source| MapError::Open { path: path.to_owned(), source };
    let file = path.canonicalize().map_err(open)?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(MapError::NotAFile(path.to_owned()));
    };
    if !fs::metadata(&file).map_err(open)?.is_file() {
        return Err(MapError::NotAFile(path.to_owned()));
    }
    let directory = MmapDirectory::open(folder)
        .map_err(|source| MapError::Folder { folder: folder.to_owned(), source })?;
    let mapped = directory.open_read(Path::new(name))?;
    mapped.read_bytes().map_err(open)
}
