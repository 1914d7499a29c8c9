//! Files of bounds that are damaged or belong to another index. The tests of the reader compare
//! sound ones with the passages.

use super::*;
use crate::lexical::bm25::Bm25Parameters;
use crate::lexical::reader::LexicalReader;
use crate::lexical::writer::LexicalWriter;

/// Indexes passages whose terms have more than one block of postings.
fn indexed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LexicalWriter::create(folder.path(), 1).unwrap();
    for row in 0..300 {
        writer.add(row, "a common word").unwrap();
    }
    writer.finish().unwrap();
    folder
}

#[test]
fn a_file_that_is_cut_or_of_another_index_is_refused() {
    let folder = indexed();
    let open = || LexicalReader::open(folder.path(), Bm25Parameters::default());
    open().unwrap();
    let path = folder.path().join(BOUNDS_FILE);
    let whole = std::fs::read(&path).unwrap();
    let mut other = whole.clone();
    let documents = whole.len() - FOOTER_BYTES + LENGTH_CLASSES;
    other[documents] ^= 1;
    for bytes in [&[][..], &whole[..20], &whole[1..], &whole[..whole.len() - 1], &other] {
        std::fs::write(&path, bytes).unwrap();
        let message = open().unwrap_err().to_string();
        assert!(message.starts_with("lexical index: bounds is corrupt: "), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    open().unwrap();
}
