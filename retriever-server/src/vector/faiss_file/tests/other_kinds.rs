//! Scalar quantisers, inverted lists, identifiers and arrays of numpy.

use super::*;
use crate::vector::RowFormat;

fn other_kinds() -> Recording {
    serde_json::from_slice(&fs::read(golden("other-kinds.json")).unwrap()).unwrap()
}

/// Returns the hits of a search that compares all rows, or follows all links.
fn all_compared(index: &FaissIndex, query: &[f32], top_k: usize) -> Vec<Hit> {
    match index {
        FaissIndex::Flat(flat) => exact(flat, query, top_k),
        FaissIndex::Hnsw(hnsw) => {
            let size = GraphSearchSize { top_k, ef: hnsw.vectors().count() };
            hnsw.search(query, size, &|| false).unwrap()
        }
    }
}

/// Identifiers, scalar quantisers, inverted lists, and graphs over these.
#[test]
fn other_kinds_are_answered_as_by_faiss() {
    let recording = other_kinds();
    let mut searches = 0;
    for RecordedFile { file, metric, count, exact, .. } in &recording.files {
        let opened = FaissIndex::open(&golden(file));
        if file == "sq-4bit.index" {
            let message = opened.unwrap_err().to_string();
            assert!(
                message.contains(
                    "type of the scalar quantiser at byte 37 is 1, expected 0 (QT_8bit), "
                )
            );
            continue;
        }
        let index = opened.unwrap_or_else(|error| panic!("{error}"));
        let metric = if metric == "ip" { Metric::InnerProduct } else { Metric::L2 };
        assert_eq!(index.vectors().metric(), metric, "{file}");
        assert_eq!(index.vectors().count(), *count, "{file}");
        let is_half = ["sq-fp16.index", "idmap-sq.index"].contains(&file.as_str());
        let format = if is_half { RowFormat::F16 } else { RowFormat::F32 };
        assert_eq!(index.vectors().format(), format, "{file}");
        // A copy in memory is told.
        let is_in_place =
            ["sq-fp16.index", "idmap.index", "idmap-hnsw.index"].contains(&file.as_str());
        assert_eq!(index.notes().is_empty(), is_in_place, "{file}: {:?}", index.notes());
        for (number, query) in recording.queries.iter().enumerate() {
            let hits = all_compared(&index, query, recording.top_k);
            let recorded = &exact.as_ref().unwrap()[number];
            assert_same(&hits, recorded, metric, &format!("{file} query {number}"));
            searches += 1;
        }
    }
    assert_eq!(searches, 14 * recording.queries.len());
    let note = FaissIndex::open(&golden("ivf-l2.index")).unwrap().notes()[0].clone();
    assert!(note.starts_with("all 4 inverted lists are compared: the hits are exact"), "{note}");
}

#[test]
fn identifiers_that_are_no_rows_are_refused() {
    let bytes = fs::read(golden("idmap.index")).unwrap();
    let count = other_kinds().files.iter().find(|file| file.file == "idmap.index").unwrap().count;
    let first = bytes.len() - 8 * count;
    for (id, expected) in [
        (-1i64, "is -1, expected a passage row below 60, the number of vectors"),
        (60, "is 60, expected a passage row below 60, the number of vectors"),
        (1 << 40, "is 1099511627776, expected a passage row below 60"),
        (4, "is 4, expected a row that no other vector has"),
    ] {
        let mut changed = bytes.clone();
        changed[first + 8 * 7..][..8].copy_from_slice(&id.to_le_bytes());
        let message = read(&changed).unwrap_err().to_string();
        let at = first + 8 * 7;
        let start = format!("the identifier of a vector at byte {at} {expected}");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn other_kinds_that_are_damaged_do_no_harm() {
    let recording = other_kinds();
    let mut refused = 0;
    for file in &recording.files {
        let mut bytes = fs::read(golden(&file.file)).unwrap();
        for size in (0..bytes.len()).step_by(97) {
            assert!(read(&bytes[..size]).is_err(), "{} cut at {size}", file.file);
        }
        for index in (0..bytes.len()).step_by(3) {
            for bits in [0xff, 0x01] {
                bytes[index] ^= bits;
                refused += usize::from(ask(&bytes, &recording.queries[0]).is_err());
                bytes[index] ^= bits;
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn arrays_and_raw_rows_of_numpy_are_read() {
    let recording = other_kinds();
    let (count, dimension) = (60, recording.dimension);
    let FaissIndex::Flat(plain) = FaissIndex::open(&golden("idmap.index")).unwrap() else {
        panic!("not a flat file");
    };
    for (name, format) in [("f32.npy", RowFormat::F32), ("f16.npy", RowFormat::F16)] {
        let index = FaissIndex::open(&golden(name)).unwrap();
        let vectors = index.vectors();
        assert_eq!((vectors.count(), vectors.dimension()), (count, dimension));
        assert_eq!((vectors.format(), vectors.metric()), (format, Metric::InnerProduct));
        let mut rounded = Vec::new();
        let mut numbers = vec![0.0; dimension];
        for row in 0..count {
            plain.table().read_row(row, &mut numbers);
            format.append_row(&numbers, &mut rounded);
        }
        assert!(vectors.rows() == rounded, "{name}");
        // The same rows without a header.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("emb_e5.memmap");
        fs::write(&path, &rounded).unwrap();
        let expected = Expected { dimension, passage_count: Some(count as u64) };
        let raw = FaissIndex::open_expecting(&path, expected).unwrap();
        assert_eq!((raw.vectors().format(), raw.vectors().count()), (format, count));
        assert!(raw.vectors().rows() == rounded && raw.notes()[0].contains("raw rows of 18"));
        let other = Expected { passage_count: Some(61), ..expected };
        let message = FaissIndex::open_expecting(&path, other).unwrap_err().to_string();
        let sizes = "a file of raw rows has 4392 (32-bit floats) or 2196 (16-bit floats) bytes \
                     for 61 passages of 18 numbers, not ";
        assert!(message.contains(sizes), "{message}");
    }
    for (name, expected) in [
        ("fortran.npy", "the array's fortran_order is True, expected False (save it with"),
        ("f64.npy", "the array's descr is <f8, expected <f4 or <f2"),
    ] {
        let message = FaissIndex::open(&golden(name)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let whole = fs::read(golden("f32.npy")).unwrap();
    for size in [6, 7, 9, 60, whole.len() - 1] {
        assert!(read(&whole[..size]).is_err(), "{size}");
    }
    let mut changed = whole.clone();
    let at = changed.windows(2).position(|pair| pair == b"60").unwrap();
    changed[at] = b'5';
    let message = read(&changed).unwrap_err().to_string();
    assert!(message.contains("bytes of the array at byte 128 is 4320, expected 3600"), "{message}");
}

#[test]
fn other_files_are_refused_by_their_kind() {
    for (start, expected) in [
        (b"IxPT", "holds IxPT (IndexPreTransform: vectors transformed before they are stored), wh"),
        (b"IwPQ", "holds IwPQ (IndexIVF: inverted lists of vectors that are not flat), which is n"),
        (b"IxRF", "holds IxRF (IndexRefine: one index over another), which is not supported; acce"),
        (b"IHNp", "holds IHNp (IndexHNSW: a graph over vectors that are not flat), which is not"),
        (b"{\"id", "starts with \"{\\\"id\", which is not a kind of faiss index; the later parts"),
        (
            b"PK\x03\x04",
            "starts with \"PK\\x03\\x04\" (a zip archive, as numpy.savez and torch.save",
        ),
        (
            b"\x80\x04\x95\0",
            "starts with \"\\x80\\x04\\x95\\x00\" (a Python pickle: save the array",
        ),
        (
            b"PAR1",
            "starts with \"PAR1\" (a parquet file: save the vectors with numpy.save), which is not",
        ),
        (b"\0\x01\xff\n", "starts with \"\\x00\\x01\\xff\\n\", which is not a kind of faiss index"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.index");
        fs::write(&path, [start, [0; 60].as_slice()].concat()).unwrap();
        let message = FaissIndex::open(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: {expected}", path.display())), "{message}");
    }
}
