//! Conversion, search and damage of rows in fewer bits.

use super::*;
use crate::index::dense::fixture::{DenseWorld, vector};
use crate::vector;

const FORMATS: [RowFormat; 2] = [RowFormat::F16, RowFormat::I8];

fn open(world: &DenseWorld, format: RowFormat) -> Result<DenseRows, IndexError> {
    let rows = DenseRows::open(&world.index, &world.source, Verification::Digests)?;
    rows.with_format(&world.index, &world.source, format, Verification::Digests)
}

#[test]
fn every_format_is_made_of_the_exact_vectors() {
    let world = DenseWorld::new(300);
    for format in FORMATS {
        assert!(!exist(&world.index, &world.source, format).unwrap());
        let message = open(&world, format).unwrap_err().to_string();
        assert!(message.contains(&format!("--vector-format {}", format.name())), "{message}");
        build(&world.index, &world.source, format, &mut |_| {}).unwrap();
        assert!(exist(&world.index, &world.source, format).unwrap());
    }
    let files = ["manifest.json", "vectors.f16", "vectors.f32", "vectors.i8"];
    assert_eq!(world.names(), files);
    for format in FORMATS {
        let rows = open(&world, format).unwrap();
        let searched = rows.searched().unwrap();
        assert_eq!((searched.format(), searched.count()), (format, 300));
        let query = super::super::fixture::vector("passage 77");
        let mut hits = vector::top_k(&searched, &query, 20, 1, &|| false).unwrap();
        vector::rescore(&rows.rows().unwrap(), &query, &mut hits, 3, 1);
        let exact = vector::top_k(&rows.rows().unwrap(), &query, 3, 1, &|| false).unwrap();
        assert_eq!(hits, exact);
        assert_eq!(hits[0][0].row, 77);
    }
}

#[test]
fn damaged_files_are_refused_by_name_and_a_killed_conversion_does_not_count() {
    let world = DenseWorld::new(40);
    fs::write(world.file(".vectors.f16.partial"), b"half").unwrap();
    fs::write(world.file("vectors.f16"), b"renamed, but not in the manifest").unwrap();
    assert!(!exist(&world.index, &world.source, RowFormat::F16).unwrap());
    for format in FORMATS {
        build(&world.index, &world.source, format, &mut |_| {}).unwrap();
        let path = world.file(&rows_file(format));
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[9] ^= 4;
        for damaged in [&whole[..whole.len() - 1], &flipped[..], b""] {
            fs::write(&path, damaged).unwrap();
            let message = open(&world, format).unwrap_err().to_string();
            assert!(
                message.contains(&rows_file(format)) && message.contains("corrupt"),
                "{message}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert!(open(&world, format).is_ok());
    }
    assert!(!world.names().iter().any(|name| name.ends_with("partial")));
    assert_eq!(vector("a"), vector("a"));
}
