//! The shared library of ONNX Runtime. It is loaded when the first model is opened; until then the
//! retriever does not need it. A process loads only one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::{debug, error, warn};

use super::EncodeError;

/// The environment variable that ONNX Runtime itself defines for its library.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
const LIBRARY_FILE: &str = "libonnxruntime.so";
/// The folder into which `scripts/setup` puts the library, relative to the root of the checkout.
const CACHE_FOLDER: &str = ".cache/onnxruntime/lib";

/// The path of the loaded library, and its environment.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Loads the library and returns its path with it. The first of these that is set or exists counts: the
/// file or folder `given`, the one in `ORT_DYLIB_PATH`, `../lib` relative to the program, and
/// [`CACHE_FOLDER`].
pub(super) fn load(given: Option<&Path>) -> Result<(PathBuf, Environment), EncodeError> {
    let path = locate(given)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((earlier, environment)) = loaded.as_ref() {
        if *earlier != path {
            return Err(EncodeError::OtherLibrary { path, loaded: earlier.clone() });
        }
        return Ok((path, environment.clone()));
    }
    let environment =
        start(&path).map_err(|reason| EncodeError::Library { path: path.clone(), reason })?;
    *loaded = Some((path.clone(), environment.clone()));
    Ok((path, environment))
}

/// Loads the library at `path` and starts its environment.
fn start(path: &Path) -> Result<Environment, String> {
    let environment = ort::init_from(path)
        .map_err(|error| whole_text(&error))?
        .with_name("retriever")
        .with_telemetry(false)
        .with_logger(Arc::new(forward))
        .build()
        .map_err(|error| whole_text(&error))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// Forwards a message of ONNX Runtime to the log.
fn forward(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => error!(location, "ONNX Runtime: {message}"),
        LogLevel::Warning => warn!(location, "ONNX Runtime: {message}"),
        LogLevel::Info | LogLevel::Verbose => debug!(location, "ONNX Runtime: {message}"),
    }
}

/// Returns the text of an error with its causes, one of which is the loader's reason.
pub(super) fn whole_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// Returns the path of the library in the order that [`load`] describes.
fn locate(given: Option<&Path>) -> Result<PathBuf, EncodeError> {
    let named = env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let next_to_program =
        env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("lib")));
    if let Some(stated) = given.map(Path::to_owned).or(named) {
        let library = if stated.is_dir() { newest_in(&stated) } else { file(&stated) };
        return library.ok_or(EncodeError::NoLibrary { searched: vec![stated] });
    }
    let folders: Vec<PathBuf> =
        next_to_program.into_iter().chain([PathBuf::from(CACHE_FOLDER)]).collect();
    let library = folders.iter().find_map(|folder| newest_in(folder));
    library.ok_or(EncodeError::NoLibrary { searched: folders })
}

/// Returns the canonical path of a file, which does not depend on how the file was named.
fn file(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_file())
}

/// Returns the library in a folder, and the newest if there are several versions, as in a wheel.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let names =
        fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let versions = names.filter_map(|name| {
        let version = name.strip_prefix(LIBRARY_FILE)?;
        let numbers: Vec<u32> =
            version.split('.').skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
        (version.is_empty() || version.starts_with('.')).then_some((numbers, name))
    });
    file(&folder.join(versions.max()?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let newest = || newest_in(&path).map(|file| file.strip_prefix(&path).unwrap().to_owned());
        assert_eq!(newest(), None);
        for (name, expected) in [
            ("libonnxruntime_providers_shared.so", None),
            ("libonnxruntime.so.txt", None),
            ("libonnxruntime.so", Some("libonnxruntime.so")),
            ("libonnxruntime.so.1.9.0", Some("libonnxruntime.so.1.9.0")),
            ("libonnxruntime.so.1.31.1", Some("libonnxruntime.so.1.31.1")),
            ("libonnxruntime.so.1.20.0", Some("libonnxruntime.so.1.31.1")),
        ] {
            fs::write(path.join(name), "").unwrap();
            assert_eq!(newest().as_deref(), expected.map(Path::new), "with {name}");
        }
    }
}
