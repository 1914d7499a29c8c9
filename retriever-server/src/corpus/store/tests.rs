//! Writing and reading of passages, plain and compressed, and damaged files.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::corpus::compact;

fn passage(id: &str, contents: &str) -> Passage {
    Passage { id: id.to_owned(), contents: contents.to_owned(), ..Passage::default() }
}

fn written(passages: &[Passage], is_compact: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = PassageWriter::create(folder.path()).unwrap();
    for passage in passages {
        writer.add(passage).unwrap();
    }
    writer.finish().unwrap();
    if is_compact {
        compact::compress(folder.path()).unwrap();
    }
    folder
}

fn passages() -> impl Strategy<Value = Vec<Passage>> {
    let text = || prop_oneof![any::<String>(), "[a-z ]{0,200}"];
    let optional = || proptest::option::of(any::<String>());
    let passage = (any::<String>(), text(), optional(), optional(), optional());
    let passage = passage.prop_map(|(id, contents, title, text, url)| Passage {
        id,
        contents,
        title,
        text,
        url,
    });
    proptest::collection::vec(passage, 1..60)
}

proptest! {
    #[test]
    fn passages_come_back_by_row(
        passages in passages(),
        rows in proptest::collection::vec(any::<u32>(), 20),
        is_compact in any::<bool>(),
    ) {
        let folder = written(&passages, is_compact);
        let store = PassageStore::open(folder.path()).unwrap();
        prop_assert_eq!(store.len(), passages.len());
        for row in rows {
            let row = row % passages.len() as u32;
            prop_assert_eq!(&store.get(row).unwrap(), &passages[row as usize]);
        }
        for row in [passages.len() as u32, u32::MAX] {
            prop_assert!(matches!(store.get(row), Err(StoreError::NoSuchRow(_))));
        }
    }

    /// After any bit flip, a read returns a passage or an error that names the file.
    #[test]
    fn flipped_bits_never_panic(
        offset in any::<usize>(),
        bit in 0u32..8,
        is_compact in any::<bool>(),
    ) {
        let folder = written(&many(20), is_compact);
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files {
            let whole = fs::read(&path).unwrap();
            if whole.is_empty() {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[offset % whole.len()] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            if let Ok(store) = PassageStore::open(folder.path()) {
                for row in 0..20 {
                    if let Err(error) = store.get(row) {
                        prop_assert!(error.to_string().starts_with("passages."), "{}", error);
                    }
                }
            }
            fs::write(&path, whole).unwrap();
        }
    }
}

fn many(count: usize) -> Vec<Passage> {
    let text =
        |row: usize| format!("Town {row} lies by the river of that name, \u{e9}t\u{e9} {row}.");
    (0..count).map(|row| passage(&row.to_string(), &text(row))).collect()
}

#[test]
fn compressed_passages_take_less_space_and_read_the_same() {
    let passages = many(3000);
    let (plain, compact) = (written(&passages, false), written(&passages, true));
    let size = |folder: &tempfile::TempDir, file: &str| {
        fs::metadata(folder.path().join(file)).unwrap().len()
    };
    assert!(2 * size(&compact, COMPACT_FILE) < size(&plain, PASSAGES_FILE));
    assert!(size(&compact, DICTIONARY_FILE) > 0);
    assert!(!compact.path().join(PASSAGES_FILE).try_exists().unwrap());
    let store = PassageStore::open(compact.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (store, passages) = (&store, &passages);
            scope.spawn(move || {
                for row in (thread..3000).rev() {
                    assert_eq!(&store.get(row as u32).unwrap(), &passages[row]);
                }
            });
        }
    });
}

#[test]
fn torn_and_corrupt_files_are_refused_with_the_offset() {
    let folder = written(&[passage("a", "one"), passage("b", "two")], false);
    let path = folder.path().join(PASSAGES_FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[28] = b'!';
    fs::write(&path, &bytes).unwrap();
    let error = PassageStore::open(folder.path()).unwrap().get(1).unwrap_err().to_string();
    assert!(error.starts_with("passages.jsonl is corrupt at byte 28"), "{error}");
    fs::write(&path, &bytes[..40]).unwrap();
    let error = PassageStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("ends at byte 56, but passages.jsonl has 40 bytes"), "{error}");
}

#[test]
fn impossible_offsets_are_refused_by_name() {
    let folder = written(&[passage("a", "one"), passage("b", "two"), passage("c", "three")], false);
    let path = folder.path().join(OFFSETS_FILE);
    let good = fs::read(&path).unwrap();
    let bytes = |offsets: &[u64]| offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let cases: [(Vec<u8>, &str); 6] = [
        (Vec::new(), "0 bytes long, expected a multiple of 8"),
        (good[..good.len() - 1].to_vec(), "31 bytes long, expected a multiple of 8"),
        (good[..good.len() - 8].to_vec(), "ends at byte 56, but passages.jsonl has 86 bytes"),
        (bytes(&[1, 28, 56, 86]), "row 0 starts at byte 1, expected 0"),
        (bytes(&[0, 56, 28, 86]), "row 2 starts at byte 28, expected more than 56"),
        (bytes(&[0, 28, 56, u64::MAX]), "ends at byte 18446744073709551615"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let error = PassageStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("passages.offsets is corrupt: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_offset_inside_a_character_is_an_error_of_its_rows() {
    let folder = written(&[passage("a", "one"), passage("b", "\u{6771}")], false);
    let text = fs::read(folder.path().join(PASSAGES_FILE)).unwrap();
    let inside = text.iter().position(|byte| *byte >= 0x80).unwrap() as u64 + 1;
    let offsets = [0, inside, text.len() as u64];
    let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    fs::write(folder.path().join(OFFSETS_FILE), bytes).unwrap();
    let store = PassageStore::open(folder.path()).unwrap();
    for row in [0, 1] {
        let error = store.get(row).unwrap_err().to_string();
        assert!(error.starts_with("passages.jsonl is corrupt at byte"), "{error}");
    }
}
