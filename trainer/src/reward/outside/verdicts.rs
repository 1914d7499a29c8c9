//! Verdicts on disk, by the digest of the request that they answer. Each is one line, appended whole, so a killed
//! process loses at most the line that it was writing; such a line is skipped when the file is read.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

#[derive(Serialize, Deserialize)]
struct Line {
    request: String,
    score: f64,
}

/// The verdicts of a file.
#[derive(Debug)]
pub(super) struct Verdicts {
    known: HashMap<String, f64>,
    file: File,
}

impl Verdicts {
    /// Reads the file, which need not exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (mut known, mut damaged) = (HashMap::new(), 0_usize);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Line>(line) {
                Ok(Line { request, score }) if (0.0..=1.0).contains(&score) => {
                    known.insert(request, score);
                }
                _ => damaged += 1,
            }
        }
        if damaged > 0 {
            warn!(path = %path.display(), damaged, "damaged lines of verdicts are skipped");
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { known, file })
    }

    pub(super) fn get(&self, request: &str) -> Option<f64> {
        self.known.get(request).copied()
    }

    /// Adds a verdict. One that cannot be written is still known to this process.
    pub(super) fn add(&mut self, request: String, score: f64) {
        let line = Line { request, score };
        let mut text = serde_json::to_string(&line).expect("a text and a number are JSON");
        text.push('\n');
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            warn!(%error, "a verdict could not be written");
        }
        self.known.insert(line.request, score);
    }
}
