//! Loads a model folder and saves it as training does: `resave FROM TO [SHARD_BYTES | adapters]`. `SHARD_BYTES`
//! limits the size of each file of weights. A folder of adapters is merged into its base or, with `adapters`, saved
//! alone. `scripts/check-saved-models` loads the result with transformers and PEFT.

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
    let compute = select_compute("cpu", "f32")?;
    let place = ModelPlace::find(&from, None)?;
    let form = arguments.next().map(|argument| argument.to_string_lossy().into_owned());
    if form.as_deref() == Some("adapters") {
        let adapters = place.adapters.as_ref().context("FROM contains no adapters")?;
        let mut policy = Policy::load_base(&place, compute)?;
        policy.adapt(adapters.read(&policy.config)?);
        let alone = SaveForm { merged: false, ..SaveForm::WHOLE };
        return Ok(checkpoint::save(&to, &policy, &place, alone, None)?);
    }
    let policy = Policy::load(&from, compute)?;
    checkpoint::save(&to, &policy, &place, SaveForm::WHOLE, None)?;
    if let Some(shard_bytes) = form {
        let shard_bytes = shard_bytes.parse().context("SHARD_BYTES is not a number")?;
        for file in weight_files(&to)? {
            std::fs::remove_file(file)?;
        }
        write_weights(&to, &policy.parameters, Kind::Float, shard_bytes)?;
    }
    Ok(())
}
