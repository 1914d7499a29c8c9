//! `trainer lint`: reads headers, counts and earlier steps, and prints what the configuration means. Loads no
//! tensor. Asks each retriever one question.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tch::{Device, Kind};
use tokio::runtime::Builder;

use super::model::read_tokenizer;
use super::settings;
use shared::contract::client::{SearchError, ServerReply};

use crate::config::{ComputeDtype, Config, ConfigError, EngineKind, Problem};
use crate::engine::WeightFormat;
use crate::eval::Searches;
use crate::hub::ModelName;
use crate::lint::{
    Facts, Measured, ModelFacts, ModelSource, RetrieverReply, problems, report, report_json,
};
use crate::policy::{
    AdapterFolder, Compute, ModelConfig, ModelPlace, select_compute, stored_bytes,
};
use crate::search::record::RecordMode;
use crate::track::read_metrics;

/// Number of the latest steps whose mean time is expected.
const MEASURED_STEPS: usize = 10;
/// Longest wait for the retriever.
const RETRIEVER_LIMIT: Duration = Duration::from_mins(1);
/// The question that is asked if there is no file of questions.
const QUESTION: &str = "What is the capital of France?";

/// The form of the report, and the retriever's part in it.
#[derive(Clone, Copy, Debug)]
pub struct LintOptions {
    /// Print JSON instead of words.
    pub as_json: bool,
    /// Only [`Searches::Retriever`] asks the retriever.
    pub searches: Searches,
}

/// Prints what `config` means, in words or as JSON, and what the retriever answers to one question.
///
/// # Errors
/// [`ConfigError`] if it cannot work with the model, the questions or the retriever's answer; an existing file that
/// cannot be read. A retriever that does not answer is no error, because it may be started later.
pub fn lint(config: &Config, options: LintOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    let LintOptions { as_json, searches } = options;
    let facts = facts(config, searches)?;
    let mut problems = problems(config, &facts);
    if facts.model.known().is_some() {
        problems.extend(prompt_problem(config)?);
    }
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems).into());
    }
    if as_json {
        return Ok(writeln!(out, "{:#}", report_json(config, &facts))?);
    }
    Ok(out.write_all(report(config, &facts).as_bytes())?)
}

fn facts(config: &Config, searches: Searches) -> anyhow::Result<Facts> {
    let files = settings::questions::training_files(config);
    let records = if files.iter().all(|file| file.is_file() || file.is_dir()) {
        Some(settings::questions::training_questions(config).records()?)
    } else {
        None
    };
    let question = records.as_ref().and_then(|records| records.first());
    let retrievers = match searches {
        // No retriever is asked in a replay; its record must be there.
        Searches::Retriever if config.record.mode == RecordMode::Replay => {
            settings::rollout::searcher(config).open()?;
            Vec::new()
        }
        Searches::Retriever => {
            retrievers(config, question.map_or(QUESTION, |record| &record.question))?
        }
        Searches::Random | Searches::None => Vec::new(),
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
        questions: records.map(|records| records.len()),
        retrievers,
        measured: measured(config)?,
        warnings,
    })
}

/// Asks each retriever one question, once, and compares what they serve.
fn retrievers(config: &Config, question: &str) -> anyhow::Result<Vec<RetrieverReply>> {
    let client = settings::rollout::searcher(config).client()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let limit = RETRIEVER_LIMIT.min(Duration::from_millis(config.retriever.deadline_ms));
    let (replies, compared) = runtime.block_on(async {
        let replies = client.ask_each_once(question, config.retriever.top_k, limit).await;
        (replies, client.compare_servers().await)
    });
    let told = |reply: ServerReply| match reply.result {
        Ok(passages) => RetrieverReply::Passages {
            url: reply.url,
            question: question.to_owned(),
            passages,
            milliseconds: reply.milliseconds,
        },
        Err(error @ (SearchError::Unavailable { .. } | SearchError::Failed { .. })) => {
            RetrieverReply::Silent(error.to_string())
        }
        Err(
            error @ (SearchError::Refused { .. }
            | SearchError::Malformed { .. }
            | SearchError::Changed { .. }),
        ) => RetrieverReply::Unusable(error.to_string()),
    };
    let mut told: Vec<RetrieverReply> = replies.into_iter().map(told).collect();
    told.extend(compared.err().map(|mixed| RetrieverReply::Mixed(mixed.to_string())));
    Ok(told)
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
    let named = AdapterFolder::find(folder)?.and_then(|adapters| adapters.base);
    let named = named.map(|base| PathBuf::from(base.name));
    let base = config.model.base.clone().or(named);
    if let Some(name) = base.as_deref().and_then(ModelName::parse) {
        let reason =
            format!("the base of model.path = {}, {name}, is on the hub", folder.display());
        return Ok(ModelSource::Unknown(reason));
    }
    let ModelPlace { base, adapters } = ModelPlace::find(folder, config.model.base.as_deref())?;
    let model = ModelConfig::read(&base)?;
    if let Some(adapters) = adapters {
        adapters.check(&model)?;
    }
    let stored_bytes = stored_bytes(&base, &model)?;
    Ok(ModelSource::Known(Box::new(ModelFacts {
        config: model,
        stored_bytes,
        compute_bytes: if compute.kind == Kind::Float { 4 } else { 2 },
        packed,
        on_host: compute.device == Device::Cpu,
    })))
}

/// Returns the problem of making a prompt, as a rollout makes it: chat templates can fail for a conversation.
fn prompt_problem(config: &Config) -> anyhow::Result<Option<Problem>> {
    let place = ModelPlace::find(&config.model.path, config.model.base.as_deref())?;
    if !place.folder_with("tokenizer.json").join("tokenizer.json").is_file() {
        return Ok(None);
    }
    let chat_date = settings::model::model(config).chat_date;
    let tokenizer = read_tokenizer(&place, chat_date);
    let prompt =
        tokenizer.and_then(|tokenizer| settings::questions::prompts(config).template(&tokenizer));
    let Err(error) = prompt else { return Ok(None) };
    Ok(Some(Problem::of_value(
        "model.path",
        format!("{:?}", config.model.path.display().to_string()),
        format!("gives no prompt with `data.chat` = {}: {error:#}", config.data.chat),
    )))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::golden;

    /// Returns a folder with a recorded model, a tokenizer and these files.
    fn model(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let recorded = golden::path("llama-tiny-tied");
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(recorded.join(name), folder.path().join(name)).unwrap();
        }
        let tokenizer = r#"{"version": "1.0", "added_tokens": [], "model":
            {"type": "WordLevel", "vocab": {"<unk>": 0, "</s>": 1}, "unk_token": "<unk>"}}"#;
        let config = r#"{"eos_token": "</s>"}"#;
        let own = [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)];
        for (name, text) in own.iter().chain(files) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// Returns the refusal of `lint` for a model with these files, or an empty text.
    fn refusal(files: &[(&str, &str)], more: &[&str]) -> String {
        let folder = model(files);
        let path = format!("model.path={}", folder.path().display());
        let mut settings = vec![path, "rollout.max_prompt_tokens=64".to_owned()];
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        let config = Config::load(None, &Environment::new(), &settings).unwrap();
        let options = LintOptions { as_json: false, searches: Searches::None };
        let linted = lint(&config, options, &mut Vec::new());
        linted.err().map_or_else(String::new, |error| format!("{error:#}"))
    }

    #[test]
    fn a_chat_template_that_fails_is_refused_before_training() {
        let named = r#"{"eos_token": "</s>", "chat_template": [{"name": "rag", "template": "x"}]}"#;
        let raises =
            "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}";
        for (file, text, part) in [
            ("chat_template.jinja", raises, "no system"),
            (
                "chat_template.jinja",
                "{{ messages | random }}",
                "not supported: the filter 'random'",
            ),
            ("chat_template.jinja", "{{ messages[0].content + 1 }}", "can only concatenate str"),
            ("chat_template.jinja", "{% if %}", "syntax error"),
            ("chat_template.jinja", "", "leaves the question out"),
            (
                "chat_template.jinja",
                "{% for part in messages[0].content %}{{ part.text }}{% endfor %}",
                "leaves the question out: of \"Who wrote Hamlet?\" it makes \"\"",
            ),
            ("tokenizer_config.json", named, "none named \"default\": rag"),
        ] {
            let message = refusal(&[(file, text)], &[]);
            assert!(message.contains("`model.path` = "), "{message}");
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(refusal(&[("chat_template.jinja", "{{ messages[0].content }}")], &[]), "");
        assert_eq!(refusal(&[], &[]), "", "a base model");
        // Without the template nothing fails.
        assert_eq!(refusal(&[("chat_template.jinja", raises)], &["data.chat=false"]), "");
        assert_eq!(refusal(&[("tokenizer_config.json", named)], &["data.chat=false"]), "");
    }
}
