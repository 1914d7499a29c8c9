//! The kinds of files, by their first bytes: those that hold rows, and names for those that do not.

/// A container of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// Bytes as they are.
    Plain,
    /// One or more gzip members (RFC 1952).
    Gzip,
    /// One or more zstd frames (RFC 8878).
    Zstd,
    /// Parquet.
    Parquet,
}

impl Container {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "a plain file",
            Self::Gzip => "a gzip file",
            Self::Zstd => "a zstd file",
            Self::Parquet => "a parquet file",
        }
    }
}

pub(super) fn container(head: &[u8]) -> Container {
    match head {
        [0x1f, 0x8b, ..] => Container::Gzip,
        // A frame, or a skippable frame, with which pzstd begins.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Container::Zstd,
        [b'P', b'A', b'R', b'1', ..] => Container::Parquet,
        _ => Container::Plain,
    }
}

/// First bytes of files without rows, with their names.
const MAGIC: [(&[u8], &str); 37] = [
    (b"PARE", "an encrypted parquet file"),
    (b"PK\x03\x04", "a zip archive (unpack it first)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xfd7zXZ\x00", "an xz file (unpack it, or compress it with gzip or zstd)"),
    (b"\x04\x22\x4d\x18", "an lz4 file (unpack it, or compress it with gzip or zstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it first)"),
    (b"Rar!", "a rar archive (unpack it first)"),
    (b"ARROW1", "an Arrow file (save it as parquet)"),
    (b"FEA1", "a Feather file (save it as parquet)"),
    (
        b"\xff\xff\xff\xff",
        "an Arrow stream, as the library datasets caches it (save it as parquet)",
    ),
    (b"ORC", "an ORC file (save it as parquet)"),
    (b"Obj\x01", "an Avro file (save it as parquet)"),
    (b"SQLite format 3\x00", "an SQLite database (export its rows as JSON Lines)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"GGUF", "a GGUF model"),
    (b"IxF", "a faiss index"),
    (b"IxM", "a faiss index"),
    (b"IxS", "a faiss index"),
    (b"IxP", "a faiss index"),
    (b"IxR", "a faiss index"),
    (b"Ixr", "a faiss index"),
    (b"IxH", "a faiss index"),
    (b"IxT", "a faiss index"),
    (b"Iw", "a faiss index"),
    (b"IHN", "a faiss index"),
    (b"IHc", "a faiss index"),
    (b"IB", "a faiss index"),
    (b"usearch", "a usearch index"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF file"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\xff\xfe\x00\x00", "UTF-32 text, expected UTF-8 (convert it with iconv)"),
    (b"\xff\xfe", "UTF-16 text, expected UTF-8 (convert it with iconv)"),
    (b"\xfe\xff", "UTF-16 text, expected UTF-8 (convert it with iconv)"),
    (b"\x00\x00\xfe\xff", "UTF-32 text, expected UTF-8 (convert it with iconv)"),
];

/// The number of first bytes in which a zero byte shows that a file is not text.
const SAMPLE_BYTES: usize = 1 << 12;

/// Names a file that is not text.
pub(super) fn binary(head: &[u8]) -> Option<&'static str> {
    let sample = &head[..head.len().min(SAMPLE_BYTES)];
    let has_zero = sample.contains(&0);
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive (unpack it first)");
    }
    match head {
        [0x80, 2..=5, ..] => return Some("a Python pickle"),
        // The digits of pi, with which a block begins.
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', ..] => {
            return Some("a bzip2 file (unpack it, or compress it with gzip or zstd)");
        }
        _ => {}
    }
    // Eight bytes with the length of the header, then the header.
    if has_zero && head.len() > 9 && head[8] == b'{' && head[5..8] == [0, 0, 0] {
        return Some("a safetensors file");
    }
    for (magic, name) in MAGIC {
        // A text may begin with letters that are also the code of a faiss index.
        let is_letters = magic.iter().all(u8::is_ascii_alphanumeric);
        if head.starts_with(magic) && (has_zero || !is_letters) {
            return Some(name);
        }
    }
    let is_utf16 = |first: usize| {
        sample.len() >= 8 && sample.iter().skip(first).step_by(2).take(4).all(|byte| *byte == 0)
    };
    match (is_utf16(1), is_utf16(0)) {
        (true, false) | (false, true) => {
            Some("UTF-16 text, expected UTF-8 (convert it with iconv)")
        }
        _ if has_zero => Some("binary data"),
        _ => None,
    }
}

/// Names a text that has no rows, by its beginning.
pub(super) fn text(head: &str) -> String {
    let head = head.trim_start();
    let lower = head.get(..head.floor_char_boundary(200)).unwrap_or(head).to_ascii_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    let name = if begins(&["version https://git-lfs"]) {
        "a pointer of Git LFS, not the file itself (fetch it with `git lfs pull`)"
    } else if begins(&["<!doctype html", "<html", "<head", "<body"]) {
        "an HTML page (perhaps an error page that was saved instead of the file)"
    } else if begins(&["<?xml", "<"]) {
        "an XML file"
    } else if begins(&["#!/bin/", "#!/usr/bin/env bash", "#!/usr/bin/env sh"]) {
        "a shell script"
    } else if is_python(head) {
        "a Python script"
    } else if begins(&["---\n", "%yaml"]) {
        "a YAML or Markdown file"
    } else if begins(&["\"", "null", "true", "false"]) {
        "JSON that is not an object"
    } else {
        let line = head.lines().next().unwrap_or_default();
        let end = line.char_indices().nth(SHOWN_CHARS).map_or(line.len(), |(end, _)| end);
        let dots = if end < line.len() { "…" } else { "" };
        return format!("text that begins with {:?}{dots}", &line[..end]);
    };
    name.to_owned()
}

/// The longest part of a text that an error shows.
const SHOWN_CHARS: usize = 60;

fn is_python(head: &str) -> bool {
    const STARTS: [&str; 9] =
        ["import ", "from ", "def ", "class ", "print(", "\"\"\"", "'''", "@", "if __name__"];
    let lines = || head.lines().take(50).map(str::trim_end);
    if head.starts_with("#!") {
        return lines().next().is_some_and(|line| line.contains("python"));
    }
    lines().find(|line| !line.is_empty() && !line.starts_with('#')).is_some_and(|line| {
        STARTS.iter().any(|start| line.starts_with(start))
            && (!line.starts_with("from ") || line.contains(" import "))
    })
}
