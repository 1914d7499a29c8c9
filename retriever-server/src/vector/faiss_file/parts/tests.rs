//! Files that were split, at any place and by anybody.

use super::super::tests::golden;
use super::super::{FaissIndex, HnswFile};
use super::*;

/// A folder with a file of faiss in parts of so many bytes.
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
        FaissIndex::Hnsw(hnsw) => hnsw,
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
        // Any part stands for all of them.
        for path in [&paths[0], &paths[paths.len() / 2], &paths[paths.len() - 1]] {
            let index = FaissIndex::open(path).unwrap();
            let (found, expected) = (index.vectors(), whole.vectors());
            assert_eq!(found.rows(), expected.rows(), "{file}");
            assert_eq!((found.count(), found.metric()), (expected.count(), expected.metric()));
        }
        // Rows lie across the ends of parts: 45 bytes come before the first of a flat file.
        let row_bytes = size_of::<f32>() * whole.vectors().dimension();
        assert!(!page_bytes.is_multiple_of(row_bytes) || file.starts_with("hnsw"), "{file}");
    }
}

#[test]
fn a_graph_in_parts_leads_to_the_same_rows() {
    let whole = hnsw(FaissIndex::open(&golden("hnsw-ip.index")).unwrap());
    let (_folder, paths) = split("hnsw-ip.index", joined::page_bytes().unwrap());
    let parts = hnsw(FaissIndex::open(&paths[0]).unwrap());
    // The files need not be there by their names any more.
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    let rows = whole.vectors().table();
    let mut query = vec![0.0; rows.dimension()];
    for row in (0..rows.count()).step_by(17) {
        rows.read_row(row, &mut query);
        let expected = whole.search(&query, 10, 64, &|| false).unwrap();
        assert_eq!(parts.search(&query, 10, 64, &|| false).unwrap(), expected, "row {row}");
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
    check("part_ab", &|paths| remove(&paths[1]), "is not there");
    check("part_aa", &|paths| remove(&paths[0]), "is not there");
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

/// The header stands in the first part: what it says is compared with all of them.
#[test]
fn a_flipped_bit_of_the_header_does_no_harm() {
    let (_folder, paths) = split("flat-ip.index", joined::page_bytes().unwrap());
    let count = FaissIndex::open(&paths[0]).unwrap().vectors().count();
    let whole = fs::read(&paths[0]).unwrap();
    let mut refused = 0;
    for place in 0..45 {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << bit;
            fs::write(&paths[0], flipped).unwrap();
            match FaissIndex::open(&paths[0]) {
                Ok(index) => assert_eq!(index.vectors().count(), count),
                Err(_) => refused += 1,
            }
        }
    }
    // All but the two numbers that faiss does not read either.
    assert_eq!(refused, (45 - 16) * 8);
}

#[test]
fn the_parts_of_a_split_file_are_found_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["part_ab", "part_aa", "part_ac", "e5.index.ab", "e5.index.aa", "x.index"] {
        fs::write(at(name), b"").unwrap();
    }
    let parts = Parts::of(&at("part_ab")).unwrap();
    assert_eq!(parts.0, ["part_aa", "part_ab", "part_ac"].map(at));
    assert_eq!(parts.missing(), None);
    let shown = |name: &str| at(name).display().to_string();
    let expected =
        format!("cat {} {} > {}", shown("e5.index.aa"), shown("e5.index.ab"), shown("e5.index"));
    assert_eq!(Parts::of(&at("e5.index.aa")).unwrap().join_command(), expected);
    for alone in ["x.index", "part_aaa", "nothing_aa", "", "a"] {
        assert_eq!(Parts::of(&at(alone)), None, "{alone}");
    }
    assert_eq!([0, 25, 26, 675].map(letters), ["aa", "az", "ba", "zz"]);
}
