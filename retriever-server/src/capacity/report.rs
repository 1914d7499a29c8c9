//! The comparison of needs with the machine's resources, as a table and as JSON.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::collection::Collection;
use super::machine::Machine;
use super::needs::{Need, Needs};

/// A plan for an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The folder of the index; `None` if none is named.
    pub index: Option<PathBuf>,
    /// The number of passages in it.
    pub passages: u64,
    /// The needs of its parts.
    pub needs: Needs,
    /// The machine's free resources.
    pub machine: Machine,
    /// The number of bytes to write, including temporary files.
    pub disk_to_write_bytes: u64,
    /// The memory that must be available, in bytes. It is the larger need of indexing and serving.
    pub memory_bytes: u64,
    /// The size of the mapped files.
    pub mapped_bytes: u64,
    /// `true` if disk and memory are sufficient, as far as they are known. Mapped files may be larger
    /// than memory.
    pub fits: bool,
}

impl Plan {
    /// Compares the needs with the machine's resources.
    pub fn new(
        index: Option<&Path>,
        collection: &Collection,
        needs: Needs,
        machine: Machine,
    ) -> Self {
        let sum = |bytes: &dyn Fn(&Need) -> u64| needs.serving.iter().map(bytes).sum::<u64>();
        let to_write = sum(&|need| need.disk_bytes - need.disk_there_bytes.min(need.disk_bytes));
        let disk_to_write_bytes = to_write + needs.indexing.disk_bytes;
        let memory_bytes = sum(&|need| need.memory_bytes).max(needs.indexing.memory_bytes);
        let mapped_bytes = sum(&|need| need.mapped_bytes);
        let is_within = |need: u64, free: Option<u64>| free.is_none_or(|free| need <= free);
        Self {
            index: index.map(Path::to_owned),
            passages: collection.passages,
            disk_to_write_bytes,
            memory_bytes,
            mapped_bytes,
            fits: is_within(disk_to_write_bytes, machine.disk_free_bytes)
                && is_within(memory_bytes, machine.memory_available_bytes),
            needs,
            machine,
        }
    }

    /// Returns a table for people.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<16}{:>12}{:>12}{:>12}  {}\n",
            "part", "on disk", "in memory", "mapped", "basis"
        );
        for need in self.needs.serving.iter().chain([&self.needs.indexing]) {
            let certainty = if need.is_exact { "exact" } else { "estimate" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "{:<16}{:>12}{:>12}{:>12}  {certainty}: {}",
                need.part,
                shown(need.disk_bytes),
                shown(need.memory_bytes),
                shown(need.mapped_bytes),
                need.basis
            );
        }
        let gpu_bytes: u64 = self.needs.serving.iter().map(|need| need.gpu_bytes).sum();
        if gpu_bytes > 0 {
            let _ = writeln!(table, "GPU memory, if a GPU searches: {}", shown(gpu_bytes));
        }
        let Machine { disk_free_bytes, memory_available_bytes } = self.machine;
        let place = match &self.index {
            Some(index) => format!("at {}", index.display()),
            None => "in the current folder".to_owned(),
        };
        let disk = verdict(self.disk_to_write_bytes, disk_free_bytes);
        let memory = verdict(self.memory_bytes, memory_available_bytes);
        let _ = writeln!(table, "disk space needed {place}: {disk}");
        let _ = writeln!(table, "memory needed: {memory}");
        let rest = memory_available_bytes.map(|bytes| bytes.saturating_sub(self.memory_bytes));
        if rest.is_some_and(|rest| self.mapped_bytes > rest) {
            let _ = writeln!(
                table,
                "the mapped files ({}) do not fit into memory: some requests will read from the disk",
                shown(self.mapped_bytes)
            );
        }
        table
    }
}

/// Returns a need as text, with the free amount and a shortage if there is one.
fn verdict(need: u64, free: Option<u64>) -> String {
    match free {
        None => format!("{}, the free amount is unknown", shown(need)),
        Some(free) if need <= free => format!("{} of {} free", shown(need), shown(free)),
        Some(free) => {
            let missing = shown(need - free);
            format!("{} of {} free: {missing} MISSING", shown(need), shown(free))
        }
    }
}

/// Formats bytes in units of 1000.
fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::needs::Request;

    fn plan(machine: Machine) -> Plan {
        let collection = Collection::stated(1_000_000, 670);
        let request = Request { vectors: None, model_bytes: None, threads: 2, compact: false };
        Plan::new(Some(Path::new("i")), &collection, Needs::new(&collection, &request), machine)
    }

    #[test]
    fn shortages_are_reported() {
        let enough = Machine {
            disk_free_bytes: Some(2_000_000_000),
            memory_available_bytes: Some(2_000_000_000),
        };
        let sufficient = plan(enough);
        assert!(sufficient.fits, "{sufficient:?}");
        // Passages 670 MB, offsets 8 MB, bounds 20 MB, postings 141 MB and as much temporarily.
        let table = sufficient.table();
        assert!(table.contains("disk space needed at i: 979.5 MB of 2.0 GB free\n"), "{table}");
        assert!(!table.contains("MISSING") && !table.contains("do not fit"));
        let little = Machine { disk_free_bytes: Some(979_000_000), ..enough };
        assert!(!plan(little).fits && plan(little).table().contains("MISSING"));
        let short = Machine { memory_available_bytes: Some(800_000_000), ..enough };
        assert!(plan(short).fits && plan(short).table().contains("do not fit into memory"));
        let tiny = Machine { memory_available_bytes: Some(100_000_000), ..enough };
        assert!(!plan(tiny).fits);
        let unknown = Machine { disk_free_bytes: None, memory_available_bytes: None };
        assert!(plan(unknown).fits && plan(unknown).table().contains("free amount is unknown"));
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (64_559_075_328, "64.6 GB"),
        ] {
            assert_eq!(shown(bytes), expected);
        }
    }
}
