//! Files in parts, as `split` writes them. A vector may span two parts, so they are mapped one behind
//! the other. Where that is impossible, the error gives the command that joins them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tantivy::directory::OwnedBytes;

use super::{FaissError, MapError, joined};

/// The number of letters at the end of a part's name.
const SUFFIX_LETTERS: usize = 2;

/// The most digits at the end of a part's name, as `split --numeric-suffixes` writes them. The fewest are
/// as many as letters.
const SUFFIX_DIGITS_MAX: usize = 6;

/// The start of a part's name if no other was given to `split`.
const DEFAULT_STEM: &str = "x";

/// All parts of a file, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts(Vec<PathBuf>);

impl Parts {
    /// Lists all parts of the file that `path` is a part of; `None` if there are no other parts.
    pub(super) fn list(path: &Path) -> Option<Self> {
        let stem = stem(path)?;
        let folder = path.parent()?;
        let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = fs::read_dir(listed).ok()?.flatten();
        let entries = entries.map(|entry| folder.join(entry.file_name()));
        let is_part = |other: &PathBuf| self::stem(other).is_some_and(|other| other.fits(&stem));
        let mut parts: Vec<PathBuf> = entries.filter(is_part).collect();
        parts.sort();
        (parts.len() > 1).then_some(Self(parts))
    }

    /// Returns the first part, which has the header.
    pub(super) fn first(&self) -> PathBuf {
        self.0[0].clone()
    }

    /// Returns the name of the first part in its pieces.
    fn stem(&self) -> Stem<'_> {
        stem(&self.0[0]).expect("only names with a stem are listed")
    }

    /// Maps all parts, one behind the other.
    pub(super) fn map(&self) -> Result<OwnedBytes, FaissError> {
        if let Some(path) = self.missing() {
            return Err(FaissError::MissingPart { path });
        }
        let files = self.0.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let failed = |source| FaissError::from(MapError::Open { path: self.first(), source });
        let page_bytes = joined::page_bytes().map_err(failed)?;
        for (path, (_, bytes)) in self.0.iter().zip(&files) {
            let is_last = self.0.last() == Some(path);
            if *bytes == 0 || !(is_last || bytes.is_multiple_of(page_bytes)) {
                let (path, bytes, command) = (path.clone(), *bytes, self.join_command());
                return Err(FaissError::Part { path, bytes, page_bytes, command });
            }
        }
        joined::map(&files).map_err(failed)
    }

    /// Returns the first missing part: a name that `split` must have used.
    fn missing(&self) -> Option<PathBuf> {
        let number = |path: &PathBuf| stem(path).map(|stem| stem.number);
        let missing = (0..self.0.len()).find(|&index| number(&self.0[index]) != Some(index))?;
        let Stem { text, digits, .. } = self.stem();
        let suffix = if digits == 0 { letters(missing) } else { format!("{missing:0digits$}") };
        Some(self.0[0].with_file_name(format!("{text}{suffix}")))
    }

    /// Returns the command that joins the parts.
    fn join_command(&self) -> String {
        let whole = self.stem().text.trim_end_matches(['_', '-', '.']);
        let whole = whole.strip_suffix("part").unwrap_or(whole).trim_end_matches(['_', '-', '.']);
        let whole = self.0[0].with_file_name(if whole.is_empty() || whole == DEFAULT_STEM {
            "whole.index"
        } else {
            whole
        });
        let parts: Vec<String> = self.0.iter().map(|part| part.display().to_string()).collect();
        format!("cat {} > {}", parts.join(" "), whole.display())
    }
}

/// Opens a part; returns it with its size.
fn open(path: &Path) -> Result<(File, usize), FaissError> {
    let failed = |source| FaissError::from(MapError::Open { path: path.to_owned(), source });
    // Checked before the file is opened, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(MapError::NotAFile(path.to_owned()).into());
    }
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((file, usize::try_from(bytes).unwrap_or(usize::MAX)))
}

/// The name of a part in its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stem<'a> {
    /// The name without the end that numbers the part.
    text: &'a str,
    /// The number of digits at the end; 0 if letters number the part.
    digits: usize,
    number: usize,
}

impl Stem<'_> {
    /// Returns `true` if both are names of parts of one file.
    fn fits(&self, other: &Stem<'_>) -> bool {
        (self.text, self.digits) == (other.text, other.digits)
    }
}

/// Splits the name of a part into its pieces.
fn stem(path: &Path) -> Option<Stem<'_>> {
    let name = path.file_name()?.to_str()?;
    let is_stem = |text: &str| text.ends_with(['_', '.', '-']) || text == DEFAULT_STEM;
    let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    if (SUFFIX_LETTERS..=SUFFIX_DIGITS_MAX).contains(&digits) {
        let (text, number) = name.split_at(name.len() - digits);
        return is_stem(text).then_some(Stem { text, digits, number: number.parse().ok()? });
    }
    let (text, letters) = name.split_at_checked(name.len().checked_sub(SUFFIX_LETTERS)?)?;
    let digit = |letter: u8| letter.is_ascii_lowercase().then(|| usize::from(letter - b'a'));
    let number = letters.bytes().try_fold(0, |sum, letter| Some(26 * sum + digit(letter)?))?;
    is_stem(text).then_some(Stem { text, digits: 0, number })
}

/// Returns the letters of a part's number.
fn letters(number: usize) -> String {
    [number / 26, number % 26].map(|digit| char::from(b'a' + (digit % 26) as u8)).iter().collect()
}

#[cfg(test)]
mod tests;
