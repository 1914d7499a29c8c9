//! The programs that also get the metrics.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::tracking::{ServerSettings, TrackingSettings};

/// Returns the trackers of a run.
pub(crate) fn tracking(config: &Config) -> TrackingSettings {
    let tracking = &config.tracking;
    let server = |url: &str, token_file: &Option<PathBuf>| {
        (!url.is_empty()).then(|| ServerSettings {
            url: url.to_owned(),
            token_file: token_file.clone(),
            timeout: Duration::from_millis(tracking.timeout_ms),
        })
    };
    let folder = config.run_dir.file_name().map(|name| name.to_string_lossy().into_owned());
    TrackingSettings {
        tensorboard: tracking.tensorboard,
        wandb: tracking.wandb,
        mlflow: server(&tracking.mlflow_url, &tracking.mlflow_token_file),
        trackio: server(&tracking.trackio_url, &tracking.trackio_token_file),
        project: tracking.project.clone(),
        name: match tracking.name.as_str() {
            "" => folder.unwrap_or_else(|| "run".to_owned()),
            name => name.to_owned(),
        },
        parameters: parameters(&config.to_toml()),
    }
}

/// Returns every key of a configuration with its value as text.
fn parameters(config: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    for (key, value) in config.parse::<toml::Table>().unwrap_or_default() {
        match value {
            toml::Value::Table(section) => parameters.extend(
                section.into_iter().map(|(name, value)| (format!("{key}.{name}"), shown(&value))),
            ),
            value => parameters.push((key, shown(&value))),
        }
    }
    parameters
}

fn shown(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_a_parameter_under_its_dotted_name() {
        let parameters = parameters(&Config::default().to_toml());
        let has = |key: &str, value: &str| parameters.contains(&(key.to_owned(), value.to_owned()));
        assert!(has("seed", "0") && has("training.group_size", "8"), "{parameters:?}");
        assert!(has("tracking.project", "search-r1"), "{parameters:?}");
    }
}
