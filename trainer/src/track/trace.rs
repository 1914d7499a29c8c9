//! A step's timeline in the Trace Event Format of Chromium, which Perfetto and `chrome://tracing` open.
//!
//! The phases of the step and the passes of the engine are tracks of their own; each episode is an
//! asynchronous track with its searches on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::atomic_file;

/// Everything happens in one process, as the format calls it.
const PROCESS: u32 = 1;

/// A track that is filled from left to right, without overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// The phases of the step, one after the other.
    Step,
    /// What the engine computes, and when it has nothing to compute.
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

/// What has happened since the step began.
#[derive(Debug)]
pub struct Trace {
    origin: Instant,
    events: Vec<Value>,
    /// Episodes traced before the present rollout, so that those of several rollouts stay apart.
    episodes_before: usize,
}

impl Trace {
    /// A timeline that begins now.
    pub fn start() -> Self {
        Self { origin: Instant::now(), events: Vec::new(), episodes_before: 0 }
    }

    /// Notes what took from `started` on for `took`; `details` is an object that is shown beside it.
    pub fn span(
        &mut self,
        track: Track,
        name: &str,
        (started, took): (Instant, Duration),
        details: &Value,
    ) {
        self.events.push(json!({
            "ph": "X", "pid": PROCESS, "tid": track.number(), "name": name,
            "ts": self.microseconds(started), "dur": whole_microseconds(took), "args": details,
        }));
    }

    /// Something of an episode begins now; what was begun last ends first.
    pub fn begin(&mut self, episode: usize, name: &str, details: &Value) {
        self.mark("b", episode, name, details);
    }

    /// What began under that name ends now.
    pub fn end(&mut self, episode: usize, name: &str, details: &Value) {
        self.mark("e", episode, name, details);
    }

    fn mark(&mut self, phase: &str, episode: usize, name: &str, details: &Value) {
        self.events.push(json!({
            "ph": phase, "pid": PROCESS, "tid": Track::Engine.number(), "cat": "episode", "name": name,
            "id": self.episodes_before + episode, "ts": self.microseconds(Instant::now()), "args": details,
        }));
    }

    /// The next rollout of the step counts its `episodes` from 0 again.
    pub fn next_rollout(&mut self, episodes: usize) {
        self.episodes_before += episodes;
    }

    fn microseconds(&self, at: Instant) -> u64 {
        whole_microseconds(at.saturating_duration_since(self.origin))
    }

    /// Writes `run_dir/trace/step-N.json`, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, run_dir: &Path, step: u64) -> io::Result<PathBuf> {
        let named = |what: &str, track: Option<Track>, name: &str| {
            json!({
                "ph": "M", "pid": PROCESS, "tid": track.map_or(0, Track::number), "name": what,
                "args": {"name": name},
            })
        };
        let mut events = vec![named("process_name", None, &format!("step {step}"))];
        events.extend(Track::ALL.map(|track| named("thread_name", Some(track), track.name())));
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
        trace.span(Track::Engine, "pass", (started, took), &json!({"rows": 4}));
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
