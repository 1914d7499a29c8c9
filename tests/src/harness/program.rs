//! The retriever's command line, run in this process, and the files that it needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use retriever_server::cli::{self, Streams};

/// Runs the program; returns exit code, output and error.
pub(crate) fn run(arguments: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = ["retriever-server"].iter().chain(arguments).map(OsString::from);
    let code = cli::run(arguments, &mut Streams { out: &mut out, err: &mut err });
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Returns a path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns a file or folder that `make setup` has put into `.cache`.
pub(crate) fn cache(below: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache").join(below);
    assert!(path.exists(), "{} is missing: run `make setup` first", path.display());
    path.canonicalize().unwrap()
}

/// Returns the folder of the embedding model.
pub(crate) fn model() -> PathBuf {
    cache("models/all-minilm-l6-v2")
}

/// Returns the folder of ONNX Runtime.
pub(crate) fn onnxruntime() -> PathBuf {
    cache("onnxruntime/lib")
}
