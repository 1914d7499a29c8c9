//! `reranker.toml`, the optional settings next to a cross-encoder.

use std::path::{Path, PathBuf};

use crate::encode::EncodeError;
use crate::encode::settings::{self, SettingsReader};

/// The name of the file.
pub const SETTINGS_FILE: &str = "reranker.toml";

const DEFAULT_MAX_TOKENS: usize = 512;
const KEYS: [&str; 4] = ["score", "max_tokens", "model", "tokenizer"];

/// The function from the model's logit to the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreScale {
    /// Keeps the logit, or the difference of two.
    Logit,
    /// Computes 1 / (1 + e^−logit), from 0 to 1.
    Sigmoid,
}

impl ScoreScale {
    const NAMES: [(&'static str, Self); 2] = [("logit", Self::Logit), ("sigmoid", Self::Sigmoid)];

    /// Returns the score of a logit.
    pub fn score(self, logit: f32) -> f32 {
        match self {
            Self::Logit => logit,
            Self::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        }
    }
}

/// The settings for scoring pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossEncoderSettings {
    /// The function from logit to score.
    pub scale: ScoreScale,
    /// The most tokens of a pair, including special tokens. The longer text is cut first.
    pub max_tokens: usize,
    /// The ONNX file.
    pub model: PathBuf,
    /// The tokenizer.
    pub tokenizer: PathBuf,
}

impl CrossEncoderSettings {
    /// Reads the file in `folder`, or returns the defaults if it is missing. The error names every
    /// invalid key.
    pub fn load(folder: &Path) -> Result<Self, EncodeError> {
        let path = folder.join(SETTINGS_FILE);
        let text = settings::read(&path)?.unwrap_or_default();
        Self::parse(&text, folder).map_err(|faults| EncodeError::Settings { path, faults })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let table = settings::table(text)?;
        let mut reader = SettingsReader::new(&table, &KEYS);
        let settings = Self {
            scale: reader.choice("score", &ScoreScale::NAMES).unwrap_or(ScoreScale::Logit),
            max_tokens: reader.tokens("max_tokens").unwrap_or(DEFAULT_MAX_TOKENS),
            model: folder.join(reader.text("model").unwrap_or("model.onnx")),
            tokenizer: folder.join(reader.text("tokenizer").unwrap_or("tokenizer.json")),
        };
        reader.finish(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_default() {
        let expected = CrossEncoderSettings {
            scale: ScoreScale::Logit,
            max_tokens: 512,
            model: PathBuf::from("m/model.onnx"),
            tokenizer: PathBuf::from("m/tokenizer.json"),
        };
        assert_eq!(CrossEncoderSettings::parse("", Path::new("m")).unwrap(), expected);
        assert_eq!(CrossEncoderSettings::load(Path::new("/nowhere")).unwrap().max_tokens, 512);
        let settings =
            CrossEncoderSettings::parse("score = 'sigmoid'\nmax_tokens = 64", Path::new("m"));
        assert_eq!(
            settings.unwrap(),
            CrossEncoderSettings { scale: ScoreScale::Sigmoid, max_tokens: 64, ..expected }
        );
    }

    #[test]
    fn every_fault_names_key_value_and_what_is_accepted() {
        let faults =
            CrossEncoderSettings::parse("scor = 1\nscore = 'tanh'\nmax_tokens = 4", Path::new("m"));
        let expected = [
            "scor = 1: unknown key, did you mean score? accepted keys are score, max_tokens, \
             model, tokenizer",
            r#"score = "tanh": expected "logit" or "sigmoid""#,
            "max_tokens = 4: expected an integer from 8 to 8192",
        ];
        assert_eq!(faults.unwrap_err(), expected);
    }

    #[test]
    fn a_sigmoid_is_between_0_and_1() {
        let scores = [-200.0, -1.0, 0.0, 1.0, 200.0].map(|logit| ScoreScale::Sigmoid.score(logit));
        assert!(scores.is_sorted() && scores[0] >= 0.0 && scores[4] <= 1.0, "{scores:?}");
        assert!((scores[2] - 0.5).abs() < 1e-7, "{scores:?}");
        assert!((ScoreScale::Logit.score(-3.5) + 3.5).abs() < 1e-7);
    }
}
