//! The file of a record: lines that are only ever appended, and an index of them in memory.
//!
//! Invariants: one process at a time writes; a killed process leaves at most one torn line, the last one, which the next
//! writer cuts and readers skip; the searchers of a process share one open record for each file, so that they neither
//! exclude each other nor answer one query in two ways.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use shared::contract::digest::Digest;

use super::line::{Line, Question, VERSION, passage_id};
use super::source::Source;
use crate::search::Passage;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot {action} the search record {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "another process writes the search record {}: one at a time records; wait for its end, or use another file",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error("{}:{line}: not a line of a search record: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
}

/// The place of a line in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Contents {
    answers: HashMap<Digest, Place>,
    passages: HashMap<Digest, Place>,
    sources: Vec<Source>,
    /// The end of the last whole line.
    end: u64,
    /// The answers that were asked for since the record was opened.
    fresh: HashSet<Digest>,
}

/// An open record. Shared by all searchers of the process.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: File,
    contents: Mutex<Contents>,
}

/// The records that are open, by path and by whether they can be written.
static OPEN: Mutex<BTreeMap<(PathBuf, bool), Weak<Record>>> = Mutex::new(BTreeMap::new());

impl Record {
    /// Opens an existing record for reading.
    ///
    /// # Errors
    /// The file system's, and a line that is not a record's.
    pub fn read(path: &Path) -> Result<Arc<Self>, RecordError> {
        Self::shared(path, false, || {
            let file = File::open(path).map_err(io_error("open", path))?;
            let (contents, _) = scan(path, &file)?;
            Ok(Self { path: path.to_owned(), file, contents: Mutex::new(contents) })
        })
    }

    /// Opens a record for reading and writing. Creates it if it is missing; a torn last line is cut.
    ///
    /// # Errors
    /// Another process that writes it, the file system's, and a line that is not a record's.
    pub fn write(path: &Path) -> Result<Arc<Self>, RecordError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io_error("create the folder of", path))?;
        }
        Self::shared(path, true, || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(path).map_err(io_error("open", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(RecordError::Locked { path: path.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
            }
            let (contents, length) = scan(path, &file)?;
            if length > contents.end {
                file.set_len(contents.end).map_err(io_error("cut a torn line of", path))?;
            }
            let is_new = contents.end == 0;
            let record = Self { path: path.to_owned(), file, contents: Mutex::new(contents) };
            if is_new {
                record.append(&mut record.lock(), &[Line::SearchRecord(VERSION)])?;
            }
            Ok(record)
        })
    }

    /// Returns the record that is open already, or opens it.
    fn shared(
        path: &Path,
        is_writable: bool,
        open: impl FnOnce() -> Result<Self, RecordError>,
    ) -> Result<Arc<Self>, RecordError> {
        let key = (std::path::absolute(path).map_err(io_error("find", path))?, is_writable);
        let mut records = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|_, record| record.strong_count() > 0);
        if let Some(record) = records.get(&key).and_then(Weak::upgrade) {
            return Ok(record);
        }
        let record = Arc::new(open()?);
        records.insert(key, Arc::downgrade(&record));
        Ok(record)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the sources of its answers, in the order in which they were first used.
    pub fn sources(&self) -> Vec<Source> {
        self.lock().sources.clone()
    }

    /// Returns the number of answers.
    pub fn answer_count(&self) -> usize {
        self.lock().answers.len()
    }

    /// Returns the recorded answer. With `only_fresh`, one that was recorded before this process opened the file does not
    /// count.
    ///
    /// # Errors
    /// The file system's, and a file that was changed meanwhile.
    pub fn answer(
        &self,
        question: Question<'_>,
        only_fresh: bool,
    ) -> Result<Option<Vec<Passage>>, RecordError> {
        self.answer_in(&self.lock(), question.id(), only_fresh)
    }

    /// Records the answer of a retriever, and returns the one that counts, with `true` if that is the new one. The first
    /// answer of a process counts: of equal queries that were on their way together, the retriever may have answered each
    /// differently. Without `only_fresh`, one of an earlier process counts as well.
    ///
    /// # Errors
    /// The file system's. The answer is not recorded then.
    pub fn settle(
        &self,
        question: Question<'_>,
        passages: Vec<Passage>,
        only_fresh: bool,
    ) -> Result<(Vec<Passage>, bool), RecordError> {
        let id = question.id();
        let mut contents = self.lock();
        if let Some(recorded) = self.answer_in(&contents, id, only_fresh)? {
            return Ok((recorded, false));
        }
        if self.answer_in(&contents, id, false)?.as_ref() != Some(&passages) {
            self.add(&mut contents, question, &passages)?;
        }
        contents.fresh.insert(id);
        Ok((passages, true))
    }

    fn answer_in(
        &self,
        contents: &Contents,
        id: Digest,
        only_fresh: bool,
    ) -> Result<Option<Vec<Passage>>, RecordError> {
        if only_fresh && !contents.fresh.contains(&id) {
            return Ok(None);
        }
        let Some(&place) = contents.answers.get(&id) else { return Ok(None) };
        let Line::Answer { passages, .. } = self.line_at(place)? else {
            return Err(self.changed(place));
        };
        let passage = |id: &Digest| {
            let place = contents.passages.get(id).copied().unwrap_or(place);
            match self.line_at(place)? {
                Line::Passage { passage, .. } => Ok(passage),
                _ => Err(self.changed(place)),
            }
        };
        passages.iter().map(passage).collect::<Result<_, _>>().map(Some)
    }

    fn add(
        &self,
        contents: &mut Contents,
        question: Question<'_>,
        passages: &[Passage],
    ) -> Result<(), RecordError> {
        let mut lines = Vec::new();
        let Question { source, top_k, query } = question;
        if !contents.sources.contains(source) {
            lines.push(Line::Source { id: source.id, facts: source.facts.clone() });
        }
        let ids: Vec<Digest> = passages.iter().map(passage_id).collect();
        let mut new = HashSet::new();
        for (&id, passage) in ids.iter().zip(passages) {
            if !contents.passages.contains_key(&id) && new.insert(id) {
                lines.push(Line::Passage { id, passage: passage.clone() });
            }
        }
        let (id, query) = (question.id(), query.to_owned());
        lines.push(Line::Answer { id, source: source.id, top_k, query, passages: ids });
        self.append(contents, &lines)
    }

    /// Appends lines by one write, and then knows them.
    fn append(&self, contents: &mut Contents, lines: &[Line]) -> Result<(), RecordError> {
        let written: Vec<Vec<u8>> = lines.iter().map(Line::to_bytes).collect();
        if let Err(error) = self.file.write_all_at(&written.concat(), contents.end) {
            // The next writer would cut a torn line anyway.
            let _ = self.file.set_len(contents.end);
            return Err(io_error("write", &self.path)(error));
        }
        for (line, bytes) in lines.iter().zip(written) {
            contents.learn(line, bytes.len());
        }
        Ok(())
    }

    fn line_at(&self, place: Place) -> Result<Line, RecordError> {
        let mut bytes = vec![0; place.bytes];
        self.file.read_exact_at(&mut bytes, place.offset).map_err(io_error("read", &self.path))?;
        Line::parse(&bytes).map_err(|_| self.changed(place))
    }

    fn changed(&self, place: Place) -> RecordError {
        let reason = format!("the line at byte {} was changed by another program", place.offset);
        io_error("read", &self.path)(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A kill loses nothing that was written; this is for a machine that loses its power.
        if !self.lock().fresh.is_empty() {
            let _ = self.file.sync_data();
        }
    }
}

impl Contents {
    /// Notes a line of this length that follows the known ones.
    fn learn(&mut self, line: &Line, bytes: usize) {
        let place = Place { offset: self.end, bytes };
        match line {
            Line::SearchRecord(_) => {}
            Line::Source { id, facts } => {
                self.sources.push(Source { id: *id, facts: facts.clone() });
            }
            Line::Passage { id, .. } => {
                self.passages.insert(*id, place);
            }
            // Of two answers to one question, the later counts.
            Line::Answer { id, .. } => {
                self.answers.insert(*id, place);
            }
        }
        self.end += bytes as u64;
    }

    /// Returns the reason why a line cannot follow the known ones.
    fn refusal(&self, line: &Line) -> Option<String> {
        match line {
            Line::SearchRecord(VERSION) => None,
            Line::SearchRecord(version) => {
                Some(format!("it has the version {version}, and this program reads {VERSION}"))
            }
            _ if self.end == 0 => Some("the file does not begin as a search record".to_owned()),
            Line::Source { .. } | Line::Passage { .. } => None,
            Line::Answer { source, passages, .. } => {
                if self.sources.iter().all(|known| known.id != *source) {
                    return Some(format!("no line before it has the source {source}"));
                }
                let missing = passages.iter().find(|id| !self.passages.contains_key(id))?;
                Some(format!("no line before it has the passage {missing}"))
            }
        }
    }
}

/// Reads the whole lines of a record. Returns them with the length of the file.
fn scan(path: &Path, file: &File) -> Result<(Contents, u64), RecordError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.rewind().map_err(io_error("read", path))?;
    let (mut contents, mut number, mut bytes) = (Contents::default(), 0, Vec::new());
    loop {
        bytes.clear();
        let mut limited = reader.by_ref().take(LINE_BYTES_MAX);
        let length = limited.read_until(b'\n', &mut bytes).map_err(io_error("read", path))? as u64;
        number += 1;
        let refuse =
            |reason: String| RecordError::Line { path: path.to_owned(), line: number, reason };
        let Some(text) = bytes.strip_suffix(b"\n") else {
            if length == LINE_BYTES_MAX {
                return Err(refuse(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            // A kill tears the last line; the file of another program is not one torn line.
            if contents.end == 0
                && length > 0
                && !b"{\"search_record\":".starts_with(text_start(&bytes))
            {
                return Err(refuse("the file does not begin as a search record".to_owned()));
            }
            let torn = contents.end + length;
            return Ok((contents, torn));
        };
        let line = Line::parse(text).map_err(refuse)?;
        if let Some(reason) = contents.refusal(&line) {
            return Err(refuse(reason));
        }
        contents.learn(&line, bytes.len());
    }
}

/// Returns at most as many bytes of a first line as every record begins with.
fn text_start(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(b"{\"search_record\":".len())]
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::Io { action, path, source }
}
