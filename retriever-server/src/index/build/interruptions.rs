//! Builds that are killed: a process of this same test program builds, says how far it is and waits
//! to be told to go on, or is killed there and then.

use std::io::{BufRead, Read, Write};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::index;

/// Names the folder to a process that is there to be killed.
const FOLDER_VARIABLE: &str = "RETRIEVER_TEST_BUILD_IN";
const TEST: &str = "index::build::interruptions::a_killed_build_leaves_the_old_index_or_none";
const PASSAGES: usize = 1100;
/// Reports of a build of so many passages: three of reading, merging, compressing, sealing.
const REPORTS: usize = 6;
const MARK: &str = "report: ";

fn request(folder: &Path, word: &str) -> BuildRequest {
    let corpus = folder.join(format!("{word}.jsonl"));
    let line = |row| format!("{{\"id\":\"{row}\",\"contents\":\"{word} {row}\"}}");
    let lines: Vec<String> = (0..PASSAGES).map(line).collect();
    fs::write(&corpus, lines.join("\n")).unwrap();
    let index = folder.join("index");
    BuildRequest { corpus: vec![corpus], index, force: true, threads: 2, compact: true }
}

/// The life of the process that is killed: says how far it is and waits for a byte.
fn build_step_by_step(folder: &Path) {
    let mut report = |progress| {
        eprintln!("{MARK}{progress:?}");
        let _ = std::io::stdin().read_exact(&mut [0]);
    };
    build(&request(folder, "new"), &mut report).unwrap();
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills a build right after so many reports, the last of them answered if `goes_on`; returns how
/// many there were.
fn kill_after(folder: &Path, reports: usize, goes_on: bool) -> usize {
    let mut child = start(folder);
    let mut answers = child.stdin.take().unwrap();
    let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = 0;
    for line in lines {
        seen += usize::from(line.unwrap().starts_with(MARK));
        if seen < reports || goes_on {
            // Fails once the build has ended.
            let _ = answers.write_all(b".");
        }
        if seen == reports {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    seen
}

/// The word that all passages of the index have; `None` if there is no index.
fn word_of(index: &Path) -> Option<String> {
    let open = match index::open(index, Bm25Parameters::default(), Verification::Digests) {
        Ok(open) => open,
        Err(IndexError::Missing(_)) => return None,
        Err(error) => panic!("neither an index nor none: {error}"),
    };
    assert_eq!(open.passages.len(), PASSAGES);
    let contents = open.passages.get(7).unwrap().contents;
    let word = contents.strip_suffix(" 7").unwrap().to_owned();
    assert_eq!(open.lexical.rank(&word, 2, &|| false).unwrap().len(), 2);
    Some(word)
}

#[test]
fn a_killed_build_leaves_the_old_index_or_none() {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return build_step_by_step(Path::new(&folder));
    }
    for old in [None, Some("old")] {
        for reports in 1..=REPORTS {
            let folder = tempfile::tempdir().unwrap();
            let index = folder.path().join("index");
            if let Some(word) = old {
                build(&request(folder.path(), word), &mut |_| {}).unwrap();
            }
            assert_eq!(kill_after(folder.path(), reports, false), reports);
            assert_eq!(word_of(&index).as_deref(), old, "after {reports} reports");
            // What is left in the way of nothing: the next build does all of it.
            build(&request(folder.path(), "next"), &mut |_| {}).unwrap();
            assert_eq!(word_of(&index).as_deref(), Some("next"));
            let names = fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name());
            let partial = names.filter(|name| name.to_str().unwrap().starts_with('.')).count();
            assert_eq!(partial, 0, "something is left over");
        }
    }
}

/// Killed while it digests, syncs and renames, at whatever moment that is: there is the old index or
/// the new one, and the next build works.
#[test]
fn a_build_that_is_killed_at_its_end_leaves_no_torn_index() {
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        build(&request(folder.path(), "old"), &mut |_| {}).unwrap();
        assert_eq!(kill_after(folder.path(), REPORTS, true), REPORTS);
        let left = word_of(&folder.path().join("index"));
        assert!(matches!(left.as_deref(), Some("old" | "new")), "{left:?}");
        build(&request(folder.path(), "next"), &mut |_| {}).unwrap();
        assert_eq!(word_of(&folder.path().join("index")).as_deref(), Some("next"));
    }
}
