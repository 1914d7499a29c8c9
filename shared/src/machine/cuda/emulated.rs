//! Compilation of kernels as C++ for the processor (`device.h`), so that tests can run them without a device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The keywords and functions of CUDA in plain C++.
const DEVICE: &str = include_str!("device.h");

/// Writes `files` and `device.h` to `folder`, compiles the last of them, which includes the others, with `c++` and
/// macros such as `WIDTH=4`, and returns the path of the library. Replaces `__shared__`, which C++ does not have, by
/// `static`: blocks run one after the other, so they can share the memory.
///
/// # Errors
/// Errors of the file system; a missing compiler; the output of a compiler that failed.
pub fn build(folder: &Path, files: &[(&str, &str)], macros: &[String]) -> io::Result<PathBuf> {
    fs::write(folder.join("device.h"), DEVICE)?;
    for (name, text) in files {
        fs::write(folder.join(name), text.replace("__shared__", "static"))?;
    }
    let library = folder.join("emulated.so");
    let (main, _) = files.last().expect("there is at least one file");
    let output = Command::new("c++")
        .args(["-std=c++20", "-O2", "-w", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"])
        .args(macros.iter().map(|definition| format!("-D{definition}")))
        .arg("-o")
        .args([&library, &folder.join(main)])
        .output()?;
    if output.status.success() {
        Ok(library)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
