//! Records: what is written is read again, from whole and from torn files, and nothing else is taken for a record.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::file::Record;
use super::line::Question;
use super::*;
use crate::search::{Passage, SearchRequest, Searcher};
use crate::stop::StopFlag;

fn bm25() -> Source {
    Source::new(json!({"backend": "bm25", "index_digest": "ab12"}))
}

fn web() -> Source {
    Source::new(json!({"backend": "web", "index_digest": null}))
}

fn passages(ids: &[&str]) -> Vec<Passage> {
    ids.iter()
        .map(|id| Passage::new(*id, format!("\"{id}\"\nText of {id}: ü\u{1}\u{2028}")))
        .collect()
}

fn asked<'q>(source: &'q Source, query: &'q str) -> Question<'q> {
    Question { source, top_k: 3, query }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn record(&self) -> PathBuf {
        self.0.path().join("runs/one/searches.jsonl")
    }

    /// Writes a record of three answers, and returns its bytes.
    fn written(&self) -> Vec<u8> {
        let (record, source) = (Record::write(&self.record()).unwrap(), bm25());
        for (query, ids) in QUERIES {
            let (counted, is_new) =
                record.settle(asked(&source, query), passages(ids), false).unwrap();
            assert_eq!((counted, is_new), (passages(ids), true));
        }
        fs::read(self.record()).unwrap()
    }
}

const QUERIES: [(&str, &[&str]); 3] =
    [("who", &["a", "b"]), ("", &[]), ("wer\n\"?", &["b", "c", "a"])];

fn answers(path: &Path) -> Vec<Option<Vec<Passage>>> {
    let (record, source) = (Record::read(path).unwrap(), bm25());
    QUERIES.map(|(query, _)| record.answer(asked(&source, query), false).unwrap()).to_vec()
}

fn settings(file: &Path, source: &str, on_miss: MissRule) -> RecordSettings {
    RecordSettings {
        mode: RecordMode::Replay,
        file: file.to_owned(),
        on_miss,
        source: source.to_owned(),
        patience: Duration::ZERO,
    }
}

fn request(ticket: u64, query: &str) -> SearchRequest {
    SearchRequest { ticket, query: query.to_owned(), top_k: 3 }
}

#[test]
fn answers_are_read_as_they_were_written() {
    let folder = Folder::new();
    let bytes = folder.written();
    let expected: Vec<_> = QUERIES.iter().map(|(_, ids)| Some(passages(ids))).collect();
    assert_eq!(answers(&folder.record()), expected);
    // Each passage is there once, and another process appends to the same file.
    let count = |kind: &str| String::from_utf8_lossy(&bytes).matches(kind).count();
    assert_eq!([count("{\"passage\""), count("{\"answer\""), count("{\"source\"")], [3, 3, 1]);
    let record = Record::write(&folder.record()).unwrap();
    record.settle(asked(&bm25(), "more"), passages(&["a"]), false).unwrap();
    let longer = fs::read(folder.record()).unwrap();
    assert!(longer.starts_with(&bytes) && longer.len() > bytes.len());
}

/// A kill may come after any byte.
#[test]
fn a_torn_record_keeps_its_whole_lines_and_is_continued() {
    let folder = Folder::new();
    let bytes = folder.written();
    let whole = answers(&folder.record());
    let torn = folder.0.path().join("torn.jsonl");
    for length in 0..=bytes.len() {
        fs::write(&torn, &bytes[..length]).unwrap();
        let kept = answers(&torn);
        let count = kept.iter().flatten().count();
        assert!(kept[..count] == whole[..count], "{length} bytes");
        let record = Record::write(&torn).unwrap();
        let source = bm25();
        for (query, ids) in QUERIES {
            record.settle(asked(&source, query), passages(ids), false).unwrap();
        }
        drop(record);
        assert!(fs::read(&torn).unwrap() == bytes, "{length} bytes");
    }
}

#[test]
fn a_changed_record_is_refused_with_its_line() {
    let folder = Folder::new();
    let text = String::from_utf8(folder.written()).unwrap();
    let path = folder.0.path().join("changed.jsonl");
    for (from, to, part) in [
        (
            "Text of b",
            "Text of d",
            "changed.jsonl:4: not a line of a search record: its content has",
        ),
        ("\"who\"", "\"why\"", "changed.jsonl:5: "),
        (
            "{\"search_record\":1}",
            "{\"search_record\":2}",
            "has the version 2, and this program reads 1",
        ),
        (
            "{\"search_record\":1}\n",
            "",
            "changed.jsonl:1: not a line of a search record: the file does not begin",
        ),
        ("{\"answer\"", "{\"another\"", "unknown variant"),
    ] {
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        for message in [
            Record::read(&path).unwrap_err().to_string(),
            Record::write(&path).unwrap_err().to_string(),
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
    let without_source = text.lines().filter(|line| !line.starts_with("{\"source\""));
    fs::write(&path, without_source.flat_map(|line| [line, "\n"]).collect::<String>()).unwrap();
    let message = Record::read(&path).unwrap_err().to_string();
    assert!(message.contains("no line before it has the source"), "{message}");
    // The file of another program is not cut, although it has no line break.
    fs::write(&path, "a letter to a friend").unwrap();
    assert!(Record::write(&path).unwrap_err().to_string().contains("does not begin"));
    assert_eq!(fs::read(&path).unwrap(), b"a letter to a friend");
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let folder = Folder::new();
    folder.written();
    let other = File::options().write(true).open(folder.record()).unwrap();
    other.try_lock().unwrap();
    let message = Record::write(&folder.record()).unwrap_err().to_string();
    assert!(message.contains("another process writes") && message.contains("searches.jsonl"));
    assert_eq!(answers(&folder.record()).iter().flatten().count(), 3);
    drop(other);
    // Within a process, all searchers share one record.
    let (first, second) = (Record::write(&folder.record()), Record::write(&folder.record()));
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
}

#[test]
fn the_first_answer_of_a_process_counts_and_a_new_recording_replaces_it() {
    let folder = Folder::new();
    folder.written();
    let (source, question) = (bm25(), "who");
    let record = Record::write(&folder.record()).unwrap();
    // A filled record keeps the answer of an earlier process.
    let (kept, is_new) = record.settle(asked(&source, question), passages(&["x"]), false).unwrap();
    assert_eq!((kept, is_new), (passages(&["a", "b"]), false));
    // A new recording asks anew; then its own first answer counts.
    assert_eq!(record.answer(asked(&source, question), true).unwrap(), None);
    for later in ["x", "y"] {
        let (kept, is_new) =
            record.settle(asked(&source, question), passages(&[later]), true).unwrap();
        assert_eq!((kept, is_new), (passages(&["x"]), later == "x"));
    }
    drop(record);
    assert_eq!(answers(&folder.record())[0], Some(passages(&["x"])));
    // An equal answer needs no further line.
    let length = fs::metadata(folder.record()).unwrap().len();
    let record = Record::write(&folder.record()).unwrap();
    record.settle(asked(&source, question), passages(&["x"]), true).unwrap();
    assert_eq!(fs::metadata(folder.record()).unwrap().len(), length);
}

#[test]
fn query_top_k_and_source_decide_on_an_answer() {
    let folder = Folder::new();
    folder.written();
    let record = Record::read(&folder.record()).unwrap();
    let (source, other) = (bm25(), web());
    for (question, is_there) in [
        (Question { source: &source, top_k: 3, query: "who" }, true),
        (Question { source: &source, top_k: 2, query: "who" }, false),
        (Question { source: &source, top_k: 3, query: "who " }, false),
        (Question { source: &other, top_k: 3, query: "who" }, false),
    ] {
        assert_eq!(record.answer(question, false).unwrap().is_some(), is_there, "{question:?}");
    }
}

#[test]
fn a_replay_answers_at_once_and_counts() {
    let folder = Folder::new();
    folder.written();
    let open = |on_miss| RecordedSearcher::open(None, &settings(&folder.record(), "", on_miss));
    let mut searcher = open(MissRule::Drop).unwrap();
    searcher.submit(vec![request(7, "who"), request(4, "unknown"), request(5, "")]).unwrap();
    let outcomes = searcher.wait(Duration::ZERO, &StopFlag::never()).unwrap().unwrap();
    let tickets: Vec<u64> = outcomes.iter().map(|outcome| outcome.ticket).collect();
    assert_eq!(tickets, [7, 4, 5]);
    assert_eq!(outcomes[0].result, Ok(passages(&["a", "b"])));
    assert_eq!(outcomes[2].result, Ok(Vec::new()));
    let reason = outcomes[1].result.clone().unwrap_err();
    assert!(reason.contains("no answer to the query \"unknown\" with 3 passages"), "{reason}");
    assert_eq!(searcher.take_counters(), RecordCounters { hits: 2, misses: 1, recorded: 0 });
    assert_eq!(searcher.take_counters(), RecordCounters::default());
    // What was cancelled never comes back.
    searcher.submit(vec![request(1, "who")]).unwrap();
    searcher.cancel();
    assert!(searcher.poll().unwrap().is_empty());

    let mut searcher = open(MissRule::Stop).unwrap();
    let stopped = searcher.submit(vec![request(4, "unknown")]).unwrap_err().to_string();
    assert!(stopped.contains("\"unknown\"") && stopped.contains("record.mode"), "{stopped}");
}

#[test]
fn of_several_sources_one_is_chosen() {
    let folder = Folder::new();
    folder.written();
    let record = Record::write(&folder.record()).unwrap();
    record.settle(asked(&web(), "who"), passages(&["w"]), false).unwrap();
    drop(record);
    let open = |source: &str| {
        RecordedSearcher::open(None, &settings(&folder.record(), source, MissRule::Stop))
    };
    let message = open("").unwrap_err().to_string();
    for part in
        ["answers of 2 sources", "back end bm25, index ab12", "back end web", "record.source"]
    {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(open("zz").unwrap_err().to_string().contains("has 0 sources that begin with \"zz\""));
    for (source, ids) in [
        ("ab1", vec!["a", "b"]),
        (&bm25().short_id(), vec!["a", "b"]),
        (&web().short_id(), vec!["w"]),
    ] {
        let mut searcher = open(source).unwrap();
        searcher.submit(vec![request(1, "who")]).unwrap();
        assert_eq!(searcher.poll().unwrap()[0].result, Ok(passages(&ids)), "{source}");
    }
}

#[test]
fn a_record_without_answers_is_not_replayed() {
    let folder = Folder::new();
    let open = || RecordedSearcher::open(None, &settings(&folder.record(), "", MissRule::Stop));
    let missing = open().unwrap_err().to_string();
    assert!(missing.contains("cannot open the search record"), "{missing}");
    drop(Record::write(&folder.record()).unwrap());
    let empty = open().unwrap_err().to_string();
    assert!(empty.contains("has no answers"), "{empty}");
}
