//! The machine's resources: free disk space at a folder, and memory available to this process.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// The machine's free resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The free disk space at the index, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// The memory available without swapping, in bytes. It includes the page cache.
    pub memory_available_bytes: Option<u64>,
}

impl Machine {
    /// Queries the operating system. A value that it does not report is `None`.
    pub fn query(index: &Path) -> Self {
        Self {
            disk_free_bytes: disk_free_bytes(index).ok(),
            memory_available_bytes: memory_available_bytes(),
        }
    }
}

/// Returns the free bytes for this user in the file system of the nearest existing folder.
fn disk_free_bytes(index: &Path) -> io::Result<u64> {
    let index = std::path::absolute(index)?;
    let exists = |folder: &&Path| folder.try_exists().unwrap_or(false);
    let folder = index.ancestors().find(exists).unwrap_or(Path::new("/"));
    let statistics = rustix::fs::statvfs(folder)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// Returns the memory available on the machine or in the container, whichever is less.
fn memory_available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let read = |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok();
    let container = read("memory.max").zip(read("memory.current")).and_then(|(most, used)| {
        let most: u64 = most.trim().parse().ok()?;
        Some(most.saturating_sub(used.trim().parse().ok()?))
    });
    [machine, container].into_iter().flatten().min()
}

/// Parses `MemAvailable` of `/proc/meminfo`, which is in KiB, and returns bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_kibibytes() {
        let text = "MemTotal:       16384000 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB"), None);
    }

    #[test]
    fn a_missing_folder_is_on_the_disk_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::query(&folder.path().join("a/b"));
        assert!(machine.disk_free_bytes.is_some_and(|bytes| bytes > 0), "{machine:?}");
        assert!(machine.memory_available_bytes.is_some_and(|bytes| bytes > 0), "{machine:?}");
    }
}
