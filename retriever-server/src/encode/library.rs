//! ONNX Runtime, which is loaded when the first model is opened: the retriever neither links nor
//! needs it before. A process has one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::{debug, error, warn};

use super::EncodeError;

/// ONNX Runtime's own variable for its library.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
const LIBRARY_FILE: &str = "libonnxruntime.so";
/// Where set-up puts it, seen from the root of the checkout.
const CACHE_FOLDER: &str = ".cache/onnxruntime/lib";

/// The loaded library and where it came from.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Loads the library: the file or folder `given`, else what `ORT_DYLIB_PATH` names, else from
/// `../lib` beside the program, else where set-up puts it. Returns its path too.
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

fn start(path: &Path) -> Result<Environment, String> {
    let environment = ort::init_from(path)
        .map_err(|error| whole_text(&error))?
        .with_name("retriever")
        .with_telemetry(false)
        .with_logger(Arc::new(pass_on))
        .build()
        .map_err(|error| whole_text(&error))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// What ONNX Runtime has to say goes into the log.
fn pass_on(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => error!(place, "ONNX Runtime: {message}"),
        LogLevel::Warning => warn!(place, "ONNX Runtime: {message}"),
        LogLevel::Info | LogLevel::Verbose => debug!(place, "ONNX Runtime: {message}"),
    }
}

/// An error with its causes, in which the loader's reason stands.
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

fn locate(given: Option<&Path>) -> Result<PathBuf, EncodeError> {
    let named = env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let beside_program =
        env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("lib")));
    if let Some(stated) = given.map(Path::to_owned).or(named) {
        let found = if stated.is_dir() { newest_in(&stated) } else { file(&stated) };
        return found.ok_or(EncodeError::NoLibrary { looked: vec![stated] });
    }
    let places: Vec<PathBuf> =
        beside_program.into_iter().chain([PathBuf::from(CACHE_FOLDER)]).collect();
    let found = places.iter().find_map(|place| newest_in(place));
    found.ok_or(EncodeError::NoLibrary { looked: places })
}

/// The same file has the same path, however it was named.
fn file(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_file())
}

/// The library in a folder; of several versions, as in a wheel's file names, the newest.
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
        let place = folder.path().canonicalize().unwrap();
        let newest = || newest_in(&place).map(|path| path.strip_prefix(&place).unwrap().to_owned());
        assert_eq!(newest(), None);
        for (name, expected) in [
            ("libonnxruntime_providers_shared.so", None),
            ("libonnxruntime.so.txt", None),
            ("libonnxruntime.so", Some("libonnxruntime.so")),
            ("libonnxruntime.so.1.9.0", Some("libonnxruntime.so.1.9.0")),
            ("libonnxruntime.so.1.31.1", Some("libonnxruntime.so.1.31.1")),
            ("libonnxruntime.so.1.20.0", Some("libonnxruntime.so.1.31.1")),
        ] {
            fs::write(place.join(name), "").unwrap();
            assert_eq!(newest().as_deref(), expected.map(Path::new), "with {name}");
        }
    }
}
