//! The file behind the cache: answers with their age, and the expenses of the day. Writes go through a thread
//! of their own. A full disk, a corrupt file or one that another process has open is reported once; searches
//! then go on without the file.

use std::any::Any;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError,
};
use tracing::warn;

use super::budget::{Spent, unix_seconds};
use super::result::WebResult;

/// Answers by their keys: a number in the order of writing, the time in seconds since 1970, and JSON.
const ANSWERS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("answers");

/// Keys in the order of writing. A key that was written again is stale under its first number.
const ORDER: TableDefinition<'_, u64, &str> = TableDefinition::new("order");

/// Numbers by their names.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The names in [`NUMBERS`]: the bytes of all answers, and the expenses.
const BYTES: &str = "bytes";
const DAY: &str = "day";
const REQUESTS: &str = "requests";
const MILLIONTHS: &str = "millionths";

/// Most writes that wait; further answers are not kept.
const QUEUE_WRITES: usize = 1024;

/// Most writes in a transaction.
const MAX_TRANSACTION_WRITES: usize = 256;

/// The library's own cache of the file.
const PAGE_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The file.
pub(super) struct Store {
    shared: Arc<Shared>,
    writes: Option<SyncSender<Write>>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    database: Database,
    /// Where the file is; `None` in tests with another storage.
    path: Option<PathBuf>,
    max_bytes: u64,
    ttl: Duration,
    /// `true` after a fault, when the file is not used any more.
    is_off: AtomicBool,
}

enum Write {
    Answer { key: String, json: Vec<u8> },
    Spent(Spent),
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a file, or creates it. A corrupt one is set aside under the name with `.corrupt` behind it. Returns
    /// `None`, with a line in the log, if the file cannot be used.
    pub(super) fn open(path: &Path, max_bytes: u64, ttl: Duration) -> Option<Self> {
        if let Some(folder) = path.parent() {
            // If this fails, opening the file tells why.
            let _ = fs::create_dir_all(folder);
        }
        let opened = create(path).or_else(|fault| {
            let Unusable::Corrupt(reason) = fault else { return Err(fault) };
            set_aside(path, &reason);
            create(path)
        });
        match opened {
            Ok(database) => Some(Self::over(database, Some(path.to_owned()), max_bytes, ttl)),
            Err(Unusable::Corrupt(reason) | Unusable::Other(reason)) => {
                warn!(path = %path.display(), %reason, "the cache of web search is kept in memory only");
                None
            }
        }
    }

    /// Uses an open database.
    pub(super) fn over(
        database: Database,
        path: Option<PathBuf>,
        max_bytes: u64,
        ttl: Duration,
    ) -> Self {
        let is_off = AtomicBool::new(false);
        let shared = Arc::new(Shared { database, path, max_bytes, ttl, is_off });
        let (writes, queue) = sync_channel(QUEUE_WRITES);
        let writing = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("web-cache".to_owned())
            .spawn(move || writing.write_all(&queue))
            .inspect_err(|error| warn!(%error, "answers of web search are not written"))
            .ok();
        Self { shared, writes: Some(writes), writer }
    }

    /// Returns the answer of a key that is not too old.
    pub(super) fn get(&self, key: &str) -> Option<Vec<WebResult>> {
        let (stored_s, json) = self.shared.guarded(|shared| shared.read(key))??;
        let age_s = unix_seconds().checked_sub(stored_s)?;
        if age_s > self.shared.ttl.as_secs() {
            return None;
        }
        serde_json::from_slice(&json).ok()
    }

    /// Keeps an answer, if the writer is not far behind.
    pub(super) fn keep(&self, key: &str, results: &[WebResult]) {
        if let Ok(json) = serde_json::to_vec(results) {
            self.queue(Write::Answer { key: key.to_owned(), json });
        }
    }

    /// Returns the expenses that were kept.
    pub(super) fn spent(&self) -> Option<Spent> {
        self.shared.guarded(Shared::read_spent)?
    }

    /// Returns `true` if the file is not used any more.
    #[cfg(test)]
    pub(super) fn is_off(&self) -> bool {
        self.shared.is_off()
    }

    /// Keeps expenses.
    pub(super) fn keep_spent(&self, spent: Spent) {
        self.queue(Write::Spent(spent));
    }

    fn queue(&self, write: Write) {
        if let Some(writes) = self.writes.as_ref().filter(|_| !self.shared.is_off()) {
            // A full queue means a slow disk: the answer is asked for again some day.
            let _ = writes.try_send(write);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.writes.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// Runs an access to the file; `None` if it fails or the file is not used any more.
    fn guarded<T>(&self, access: impl FnOnce(&Self) -> Result<T, redb::Error>) -> Option<T> {
        if self.is_off() {
            return None;
        }
        let reason = match catch_unwind(AssertUnwindSafe(|| access(self))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => {
                // After a failed write, the library refuses every further one with this error.
                let is_corrupt = matches!(error, redb::Error::Corrupted(_));
                (error.to_string(), is_corrupt)
            }
            Err(panic) => (panic_text(&*panic), true),
        };
        let (reason, is_corrupt) = reason;
        if !self.is_off.swap(true, Ordering::Relaxed) {
            warn!(%reason, "the file of the cache of web search is not used any more");
            if let (true, Some(path)) = (is_corrupt, &self.path) {
                set_aside(path, &reason);
            }
        }
        None
    }

    fn read(&self, key: &str) -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(ANSWERS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            opened => opened?,
        };
        let found = table.get(key)?;
        Ok(found.map(|entry| {
            let (_, stored_s, json) = entry.value();
            (stored_s, json.to_vec())
        }))
    }

    fn read_spent(&self) -> Result<Option<Spent>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(NUMBERS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            opened => opened?,
        };
        let number = |name| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |value| value.value()));
        let (day, requests, millionths) = (number(DAY)?, number(REQUESTS)?, number(MILLIONTHS)?);
        Ok(Some(Spent { day, requests, millionths }))
    }

    /// Writes what is queued until the store is dropped.
    fn write_all(&self, queue: &Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let more = queue.try_iter().take(MAX_TRANSACTION_WRITES - 1);
            let writes: Vec<Write> = std::iter::once(first).chain(more).collect();
            self.guarded(|shared| shared.write(&writes));
        }
    }

    fn write(&self, writes: &[Write]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut answers = transaction.open_table(ANSWERS)?;
            let mut order = transaction.open_table(ORDER)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            let mut bytes = numbers.get(BYTES)?.map_or(0, |value| value.value());
            let now_s = unix_seconds();
            for write in writes {
                match write {
                    Write::Spent(spent) => {
                        numbers.insert(DAY, spent.day)?;
                        numbers.insert(REQUESTS, spent.requests)?;
                        numbers.insert(MILLIONTHS, spent.millionths)?;
                    }
                    Write::Answer { key, json } => {
                        let number = order.last()?.map_or(0, |(number, _)| number.value() + 1);
                        let entry = (number, now_s, json.as_slice());
                        let old = answers.insert(key.as_str(), entry)?;
                        let old = old.map_or(0, |old| length(key, old.value().2));
                        bytes = bytes.saturating_sub(old) + length(key, json);
                        order.insert(number, key.as_str())?;
                    }
                }
            }
            while bytes > self.max_bytes {
                let Some((number, key)) = order.pop_first()? else { break };
                let is_current = answers
                    .get(key.value())?
                    .is_some_and(|entry| entry.value().0 == number.value());
                if is_current && let Some(old) = answers.remove(key.value())? {
                    bytes = bytes.saturating_sub(length(key.value(), old.value().2));
                }
            }
            numbers.insert(BYTES, bytes)?;
        }
        Ok(transaction.commit()?)
    }
}

fn length(key: &str, json: &[u8]) -> u64 {
    (key.len() + json.len()) as u64
}

/// The reason why a file cannot be used.
enum Unusable {
    /// It is not a file of this library, or damaged.
    Corrupt(String),
    /// Another process has it open, or the disk refuses.
    Other(String),
}

fn create(path: &Path) -> Result<Database, Unusable> {
    let open = || Builder::new().set_cache_size(PAGE_CACHE_BYTES).create(path);
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(unusable(&error)),
        Err(panic) => Err(Unusable::Corrupt(panic_text(&*panic))),
    }
}

fn unusable(error: &DatabaseError) -> Unusable {
    let is_corrupt = match error {
        DatabaseError::Storage(StorageError::Corrupted(_))
        | DatabaseError::RepairAborted
        | DatabaseError::UpgradeRequired(_) => true,
        // A file of another format.
        DatabaseError::Storage(StorageError::Io(error)) => {
            error.kind() == std::io::ErrorKind::InvalidData
        }
        _ => false,
    };
    if is_corrupt {
        Unusable::Corrupt(error.to_string())
    } else {
        Unusable::Other(error.to_string())
    }
}

/// Renames a corrupt file, so that the next start makes a new one and nothing of the user's is deleted.
fn set_aside(path: &Path, reason: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".corrupt");
    warn!(path = %path.display(), reason, "the file of the cache of web search is corrupt, it is set aside");
    if let Err(error) = fs::rename(path, &aside) {
        warn!(path = %path.display(), %error, "the corrupt file could not be renamed");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
