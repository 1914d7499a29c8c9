//! Values that point to nothing, to something else, or to what cannot be used.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::index::build::{self, BuildRequest};
use crate::index::manifest::MANIFEST_FILE;

/// Creates a folder with a corpus of one passage and, at `index`, its index.
fn indexed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    fs::write(&corpus, r#"{"id":"1","contents":"Oslo"}"#).unwrap();
    let index = folder.path().join("index");
    let request =
        BuildRequest { corpus: vec![corpus], index, force: false, threads: 1, compact: false };
    build::build(&request, &mut |_| {}).unwrap();
    folder
}

fn source(values: &[(&str, &Path)]) -> BTreeMap<String, String> {
    let value = |(name, path): &(&str, &Path)| (format!("RETRIEVER_{name}"), name_of(path));
    values.iter().map(value).collect()
}

fn name_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Returns the faults that `serve` reports, without the head of the message.
fn faults(values: &[(&str, &Path)]) -> Vec<String> {
    let error = CheckedServe::resolve(&source(values)).unwrap_err();
    error.faults.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_fault(reported: &[String], variable: &str, parts: &[&str]) {
    let fault = reported.iter().find(|fault| fault.starts_with(variable));
    let fault = fault.unwrap_or_else(|| panic!("{variable} is not among {reported:#?}"));
    for part in parts {
        assert!(fault.contains(part), "{fault} lacks {part:?}");
    }
}

#[test]
fn the_plan_is_to_open_what_is_there_and_to_build_what_is_not() {
    let folder = indexed();
    let index = folder.path().join("index");
    let checked = CheckedServe::resolve(&source(&[("INDEX", &index)])).unwrap();
    assert_eq!(checked.plan, IndexPlan::Open { passage_count: 1 });
    let corpus = folder.path().join("corpus.jsonl");
    let deep = folder.path().join("new/deep/index");
    let values = source(&[("INDEX", &deep), ("CORPUS", &corpus)]);
    assert_eq!(CheckedServe::resolve(&values).unwrap().plan, IndexPlan::Build);
    let entries: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(entries.len(), 2, "the check leaves nothing behind: {entries:?}");
}

#[test]
fn every_fault_of_parsing_log_and_disk_comes_at_once_in_the_order_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut values = source(&[("INDEX", &folder.path().join("none"))]);
    for (name, value) in [("LOG", "a=loudly"), ("TOP_K", "0"), ("BACKEND", "bm26")] {
        values.insert(format!("RETRIEVER_{name}"), value.to_owned());
    }
    let error = CheckedServe::resolve(&values).unwrap_err();
    let named: Vec<&str> = error.faults.iter().map(|fault| fault.variable).collect();
    assert_eq!(named, ["RETRIEVER_BACKEND", "RETRIEVER_INDEX", "RETRIEVER_TOP_K", "RETRIEVER_LOG"]);
}

#[test]
fn an_index_that_is_not_there_needs_a_corpus() {
    let folder = tempfile::tempdir().unwrap();
    for index in ["none", "none/below", "."] {
        let index = folder.path().join(index);
        let expected = format!(
            "RETRIEVER_INDEX (--index) is {:?}, but there is no index: expected a folder with an \
             index (or RETRIEVER_CORPUS set, to build one there)",
            name_of(&index)
        );
        assert_eq!(faults(&[("INDEX", &index)]), [expected]);
    }
}

#[test]
fn something_that_is_no_index_is_refused_with_and_without_a_corpus() {
    let folder = indexed();
    let corpus = folder.path().join("corpus.jsonl");
    for index in [folder.path(), &corpus] {
        for values in [vec![("INDEX", index)], vec![("INDEX", index), ("CORPUS", &*corpus)]] {
            let reported = faults(&values);
            assert_eq!(reported.len(), 1, "{reported:?}");
            assert_fault(
                &reported,
                "RETRIEVER_INDEX",
                &["the existing folder or file is not an index"],
            );
        }
    }
}

#[test]
fn an_index_of_another_version_is_refused_unless_it_is_to_be_replaced() {
    let folder = indexed();
    let (index, corpus) = (folder.path().join("index"), folder.path().join("corpus.jsonl"));
    let path = index.join(MANIFEST_FILE);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["format"] = json!(99);
    fs::write(&path, manifest.to_string()).unwrap();
    let values = [("INDEX", &*index), ("CORPUS", &*corpus)];
    let parts = ["the index there has format 99", "expected an index with format 1"];
    assert_fault(&faults(&values), "RETRIEVER_INDEX", &parts);
    let error = CheckedIndex::resolve(&source(&values), false, None).unwrap_err().to_string();
    assert!(error.contains(parts[0]), "{error}");
    CheckedIndex::resolve(&source(&values), true, None).unwrap();
    fs::write(&path, "{").unwrap();
    assert_fault(&faults(&values), "RETRIEVER_INDEX", &["manifest.json is corrupt"]);
}

#[test]
fn a_place_where_nothing_can_be_created_is_named_with_the_reason() {
    let folder = indexed();
    let corpus = folder.path().join("corpus.jsonl");
    let below_a_file = corpus.join("new/index");
    let reported = faults(&[("INDEX", &below_a_file), ("CORPUS", &corpus)]);
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_fault(&reported, "RETRIEVER_INDEX", &["cannot be created: Not a directory"]);
    let values = source(&[("INDEX", &below_a_file), ("CORPUS", &corpus)]);
    let error = CheckedIndex::resolve(&values, false, None).unwrap_err().to_string();
    assert!(error.contains("cannot be created: Not a directory"), "{error}");
    let reported = faults(&[("INDEX", &folder.path().join("none/..")), ("CORPUS", &corpus)]);
    assert_fault(&reported, "RETRIEVER_INDEX", &["ends without a name"]);
}

#[test]
fn a_mount_point_is_told_from_a_folder() {
    // Every Linux has its devices mounted there.
    assert!(is_mount_point(Path::new("/dev")));
    let folder = tempfile::tempdir().unwrap();
    assert!(!is_mount_point(folder.path()));
    assert!(!is_mount_point(&folder.path().join("none")));
}

#[test]
fn an_index_of_another_corpus_is_a_fault_of_the_corpus() {
    let folder = indexed();
    let (index, corpus) = (folder.path().join("index"), folder.path().join("corpus.jsonl"));
    let values = [("INDEX", &*index), ("CORPUS", &*corpus)];
    CheckedServe::resolve(&source(&values)).unwrap();
    fs::write(&corpus, "other").unwrap();
    let expected = format!(
        "RETRIEVER_CORPUS (--corpus) is {corpus:?}, but the index in {} was built from {} \
         ({}: 28 bytes then, 5 now): expected the corpus of that index, another RETRIEVER_INDEX, \
         or `retriever-server index --force`",
        index.display(),
        corpus.display(),
        corpus.display()
    );
    assert_eq!(faults(&values), [expected]);
    fs::remove_file(&corpus).unwrap();
    CheckedServe::resolve(&source(&values)).unwrap();
}

#[test]
fn corpus_files_must_be_readable_where_an_index_is_built_from_them() {
    let folder = indexed();
    let (index, new) = (folder.path().join("index"), folder.path().join("new"));
    let corpus = folder.path().join("corpus.jsonl");
    let (absent, inside) = (folder.path().join("absent"), folder.path().join("index"));
    let list = [&corpus, &absent, &inside].map(|path| name_of(path)).join(",");
    let values = [("INDEX", &*new), ("CORPUS", Path::new(&list))];
    let reported = faults(&values);
    let parts = ["absent cannot be read: No such file", "index: is a folder", "files that can"];
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_fault(&reported, "RETRIEVER_CORPUS", &parts);
    // `index` reads them whether or not there is an index.
    for index in [&new, &index] {
        let values = source(&[("INDEX", index), ("CORPUS", Path::new(&list))]);
        let error = CheckedIndex::resolve(&values, false, None).unwrap_err();
        assert_eq!(error.faults.len(), 1, "{error}");
        assert_fault(&[error.faults[0].to_string()], "RETRIEVER_CORPUS", &parts);
    }
    // A bad place for the index and a bad corpus are two faults of one message.
    let bad = corpus.join("index");
    let reported = faults(&[("INDEX", &bad), ("CORPUS", Path::new(&list))]);
    assert_eq!(reported.len(), 2, "{reported:?}");
}

#[test]
fn a_corpus_whose_value_is_bad_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let reported = faults(&[("INDEX", &folder.path().join("new")), ("CORPUS", Path::new("a,,b"))]);
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_fault(&reported, "RETRIEVER_CORPUS", &["expected paths of corpus files"]);
}

#[test]
fn a_device_that_is_asked_for_must_be_there() {
    let index = indexed();
    let with_device = |device: &str| {
        let values = [("INDEX", index.path()), ("MODEL", Path::new("/nowhere"))];
        let backend = [("BACKEND", Path::new("dense")), ("DEVICE", Path::new(device))];
        faults(&[values, backend].concat())
    };
    let of_device = |device: &str| {
        with_device(device)
            .into_iter()
            .filter(|fault| fault.starts_with("RETRIEVER_DEVICE"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_device("auto"), [""; 0]);
    assert_eq!(of_device("cpu"), [""; 0]);
    let [fault] = &of_device("cuda:999")[..] else { panic!("no device has this number") };
    assert!(fault.contains("is \"cuda:999\", but the"), "{fault}");
    assert!(fault.ends_with(": expected auto, cpu or an existing device"), "{fault}");
}
