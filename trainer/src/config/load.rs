//! Reading of a configuration: a preset, a file, the environment and `--set` arguments, each of which
//! overrides those before it. All problems are collected and reported together.

use std::collections::HashMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::choice::Preset;
use super::environment::{self, Environment};
use super::problem::{ConfigError, Origin, Problem, ProblemKind};
use super::renamed::{self, OldName, WrittenKey};
use super::section::{KeySpec, Section, joined};
use super::sections::Config;
use super::value::{RawValue, nearest_word};
use super::{key_table, presets, relations};

/// A configuration that is being read.
#[derive(Debug, Default)]
struct Loader {
    config: Config,
    origins: HashMap<String, Origin>,
    problems: Vec<Problem>,
    old_names: Vec<OldName>,
    /// The names that the current source gave to its keys, by their current names.
    names_in_source: HashMap<String, String>,
}

/// A checked configuration and the old names that its sources use.
#[derive(Debug)]
pub struct LoadedConfig {
    pub config: Config,
    pub old_names: Vec<OldName>,
}

impl Config {
    /// Reads a configuration as [`LoadedConfig::load`] does, and ignores which names were old.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        LoadedConfig::load(file, environment, overrides).map(|loaded| loaded.config)
    }
}

impl LoadedConfig {
    /// Reads `file` if there is one, then applies the variables of `environment`, then `overrides`
    /// (each `key=value`) in order.
    ///
    /// # Errors
    /// A file that cannot be read, or every problem in the sources.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?,
            ),
            None => None,
        };
        let source = match (file, &text) {
            (Some(path), Some(text)) => Some((path, text.as_str())),
            _ => None,
        };
        Self::from_source(source, environment, overrides)
    }

    /// Does the same for a text that has been read; its path is for messages.
    pub(super) fn from_source(
        source: Option<(&Path, &str)>,
        environment: &Environment,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        // Any source may name the preset, and all sources override it: they are read a second time over it.
        let mut loader = Loader::default();
        loader.read(source, environment, overrides);
        let preset = loader.config.preset;
        if preset != Preset::None {
            loader = Loader::default();
            loader.read_preset(preset);
            loader.read(source, environment, overrides);
        }
        // Conflicts between values that are already wrong would only add noise.
        if loader.problems.is_empty() {
            let conflicts = relations::conflicts(&loader.config);
            loader.problems = conflicts
                .into_iter()
                .map(|(key, kind)| Problem { origin: loader.origin(key), kind })
                .collect();
        }
        if loader.problems.is_empty() {
            Ok(Self { config: loader.config, old_names: loader.old_names })
        } else {
            Err(ConfigError::Invalid(loader.problems))
        }
    }
}

impl Loader {
    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Reads all sources, each over the ones before.
    fn read(
        &mut self,
        source: Option<(&Path, &str)>,
        environment: &Environment,
        overrides: &[String],
    ) {
        if let Some((path, text)) = source {
            self.read_file(path, text);
        }
        self.names_in_source.clear();
        self.read_environment(environment);
        self.names_in_source.clear();
        for argument in overrides {
            self.read_override(argument);
        }
    }

    fn read_preset(&mut self, preset: Preset) {
        for (path, value) in presets::values(preset) {
            let key = WrittenKey::of_path(path);
            self.set(&key, &parse_text(value), Origin::Preset(preset.as_str()));
        }
        self.names_in_source.clear();
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let at =
            |offset: usize| Origin::File { path: path.to_owned(), line: line_at(text, offset) };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // The content of a broken document is a guess: report only the syntax errors.
            self.problems.extend(errors.iter().map(|error| Problem {
                origin: at(error.span().map_or(0, |span| span.start)),
                kind: ProblemKind::Syntax(format!("not TOML: {}", error.message())),
            }));
            return;
        }
        let mut entries = Vec::new();
        for (name, value) in document.get_ref() {
            let name_origin = at(name.span().start);
            let section = renamed::current_section(name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if self.config.section(section).is_some() => {
                    entries.extend(table.iter().map(|(key, value)| {
                        let path = joined(name.get_ref(), key.get_ref());
                        let raw = RawValue::from_toml(value.get_ref());
                        (key.span().start, at(key.span().start), path, raw)
                    }));
                }
                DeValue::Table(_) => self.unknown_section(name.get_ref(), name_origin),
                other => {
                    let raw = RawValue::from_toml(other);
                    entries.push((name.span().start, name_origin, name.get_ref().to_string(), raw));
                }
            }
        }
        // The parser sorts keys; messages follow the file.
        entries.sort_by_key(|(offset, ..)| *offset);
        for (_, origin, key, raw) in entries {
            self.set(&WrittenKey::of_path(&key), &raw, origin);
        }
    }

    fn read_environment(&mut self, environment: &Environment) {
        for spec in key_table() {
            for name in renamed::old_variables(&spec).chain([spec.variable()]) {
                if let Some(value) = environment::value_of(environment, &name) {
                    let key = WrittenKey::of_variable(&spec, name.clone());
                    self.set(&key, &parse_text(value), Origin::Variable(name));
                }
            }
        }
        if let Err(ConfigError::Invalid(problems)) = environment::log_filter(environment) {
            self.problems.extend(problems);
        }
    }

    fn read_override(&mut self, argument: &str) {
        let origin = Origin::Argument(format!("--set {argument}"));
        let Some((key, text)) = argument.split_once('=') else {
            let kind = ProblemKind::Syntax("expected key=value".to_owned());
            self.problems.push(Problem { origin, kind });
            return;
        };
        let raw = parse_text(text.trim());
        self.set(&WrittenKey::of_path(key.trim()), &raw, origin);
    }

    fn set(&mut self, written: &WrittenKey, raw: &RawValue, origin: Origin) {
        let path = written.path.as_str();
        let (section_name, key) = path.split_once('.').unwrap_or(("", path));
        let outcome = match self.config.section_mut(section_name) {
            Some(section) => section.set(key, raw),
            None => None,
        };
        if outcome.is_some() {
            self.note_name(written, &origin);
        }
        match outcome {
            Some(Ok(())) => {
                self.origins.insert(path.to_owned(), origin);
            }
            Some(Err(rejection)) => {
                let specs = key_table();
                let spec = specs
                    .iter()
                    .find(|spec| spec.path() == path)
                    .expect("a section lists every key that it sets");
                let kind = ProblemKind::WrongValue {
                    key: path.to_owned(),
                    value: raw.shown(),
                    accepts: spec.accepts.clone(),
                    nearest: rejection.nearest,
                };
                self.problems.push(Problem { origin, kind });
            }
            None => {
                let kind = if self.config.section(path).is_some() {
                    ProblemKind::SectionNotKey { section: path.to_owned() }
                } else {
                    let nearest = nearest_keys(path, &key_table());
                    ProblemKind::UnknownKey { key: written.written.clone(), nearest }
                };
                self.problems.push(Problem { origin, kind });
            }
        }
    }

    /// Records the use of an old name, and refuses a source that uses both names of one key.
    fn note_name(&mut self, key: &WrittenKey, origin: &Origin) {
        let WrittenKey { path, written, current } = key;
        if let Some(earlier) = self.names_in_source.insert(path.clone(), written.clone())
            && earlier != *written
        {
            let old = if written == current { earlier } else { written.clone() };
            let kind = ProblemKind::BothNames { old, current: current.clone() };
            self.problems.push(Problem { origin: origin.clone(), kind });
        } else if written != current {
            let (written, current) = (written.clone(), current.clone());
            self.old_names.push(OldName { origin: origin.clone(), written, current });
        }
    }

    fn unknown_section(&mut self, name: &str, origin: Origin) {
        let names = self.config.sections().into_iter().map(Section::name);
        let nearest = nearest_word(name, names.filter(|name| !name.is_empty()));
        let kind = ProblemKind::UnknownSection {
            section: name.to_owned(),
            nearest: nearest.map(str::to_owned),
        };
        self.problems.push(Problem { origin, kind });
    }
}

/// Returns the keys that `path` may be a misspelling of: those of the same name in other sections, or else the
/// one with the closest spelling.
fn nearest_keys(path: &str, specs: &[KeySpec]) -> Vec<String> {
    let key = path.rsplit_once('.').map_or(path, |(_, key)| key);
    let same_name: Vec<String> =
        specs.iter().filter(|spec| spec.key == key).map(KeySpec::path).collect();
    if !same_name.is_empty() {
        return same_name;
    }
    let paths: Vec<String> = specs.iter().map(KeySpec::path).collect();
    // A typing error within the right section is more likely than a better match elsewhere.
    if let Some((section, key)) = path.split_once('.') {
        let siblings = specs.iter().filter(|spec| spec.section == section).map(|spec| spec.key);
        if let Some(nearest) = nearest_word(key, siblings) {
            return vec![joined(section, nearest)];
        }
    }
    nearest_word(path, paths.iter().map(String::as_str))
        .or_else(|| nearest_word(key, specs.iter().map(|spec| spec.key)))
        .map(|nearest| {
            let spec = specs.iter().find(|spec| spec.path() == nearest || spec.key == nearest);
            spec.map_or_else(|| nearest.to_owned(), KeySpec::path)
        })
        .into_iter()
        .collect()
}

/// Parses a value of the command line or the environment: TOML if it parses as such, else plain text.
pub(super) fn parse_text(text: &str) -> RawValue {
    let document = format!("value = {text}");
    if let Ok(table) = DeTable::parse(&document)
        && table.get_ref().len() == 1
        && let Some(value) = table.get_ref().values().next()
    {
        return RawValue::from_toml(value.get_ref());
    }
    RawValue::Text(text.to_owned())
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
