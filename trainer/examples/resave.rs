//! Loads a model folder and saves it as training does: `resave FROM TO [SHARD_BYTES]`, with weights in
//! files of at most that many bytes where it is given. `scripts/check-saved-models` asks transformers
//! what it makes of the result.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tch::Kind;
use trainer::checkpoint::{self, SaveForm};
use trainer::policy::{ModelPlace, Policy, select_compute, weight_files, write_weights};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut folder = |name: &str| {
        arguments.next().map(PathBuf::from).with_context(|| format!("{name} is missing"))
    };
    let (from, to) = (folder("FROM")?, folder("TO")?);
    let policy = Policy::load(&from, select_compute("cpu", "f32")?)?;
    let place = ModelPlace::find(&from, None)?;
    checkpoint::save(&to, &policy, &place, SaveForm::WHOLE, None)?;
    if let Some(shard_bytes) = arguments.next() {
        let shard_bytes = shard_bytes.to_string_lossy().parse().context("SHARD_BYTES")?;
        for file in weight_files(&to)? {
            std::fs::remove_file(file)?;
        }
        write_weights(&to, &policy.parameters, Kind::Float, shard_bytes)?;
    }
    Ok(())
}
