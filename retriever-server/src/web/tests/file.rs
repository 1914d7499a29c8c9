//! The file behind the cache: restarts, corruption, a full disk.

use std::path::Path;
use std::sync::Arc;

use super::fake::{Act, Fake};
use super::{ask, found, settings, settings_of, titles};
use crate::web::budget::DailyLimit;
use crate::web::providers::named;
use crate::web::search::WebSearch;

/// Opens a search whose server finds something, with a file behind its cache.
fn open(path: &Path, script: &[Act]) -> (WebSearch, Fake) {
    let fake = Fake::new(script);
    let mut settings = settings(vec![settings_of(named("serper").unwrap(), 80)]);
    settings.cache.path = Some(path.to_owned());
    settings.budget = Some(DailyLimit::Requests(3));
    (WebSearch::over(settings, Arc::new(fake.clone())), fake)
}

#[tokio::test]
async fn answers_and_expenses_outlast_a_restart_and_failures_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/cache.redb");
    let serper = named("serper").unwrap();
    let (search, fake) = open(&path, &[found(serper), Act::bytes(404, "{}")]);
    assert!(ask(&search, "one").await.is_ok() && ask(&search, "two").await.is_err());
    assert_eq!(fake.calls(), 2);
    drop(search);
    let (search, fake) = open(&path, &[found(serper)]);
    assert_eq!(titles(&ask(&search, "one").await), ["Lima", "Quito"]);
    assert_eq!(fake.calls(), 0);
    for query in ["two", "three"] {
        assert_eq!(titles(&ask(&search, query).await), ["Lima", "Quito"]);
    }
    // One request was paid before the restart, and two after it.
    let fault = ask(&search, "four").await.unwrap_err();
    assert!(fault.to_string().contains("budget"), "{fault}");
    assert_eq!(fake.calls(), 2);
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let serper = named("serper").unwrap();
    std::fs::write(&path, b"not a cache, but somebody's text").unwrap();
    drop(open(&path, &[found(serper)]));
    let aside = folder.path().join("cache.redb.corrupt");
    assert_eq!(std::fs::read(&aside).unwrap(), b"not a cache, but somebody's text");
    let (search, _) = open(&path, &[found(serper)]);
    ask(&search, "one").await.unwrap();
    drop(search);
    // Damage in the middle of a good file shows when it is opened or read, or not at all.
    let mut bytes = std::fs::read(&path).unwrap();
    let length = bytes.len();
    for byte in &mut bytes[4096..length] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let (search, fake) = open(&path, &[found(serper)]);
    assert_eq!(titles(&ask(&search, "one").await), ["Lima", "Quito"]);
    assert_eq!(fake.calls(), 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_fails_no_search() {
    let folder = tempfile::tempdir().unwrap();
    let serper = named("serper").unwrap();
    // A folder is in the place of the file.
    let (search, _) = open(folder.path(), &[found(serper)]);
    assert_eq!(titles(&ask(&search, "one").await), ["Lima", "Quito"]);
    // Another process, or here another server, has it open.
    let path = folder.path().join("cache.redb");
    let (first, _) = open(&path, &[found(serper)]);
    let (second, _) = open(&path, &[found(serper)]);
    assert!(ask(&first, "one").await.is_ok() && ask(&second, "one").await.is_ok());
}
