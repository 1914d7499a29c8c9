//! `trainer lint`: reads headers, counts and earlier steps, and prints what the configuration means. Loads no tensor.

use std::io::Write;
use std::path::PathBuf;

use tch::{Device, Kind};

use super::settings;
use crate::config::{ComputeDtype, Config, ConfigError, EngineKind};
use crate::engine::WeightFormat;
use crate::hub::ModelName;
use crate::lint::{Facts, Measured, ModelFacts, ModelSource, problems, report, report_json};
use crate::policy::{
    AdapterFolder, Compute, ModelConfig, ModelPlace, select_compute, stored_bytes,
};
use crate::track::read_metrics;

/// Number of the latest steps whose mean time is expected.
const MEASURED_STEPS: usize = 10;

/// Prints what `config` means, in words or as JSON.
///
/// # Errors
/// [`ConfigError`] if it cannot work with the model or the questions; an existing file that cannot be read.
pub fn lint(config: &Config, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let facts = facts(config)?;
    let problems = problems(config, &facts);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems).into());
    }
    if as_json {
        return Ok(writeln!(out, "{:#}", report_json(config, &facts))?);
    }
    Ok(out.write_all(report(config, &facts).as_bytes())?)
}

fn facts(config: &Config) -> anyhow::Result<Facts> {
    let questions = if config.data.train.is_file() {
        Some(settings::questions::training_questions(config).records()?.len())
    } else {
        None
    };
    let mut warnings = config.warnings();
    let selected = select_compute(&config.model.device.to_string(), config.model.dtype.as_str());
    let compute = selected.unwrap_or_else(|error| {
        warnings.push(format!("{error}: what follows is for a machine that has it"));
        let kind = match config.model.dtype {
            ComputeDtype::F32 => Kind::Float,
            ComputeDtype::Auto | ComputeDtype::Bf16 => Kind::BFloat16,
        };
        Compute { device: Device::Cuda(0), kind }
    });
    let packed = match config.engine.kind {
        EngineKind::Builtin => {
            settings::rollout::runner(config).native_format(compute.device, compute.kind)?
        }
        EngineKind::Vllm | EngineKind::Sglang => None,
    };
    Ok(Facts {
        model: model(config, compute, packed)?,
        questions,
        measured: measured(config)?,
        warnings,
    })
}

fn model(
    config: &Config,
    compute: Compute,
    packed: Option<WeightFormat>,
) -> anyhow::Result<ModelSource> {
    let folder = &config.model.path;
    if folder.as_os_str().is_empty() {
        return Ok(ModelSource::Unknown("model.path is not set".to_owned()));
    }
    if ModelName::parse(folder).is_some() {
        let reason = format!("model.path = {} is a name on the hub", folder.display());
        return Ok(ModelSource::Unknown(reason));
    }
    if !folder.is_dir() {
        let reason = format!("model.path = {} is not there", folder.display());
        return Ok(ModelSource::Unknown(reason));
    }
    let named = AdapterFolder::find(folder)?.map(|adapters| PathBuf::from(adapters.base.name));
    let base = config.model.base.clone().or(named);
    if let Some(name) = base.as_deref().and_then(ModelName::parse) {
        let reason =
            format!("the base of model.path = {}, {name}, is on the hub", folder.display());
        return Ok(ModelSource::Unknown(reason));
    }
    let ModelPlace { base, .. } = ModelPlace::find(folder, config.model.base.as_deref())?;
    let model = ModelConfig::read(&base)?;
    let stored_bytes = stored_bytes(&base, &model)?;
    Ok(ModelSource::Known(Box::new(ModelFacts {
        config: model,
        stored_bytes,
        compute_bytes: if compute.kind == Kind::Float { 4 } else { 2 },
        packed,
        on_host: compute.device == Device::Cpu,
    })))
}

fn measured(config: &Config) -> anyhow::Result<Option<Measured>> {
    let path = config.run_dir.join("metrics.jsonl");
    if !path.is_file() {
        return Ok(None);
    }
    let rows = read_metrics(&path)?;
    let latest = &rows[rows.len().saturating_sub(MEASURED_STEPS)..];
    let seconds = latest.iter().map(|row| row.seconds.total).sum::<f64>() / latest.len() as f64;
    let peak_mib = latest.iter().map(|row| row.peak_memory_mib).max().unwrap_or_default();
    Ok(rows.last().map(|row| Measured { steps: row.step, step_seconds: seconds, peak_mib }))
}
