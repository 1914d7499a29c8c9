//! Finds and reads the recorded vectors.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// Where a recording is: in the folder that VECTORS_DIR names if it is there, else among the
/// project's copies. A folder that is not there at all is a mistake, not a reason to fall back.
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
