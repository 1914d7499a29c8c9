//! Folders of parts, as clusters, `split` and the library datasets write them.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use super::fault::{RowFault, RowsError};

/// The most parts of a folder.
const MAX_PARTS: usize = 100_000;

/// The most folders within each other that are looked at for parts below a folder.
const MAX_DEPTH: usize = 4;

/// Endings of files with rows, before an ending for compression.
const ENDINGS: [&str; 7] = ["jsonl", "json", "ndjson", "tsv", "csv", "txt", "parquet"];
/// Endings for compression.
const COMPRESSED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];

/// Returns the files of `path`: the file itself or, of a folder, its parts in the order of their names, in which
/// numbers count by value. The names of the parts differ in numbers only, so that a folder which also holds, for
/// instance, questions is not taken for a corpus. Parts in folders below it are refused, so that none is left out
/// unnoticed.
pub fn parts(path: &Path) -> Result<Vec<PathBuf>, RowsError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let io = |error| RowsError::io(path, error);
    let folder = |text: String| RowsError::file(path, RowFault::Folder(text));
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        // A link to a file counts as the file.
        let is_file = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
        match entry.file_name().into_string() {
            Ok(name)
                if is_file && Path::new(&name).extension().is_some_and(|end| end == "arrow") =>
            {
                return Err(folder(format!(
                    "is a folder of Arrow files ({name:?}), as the library datasets saves them: write the \
                     rows with its to_parquet or to_json"
                )));
            }
            Ok(name) if is_file && is_part(&name) => names.push(name),
            _ => {}
        }
        if names.len() > MAX_PARTS {
            return Err(folder(format!("is a folder of more than {MAX_PARTS} files")));
        }
    }
    names.sort_by(|left, right| natural_order(left, right));
    let Some(first) = names.first() else {
        if let Some(below) = part_below(path, &|_| true, MAX_DEPTH) {
            let below = below.display();
            return Err(folder(format!(
                "is a folder whose rows are in folders below it ({below}): name those folders"
            )));
        }
        let endings = ENDINGS.map(|ending| format!(".{ending}")).join(", ");
        return Err(folder(format!(
            "is a folder without a file of rows, expected parts called part-… or with the ending \
             {endings}, each perhaps with .gz or .zst"
        )));
    };
    if let Some(other) = names.iter().find(|name| stem(name) != stem(first)) {
        return Err(folder(format!(
            "is a folder of different files ({first:?} and {other:?}), expected parts whose names \
             differ in their numbers only: name the files one by one"
        )));
    }
    if let Some(below) = part_below(path, &|name| stem(name) == stem(first), MAX_DEPTH) {
        let below = below.display();
        return Err(folder(format!(
            "is a folder with parts of its own ({first:?}) and others in folders below it ({below}), \
             expected all in one folder: name the files or folders one by one"
        )));
    }
    Ok(names.into_iter().map(|name| path.join(name)).collect())
}

/// Returns a part whose name fits in the folders below `folder`: the first by name. Folders that begin with a dot, such
/// as `.git`, and those that cannot be read are passed over.
fn part_below(folder: &Path, fits: &dyn Fn(&str) -> bool, depth: usize) -> Option<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let found = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
        found.sort();
        found
    };
    for path in entries(folder) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if depth == 0 || name.starts_with('.') || !path.is_dir() {
            continue;
        }
        let inside = entries(&path).into_iter().find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.is_file() && name.is_some_and(|name| is_part(name) && fits(name))
        });
        let found = inside.or_else(|| part_below(&path, fits, depth - 1));
        if found.is_some() {
            return found;
        }
    }
    None
}

fn is_part(name: &str) -> bool {
    // Clusters write `_SUCCESS` and `.part-00000.crc` beside the parts.
    if name.starts_with(['.', '_']) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    let plain = COMPRESSED
        .iter()
        .find_map(|ending| lower.strip_suffix(ending)?.strip_suffix('.'))
        .unwrap_or(&lower);
    let has_ending = plain.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending));
    let is_text = plain.rsplit_once('.').is_some_and(|(_, ending)| ending == "txt");
    let begins = ["part-", "part_", "part."].iter().any(|start| lower.starts_with(start));
    // A text file is a part only if it has a number: the others are notes.
    begins || (has_ending && (!is_text || plain.bytes().any(|byte| byte.is_ascii_digit())))
}

/// Returns the name with every number replaced by one mark.
fn stem(name: &str) -> String {
    let mut stem = String::new();
    for letter in name.chars() {
        match letter {
            '0'..='9' if stem.ends_with('0') => {}
            '0'..='9' => stem.push('0'),
            other => stem.push(other),
        }
    }
    stem
}

/// Compares names, in which digits count as numbers.
fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    while let (Some(first), Some(second)) = (left_rest.chars().next(), right_rest.chars().next()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (left_number, right_number) = (digits(&mut left_rest), digits(&mut right_rest));
            left_number.len().cmp(&right_number.len()).then(left_number.cmp(right_number))
        } else {
            left_rest = &left_rest[first.len_utf8()..];
            right_rest = &right_rest[second.len_utf8()..];
            first.cmp(&second)
        };
        if order.is_ne() {
            return order;
        }
    }
    left_rest.len().cmp(&right_rest.len()).then_with(|| left.cmp(right))
}

/// Takes the digits at the start of `rest` and returns them without leading zeros.
fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    *rest = after;
    number.trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let shown = format!("{}", folder.path().display());
        match parts(folder.path()) {
            Ok(paths) => Ok(paths
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect()),
            Err(error) => Err(error.to_string().replace(&shown, "F")),
        }
    }

    #[test]
    fn parts_are_ordered_by_their_numbers() {
        let spark =
            ["part-10.jsonl", "part-9.jsonl", "part-2.jsonl", "_SUCCESS", ".part-2.jsonl.crc"];
        assert_eq!(names(&spark).unwrap(), ["part-2.jsonl", "part-9.jsonl", "part-10.jsonl"]);
        let shards = ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "README.md"];
        let ordered = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"];
        assert_eq!(names(&shards).unwrap(), ordered);
        assert_eq!(names(&["part-00001", "part-00000"]).unwrap(), ["part-00000", "part-00001"]);
        assert_eq!(names(&["docs.jsonl.gz", "notes.txt"]).unwrap(), ["docs.jsonl.gz"]);
        assert_eq!(names(&["wiki01.txt.zst"]).unwrap(), ["wiki01.txt.zst"]);
    }

    #[test]
    fn parts_in_folders_below_are_never_left_out() {
        let error = names(&["part-1.jsonl", "more/deep/part-0.jsonl"]).unwrap_err();
        let expected = "F: is a folder with parts of its own (\"part-1.jsonl\") and others in \
                        folders below it (F/more/deep/part-0.jsonl)";
        assert!(error.starts_with(expected), "{error}");
        let error = names(&["README.md", "data/train-0.parquet"]).unwrap_err();
        let expected = "F: is a folder whose rows are in folders below it (F/data/train-0.parquet)";
        assert!(error.starts_with(expected), "{error}");
        // Other things below, such as BEIR's judgements, are no parts.
        let beside = ["corpus.jsonl", "qrels/test.tsv", ".git/corpus.jsonl"];
        assert_eq!(names(&beside).unwrap(), ["corpus.jsonl"]);
    }

    #[test]
    fn a_folder_of_several_things_is_refused() {
        let error = names(&["corpus.jsonl", "queries.jsonl"]).unwrap_err();
        let expected = "F: is a folder of different files (\"corpus.jsonl\" and \"queries.jsonl\")";
        assert!(error.starts_with(expected), "{error}");
        let error = names(&["README.md", "model.safetensors"]).unwrap_err();
        assert!(error.starts_with("F: is a folder without a file of rows"), "{error}");
        let error = names(&["data-00000-of-00001.arrow", "state.json"]).unwrap_err();
        assert!(error.starts_with("F: is a folder of Arrow files"), "{error}");
    }
}
