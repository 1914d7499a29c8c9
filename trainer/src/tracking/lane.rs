//! A tracker's thread, its queue, and its memory of what it has sent.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::machine::atomic_file;
use tracing::{info, warn};

use super::point::unix_ms;
use super::{Fault, Outcome, Point, Tracker};

/// Points that wait in the queue.
const QUEUE_POINTS: usize = 256;
/// Points that a tracker keeps while its server takes none. The oldest go first.
const KEPT_POINTS: usize = 100_000;
/// Points in one request.
const BATCH_POINTS: usize = 100;
/// The pause after a failure, which doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The time after the end of a run in which points are still sent.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What a tracker knows of earlier processes of the same run. Kept in a file.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    kept: Kept,
    /// Points up to this position were sent by an earlier process, and a resumed run repeats them.
    repeated_to: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    id: String,
    /// The identifier that the server gave to the run.
    server_id: Option<String>,
    /// The position of the last point that was sent.
    sent: Option<u64>,
    /// The number of times that the run went back to an earlier step.
    rollbacks: u64,
}

impl Memory {
    /// Reads the memory of a run that resumes after a step, or begins one. What was sent of the steps that a rollback
    /// has taken back counts as not sent.
    pub(super) fn load(path: &Path, resumed_at: Option<u64>, rollbacks: u64) -> Self {
        let kept =
            fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = kept.filter(|kept| resumed_at.is_some() && !kept.id.is_empty());
        let mut kept = kept.unwrap_or_else(|| Kept { id: new_id(path), ..Kept::default() });
        if kept.rollbacks < rollbacks {
            let last = resumed_at.map(|step| 2 * step + 1);
            kept.sent = kept.sent.min(last);
            kept.rollbacks = rollbacks;
        }
        let repeated_to = kept.sent;
        Self { path: path.to_owned(), kept, repeated_to }
    }

    /// Returns the identifier of the run: 8 lower-case letters and digits.
    pub(super) fn id(&self) -> &str {
        &self.kept.id
    }

    pub(super) fn server_id(&self) -> Option<&str> {
        self.kept.server_id.as_deref()
    }

    /// Notes the identifier that the server gave to the run, or that it knows none.
    pub(super) fn set_server_id(&mut self, id: Option<String>) {
        self.kept.server_id = id;
        self.save();
    }

    /// Returns the number of times that the run went back to an earlier step.
    pub(super) fn rollbacks(&self) -> u64 {
        self.kept.rollbacks
    }

    /// Returns `true` for a point that was sent before.
    pub(super) fn has(&self, point: &Point) -> bool {
        self.repeated_to.is_some_and(|sent| point.position() <= sent)
    }

    fn note_sent(&mut self, position: Option<u64>) {
        if position > self.kept.sent {
            self.kept.sent = position;
            self.save();
        }
    }

    fn save(&self) {
        let written = serde_json::to_vec(&self.kept)
            .map_err(|error| error.to_string())
            .and_then(|text| atomic_file::write(&self.path, &text).map_err(|it| it.to_string()));
        if let Err(error) = written {
            // The next process may send points twice, or begin another run at the server.
            warn!(path = %self.path.display(), %error, "a tracker's memory was not written");
        }
    }
}

/// Makes an identifier from the path, the time and the process.
fn new_id(path: &Path) -> String {
    let now = unix_ms(std::time::SystemTime::now());
    let text = format!("{} {now} {}", path.display(), std::process::id());
    Digest::of_bytes(text.as_bytes()).to_string()[..8].to_owned()
}

enum Message {
    Point(Arc<Point>),
    End(Outcome),
}

/// A tracker with its thread.
pub(super) struct Lane {
    name: &'static str,
    sender: SyncSender<Message>,
    thread: JoinHandle<()>,
    /// The number of points that found the queue full.
    lost: u64,
}

impl fmt::Debug for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, lost, .. } = self;
        formatter.debug_struct("Lane").field("name", name).field("lost", lost).finish()
    }
}

/// A tracker that sends its last points.
pub(super) struct Ending {
    name: &'static str,
    thread: JoinHandle<()>,
}

impl Ending {
    /// Waits until the tracker is done, or has used up its time.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            warn!(tracker = self.name, "the tracker's thread failed");
        }
    }
}

impl Lane {
    /// Starts the thread, which sends the points in `missing` first.
    pub(super) fn start(
        name: &'static str,
        tracker: Box<dyn Tracker>,
        memory: Memory,
        missing: VecDeque<Arc<Point>>,
    ) -> Result<Self, Fault> {
        let (sender, receiver) = sync_channel(QUEUE_POINTS);
        let courier =
            Courier { name, tracker, memory, waiting: missing, dropped: 0, failing: None };
        let thread = thread::Builder::new()
            .name(format!("track-{name}"))
            .spawn(move || courier.run(&receiver))
            .map_err(|error| Fault(error.to_string()))?;
        Ok(Self { name, sender, thread, lost: 0 })
    }

    pub(super) fn log(&mut self, point: &Arc<Point>) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Point(Arc::clone(point)))
        {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.lost += 1;
        if self.lost == 1 {
            warn!(
                tracker = self.name,
                "the tracker is too slow, and points are left out from now on"
            );
        }
    }

    pub(super) fn end(self, outcome: Outcome) -> Ending {
        let Self { name, sender, thread, lost } = self;
        if lost > 0 {
            warn!(tracker = name, lost, "points were left out; metrics.jsonl has them");
        }
        // A full queue ends with the channel: the thread then sees no outcome.
        let _ = sender.try_send(Message::End(outcome));
        Ending { name, thread }
    }
}

/// The work of a tracker's thread.
struct Courier {
    name: &'static str,
    tracker: Box<dyn Tracker>,
    memory: Memory,
    waiting: VecDeque<Arc<Point>>,
    /// The number of points that were too many to keep.
    dropped: u64,
    failing: Option<Failing>,
}

/// A tracker that takes nothing at the moment.
struct Failing {
    again: Instant,
    pause: Duration,
}

impl Courier {
    fn run(mut self, messages: &Receiver<Message>) {
        let outcome = loop {
            let message = match self.wait() {
                None if self.waiting.is_empty() => {
                    messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
                }
                None => messages.recv_timeout(Duration::ZERO),
                Some(wait) => messages.recv_timeout(wait),
            };
            match message {
                Ok(Message::Point(point)) => self.keep(point),
                Ok(Message::End(outcome)) => break outcome,
                Err(RecvTimeoutError::Timeout) => self.try_send(),
                Err(RecvTimeoutError::Disconnected) => break Outcome::Stopped,
            }
        };
        self.end(outcome);
    }

    /// Returns the time until the next attempt; `None` if one may come at once.
    fn wait(&self) -> Option<Duration> {
        let failing = self.failing.as_ref()?;
        Some(failing.again.saturating_duration_since(Instant::now()))
    }

    fn keep(&mut self, point: Arc<Point>) {
        if self.memory.has(&point) {
            return;
        }
        if self.waiting.len() == KEPT_POINTS {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(point);
    }

    /// Sends the next points. After a failure, the next attempt waits.
    fn try_send(&mut self) {
        let count = self.waiting.len().min(BATCH_POINTS);
        let points: Vec<_> = self.waiting.iter().take(count).cloned().collect();
        if points.is_empty() {
            return;
        }
        match self.tracker.send(&points, &mut self.memory) {
            Ok(position) => {
                self.waiting.drain(..count);
                self.memory.note_sent(position);
                if self.failing.take().is_some() {
                    info!(tracker = self.name, "the tracker takes points again");
                }
            }
            Err(fault) => {
                let pause = match &self.failing {
                    None => {
                        warn!(
                            tracker = self.name, %fault,
                            "the tracker takes no points: the run goes on, and they are sent later"
                        );
                        FIRST_PAUSE
                    }
                    Some(failing) => (2 * failing.pause).min(LONGEST_PAUSE),
                };
                self.failing = Some(Failing { again: Instant::now() + pause, pause });
            }
        }
    }

    fn end(mut self, outcome: Outcome) {
        let deadline = Instant::now() + END_PATIENCE;
        while !self.waiting.is_empty() && Instant::now() < deadline {
            if let Some(wait) = self.wait() {
                thread::park_timeout(wait.min(deadline.saturating_duration_since(Instant::now())));
            }
            self.try_send();
            if let Some(failing) = &mut self.failing {
                // There is no time for long pauses.
                failing.pause = failing.pause.min(FIRST_PAUSE);
                failing.again = failing.again.min(Instant::now() + FIRST_PAUSE);
            }
        }
        let unsent = self.waiting.len();
        if unsent > 0 || self.dropped > 0 {
            warn!(
                tracker = self.name,
                unsent,
                dropped = self.dropped,
                "the tracker did not get every point; metrics.jsonl has them, and a resumed run sends the unsent ones"
            );
        }
        if let Err(fault) = self.tracker.end(outcome, &mut self.memory) {
            warn!(tracker = self.name, %fault, "the tracker does not show the end of the run");
        }
    }
}
