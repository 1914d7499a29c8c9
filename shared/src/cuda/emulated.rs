//! The text of kernels compiled as C++ for the processor (`device.h`), so that tests run it on machines
//! without a device.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The words of CUDA in plain C++.
const DEVICE: &str = include_str!("device.h");

/// Writes `files`, of which the last one includes the others, into `folder`, with `device.h` beside
/// them, and compiles them with `c++` and macros such as `WIDTH=4` into a library; returns its path.
/// The `__shared__` of the kernels' text is replaced, which has no equal in C++: `static` will do, as
/// blocks run one after the other.
///
/// # Errors
/// Those of the file system; a compiler that is missing, or fails, with what it said.
pub fn build(folder: &Path, files: &[(&str, &str)], macros: &[String]) -> io::Result<PathBuf> {
    fs::write(folder.join("device.h"), DEVICE)?;
    for (name, text) in files {
        fs::write(folder.join(name), text.replace("__shared__", "static"))?;
    }
    let library = folder.join("emulated.so");
    let main = files.last().map(|(name, _)| folder.join(name)).unwrap_or_default();
    let output = Command::new("c++")
        .args(["-std=c++20", "-O2", "-w", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"])
        .args(macros.iter().map(|one| format!("-D{one}")))
        .arg("-o")
        .args([&library, &main])
        .output()?;
    if output.status.success() {
        Ok(library)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
