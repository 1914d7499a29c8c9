//! The configuration as text: the resolved one for the run directory, and the reference page.

use std::fmt::Write as _;

use super::sections::Config;

impl Config {
    /// The resolved configuration as TOML that reads back to the same values; every key carries
    /// its meaning, and keys that are not set are left in as comments.
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

    /// Tables of all keys in Markdown, one a section.
    pub fn reference_markdown() -> String {
        let config = Self::default();
        let mut text = String::new();
        for section in config.sections() {
            let title = match section.name() {
                "" => "Before the first section".to_owned(),
                name => format!("`[{name}]`"),
            };
            let _ = write!(
                text,
                "### {title}\n\n{}\n\n| key | default | takes | meaning |\n|---|---|---|---|\n",
                section.meaning()
            );
            for spec in section.keys() {
                let default =
                    spec.default.map_or_else(|| "not set".to_owned(), |d| format!("`{d}`"));
                let _ = writeln!(
                    text,
                    "| `{}` | {default} | {} | {} |",
                    spec.key,
                    escaped(&spec.accepts),
                    escaped(&spec.meaning)
                );
            }
            text.push('\n');
        }
        text
    }
}

/// A bar would end the table's cell.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|")
}
