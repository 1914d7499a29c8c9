//! Checks of the keys for servers that sample.

use shared::contract::client::listed;

use super::{KeyConflict, conflict, has_http_scheme};
use crate::config::value::quoted;
use crate::config::{Config, EngineConfig, EngineKind};

impl EngineConfig {
    /// Returns the addresses of the servers, in order.
    pub fn addresses(&self) -> Vec<String> {
        listed(&self.urls).map(str::to_owned).collect()
    }
}

pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let engine = &config.engine;
    let mut conflicts = Vec::new();
    if engine.kind == EngineKind::Builtin {
        return conflicts;
    }
    let addresses = engine.addresses();
    if addresses.is_empty() {
        conflicts.push(conflict(
            "engine.urls",
            &quoted(&engine.urls),
            format!("names no server, which `engine.kind` = \"{}\" needs", engine.kind),
            Some(quoted("http://127.0.0.1:8000")),
        ));
    }
    if let Some(wrong) = addresses.iter().find(|address| !has_http_scheme(address)) {
        conflicts.push(conflict(
            "engine.urls",
            &quoted(&engine.urls),
            format!("{} does not begin with http:// or https://", quoted(wrong)),
            None,
        ));
    }
    if engine.attempt_timeout_ms > engine.deadline_ms {
        conflicts.push(conflict(
            "engine.attempt_timeout_ms",
            &engine.attempt_timeout_ms,
            format!("is longer than `engine.deadline_ms` = {}", engine.deadline_ms),
            Some(engine.deadline_ms.to_string()),
        ));
    }
    conflicts
}

pub(super) fn warnings(config: &Config) -> Vec<String> {
    let kind = config.engine.kind;
    let mut warnings = Vec::new();
    if kind == EngineKind::Builtin {
        return warnings;
    }
    if config.algorithm.importance_most == 0.0 {
        warnings.push(format!(
            "`algorithm.importance_most` = 0 with `engine.kind` = \"{kind}\": nothing corrects for the \
             server's rounding of probabilities; set it to 2"
        ));
    }
    if kind == EngineKind::Vllm && (config.rollout.temperature - 1.0).abs() > 1e-9 {
        warnings.push(format!(
            "`rollout.temperature` = {} with `engine.kind` = \"vllm\": vLLM returns log-probs before the \
             temperature unless it was started with --logprobs-mode processed_logprobs",
            config.rollout.temperature
        ));
    }
    if config.deterministic {
        warnings.push(format!(
            "`deterministic` = true with `engine.kind` = \"{kind}\": the samples of a server may depend \
             on its other work"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    fn load(settings: &[&str]) -> Result<Config, String> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::load(None, &Environment::new(), &settings).map_err(|error| error.to_string())
    }

    #[test]
    fn servers_need_addresses() {
        for (urls, part) in [("", "names no server"), (",", "names no server"), ("h:1", "\"h:1\"")]
        {
            let urls = format!("engine.urls=\"{urls}\"");
            let error = load(&["engine.kind=vllm", &urls]).unwrap_err();
            assert!(error.contains("engine.urls") && error.contains(part), "{error}");
            load(&[&urls]).unwrap();
        }
        let config =
            load(&["engine.kind=sglang", "engine.urls=\"http://a, https://b:1/\""]).unwrap();
        assert_eq!(config.engine.addresses(), ["http://a", "https://b:1/"]);
        let error = load(&["engine.kind=vllm", "engine.urls=http://a", "engine.deadline_ms=9"])
            .unwrap_err();
        assert!(error.contains("engine.attempt_timeout_ms"), "{error}");
    }

    #[test]
    fn effects_of_a_server_cause_warnings() {
        let settings = ["engine.urls=http://a", "deterministic=true", "rollout.temperature=0.7"];
        let count = |kind: &str, more: &str| {
            let kind = format!("engine.kind={kind}");
            let all = [&settings[..], &[&kind, more]].concat();
            let warnings = load(&all).unwrap().warnings();
            warnings.iter().filter(|warning| warning.contains("engine.kind")).count()
        };
        assert_eq!(count("builtin", "algorithm.importance_most=0"), 0);
        assert_eq!(count("vllm", "algorithm.importance_most=0"), 3);
        assert_eq!(count("vllm", "algorithm.importance_most=2"), 2);
        assert_eq!(count("sglang", "algorithm.importance_most=2"), 1);
    }
}
