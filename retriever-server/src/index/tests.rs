//! Damage to any file of an index is found before it is served, and the file is named.

use std::fs;

use super::fixture::IndexWorld;
use super::*;

/// An index in which every file has content.
fn built(compact: bool) -> IndexWorld {
    IndexWorld::of(400, |row| format!("The town {row} by the river"), compact)
}

fn files(index: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for below in [index.to_owned(), index.join(LEXICAL_FOLDER)] {
        let entries = fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.is_file()));
    }
    files
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
        let world = built(compact);
        let (index, files) = (&world.index, files(&world.index));
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
                check_refused(index, file, Verification::Digests, "flipped");
            }
            for verification in [Verification::Digests, Verification::Sizes] {
                fs::write(file, &whole[..whole.len() - 1]).unwrap();
                check_refused(index, file, verification, "cut");
                fs::write(file, [&whole[..], b"\n"].concat()).unwrap();
                check_refused(index, file, verification, "longer");
                fs::remove_file(file).unwrap();
                check_refused(index, file, verification, "gone");
                fs::write(file, &whole).unwrap();
            }
        }
        open(index, Bm25Parameters::default(), Verification::Digests).unwrap();
    }
}

/// Nothing else holds a digest of the manifest: it does so itself.
#[test]
fn no_bit_of_the_manifest_can_be_another() {
    let world = built(false);
    let file = world.index.join(manifest::MANIFEST_FILE);
    let whole = fs::read(&file).unwrap();
    assert_eq!(Manifest::read(file.clone(), &whole).unwrap(), world.manifest);
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << bit;
            let error = Manifest::read(file.clone(), &flipped).unwrap_err().to_string();
            assert!(error.contains("manifest.json"), "byte {place}, bit {bit}: {error}");
        }
    }
}

#[test]
fn manifests_of_other_versions_are_told_from_damaged_ones() {
    let world = built(false);
    let (index, file) = (&world.index, world.index.join(manifest::MANIFEST_FILE));
    let manifest = Manifest::load(index).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // Indexes of the first versions have no seal.
    value.as_object_mut().unwrap().remove("seal").unwrap();
    fs::write(&file, value.to_string()).unwrap();
    assert_eq!(Manifest::load(index).unwrap(), Manifest { seal: None, ..manifest });
    value["surprise"] = 1.into();
    fs::write(&file, value.to_string()).unwrap();
    let error = Manifest::load(index).unwrap_err().to_string();
    assert!(error.contains("corrupt: unknown field `surprise`"), "{error}");
    value["format"] = 9.into();
    fs::write(&file, value.to_string()).unwrap();
    let error = Manifest::load(index).unwrap_err().to_string();
    assert!(error.contains("manifest.json has format 9, this version reads 1"), "{error}");
}
