//! `retriever.toml`, which is next to a model and defines how its vectors are computed. A preset sets
//! the values of a family of models, and every key can be set separately.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::EncodeError;

/// The name of the file.
pub const SETTINGS_FILE: &str = "retriever.toml";

/// The accepted limits for the tokens of a text, including special tokens. Fewer would leave no space
/// for words, and no model accepts more.
const TOKENS_RANGE: std::ops::RangeInclusive<usize> = 8..=8192;
const DEFAULT_MAX_QUERY_TOKENS: usize = 256;
const DEFAULT_MAX_PASSAGE_TOKENS: usize = 180;

const KEYS: [&str; 9] = [
    "preset",
    "pooling",
    "normalize",
    "query_prefix",
    "passage_prefix",
    "max_query_tokens",
    "max_passage_tokens",
    "model",
    "tokenizer",
];

/// The method of turning the vectors of a text's tokens into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Takes their mean.
    Mean,
    /// Takes the first, which belongs to the token `[CLS]`.
    Cls,
    /// Takes the model's output `pooler_output`, which the model computes from the first.
    Pooler,
}

impl Pooling {
    const NAMES: [(&'static str, Self); 3] =
        [("mean", Self::Mean), ("cls", Self::Cls), ("pooler", Self::Pooler)];
}

/// The values with which a family of models was trained.
#[derive(Clone, Copy)]
struct Preset {
    name: &'static str,
    pooling: Pooling,
    query_prefix: &'static str,
    passage_prefix: &'static str,
}

impl Preset {
    const fn plain(name: &'static str) -> Self {
        Self { name, pooling: Pooling::Mean, query_prefix: "", passage_prefix: "" }
    }
}

/// The presets, as published by the authors of the models.
const PRESETS: [Preset; 5] = [
    Preset { query_prefix: "query: ", passage_prefix: "passage: ", ..Preset::plain("e5") },
    Preset {
        pooling: Pooling::Cls,
        query_prefix: "Represent this sentence for searching relevant passages: ",
        ..Preset::plain("bge")
    },
    Preset::plain("contriever"),
    Preset::plain("minilm"),
    Preset::plain("gte"),
];

/// The settings for turning texts into vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderSettings {
    /// The method of pooling.
    pub pooling: Pooling,
    /// `true` to scale vectors to length 1.
    pub normalize: bool,
    /// The text to put before a query.
    pub query_prefix: String,
    /// The text to put before a passage.
    pub passage_prefix: String,
    /// The most tokens of a query, including special tokens. Longer queries are cut.
    pub max_query_tokens: usize,
    /// The most tokens of a passage, including special tokens. Longer passages are cut.
    pub max_passage_tokens: usize,
    /// The ONNX file.
    pub model: PathBuf,
    /// The tokenizer.
    pub tokenizer: PathBuf,
}

impl EncoderSettings {
    /// Reads the file in `folder`. The error names every invalid key.
    pub fn load(folder: &Path) -> Result<Self, EncodeError> {
        let path = folder.join(SETTINGS_FILE);
        let Some(text) = read(&path)? else { return Err(EncodeError::NoSettings { path }) };
        Self::parse(&text, folder).map_err(|faults| EncodeError::Settings { path, faults })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let table = table(text)?;
        let mut reader = SettingsReader::new(&table, &KEYS);
        let names = PRESETS.map(|preset| (preset.name, preset));
        let preset = reader.choice("preset", &names);
        let pooling = reader.choice("pooling", &Pooling::NAMES);
        if !table.contains_key("preset") && !table.contains_key("pooling") {
            let presets = alternatives(&PRESETS.map(|preset| preset.name));
            reader.faults.push(format!(
                "neither preset nor pooling is set, expected preset = {presets}, or pooling"
            ));
        }
        let preset = preset.unwrap_or(Preset::plain("none"));
        let settings = Self {
            pooling: pooling.unwrap_or(preset.pooling),
            normalize: reader.flag("normalize").unwrap_or(true),
            query_prefix: reader.text("query_prefix").unwrap_or(preset.query_prefix).to_owned(),
            passage_prefix: reader
                .text("passage_prefix")
                .unwrap_or(preset.passage_prefix)
                .to_owned(),
            max_query_tokens: reader.tokens("max_query_tokens").unwrap_or(DEFAULT_MAX_QUERY_TOKENS),
            max_passage_tokens: reader
                .tokens("max_passage_tokens")
                .unwrap_or(DEFAULT_MAX_PASSAGE_TOKENS),
            model: folder.join(reader.text("model").unwrap_or("model.onnx")),
            tokenizer: folder.join(reader.text("tokenizer").unwrap_or("tokenizer.json")),
        };
        reader.finish(settings)
    }
}

/// Reads the text of a file of settings. Returns `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, EncodeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EncodeError::Io { path: path.to_owned(), source }),
    }
}

/// Parses a file of settings. Text that is not TOML is its only fault.
pub(super) fn table(text: &str) -> Result<Table, Vec<String>> {
    text.parse().map_err(|error: toml::de::Error| {
        vec![format!("is not TOML: {}", error.to_string().trim_end())]
    })
}

/// A reader of the keys of a table, which collects their faults.
pub(super) struct SettingsReader<'a> {
    table: &'a Table,
    faults: Vec<String>,
}

impl<'a> SettingsReader<'a> {
    /// Starts reading, and collects a fault for every key that is not in `keys`.
    pub(super) fn new(table: &'a Table, keys: &[&str]) -> Self {
        let mut reader = Self { table, faults: Vec::new() };
        reader.refuse_unknown(keys);
        reader
    }

    /// Returns the settings, or all faults if there are any.
    pub(super) fn finish<T>(self, settings: T) -> Result<T, Vec<String>> {
        if self.faults.is_empty() { Ok(settings) } else { Err(self.faults) }
    }

    fn refuse_unknown(&mut self, keys: &[&str]) {
        for (key, value) in self.table.iter().filter(|(key, _)| !keys.contains(&key.as_str())) {
            let nearest = keys
                .iter()
                .max_by(|left, right| strsim::jaro(left, key).total_cmp(&strsim::jaro(right, key)));
            let nearest = nearest.expect("every file of settings has keys");
            self.faults.push(format!(
                "{key} = {value}: unknown key, did you mean {nearest}? accepted keys are {}",
                keys.join(", ")
            ));
        }
    }

    /// Returns the value of a key as `parse` converts it. If `parse` returns `None`, that is a fault,
    /// whose text names the `accepted` values.
    fn take<T>(
        &mut self,
        key: &str,
        accepted: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.faults.push(format!("{key} = {value}: expected {accepted}"));
        }
        parsed
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.take(key, &alternatives(&names), |value| {
            let entry = choices.iter().find(|(name, _)| Some(*name) == value.as_str());
            entry.map(|(_, choice)| *choice)
        })
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        self.take(key, "a quoted string", Value::as_str)
    }

    pub(super) fn tokens(&mut self, key: &str) -> Option<usize> {
        let accepted =
            format!("an integer from {} to {}", TOKENS_RANGE.start(), TOKENS_RANGE.end());
        self.take(key, &accepted, |value| {
            let number = usize::try_from(value.as_integer()?).ok()?;
            TOKENS_RANGE.contains(&number).then_some(number)
        })
    }
}

/// Joins names as in `"a", "b" or "c"`.
fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EncoderSettings, Vec<String>> {
        EncoderSettings::parse(text, Path::new("models/one"))
    }

    #[test]
    fn a_preset_is_enough_for_a_model() {
        let e5 = EncoderSettings {
            pooling: Pooling::Mean,
            normalize: true,
            query_prefix: "query: ".to_owned(),
            passage_prefix: "passage: ".to_owned(),
            max_query_tokens: 256,
            max_passage_tokens: 180,
            model: PathBuf::from("models/one/model.onnx"),
            tokenizer: PathBuf::from("models/one/tokenizer.json"),
        };
        assert_eq!(parse("preset = 'e5'").unwrap(), e5);
        let bge = parse("preset = 'bge'").unwrap();
        assert_eq!(bge.pooling, Pooling::Cls);
        assert!(bge.query_prefix.starts_with("Represent this sentence"), "{bge:?}");
        assert_eq!(bge.passage_prefix, "");
        for name in ["contriever", "minilm", "gte"] {
            let plain = EncoderSettings {
                query_prefix: String::new(),
                passage_prefix: String::new(),
                ..e5.clone()
            };
            assert_eq!(parse(&format!("preset = '{name}'")).unwrap(), plain);
        }
    }

    #[test]
    fn a_key_wins_over_the_preset() {
        let text = "preset = 'e5'\npooling = 'pooler'\nnormalize = false\nquery_prefix = ''\n\
            max_query_tokens = 64\nmax_passage_tokens = 512\nmodel = 'int8.onnx'";
        let settings = parse(text).unwrap();
        assert_eq!(settings.pooling, Pooling::Pooler);
        assert!(!settings.normalize);
        assert_eq!([&settings.query_prefix, &settings.passage_prefix], ["", "passage: "]);
        assert_eq!([settings.max_query_tokens, settings.max_passage_tokens], [64, 512]);
        assert_eq!(settings.model, Path::new("models/one/int8.onnx"));
        assert_eq!(parse("pooling = 'cls'").unwrap().pooling, Pooling::Cls);
    }

    #[test]
    fn every_fault_names_key_value_and_what_is_accepted() {
        let text = "preset = 'e6'\npooling = 3\nnormalise = true\nnormalize = 'yes'\n\
            query_prefix = 1\nmax_query_tokens = 7\nmax_passage_tokens = -1\nmodel = []";
        let faults = parse(text).unwrap_err();
        let expected = [
            "normalise = true: unknown key, did you mean normalize? accepted keys are preset, \
             pooling, normalize, query_prefix, passage_prefix, max_query_tokens, \
             max_passage_tokens, model, tokenizer",
            r#"preset = "e6": expected "e5", "bge", "contriever", "minilm" or "gte""#,
            r#"pooling = 3: expected "mean", "cls" or "pooler""#,
            r#"normalize = "yes": expected true or false"#,
            "query_prefix = 1: expected a quoted string",
            "max_query_tokens = 7: expected an integer from 8 to 8192",
            "max_passage_tokens = -1: expected an integer from 8 to 8192",
            "model = []: expected a quoted string",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_file_without_preset_and_pooling_is_refused() {
        let faults = parse("normalize = true").unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("neither preset nor pooling is set"), "{faults:?}");
        let faults = parse("preset = ").unwrap_err();
        assert!(faults[0].starts_with("is not TOML"), "{faults:?}");
    }
}
