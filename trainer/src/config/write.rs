//! The configuration as text: the resolved one for the run directory, the reference page, and the
//! trainer's part of `.env.example`.

use std::fmt::Write as _;

use shared::contract::env_example::{self, Entry};

use super::environment::LOG;
use super::load::parse_text;
use super::section::Section;
use super::sections::Config;
use super::value::RawValue;

impl Config {
    /// Returns the configuration as TOML that reads back to the same values. Every key has its meaning as a
    /// comment, and keys that are not set are commented out.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in self.sections() {
            if !section.name().is_empty() {
                let _ = write!(text, "\n# {}\n[{}]\n", section.meaning(), section.name());
            }
            for spec in section.keys() {
                let _ = writeln!(text, "# {}", spec.meaning);
                let _ = match section.shown(spec.key) {
                    Some(value) => writeln!(text, "{} = {value}", spec.key),
                    None => writeln!(text, "# {} =", spec.key),
                };
            }
        }
        text
    }

    /// Returns tables of all keys in Markdown, one for each section, and one for the variable that sets no key.
    pub fn reference_markdown() -> String {
        let config = Self::default();
        let mut text = String::new();
        for section in config.sections() {
            let _ = write!(
                text,
                "### {}\n\n{}\n\n| key | variable | default | unit | takes | meaning |\n\
                 |---|---|---|---|---|---|\n",
                title(section),
                section.meaning()
            );
            for spec in section.keys() {
                let variable = spec.variable();
                let default =
                    spec.default.map_or_else(|| "not set".to_owned(), |d| format!("`{d}`"));
                let _ = writeln!(
                    text,
                    "| `{}` | `{variable}` | {default} | {} | {} | {} |",
                    spec.key,
                    spec.unit,
                    escaped(&spec.accepts),
                    escaped(&spec.meaning)
                );
            }
            text.push('\n');
        }
        let _ = write!(
            text,
            "### Without a key\n\nAn environment variable that sets no key.\n\n\
             | variable | default | takes | meaning |\n|---|---|---|---|\n\
             | `{}` | `{}` | {} | {} |\n",
            LOG.name, LOG.default, LOG.accepts, LOG.meaning
        );
        text
    }

    /// Returns every variable as `.env.example` shows it, with a heading for each section.
    pub fn reference_env() -> String {
        let mut text = String::new();
        for section in Self::default().sections() {
            let heading = format!("--- {}: {} ---", title(section), section.meaning());
            let _ = writeln!(text, "{}", env_example::comment(&heading));
            for spec in section.keys() {
                let entry = env_example::entry(&Entry {
                    name: &spec.variable(),
                    meaning: &spec.meaning,
                    unit: spec.unit,
                    accepts: &spec.accepts,
                    default: &spec.default.as_deref().map(bare).unwrap_or_default(),
                });
                let _ = writeln!(text, "{entry}");
            }
        }
        let _ = writeln!(text, "# --- Without a key ---\n");
        text.push_str(&env_example::entry(&Entry {
            name: LOG.name,
            meaning: LOG.meaning,
            unit: "",
            accepts: LOG.accepts,
            default: LOG.default,
        }));
        text
    }
}

fn title(section: &dyn Section) -> String {
    match section.name() {
        "" => "Before the first section".to_owned(),
        name => format!("`[{name}]`"),
    }
}

/// Returns a TOML value as an environment variable holds it: a string without its quotes.
fn bare(toml: &str) -> String {
    match parse_text(toml) {
        RawValue::Text(text) => text,
        _ => toml.to_owned(),
    }
}

/// Escapes bars, which would end the cell of a table.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|")
}
