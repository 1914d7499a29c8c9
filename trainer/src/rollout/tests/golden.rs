//! Finds and reads the recorded vectors.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// Reads a recording from the folder that VECTORS_DIR names, or from the project's copies.
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> T {
    let copies = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden"));
    let path = std::env::var_os("VECTORS_DIR").map_or(copies, PathBuf::from).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
