//! The lock on a run directory: one process at a time trains there.
//!
//! The lock belongs to an open file, so it ends with its process, however that ends. The file names the holder; it stays
//! behind, unlocked and empty.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Name of the locked file in the run directory.
const FILE: &str = "run.lock";
/// Longest description of a holder that is read, in bytes.
const HOLDER_BYTES_MAX: u64 = 4096;

/// The process that holds a lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    command: String,
    /// Seconds since 1970, in UTC.
    since: u64,
}

impl Holder {
    fn this_process(command: &str) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
        Self {
            pid: std::process::id(),
            host: host.trim().to_owned(),
            command: command.to_owned(),
            since: since.as_secs(),
        }
    }

    fn in_words(&self) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
        let seconds = now.saturating_sub(self.since);
        let Self { pid, host, command, .. } = self;
        format!("process {pid} on {host} (trainer {command}, started {seconds} s ago)")
    }
}

/// A held lock.
#[derive(Debug)]
pub(super) struct RunLock(File);

impl RunLock {
    /// Creates `run_dir` if it is missing, and locks it for `command`, the trainer's.
    ///
    /// # Errors
    /// A process that holds the lock, named; and the file system's.
    pub(super) fn take(run_dir: &Path, command: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(run_dir).with_context(|| format!("run_dir = {}", run_dir.display()))?;
        let path = run_dir.join(FILE);
        let named = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(named)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!(
                    "run_dir = {} belongs to {}: wait for its end, or use another run_dir",
                    run_dir.display(),
                    holder_of(&mut file)
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(named),
        }
        file.set_len(0).with_context(named)?;
        let holder = serde_json::to_vec(&Holder::this_process(command))?;
        file.write_all(&holder).with_context(named)?;
        Ok(Self(file))
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The lock counts, not the text.
        let _ = self.0.set_len(0);
    }
}

fn holder_of(file: &mut File) -> String {
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_end(&mut text));
    let holder = read.ok().and_then(|_| serde_json::from_slice::<Holder>(&text).ok());
    holder.map_or_else(|| "another process".to_owned(), |holder| holder.in_words())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_of_the_first_and_may_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("runs/one");
        let first = RunLock::take(&run_dir, "train").unwrap();
        let message = RunLock::take(&run_dir, "sft").unwrap_err().to_string();
        let (pid, shown) = (std::process::id().to_string(), run_dir.display().to_string());
        for part in [&shown, &pid, "trainer train", "another run_dir"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        RunLock::take(&folder.path().join("runs/two"), "train").unwrap();
        drop(first);
        drop(RunLock::take(&run_dir, "sft").unwrap());
        // The description of a process that was killed does not matter.
        fs::write(run_dir.join(FILE), "{\"pid\": 1, \"host\": \"a longer text than a new one\"")
            .unwrap();
        let held = RunLock::take(&run_dir, "train").unwrap();
        assert!(RunLock::take(&run_dir, "train").unwrap_err().to_string().contains(&pid));
        drop(held);
    }
}
