//! Damage to the files of an index, which is found before the index is served. The error names the
//! file.

use std::fs;

use super::fixture::IndexWorld;
use super::*;

/// Builds an index in which every file has content.
fn built(compact: bool) -> IndexWorld {
    IndexWorld::new(400, |row| format!("The town {row} by the river"), compact)
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
fn check_refused(index: &Path, file: &Path, verification: Verification<'_>, damage: &str) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let error = match open(index, Bm25Parameters::default(), verification) {
        Ok(_) => panic!("{name} is {damage}, but the index opens"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(name) || damage == "gone", "{name} is {damage}: {error}");
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
            for offset in [0, whole.len() / 2, whole.len() - 1] {
                let mut flipped = whole.clone();
                flipped[offset] ^= 1;
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

/// No other file has a digest of the manifest, so it has its own seal.
#[test]
fn every_flipped_bit_of_the_manifest_is_found() {
    let world = built(false);
    let file = world.index.join(manifest::MANIFEST_FILE);
    let whole = fs::read(&file).unwrap();
    assert_eq!(Manifest::read(file.clone(), &whole).unwrap(), world.manifest);
    for offset in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[offset] ^= 1 << bit;
            let error = Manifest::read(file.clone(), &flipped).unwrap_err().to_string();
            assert!(error.contains("manifest.json"), "byte {offset}, bit {bit}: {error}");
        }
    }
}

#[test]
fn manifests_of_other_versions_do_not_count_as_damaged() {
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
