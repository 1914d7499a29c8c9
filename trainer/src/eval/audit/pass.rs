//! One pass over a corpus: counts for each answer the passages in which it stands.
//!
//! One thread reads and unpacks, the others take batches of lines, parse them and search. The memory is bounded by the
//! number of batches on their way, not by the corpus.

use std::borrow::Cow;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Deserialize;
use serde::de::IgnoredAny;
use shared::contract::passage::Passage;
use shared::contract::rows::{JsonLines, Row, Rows, RowsError, parts, passage_columns};

use super::answers::{AnswerSet, MatchScratch};
use super::file::AuditError;
use crate::stop::StopFlag;

/// Text of a batch, in bytes; a batch of one longer line has only that.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait for each searching thread.
const WAITING_BATCHES: usize = 2;

/// The passages in which answers stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusCount {
    /// Number of passages in the corpus.
    pub passages: u64,
    /// For each answer, the number of passages in which it stands.
    pub with_answer: Vec<u32>,
}

/// Lines or passages on their way to a searching thread.
enum Batch {
    /// Lines of JSON, with their numbers and ends in the text.
    Lines { text: String, lines: Vec<(usize, u64)>, path: Arc<Path> },
    /// Contents of passages.
    Contents(Vec<String>),
}

/// How far the pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassProgress {
    /// Passages that were read.
    pub passages: u64,
    /// Bytes that were read from the files, before decompression.
    pub bytes: u64,
}

/// Counts the passages of the corpus at `path` in which each of `answers` stands. `told` is called now and then.
///
/// # Errors
/// A corpus that cannot be read, with the row; a stop.
pub fn count_answers(
    path: &Path,
    answers: &AnswerSet,
    threads: usize,
    stop: &StopFlag,
    told: &mut dyn FnMut(PassProgress),
) -> Result<CorpusCount, AuditError> {
    let threads = threads.max(1);
    let (sender, receiver) = sync_channel::<Batch>(threads * WAITING_BATCHES);
    let receiver = Arc::new(Mutex::new(receiver));
    thread::scope(|scope| {
        let searching: Vec<_> = (0..threads)
            .map(|_| {
                let receiver = receiver.clone();
                scope.spawn(move || search_batches(answers, &receiver))
            })
            .collect();
        // The searching threads alone keep the receiver: when they have failed, sending fails.
        drop(receiver);
        let passages = Reader { sender, stop, told, at: PassProgress::default() }.read_all(path);
        let mut with_answer = vec![0_u32; answers.len()];
        for searcher in searching {
            let counts =
                searcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            for (sum, count) in with_answer.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count);
            }
        }
        Ok(CorpusCount { passages: passages?, with_answer })
    })
}

struct Reader<'r> {
    sender: SyncSender<Batch>,
    stop: &'r StopFlag,
    told: &'r mut dyn FnMut(PassProgress),
    at: PassProgress,
}

impl Reader<'_> {
    fn read_all(mut self, path: &Path) -> Result<u64, AuditError> {
        for part in parts(path)? {
            let is_complete = match JsonLines::open(&part)? {
                Some(lines) => self.read_lines(lines, &part)?,
                None => self.read_rows(&part)?,
            };
            if !is_complete {
                break;
            }
        }
        Ok(self.at.passages)
    }

    /// Reads lines without parsing them. Returns `false` if nobody takes the batches any more.
    fn read_lines(&mut self, mut lines: JsonLines, path: &Path) -> Result<bool, AuditError> {
        let path: Arc<Path> = path.into();
        let bytes_before = self.at.bytes;
        let (mut text, mut ends) = (String::with_capacity(BATCH_BYTES), Vec::new());
        loop {
            let bytes = lines.bytes_read();
            let Some(line) = lines.next_line()? else { break };
            if !text.is_empty() && text.len() + line.text.len() > BATCH_BYTES {
                let full = std::mem::replace(&mut text, String::with_capacity(BATCH_BYTES));
                let numbered = std::mem::take(&mut ends);
                let count = numbered.len();
                let batch = Batch::Lines { text: full, lines: numbered, path: path.clone() };
                self.at.bytes = bytes_before + bytes;
                if !self.send(batch, count)? {
                    return Ok(false);
                }
            }
            text.push_str(line.text);
            ends.push((text.len(), line.number));
        }
        self.at.bytes = bytes_before + lines.bytes_read();
        let count = ends.len();
        self.send(Batch::Lines { text, lines: ends, path }, count)
    }

    /// Reads the rows of any other form, which one thread has to parse.
    fn read_rows(&mut self, path: &Path) -> Result<bool, AuditError> {
        let (mut contents, mut bytes) = (Vec::new(), 0);
        let bytes_before = self.at.bytes;
        let mut rows = Rows::open(path, passage_columns)?;
        while let Some(row) = rows.next() {
            let passage = Passage::from_row(&row?)?;
            bytes += passage.contents.len();
            contents.push(passage.contents);
            if bytes > BATCH_BYTES {
                let full = std::mem::take(&mut contents);
                let count = full.len();
                bytes = 0;
                self.at.bytes = bytes_before + rows.bytes_read();
                if !self.send(Batch::Contents(full), count)? {
                    return Ok(false);
                }
            }
        }
        self.at.bytes = bytes_before + rows.bytes_read();
        let count = contents.len();
        self.send(Batch::Contents(contents), count)
    }

    fn send(&mut self, batch: Batch, passages: usize) -> Result<bool, AuditError> {
        self.stop.check()?;
        self.at.passages += passages as u64;
        (self.told)(self.at);
        Ok(self.sender.send(batch).is_ok())
    }
}

/// Takes batches until there are no more.
fn search_batches(
    answers: &AnswerSet,
    batches: &Mutex<Receiver<Batch>>,
) -> Result<Vec<u32>, RowsError> {
    let mut counter = Counter {
        answers,
        scratch: MatchScratch::default(),
        counts: vec![0; answers.len()],
        counted_in: vec![0; answers.len()],
        passage: 0,
    };
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match batch {
            Err(_) => return Ok(counter.counts),
            Ok(Batch::Contents(contents)) => {
                for contents in &contents {
                    counter.count(contents);
                }
            }
            Ok(Batch::Lines { text, lines, path }) => {
                let mut start = 0;
                for (end, number) in lines {
                    let contents = contents(&text[start..end], number, &path)?;
                    counter.count(&contents);
                    start = end;
                }
            }
        }
    }
}

/// The part of a line that is searched; the other keys are skipped without being decoded.
#[derive(Deserialize)]
struct Contents<'l> {
    #[serde(borrow)]
    contents: Cow<'l, str>,
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
}

/// Returns the contents of the passage on a line, by the rules of [`Passage::from_row`].
fn contents<'l>(line: &'l str, number: u64, path: &Arc<Path>) -> Result<Cow<'l, str>, RowsError> {
    if let Ok(Contents { contents, .. }) = serde_json::from_str(line) {
        return Ok(contents);
    }
    let row = Row::of_line(line, number, path.clone())?;
    Ok(Cow::Owned(Passage::from_row(&row)?.contents))
}

/// Counts each answer once for each passage.
struct Counter<'a> {
    answers: &'a AnswerSet,
    scratch: MatchScratch,
    counts: Vec<u32>,
    /// For each answer, the last passage in which it was counted.
    counted_in: Vec<u64>,
    passage: u64,
}

impl Counter<'_> {
    fn count(&mut self, contents: &str) {
        let Self { answers, scratch, counts, counted_in, passage } = self;
        *passage += 1;
        answers.search(contents, scratch, |answer| {
            if counted_in[answer] != *passage {
                counted_in[answer] = *passage;
                counts[answer] = counts[answer].saturating_add(1);
            }
        });
    }
}
