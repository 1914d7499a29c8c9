//! Compares the corpus files in a configuration with those that an index was built from. Paths do not
//! count, because a corpus may be moved. Sizes are compared first, as they cost nothing; digests are
//! compared on request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::contract::digest::Digest;
use shared::contract::rows;

use super::manifest::{FileEntry, Manifest, Verification};

/// The result of a comparison.
#[derive(Debug)]
pub enum CorpusMatch {
    /// No file differs from the file that was indexed.
    Same {
        /// The files that could not be read, with the errors. An index does not need them.
        unread: Vec<(PathBuf, io::Error)>,
    },
    /// The index was built from another corpus. The text names the difference.
    Other(String),
}

/// Compares corpus files, in order, with those that the index was built from. A folder stands for its parts.
/// [`Verification::Digests`] reads every file once; [`Verification::Later`] notes them.
pub fn compare(
    manifest: &Manifest,
    corpus: &[PathBuf],
    verification: Verification<'_>,
) -> CorpusMatch {
    let mut files = Vec::new();
    for path in corpus {
        match rows::parts(path) {
            Ok(parts) => files.extend(parts),
            Err(error) => return CorpusMatch::Other(error.to_string()),
        }
    }
    let corpus = files;
    if corpus.len() != manifest.corpus.len() {
        let (now, then) = (corpus.len(), manifest.corpus.len());
        return CorpusMatch::Other(format!("number of files: {then} then, {now} now"));
    }
    let mut unread = Vec::new();
    // All sizes come before the first digest: reading a corpus may take minutes.
    let levels: &[Verification<'_>] = match verification {
        Verification::Sizes => &[Verification::Sizes],
        other => &[Verification::Sizes, other],
    };
    for level in levels {
        unread.clear();
        for (path, entry) in corpus.iter().zip(&manifest.corpus) {
            match difference(path, entry, *level) {
                Ok(None) => {}
                Ok(Some(difference)) => return CorpusMatch::Other(difference),
                Err(error) => unread.push((path.clone(), error)),
            }
        }
    }
    CorpusMatch::Same { unread }
}

/// Describes the difference between the file at `path` and its entry, if there is one.
fn difference(
    path: &Path,
    entry: &FileEntry,
    level: Verification<'_>,
) -> io::Result<Option<String>> {
    Ok(match level {
        Verification::Sizes => {
            let (now, then) = (fs::metadata(path)?.len(), entry.bytes);
            (now != then).then(|| format!("{}: {then} bytes then, {now} now", path.display()))
        }
        Verification::Digests => other_digest(path, entry, Digest::of_file(path)?),
        Verification::Later(checks) => checks.corpus_file(path, entry)?,
    })
}

/// Describes the difference between the digest of the corpus file at `path` and its entry, if there is one.
pub(super) fn other_digest(path: &Path, entry: &FileEntry, now: Digest) -> Option<String> {
    let (shown, then) = (path.display(), entry.sha256);
    (now != then).then(|| format!("{shown}: SHA-256 {then} then, {now} now"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::build::{self, BuildRequest};

    /// Makes a folder with two corpus files and returns it with the files and the manifest of their index.
    fn indexed() -> (tempfile::TempDir, [PathBuf; 2], Manifest) {
        let folder = tempfile::tempdir().unwrap();
        let corpus = ["a", "b"].map(|name| {
            let path = folder.path().join(name);
            fs::write(&path, format!(r#"{{"id":"{name}","contents":"Oslo"}}"#)).unwrap();
            path
        });
        let index = folder.path().join("index");
        let request = BuildRequest {
            corpus: corpus.to_vec(),
            index,
            force: false,
            threads: 1,
            compact: false,
        };
        build::build(&request, &mut |_| {}).unwrap();
        let manifest = Manifest::load(&request.index).unwrap();
        (folder, corpus, manifest)
    }

    #[track_caller]
    fn unread(result: CorpusMatch) -> Vec<PathBuf> {
        match result {
            CorpusMatch::Same { unread } => unread.into_iter().map(|(path, _)| path).collect(),
            CorpusMatch::Other(difference) => panic!("{difference}"),
        }
    }

    #[track_caller]
    fn difference(result: CorpusMatch) -> String {
        match result {
            CorpusMatch::Other(difference) => difference,
            CorpusMatch::Same { unread } => panic!("nothing differs, unread {unread:?}"),
        }
    }

    #[test]
    fn a_corpus_may_be_moved_or_missing() {
        let (folder, [a, b], manifest) = indexed();
        let moved = folder.path().join("moved");
        fs::rename(&a, &moved).unwrap();
        let corpus = [moved, b.clone()];
        for level in [Verification::Sizes, Verification::Digests] {
            assert!(unread(compare(&manifest, &corpus, level)).is_empty());
        }
        fs::remove_file(&b).unwrap();
        for level in [Verification::Sizes, Verification::Digests] {
            assert_eq!(unread(compare(&manifest, &corpus, level)), corpus[1..]);
        }
    }

    #[test]
    fn counts_and_sizes_are_compared_before_digests() {
        let (_folder, [a, b], manifest) = indexed();
        let text = difference(compare(&manifest, std::slice::from_ref(&a), Verification::Sizes));
        assert_eq!(text, "number of files: 2 then, 1 now");
        // The sizes are equal: each of the two files has one identifier of one letter.
        let swapped = [b.clone(), a.clone()];
        assert!(unread(compare(&manifest, &swapped, Verification::Sizes)).is_empty());
        let text = difference(compare(&manifest, &swapped, Verification::Digests));
        assert!(text.starts_with(&format!("{}: SHA-256 ", b.display())), "{text}");
        fs::write(&b, "longer by far than what was indexed").unwrap();
        // The size of the second file is compared before the bytes of the first are read.
        fs::write(&a, fs::read_to_string(&a).unwrap().replace('O', "o")).unwrap();
        let text = difference(compare(&manifest, &[a, b.clone()], Verification::Digests));
        assert_eq!(text, format!("{}: 28 bytes then, 35 now", b.display()));
    }
}
