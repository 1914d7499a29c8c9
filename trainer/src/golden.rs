//! Finds and reads recorded vectors.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// Returns the path of a recording: in the folder `VECTORS_DIR` if it has the file, otherwise among the
/// project's copies. Panics if `VECTORS_DIR` names a missing folder.
pub(crate) fn path(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("VECTORS_DIR").map(PathBuf::from) {
        assert!(folder.is_dir(), "VECTORS_DIR = {}: no such folder", folder.display());
        let other = folder.join(name);
        if other.try_exists().unwrap() {
            return other;
        }
    }
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(name)
}

/// Reads a recording in JSON.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = path(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
