//! Whether an index was made from the corpus files that are named. Paths play no part, as a corpus
//! may be moved; sizes tell first, for nothing, and digests where they are asked for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::digest::Digest;

use super::manifest::{FileEntry, Manifest, Verification};

/// What a comparison came to.
#[derive(Debug)]
pub enum CorpusMatch {
    /// No file differs from the one that was indexed.
    Same {
        /// Files that could not be compared, with the reason. An index is whole without them.
        unread: Vec<(PathBuf, io::Error)>,
    },
    /// The index was made from something else; the text says what differs.
    Other(String),
}

/// Compares corpus files with those that the index was made from, in order.
/// [`Verification::Digests`] reads every file once.
pub fn compare(manifest: &Manifest, corpus: &[PathBuf], verification: Verification) -> CorpusMatch {
    if corpus.len() != manifest.corpus.len() {
        let (now, then) = (corpus.len(), manifest.corpus.len());
        return CorpusMatch::Other(format!("number of files: {then} then, {now} now"));
    }
    let mut unread = Vec::new();
    // All sizes before the first digest: a corpus may take minutes to read.
    let levels: &[Verification] = match verification {
        Verification::Sizes => &[Verification::Sizes],
        Verification::Digests => &[Verification::Sizes, Verification::Digests],
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

fn difference(path: &Path, entry: &FileEntry, level: Verification) -> io::Result<Option<String>> {
    let shown = path.display();
    Ok(match level {
        Verification::Sizes => {
            let (now, then) = (fs::metadata(path)?.len(), entry.bytes);
            (now != then).then(|| format!("{shown}: {then} bytes then, {now} now"))
        }
        Verification::Digests => {
            let (now, then) = (Digest::of_file(path)?, entry.sha256);
            (now != then).then(|| format!("{shown}: SHA-256 {then} then, {now} now"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::build::{self, BuildRequest};

    /// A folder with two corpus files, and the manifest of their index.
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
    fn unread(found: CorpusMatch) -> Vec<PathBuf> {
        match found {
            CorpusMatch::Same { unread } => unread.into_iter().map(|(path, _)| path).collect(),
            CorpusMatch::Other(difference) => panic!("{difference}"),
        }
    }

    #[track_caller]
    fn difference(found: CorpusMatch) -> String {
        match found {
            CorpusMatch::Other(difference) => difference,
            CorpusMatch::Same { unread } => panic!("nothing differs, unread {unread:?}"),
        }
    }

    #[test]
    fn a_corpus_is_the_same_wherever_it_lies_and_may_be_gone() {
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
    fn number_and_sizes_tell_at_once_and_equal_sizes_only_by_digest() {
        let (_folder, [a, b], manifest) = indexed();
        let found = difference(compare(&manifest, std::slice::from_ref(&a), Verification::Sizes));
        assert_eq!(found, "number of files: 2 then, 1 now");
        // Equal sizes: the two files hold one identifier of one letter each.
        let swapped = [b.clone(), a.clone()];
        assert!(unread(compare(&manifest, &swapped, Verification::Sizes)).is_empty());
        let found = difference(compare(&manifest, &swapped, Verification::Digests));
        assert!(found.starts_with(&format!("{}: SHA-256 ", b.display())), "{found}");
        fs::write(&b, "longer by far than what was indexed").unwrap();
        // The size of the second is looked at before the bytes of the first are read.
        fs::write(&a, fs::read_to_string(&a).unwrap().replace('O', "o")).unwrap();
        let found = difference(compare(&manifest, &[a, b.clone()], Verification::Digests));
        assert_eq!(found, format!("{}: 28 bytes then, 35 now", b.display()));
    }
}
