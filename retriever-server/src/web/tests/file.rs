//! The file behind the cache: restarts, corruption, a full disk.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;

use super::fake::{Act, Fake};
use super::{ask, found, over, settings, settings_of, titles};
use crate::web::budget::DailyLimit;
use crate::web::providers::named;
use crate::web::result::WebResult;
use crate::web::search::WebSearch;
use crate::web::store::Store;

/// Opens a search whose server finds something, with a file behind its cache.
fn open(path: &Path, script: &[Act]) -> (WebSearch, Fake) {
    let fake = Fake::new(script);
    let mut settings = settings(vec![settings_of(named("serper").unwrap(), 80)]);
    settings.cache.path = Some(path.to_owned());
    settings.budget = Some(DailyLimit::Requests(3));
    (over(settings, fake.clone()), fake)
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

/// A disk that is full after the first bytes.
#[derive(Debug)]
struct FullDisk {
    kept: redb::backends::InMemoryBackend,
    is_full: Arc<AtomicBool>,
}

impl FullDisk {
    fn check(&self) -> io::Result<()> {
        let is_full = self.is_full.load(Ordering::Acquire);
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> io::Result<u64> {
        self.kept.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.kept.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.kept.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.kept.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.kept.write(offset, data)
    }
}

#[test]
fn a_full_disk_ends_the_file_and_nothing_else() {
    let is_full = Arc::new(AtomicBool::new(false));
    let kept = redb::backends::InMemoryBackend::new();
    let disk = FullDisk { kept, is_full: Arc::clone(&is_full) };
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let store = Store::over(database, None, 1 << 20, Duration::from_hours(1));
    let results = [WebResult::new("Lima", None, "A city.")];
    store.keep("one", &results);
    while store.get("one").is_none() {
        std::thread::yield_now();
    }
    is_full.store(true, Ordering::Release);
    store.keep("two", &results);
    while !store.is_off() {
        std::thread::yield_now();
    }
    store.keep("three", &results);
    assert_eq!((store.get("one"), store.get("three"), store.spent()), (None, None, None));
}

#[test]
fn the_oldest_answers_leave_a_file_that_is_too_large() {
    let memory = redb::backends::InMemoryBackend::new();
    let database = redb::Builder::new().create_with_backend(memory).unwrap();
    let store = Store::over(database, None, 4000, Duration::from_hours(1));
    let results = [WebResult::new("Lima", None, &"word ".repeat(100))];
    // A key that is written again counts as new.
    for key in ["a", "b", "a", "c", "d", "e", "f", "g", "h"] {
        store.keep(key, &results);
    }
    while store.get("h").is_none() {
        std::thread::yield_now();
    }
    let kept: String = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .into_iter()
        .filter(|key| store.get(key).is_some())
        .collect();
    // Each has some 560 bytes; in the order of writing they are b a c d e f g h.
    assert_eq!(kept, "acdefgh", "b is the oldest");
}
