//! Damage to any file of an index is found before it is served, and the file is named.

use std::fs;

use super::*;
use crate::index::build::{BuildRequest, build};

/// An index in which every file has content, and its files.
fn built(compact: bool) -> (tempfile::TempDir, PathBuf, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    let line = |row| format!("{{\"id\":\"{row}\",\"contents\":\"The town {row} by the river\"}}");
    fs::write(&corpus, (0..400).map(line).collect::<Vec<String>>().join("\n")).unwrap();
    let index = folder.path().join("index");
    let request = BuildRequest {
        corpus: vec![corpus],
        index: index.clone(),
        force: false,
        threads: 1,
        compact,
    };
    build(&request, &mut |_| {}).unwrap();
    let mut files = Vec::new();
    for below in [index.clone(), index.join(LEXICAL_FOLDER)] {
        let entries = fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.is_file()));
    }
    (folder, index, files)
}

#[track_caller]
fn check_refused(index: &Path, file: &Path, verification: Verification, how: &str) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let error = match open(index, Bm25Parameters::default(), verification) {
        Ok(_) => panic!("{name} is {how}, and the index is opened all the same"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(name) || how == "gone", "{name} is {how}: {error}");
}

#[test]
fn a_file_of_each_kind_that_is_damaged_is_refused_by_name() {
    for compact in [false, true] {
        let (_folder, index, files) = built(compact);
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        let of_passages = if compact { "passages.zst" } else { "passages.jsonl" };
        for expected in [of_passages, "passages.offsets", "manifest.json", "meta.json", "bounds"] {
            assert!(names.iter().any(|name| *name == expected), "{expected} is not in {names:?}");
        }
        for file in &files {
            let whole = fs::read(file).unwrap();
            for place in [0, whole.len() / 2, whole.len() - 1] {
                let mut flipped = whole.clone();
                flipped[place] ^= 1;
                fs::write(file, flipped).unwrap();
                check_refused(&index, file, Verification::Digests, "flipped");
            }
            for verification in [Verification::Digests, Verification::Sizes] {
                fs::write(file, &whole[..whole.len() - 1]).unwrap();
                check_refused(&index, file, verification, "cut");
                fs::write(file, [&whole[..], b"\n"].concat()).unwrap();
                check_refused(&index, file, verification, "longer");
                fs::remove_file(file).unwrap();
                check_refused(&index, file, verification, "gone");
                fs::write(file, &whole).unwrap();
            }
        }
        open(&index, Bm25Parameters::default(), Verification::Digests).unwrap();
    }
}

/// Nothing else holds a digest of the manifest: it does so itself.
#[test]
fn no_byte_of_the_manifest_can_be_another() {
    let (_folder, index, _) = built(false);
    let file = index.join(manifest::MANIFEST_FILE);
    let whole = fs::read(&file).unwrap();
    // An index without a seal is one of an earlier version, so that the name stays.
    let text = String::from_utf8(whole.clone()).unwrap();
    let name = text.rfind("seal").unwrap();
    for place in (0..whole.len()).filter(|place| !(name..name + "seal".len()).contains(place)) {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        fs::write(&file, flipped).unwrap();
        let error = Manifest::load(&index).unwrap_err().to_string();
        assert!(error.contains("manifest.json"), "byte {place}: {error}");
    }
}
