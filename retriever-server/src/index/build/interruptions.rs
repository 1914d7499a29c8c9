//! Builds that are killed. A second process of this test program builds an index. It reports each
//! step and waits for a byte on its standard input before it continues, or is killed at that point.

use std::io::{BufRead, Read, Write};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::index;

/// The variable that gives the process to be killed its folder.
const FOLDER_VARIABLE: &str = "RETRIEVER_TEST_BUILD_IN";
const TEST: &str = "index::build::interruptions::a_killed_build_leaves_the_old_index_or_none";
const PASSAGES: usize = 1100;
/// The number of reports of a build of [`PASSAGES`]: three for reading, then merging, compressing
/// and sealing.
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

/// Builds in the process to be killed: prints each report and then waits for a byte.
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

/// Kills a build right after its report number `reports`, and returns the number of reports. If
/// `continues`, it answers that last report before it kills the build.
fn kill_after(folder: &Path, reports: usize, continues: bool) -> usize {
    let mut child = start(folder);
    let mut answers = child.stdin.take().unwrap();
    let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = 0;
    for line in lines {
        seen += usize::from(line.unwrap().starts_with(MARK));
        if seen < reports || continues {
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

/// Returns the word that all passages of the index have, or `None` if there is no index.
fn word_of(index: &Path) -> Option<String> {
    let open = match index::open(index, Bm25Parameters::default(), Verification::Digests) {
        Ok(open) => open,
        Err(IndexError::Missing(_)) => return None,
        Err(error) => panic!("the index is neither whole nor absent: {error}"),
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
            // The remains of the killed build do not disturb the next one.
            build(&request(folder.path(), "next"), &mut |_| {}).unwrap();
            assert_eq!(word_of(&index).as_deref(), Some("next"));
            let entries = fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name());
            let partial = names.filter(|name| name.to_str().unwrap().starts_with('.')).count();
            assert_eq!(partial, 0, "something is left over");
        }
    }
}

/// A build is killed at any moment while it digests, syncs and renames. That leaves the old index or
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
