//! `phases.jsonl`: the duration of each command of a run. When a phase was repeated, readers use its last
//! entry.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "phases.jsonl";

/// One command of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Records the end of a phase of the run in `run_dir`.
pub fn record_phase(run_dir: &Path, name: &str, seconds: f64) -> io::Result<()> {
    std::fs::create_dir_all(run_dir)?;
    let mut line = serde_json::to_string(&Phase { name: name.to_owned(), seconds })?;
    line.push('\n');
    let mut file = OpenOptions::new().append(true).create(true).open(run_dir.join(FILE))?;
    file.write_all(line.as_bytes())
}

/// Reads the phases of a run, in the order of their first entries. A missing file or an unreadable line is
/// skipped: times are not worth a failure.
pub fn read_phases(run_dir: &Path) -> Vec<Phase> {
    let text = std::fs::read_to_string(run_dir.join(FILE)).unwrap_or_default();
    let mut phases: Vec<Phase> = Vec::new();
    for phase in text.lines().filter_map(|line| serde_json::from_str::<Phase>(line).ok()) {
        match phases.iter_mut().find(|known| known.name == phase.name) {
            Some(known) => *known = phase,
            None => phases.push(phase),
        }
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        assert!(read_phases(&run_dir).is_empty());
        for (name, seconds) in [("warm start", 10.0), ("training", 5.0), ("warm start", 7.0)] {
            record_phase(&run_dir, name, seconds).unwrap();
        }
        let phases = read_phases(&run_dir);
        assert_eq!(
            phases,
            [
                Phase { name: "warm start".to_owned(), seconds: 7.0 },
                Phase { name: "training".to_owned(), seconds: 5.0 },
            ]
        );
    }
}
