//! The place where an interrupted load goes on, in a file of the index folder. It names the collection by the
//! number that was drawn when it was made: in a collection that was made again, nothing is stored yet.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::machine::atomic_file;

use super::EngineConfig;
use crate::index::{IndexError, io_error};

/// The folder of the bookmarks, in the folder of the index.
const FOLDER: &str = "loads";

/// The progress of a load.
#[derive(Debug)]
pub(super) struct Bookmark {
    path: PathBuf,
    load: u64,
    /// The number of passages that are stored for certain, from the first one on.
    pub(super) stored: u64,
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    load: u64,
    stored: u64,
}

impl Bookmark {
    /// Opens the bookmark of a collection. Nothing is stored if there is none, or if it is another collection's.
    pub(super) fn open(
        index: &Path,
        config: &EngineConfig,
        load: u64,
        total: u64,
    ) -> Result<Self, IndexError> {
        let folder = index.join(FOLDER);
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let place = format!("{} {}", config.url, config.collection);
        let digest = Digest::of_bytes(place.as_bytes()).to_string();
        let path = folder.join(format!("{}-{}.json", config.kind.name(), &digest[..16]));
        let content: Option<Content> = match fs::read(&path) {
            // A file that is damaged says nothing; sending everything again is safe.
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&path)(error)),
        };
        let stored = content.filter(|content| content.load == load && content.stored <= total);
        let stored = stored.map_or(0, |content| content.stored);
        Ok(Self { path, load, stored })
    }

    /// Notes that `count` more passages are stored.
    pub(super) fn advance(&mut self, count: u64) -> Result<(), IndexError> {
        self.stored += count;
        let content = Content { load: self.load, stored: self.stored };
        let text =
            serde_json::to_vec(&content).map_err(|error| io_error(&self.path)(error.into()))?;
        Ok(atomic_file::write(&self.path, &text)?)
    }

    /// Notes that nothing is stored.
    pub(super) fn reset(&mut self) -> Result<(), IndexError> {
        self.stored = 0;
        self.advance(0)
    }

    /// Removes the bookmark of a load that ended.
    pub(super) fn remove(self) -> Result<(), IndexError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error(&self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Draws the number of a new collection. It has 53 bits, so that programs that read numbers of JSON as floating
/// point keep it.
pub(super) fn draw() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 11
}
