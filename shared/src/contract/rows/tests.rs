use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use serde_json::json;

use super::*;

fn none(_: &[&str]) -> Option<Layout> {
    None
}

/// Writes a file and reads its rows; a part of the message instead of the whole path.
fn read_as(name: &str, bytes: &[u8], headerless: Headerless) -> Result<Vec<(u64, Value)>, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    read_path(&folder.path().join(name), headerless)
}

fn read_path(path: &Path, headerless: Headerless) -> Result<Vec<(u64, Value)>, String> {
    let shown = format!("{}/", path.parent().unwrap().display());
    let named = |error: RowsError| error.to_string().replace(&shown, "");
    let rows = Rows::open(path, headerless).map_err(named)?;
    rows.map(|row| row.map(|row| (row.number, Value::Object(row.fields))).map_err(named)).collect()
}

fn read(bytes: &[u8]) -> Result<Vec<(u64, Value)>, String> {
    read_as("x", bytes, none)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/rows")
}

#[test]
fn rows_of_lines_and_of_a_list_are_read() {
    let expected = vec![(1, json!({"a": 1})), (4, json!({"a": [2]}))];
    assert_eq!(read(b"\xef\xbb\xbf{\"a\": 1}\r\n\n \r\n{\"a\": [2]}").unwrap(), expected);
    let expected = vec![(1, json!({"a": 1})), (2, json!({"a": "],{\"\\"}))];
    assert_eq!(read(b"[{\"a\":1},{\"a\":\"],{\\\"\\\\\"}]").unwrap(), expected);
    assert_eq!(
        read(b"\xef\xbb\xbf \n[ {\"a\": 1}\n ,\n{\"a\":\n\"],{\\\"\\\\\"\n} ]\n").unwrap(),
        expected
    );
    // A list within an object, as SQuAD and TriviaQA are published.
    for around in [
        "{\"data\": [{\"a\":1},{\"a\":\"],{\\\"\\\\\"}], \"more\": {\"x\": [\"]}\"]}}",
        " {\n \"version\" : \"1.1\",\"x\":null, \"n\": -1.5,\"Data\": [ {\"a\":1}, {\"a\":\"],{\\\"\\\\\"} ]}\n",
    ] {
        assert_eq!(read(around.as_bytes()).unwrap(), expected, "{around}");
    }
    // Lines with such keys are lines.
    let lines = "{\"data\": [1], \"a\": 2}\n{\"rows\": 1}\n{\"x\": {}, \"data\": [{}]}\n";
    assert_eq!(read(lines.as_bytes()).unwrap().len(), 3);
    for empty in ["", " \n ", "[]", "[ \n]"] {
        assert_eq!(read(empty.as_bytes()).unwrap(), [], "{empty:?}");
    }
}

#[test]
fn compressed_rows_are_read_whatever_the_name() {
    let (first, second) = (b"{\"a\":1}\n{\"a\"".as_slice(), b":2}\n".as_slice());
    let expected = vec![(1, json!({"a": 1})), (2, json!({"a": 2}))];
    // Several members or frames, the second of which begins in the middle of a row.
    assert_eq!(read(&[gzip(first), gzip(second)].concat()).unwrap(), expected);
    assert_eq!(read(&[zst(first), zst(second)].concat()).unwrap(), expected);
    // Zeros between and behind members, as tapes leave them.
    let zeros = vec![0; 700_000];
    assert_eq!(
        read(&[gzip(first), zeros.clone(), gzip(second), zeros].concat()).unwrap(),
        expected
    );
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    assert_eq!(read(&[skippable, zst(first), zst(second)].concat()).unwrap(), expected);
    assert_eq!(read(&gzip(b"\xef\xbb\xbf[{\"a\":1},{\"a\":2}]")).unwrap(), expected);
    let table = read_as("x", &gzip(b"1\tx y\n"), passage_columns).unwrap();
    assert_eq!(table, [(1, json!({"id": "1", "contents": "x y"}))]);
}

#[test]
fn damaged_compression_is_named() {
    let mut packed = gzip(&b"{\"a\": 1}\n".repeat(1000));
    packed.truncate(packed.len() - 20);
    let error = read(&packed).unwrap_err();
    assert!(error.contains("the gzip data is damaged: it ends in the middle"), "{error}");
    let error = read(&[gzip(b"{\"a\": 1}\n"), b"more".to_vec()].concat()).unwrap_err();
    assert!(error.contains("the gzip data is damaged"), "{error}");
    let mut packed = zst(&b"{\"a\": 1}\n".repeat(1000));
    packed.truncate(packed.len() - 5);
    let error = read(&packed).unwrap_err();
    assert!(error.contains("the zstd data is damaged"), "{error}");
    let error = read(&gzip(&gzip(b"{}"))).unwrap_err();
    assert!(error.starts_with("x: is a gzip file within a gzip file, expected rows"), "{error}");
}

#[test]
fn values_of_python_without_a_json_form_are_mended() {
    let text = r#"{"s": "a\ud800b\\ud800\ud83d\ude00\udc00", "n": [NaN, -Infinity, 1e999, 1], "t": "NaN \" 1e999"}"#;
    let expected = json!({
        "s": "a\u{fffd}b\\ud800😀\u{fffd}", "n": [null, null, null, 1], "t": "NaN \" 1e999",
    });
    assert_eq!(read(text.as_bytes()).unwrap(), [(1, expected.clone())]);
    assert_eq!(read(format!("[{text}]").as_bytes()).unwrap(), [(1, expected)]);
}

#[test]
fn faults_name_file_and_row() {
    for (text, expected) in [
        ("{\"a\":1}\n\n{\"a\":", "x:3: is not JSON: EOF while parsing a value"),
        ("{\"a\": nan}", "x:1: is not JSON: expected ident"),
        ("{\n \"a\": 1\n}", "x:1: an object ends on another line"),
        ("{}\n[1]", "x:2: is a list, expected an object"),
        ("[{}, 7]", "x, row 2: is a number, expected an object"),
        ("[{},]", "x, row 2: an object is missing between , and ]"),
        ("[{}", "x, row 1: is not followed by , or ]: the list is not complete"),
        ("[{} {}]", "x, row 1: is not JSON: trailing characters"),
        ("[{}] {}", "x, row 1: is followed by more than the end of the list"),
        ("[{\"a\": 1", "x, row 1: is not JSON: EOF while parsing"),
        // Lines whose first key has a list of objects: the second line would be lost.
        ("{\"data\": [{}]}\n{\"data\": [{}]}", "x, row 1: is followed by more than the end"),
        ("{\"data\": [{}], \"a\": 1", "x, row 1: is followed by an object that does not end"),
    ] {
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    let error = read(b"[{\"a\":\"\xff\"}]").unwrap_err();
    assert_eq!(error, "x, row 1: invalid UTF-8 at byte 6 of the object");
    let error = Rows::open(Path::new("nowhere.jsonl"), none).unwrap_err().to_string();
    assert_eq!(error, "nowhere.jsonl: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn what_is_not_rows_is_named() {
    let safetensors = b"\x30\0\0\0\0\0\0\0{\"a\":{}}";
    for (bytes, expected) in [
        (b"PK\x03\x04\0\0".as_slice(), "a zip archive"),
        (b"BZh91AY&SY", "a bzip2 file"),
        (b"\xfd7zXZ\0\0", "an xz file"),
        (b"\x80\x04\x95\x10", "a Python pickle"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "an Arrow stream"),
        (b"IxFI\x40\0\0\0\x10\0\0\0", "a faiss index"),
        (b"IHNf\x40\0\0\0\x10\0\0\0", "a faiss index"),
        (b"\x93NUMPY\x01\0", "a numpy array"),
        (safetensors, "a safetensors file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\xff\xfe{\0\"\0", "UTF-16 text"),
        (b"{\0\"\0a\0\"\0:\x001\0}\0\n\0", "UTF-16 text"),
        (b"\x01\0\0\x02binary", "binary data"),
        (b"import json\n\nprint(1)\n", "a Python script"),
        (b"#!/usr/bin/env python3\nx = 1\n", "a Python script"),
        (b"# Copyright\n\"\"\"Doc.\"\"\"\n", "a Python script"),
        (b"print(\"no vectors\")\n", "a Python script"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"<?xml version=\"1.0\"?>", "an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        (b"IBM\tis a company", "text that begins with \"IBM\\tis a company\""),
        (b"Not Found", "text that begins with \"Not Found\""),
        (b"\"a\"\n", "JSON that is not an object"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(error.starts_with(&format!("x: is {expected}")), "{bytes:?}: {error}");
        assert!(error.contains(", expected "), "{error}");
    }
    let mut tar = vec![b'a'; 257];
    tar.extend_from_slice(b"ustar\x0000rest");
    let error = read(&gzip(&tar)).unwrap_err();
    assert!(
        error.starts_with("x: is a tar archive (unpack it first) within a gzip file"),
        "{error}"
    );
}

#[test]
fn tables_with_names_are_read() {
    let dpr = "id\ttext\ttitle\n1\t\"Aaron ( or ; \"\"Ahärôn\"\") is\"\tAaron\n\n2\t\"Heroes\" is a song\t\"\"\n";
    let row = |text: &str, title: &str, id: &str| json!({"id": id, "text": text, "title": title});
    let expected = vec![
        (2, row("Aaron ( or ; \"Ahärôn\") is", "Aaron", "1")),
        (4, row("\"Heroes\" is a song", "", "2")),
    ];
    assert_eq!(read(dpr.as_bytes()).unwrap(), expected);
    let csv = "_id,title,text\r\n1,\"a, b\",\"line\r\n\r\nother \"\"x\"\"\"\r\n2,,c\r\n";
    let expected = vec![
        (2, json!({"_id": "1", "title": "a, b", "text": "line\n\nother \"x\""})),
        (5, json!({"_id": "2", "title": "", "text": "c"})),
    ];
    assert_eq!(read(csv.as_bytes()).unwrap(), expected);
    let questions = "question\tanswers\nwho\t\"['it''s', \"\"b\"\"]\"\nwhat\t[\"c\"]\n";
    let error = read(questions.replace("it''s", "it's").as_bytes()).unwrap();
    assert_eq!(error[1], (3, json!({"question": "what", "answers": ["c"]})));
    let error = read(b"id\ttext\ttitle\n1\ta\n").unwrap_err();
    assert_eq!(error, "x:2: has 2 columns, expected 3 (id, text, title)");
    let error = read(b"id,text\n1,\"a\n2,b\n").unwrap_err();
    assert_eq!(error, "x:2: has a quote that is not closed");
}

#[test]
fn tables_without_names_have_the_callers_columns() {
    let marco = "0\tThe \"presence\" of communication\n1\t\"Quoted\"\n";
    let expected = vec![
        (1, json!({"id": "0", "contents": "The \"presence\" of communication"})),
        (2, json!({"id": "1", "contents": "\"Quoted\""})),
    ];
    assert_eq!(read_as("x", marco.as_bytes(), passage_columns).unwrap(), expected);
    let documents = "D1\thttps://a\tTitle\tBody\n";
    let expected = json!({"id": "D1", "url": "https://a", "title": "Title", "text": "Body"});
    let read = read_as("x", documents.as_bytes(), passage_columns).unwrap();
    assert_eq!(read, [(1, expected)]);
    let topics = "1048585\twhat is paula deen's brother\n";
    let expected = json!({"id": "1048585", "question": "what is paula deen's brother"});
    assert_eq!(read_as("x", topics.as_bytes(), question_columns).unwrap(), [(1, expected)]);
    let dpr = "who won\t['Wilhelm Röntgen', \"d'Or\"]\n\"a \"\"b\"\"\"\t\"[\"\"it's\"\"]\"\n";
    let expected = vec![
        (1, json!({"question": "who won", "answers": ["Wilhelm Röntgen", "d'Or"]})),
        (2, json!({"question": "a \"b\"", "answers": ["it's"]})),
    ];
    assert_eq!(read_as("x", dpr.as_bytes(), question_columns).unwrap(), expected);
    let error = read_as("x", b"1\ta\n2\ta\tb\n", passage_columns).unwrap_err();
    assert_eq!(error, "x:2: has 3 columns, expected 2 (id, contents)");
}

#[test]
fn parts_are_read_in_order_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("corpus");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("part-10.jsonl"), "{\"n\":3}\n{\"n\"").unwrap();
    fs::write(folder.join("part-2.jsonl.gz"), gzip(b"{\"n\":1}\n{\"n\":2}")).unwrap();
    fs::write(folder.join("part-3.jsonl"), "").unwrap();
    let error = read_path(&folder, none).unwrap_err();
    // The names differ in their endings, too.
    assert!(error.starts_with("corpus: is a folder of different files"), "{error}");
    fs::rename(folder.join("part-2.jsonl.gz"), folder.join("part-2.jsonl")).unwrap();
    let rows: Vec<_> = Rows::open(&folder, none).unwrap().collect();
    let numbers: Vec<_> =
        rows[..3].iter().map(|row| row.as_ref().unwrap().fields["n"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(rows.len(), 4);
    let error = rows[3].as_ref().unwrap_err().to_string();
    assert!(error.contains("corpus/part-10.jsonl:2: is not JSON: EOF"), "{error}");
}

#[test]
fn parquet_files_have_the_rows_that_pyarrow_reads() {
    let text = fs::read_to_string(golden().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Vec<Value>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 9);
    for (name, expected) in expected {
        let rows = read_path(&golden().join(&name), none).unwrap();
        assert_eq!(rows.len(), expected.len(), "{name}");
        for (index, ((number, row), expected)) in rows.iter().zip(&expected).enumerate() {
            assert_eq!((*number, row), (index as u64 + 1, expected), "{name}");
        }
    }
}

/// One set of rows in the files of pandas, pyarrow, polars and DuckDB, in each of their codecs.
#[test]
fn parquet_files_of_four_writers_have_the_same_rows() {
    let folder = golden().join("../parquet");
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(expected["others"], json!({}));
    let rows = expected["rows"].as_array().unwrap();
    let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
    for name in expected["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
        *writers.entry(name.split_once('-').unwrap().0).or_default() += 1;
        let read = read_path(&folder.join(name), none).unwrap();
        assert_eq!(read.len(), rows.len(), "{name}");
        for (index, ((number, row), expected)) in read.iter().zip(rows).enumerate() {
            assert_eq!((*number, row), (index as u64 + 1, expected), "{name}");
        }
    }
    let counts = [("duckdb", 8), ("pandas", 6), ("polars", 6), ("pyarrow", 8)];
    assert_eq!(writers, BTreeMap::from(counts));
}

#[test]
fn damaged_parquet_files_are_errors() {
    let whole = fs::read(golden().join("odd-snappy.parquet")).unwrap();
    let error = read(&whole[..whole.len() - 1]).unwrap_err();
    assert!(error.starts_with("x: the parquet data is damaged: "), "{error}");
    // A wrong byte anywhere gives other values or an error, and never a panic that leaves the reader.
    let mut errors = 0;
    for position in (4..whole.len()).step_by(53) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0xff;
        errors += u32::from(read(&bytes).is_err());
    }
    assert!(errors > 0);
}

#[test]
fn the_digest_is_that_of_the_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let parquet = fs::read(golden().join("many.parquet")).unwrap();
    for bytes in [b"{\"a\":1}\n".to_vec(), gzip(b"[{\"a\":1}]"), b"[{}]".to_vec(), parquet] {
        fs::write(&path, &bytes).unwrap();
        let mut rows = Rows::open(&path, none).unwrap();
        for row in rows.by_ref() {
            row.unwrap();
        }
        assert_eq!(rows.bytes_read(), bytes.len() as u64);
        assert_eq!(rows.into_digest().unwrap(), Digest::of_bytes(&bytes));
    }
}

#[test]
fn compressed_lines_of_text_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qrels");
    fs::write(&path, gzip(b"\xef\xbb\xbf1 0 a 1\n")).unwrap();
    assert_eq!(open_lines(&path).unwrap().next_line().unwrap().unwrap().text, "1 0 a 1");
    let error = open_lines(&golden().join("many.parquet")).unwrap_err().to_string();
    assert!(error.ends_with("is a parquet file, expected lines of text"), "{error}");
}
