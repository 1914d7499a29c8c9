//! What the machine has: free disk at a folder, memory that is available to this process.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Bytes that may still be written where the index is to be.
    pub disk_free_bytes: Option<u64>,
    /// Bytes of memory that can be had without swapping, the page cache's included.
    pub memory_available_bytes: Option<u64>,
}

impl Machine {
    /// Asks the operating system; what it does not say is unknown.
    pub fn of(index: &Path) -> Self {
        Self {
            disk_free_bytes: disk_free_bytes(index).ok(),
            memory_available_bytes: memory_available_bytes(),
        }
    }
}

/// Free bytes for this user in the file system of the nearest folder that is there.
fn disk_free_bytes(index: &Path) -> io::Result<u64> {
    let index = std::path::absolute(index)?;
    let is_there = |folder: &&Path| folder.try_exists().unwrap_or(false);
    let folder = index.ancestors().find(is_there).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// What the machine has, or what the container may still take where that is less.
fn memory_available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let read = |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok();
    let container = read("memory.max").zip(read("memory.current")).and_then(|(most, used)| {
        let most: u64 = most.trim().parse().ok()?;
        Some(most.saturating_sub(used.trim().parse().ok()?))
    });
    [machine, container].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, which is in KiB.
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
    fn a_folder_that_is_not_there_is_on_the_disk_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let found = Machine::of(&folder.path().join("a/b"));
        assert!(found.disk_free_bytes.is_some_and(|bytes| bytes > 0), "{found:?}");
        assert!(found.memory_available_bytes.is_some_and(|bytes| bytes > 0), "{found:?}");
    }
}
