//! Files in parts, as `split` leaves them: they cannot be read in place, as a vector may lie across
//! two of them, but the command that joins them can be named.

use std::fs;
use std::path::{Path, PathBuf};

/// Letters that `split` ends the names of parts with.
const SUFFIX_LETTERS: usize = 2;

/// The command that joins the parts that `path` is one of; `None` if it is alone.
pub(super) fn join_command(path: &Path) -> Option<String> {
    let stem = stem(path)?;
    let folder = path.parent()?;
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(listed).ok()?.flatten().map(|entry| folder.join(entry.file_name()));
    let is_part = |other: &PathBuf| self::stem(other).is_some_and(|other| other == stem);
    let mut parts: Vec<PathBuf> = entries.filter(is_part).collect();
    parts.sort();
    if parts.len() < 2 {
        return None;
    }
    let whole = stem.trim_end_matches(['_', '-', '.']);
    let whole = whole.strip_suffix("part").unwrap_or(whole).trim_end_matches(['_', '-', '.']);
    let whole = folder.join(if whole.is_empty() { "whole.index" } else { whole });
    let parts: Vec<String> = parts.iter().map(|part| part.display().to_string()).collect();
    Some(format!("cat {} > {}", parts.join(" "), whole.display()))
}

/// The name without the letters of a part.
fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let (stem, letters) = name.split_at_checked(name.len().checked_sub(SUFFIX_LETTERS)?)?;
    let is_part = letters.bytes().all(|letter| letter.is_ascii_lowercase());
    (is_part && stem.ends_with(['_', '.', '-'])).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_split_file_are_named_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["part_ab", "part_aa", "part_ac", "e5.index.ab", "e5.index.aa", "x.index"] {
            fs::write(at(name), b"").unwrap();
        }
        let shown = |name: &str| at(name).display().to_string();
        let expected = [shown("part_aa"), shown("part_ab"), shown("part_ac")].join(" ");
        let expected = format!("cat {expected} > {}", shown("whole.index"));
        assert_eq!(join_command(&at("part_ab")), Some(expected));
        let expected = format!(
            "cat {} {} > {}",
            shown("e5.index.aa"),
            shown("e5.index.ab"),
            shown("e5.index")
        );
        assert_eq!(join_command(&at("e5.index.aa")), Some(expected));
        for alone in ["x.index", "part_aaa", "nothing_aa", "", "a"] {
            assert_eq!(join_command(&at(alone)), None, "{alone}");
        }
    }
}
