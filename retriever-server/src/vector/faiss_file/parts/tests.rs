//! Files that were split, correctly or not.

use super::super::tests::golden;
use super::super::{FaissIndex, HnswFile};
use super::*;
use crate::vector::hnsw::GraphSearchSize;

/// Splits a file of faiss into parts of `part_bytes` in a temporary folder.
fn split(file: &str, part_bytes: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(golden(file)).unwrap();
    let mut paths = Vec::new();
    for (number, part) in whole.chunks(part_bytes).enumerate() {
        let path = folder.path().join(format!("part_{}", letters(number)));
        fs::write(&path, part).unwrap();
        paths.push(path);
    }
    (folder, paths)
}

fn refusal(path: &Path) -> String {
    FaissIndex::open(path).unwrap_err().to_string()
}

fn hnsw(index: FaissIndex) -> HnswFile {
    match index {
        FaissIndex::Hnsw(hnsw) => *hnsw,
        FaissIndex::Flat(_) => panic!("not an HNSW file"),
    }
}

#[test]
fn parts_of_whole_pages_are_read_as_one_file() {
    let page_bytes = joined::page_bytes().unwrap();
    for file in ["flat-ip.index", "flat-l2.index", "hnsw-ip.index", "hnsw-l2.index"] {
        let whole = FaissIndex::open(&golden(file)).unwrap();
        let (_folder, paths) = split(file, page_bytes);
        assert!(paths.len() > 1, "{file} is shorter than a page");
        // The path of any part opens all of them.
        for path in [&paths[0], &paths[paths.len() / 2], &paths[paths.len() - 1]] {
            let index = FaissIndex::open(path).unwrap();
            let (vectors, expected) = (index.vectors(), whole.vectors());
            assert_eq!(vectors.rows(), expected.rows(), "{file}");
            assert_eq!((vectors.count(), vectors.metric()), (expected.count(), expected.metric()));
        }
        // Some rows span two parts: 45 bytes come before the first row of a flat file.
        let row_bytes = size_of::<f32>() * whole.vectors().dimension();
        assert!(!page_bytes.is_multiple_of(row_bytes) || file.starts_with("hnsw"), "{file}");
    }
}

/// `split -d`, `split -d -a 3`, and `split` without a prefix.
#[test]
fn parts_may_be_numbered_by_digits_and_have_no_prefix() {
    let page_bytes = joined::page_bytes().unwrap();
    let whole = FaissIndex::open(&golden("flat-ip.index")).unwrap();
    let names: [&dyn Fn(usize) -> String; 4] = [
        &|number| format!("part_{number:02}"),
        &|number| format!("e5_Flat.index.{number:03}"),
        &|number| format!("x{number:02}"),
        &|number| format!("x{}", letters(number)),
    ];
    for name in names {
        let (folder, paths) = split("flat-ip.index", page_bytes);
        for (number, path) in paths.iter().enumerate() {
            fs::rename(path, folder.path().join(name(number))).unwrap();
        }
        let first = folder.path().join(name(0));
        assert_eq!(FaissIndex::open(&first).unwrap().vectors().rows(), whole.vectors().rows());
        fs::remove_file(folder.path().join(name(1))).unwrap();
        let message = refusal(&first);
        assert!(message.contains(&format!("{} is missing", name(1))), "{message}");
    }
}

#[test]
fn a_graph_in_parts_leads_to_the_same_rows() {
    let whole = hnsw(FaissIndex::open(&golden("hnsw-ip.index")).unwrap());
    let (_folder, paths) = split("hnsw-ip.index", joined::page_bytes().unwrap());
    let parts = hnsw(FaissIndex::open(&paths[0]).unwrap());
    // Once mapped, the files no longer need their names.
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    let size = GraphSearchSize { top_k: 10, ef: 64 };
    let rows = whole.vectors().table();
    let mut query = vec![0.0; rows.dimension()];
    for row in (0..rows.count()).step_by(17) {
        rows.read_row(row, &mut query);
        let expected = whole.search(&query, size, &|| false).unwrap();
        assert_eq!(parts.search(&query, size, &|| false).unwrap(), expected, "row {row}");
    }
}

#[test]
fn parts_that_are_not_of_whole_pages_are_refused_with_the_command_that_joins_them() {
    let (folder, paths) = split("flat-ip.index", 5000);
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let whole = folder.path().join("whole.index");
    let expected = format!("`cat {} > {}`", names.join(" "), whole.display());
    let message = refusal(&paths[0]);
    assert!(message.contains("has 5000 bytes") && message.contains(&expected), "{message}");
}

#[test]
fn parts_that_are_missing_torn_or_foreign_are_refused() {
    let page_bytes = joined::page_bytes().unwrap();
    let parts = || split("flat-ip.index", page_bytes);
    let check = |name: &str, change: &dyn Fn(&[PathBuf]), expected: &str| {
        let (_folder, paths) = parts();
        change(&paths);
        let asked = paths.iter().find(|path| path.is_file()).unwrap();
        let message = refusal(asked);
        assert!(message.contains(name) && message.contains(expected), "{message}");
    };
    let remove = |path: &PathBuf| fs::remove_file(path).unwrap();
    check("part_ab", &|paths| remove(&paths[1]), "is missing");
    check("part_aa", &|paths| remove(&paths[0]), "is missing");
    check("part_aa", &|paths| remove(&paths[paths.len() - 1]), "the file ends at byte");
    check("part_ab", &|paths| fs::write(&paths[1], b"").unwrap(), "has 0 bytes");
    let torn = |paths: &[PathBuf]| fs::write(&paths[1], vec![0; page_bytes - 1]).unwrap();
    check("part_ab", &torn, "whole pages");
    let folder = |paths: &[PathBuf]| {
        remove(&paths[1]);
        fs::create_dir(&paths[1]).unwrap();
    };
    check("part_ab", &folder, "not a file");
    let longer = |paths: &[PathBuf]| {
        let last = &paths[paths.len() - 1];
        let mut bytes = fs::read(last).unwrap();
        bytes.push(0);
        fs::write(last, bytes).unwrap();
    };
    check("part_aa", &longer, "the index ends at byte");
    let foreign = |paths: &[PathBuf]| fs::write(&paths[0], vec![b'x'; page_bytes]).unwrap();
    check("part_aa", &foreign, "starts with \"xxxx\"");
}

/// The header is in the first part, and its numbers must agree with the size of all parts.
#[test]
fn a_flipped_bit_of_the_header_does_no_harm() {
    let (_folder, paths) = split("flat-ip.index", joined::page_bytes().unwrap());
    let count = FaissIndex::open(&paths[0]).unwrap().vectors().count();
    let whole = fs::read(&paths[0]).unwrap();
    let mut refused = 0;
    for index in 0..45 {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[index] ^= 1 << bit;
            fs::write(&paths[0], flipped).unwrap();
            match FaissIndex::open(&paths[0]) {
                Ok(index) => assert_eq!(index.vectors().count(), count),
                Err(_) => refused += 1,
            }
        }
    }
    // All except the two numbers that faiss does not read either.
    assert_eq!(refused, (45 - 16) * 8);
}

#[test]
fn the_parts_of_a_split_file_are_found_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["part_ab", "part_aa", "part_ac", "e5.index.ab", "e5.index.aa", "x.index"] {
        fs::write(at(name), b"").unwrap();
    }
    let parts = Parts::list(&at("part_ab")).unwrap();
    assert_eq!(parts.0, ["part_aa", "part_ab", "part_ac"].map(at));
    assert_eq!(parts.missing(), None);
    let shown = |name: &str| at(name).display().to_string();
    let expected =
        format!("cat {} {} > {}", shown("e5.index.aa"), shown("e5.index.ab"), shown("e5.index"));
    assert_eq!(Parts::list(&at("e5.index.aa")).unwrap().join_command(), expected);
    for alone in ["x.index", "part_aaa", "nothing_aa", "", "a"] {
        assert_eq!(Parts::list(&at(alone)), None, "{alone}");
    }
    assert_eq!([0, 25, 26, 675].map(letters), ["aa", "az", "ba", "zz"]);
}
