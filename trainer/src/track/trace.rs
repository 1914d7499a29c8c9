//! A step's timeline in Chromium's Trace Event Format, which Perfetto and `chrome://tracing` open.
//!
//! The phases of the step and the passes of the engine have one track each. Each episode is an asynchronous
//! track that also shows its searches.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::machine::atomic_file;

/// The format's process number. A step has one process.
const PROCESS: u32 = 1;

/// A track whose spans follow each other without overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// The phases of the step.
    Step,
    /// The passes of the engine, and its waits for passages.
    Engine,
}

impl Track {
    const ALL: [Self; 2] = [Self::Step, Self::Engine];

    fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Engine => "engine",
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Step => 1,
            Self::Engine => 2,
        }
    }
}

/// The events since the step began.
#[derive(Debug)]
pub struct Trace {
    origin: Instant,
    events: Vec<Value>,
    /// Number of episodes before the current rollout, which keeps the ids of several rollouts distinct.
    episodes_before: usize,
}

impl Trace {
    /// Creates a timeline that begins now.
    pub fn start() -> Self {
        Self { origin: Instant::now(), events: Vec::new(), episodes_before: 0 }
    }

    /// Records an activity that began at `started` and took `took`. The viewer shows the object `details`.
    pub fn span(
        &mut self,
        track: Track,
        name: &str,
        started: Instant,
        took: Duration,
        details: &Value,
    ) {
        self.events.push(json!({
            "ph": "X", "pid": PROCESS, "tid": track.number(), "name": name,
            "ts": self.microseconds(started), "dur": whole_microseconds(took), "args": details,
        }));
    }

    /// Begins an activity of an episode. Activities nest: the one that began last ends first.
    pub fn begin(&mut self, episode: usize, name: &str, details: &Value) {
        self.mark("b", episode, name, details);
    }

    /// Ends the activity of that name.
    pub fn end(&mut self, episode: usize, name: &str, details: &Value) {
        self.mark("e", episode, name, details);
    }

    fn mark(&mut self, phase: &str, episode: usize, name: &str, details: &Value) {
        self.events.push(json!({
            "ph": phase, "pid": PROCESS, "tid": Track::Engine.number(), "cat": "episode", "name": name,
            "id": self.episodes_before + episode, "ts": self.microseconds(Instant::now()), "args": details,
        }));
    }

    /// Begins the next rollout of the step, after one of `episodes` episodes. It counts from 0 again.
    pub fn next_rollout(&mut self, episodes: usize) {
        self.episodes_before += episodes;
    }

    fn microseconds(&self, time: Instant) -> u64 {
        whole_microseconds(time.saturating_duration_since(self.origin))
    }

    /// Writes `run_dir/trace/step-N.json`, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, run_dir: &Path, step: u64) -> io::Result<PathBuf> {
        let label = |kind: &str, track: Option<Track>, name: &str| {
            json!({
                "ph": "M", "pid": PROCESS, "tid": track.map_or(0, Track::number), "name": kind,
                "args": {"name": name},
            })
        };
        let mut events = vec![label("process_name", None, &format!("step {step}"))];
        events.extend(Track::ALL.map(|track| label("thread_name", Some(track), track.name())));
        events.extend_from_slice(&self.events);
        let text = json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string();
        let folder = run_dir.join("trace");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("step-{step}.json"));
        atomic_file::write(&path, text.as_bytes()).map_err(io::Error::other)?;
        Ok(path)
    }
}

fn whole_microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_episodes_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut trace = Trace::start();
        let started = trace.origin + Duration::from_millis(3);
        let took = Duration::from_micros(1_500);
        trace.span(Track::Engine, "pass", started, took, &json!({"rows": 4}));
        trace.begin(2, "episode", &json!({}));
        trace.begin(2, "search", &json!({"query": "q"}));
        trace.end(2, "search", &json!({"passages": 3}));
        trace.end(2, "episode", &json!({}));
        trace.next_rollout(8);
        trace.begin(2, "episode", &json!({}));
        let path = trace.write(folder.path(), 5).unwrap();
        assert_eq!(path, folder.path().join("trace/step-5.json"));
        let read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        let names: Vec<&Value> = events
            .iter()
            .filter(|event| event["ph"] == "M")
            .map(|event| &event["args"]["name"])
            .collect();
        assert_eq!(names, ["step 5", "step", "engine"]);
        let pass = events.iter().find(|event| event["ph"] == "X").unwrap();
        assert_eq!((&pass["ts"], &pass["dur"]), (&json!(3_000), &json!(1_500)));
        assert_eq!(pass["args"]["rows"], 4);
        let marks: Vec<&Value> = events.iter().filter(|event| event["cat"] == "episode").collect();
        let phases: Vec<&str> = marks.iter().map(|event| event["ph"].as_str().unwrap()).collect();
        assert_eq!(phases, ["b", "b", "e", "e", "b"]);
        assert_eq!((&marks[0]["id"], &marks[4]["id"]), (&json!(2), &json!(10)));
        let times: Vec<u64> = marks.iter().map(|event| event["ts"].as_u64().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
