//! The retriever's command line, run in process, and what it is given.

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

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What `make setup` has put below `.cache`.
pub(crate) fn cache(below: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache").join(below);
    assert!(path.exists(), "{} is not there: run `make setup` first", path.display());
    path.canonicalize().unwrap()
}

/// Folder of the embedding model.
pub(crate) fn model() -> PathBuf {
    cache("models/all-minilm-l6-v2")
}

/// Folder of ONNX Runtime.
pub(crate) fn onnxruntime() -> PathBuf {
    cache("onnxruntime/lib")
}
