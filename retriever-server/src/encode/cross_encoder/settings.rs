//! The settings of a cross-encoder: those of its folder, over which `reranker.toml` wins.

use std::path::{Path, PathBuf};

use crate::encode::EncodeError;
use crate::encode::settings::{self, Positions, SettingsReader, TokenLimit, TokenizerSettings};

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
    /// The limit of a pair. The longer text is cut first.
    pub max_tokens: TokenLimit,
    /// The positions of the model, if they are known. The limit is not over them.
    pub positions: Option<Positions>,
    /// The text to put before a query.
    pub query_prefix: String,
    /// The ONNX file.
    pub model: PathBuf,
    /// The tokenizer.
    pub tokenizer: TokenizerSettings,
}

impl CrossEncoderSettings {
    /// Reads the files in `folder`. Each of them may be missing. The error names every invalid key.
    pub fn load(folder: &Path) -> Result<Self, EncodeError> {
        let path = folder.join(SETTINGS_FILE);
        let text = settings::read(&path)?;
        let is_refused = |path: &Path| {
            let path = path.to_owned();
            move |faults| EncodeError::Settings { path, faults }
        };
        let base = settings::PairFolder::read(folder).map_err(is_refused(folder))?;
        let blamed = if text.is_some() { &path } else { folder };
        Self::parse(&text.unwrap_or_default(), folder, base).map_err(is_refused(blamed))
    }

    fn parse(text: &str, folder: &Path, base: settings::PairFolder) -> Result<Self, Vec<String>> {
        let table = settings::table(text)?;
        let mut reader = SettingsReader::new(&table, &KEYS);
        let given = reader.tokens("max_tokens");
        let (tokens, origin) = match (given, base.max_tokens) {
            (Some(tokens), _) => (tokens, Some("max_tokens")),
            (None, Some((tokens, origin))) => (tokens, origin),
            (None, None) => (DEFAULT_MAX_TOKENS, None),
        };
        let limit = settings::limit(&mut reader, tokens, origin, base.positions);
        let model = reader.text("model").map(|name| folder.join(name));
        let mut tokenizer = base.tokenizer;
        if let Some(name) = reader.text("tokenizer") {
            tokenizer.path = folder.join(name);
        }
        let stated = base.activation.as_ref();
        let stated = stated.map(|(name, key)| (name.rsplit('.').next().unwrap_or(name), key));
        let scale = match (reader.choice("score", &ScoreScale::NAMES), stated) {
            (Some(scale), _) => scale,
            (None, Some(("Sigmoid", _))) => ScoreScale::Sigmoid,
            (None, Some(("Identity", _)) | None) => ScoreScale::Logit,
            (None, Some((name, key))) => {
                reader.refuse(format!(
                    "{key} = {name:?}: expected Sigmoid or Identity of torch.nn, or a score in \
                     {SETTINGS_FILE}"
                ));
                ScoreScale::Logit
            }
        };
        let settings = Self {
            scale,
            max_tokens: TokenLimit { is_stated: given.is_some(), ..limit },
            positions: base.positions,
            query_prefix: base.query_prefix,
            model: model.unwrap_or(base.model),
            tokenizer,
        };
        reader.finish(settings)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<CrossEncoderSettings, Vec<String>> {
        let folder = Path::new("m");
        CrossEncoderSettings::parse(text, folder, settings::PairFolder::read(folder).unwrap())
    }

    /// Returns the limit of a folder with these files, or the error.
    fn limit(files: &[(&str, &str)]) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let settings = CrossEncoderSettings::load(folder.path());
        settings.map(|settings| settings.max_tokens.tokens).map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_has_a_default() {
        let expected = CrossEncoderSettings {
            scale: ScoreScale::Logit,
            max_tokens: TokenLimit { tokens: 512, is_stated: false },
            positions: None,
            query_prefix: String::new(),
            model: PathBuf::from("m/model.onnx"),
            tokenizer: TokenizerSettings {
                path: PathBuf::from("m/tokenizer.json"),
                ..TokenizerSettings::default()
            },
        };
        assert_eq!(parse("").unwrap(), expected);
        assert_eq!(limit(&[]), Ok(512));
        let max_tokens = TokenLimit { tokens: 64, is_stated: true };
        assert_eq!(
            parse("score = 'sigmoid'\nmax_tokens = 64").unwrap(),
            CrossEncoderSettings { scale: ScoreScale::Sigmoid, max_tokens, ..expected }
        );
    }

    /// The length is that of the model's own folder, as sentence-transformers 6.2 finds it.
    #[test]
    fn the_length_comes_from_the_folder() {
        let config =
            ("config.json", r#"{"model_type": "xlm-roberta", "max_position_embeddings": 8194}"#);
        let tokenizer = ("tokenizer_config.json", r#"{"model_max_length": 8192}"#);
        assert_eq!(limit(&[config, tokenizer]), Ok(8192));
        assert_eq!(limit(&[config]), Ok(8192));
        assert_eq!(limit(&[("tokenizer_config.json", r#"{"model_max_length": 1e30}"#)]), Ok(512));
        let modules = (
            "modules.json",
            r#"[{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]"#,
        );
        let stated = ("sentence_bert_config.json", r#"{"max_seq_length": 1024}"#);
        assert_eq!(limit(&[config, tokenizer, modules, stated]), Ok(1024));
        assert_eq!(limit(&[config, tokenizer, (SETTINGS_FILE, "max_tokens = 77")]), Ok(77));
        let refused = limit(&[config, (SETTINGS_FILE, "max_tokens = 8193")]).unwrap_err();
        let expected = "max_tokens = 8193: expected at most 8192, the positions of the model (of 8194 \
                        in config.json, the first 2 are not for tokens)";
        assert!(refused.contains(expected), "{refused}");
    }

    /// The function is that of the model's own folder, where sentence-transformers 6.2 looks for it.
    #[test]
    fn the_score_is_that_of_the_folder() {
        const OWN: &str = "config_sentence_transformers.json";
        let scale = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let settings = CrossEncoderSettings::load(folder.path());
            settings.map(|settings| settings.scale).map_err(|error| error.to_string())
        };
        let sigmoid = (OWN, r#"{"activation_fn": "torch.nn.modules.activation.Sigmoid"}"#);
        assert_eq!(scale(&[sigmoid]), Ok(ScoreScale::Sigmoid));
        let identity =
            r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}"#;
        assert_eq!(scale(&[("config.json", identity)]), Ok(ScoreScale::Logit));
        assert_eq!(scale(&[("config.json", identity), sigmoid]), Ok(ScoreScale::Sigmoid));
        let old =
            r#"{"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}"#;
        assert_eq!(scale(&[("config.json", old)]), Ok(ScoreScale::Sigmoid));
        let chosen = (SETTINGS_FILE, "score = 'logit'");
        assert_eq!(scale(&[sigmoid, chosen]), Ok(ScoreScale::Logit));
        let own_class = (OWN, r#"{"activation_fn": "my.package.Score"}"#);
        assert_eq!(scale(&[own_class]), Ok(ScoreScale::Logit));
        let tanh = (OWN, r#"{"activation_fn": "torch.nn.modules.activation.Tanh"}"#);
        let refused = scale(&[tanh]).unwrap_err();
        let expected =
            r#"config_sentence_transformers.json: activation_fn = "Tanh": expected Sigmoid or"#;
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(scale(&[tanh, chosen]), Ok(ScoreScale::Logit));
    }

    #[test]
    fn every_fault_names_key_value_and_what_is_accepted() {
        let faults = parse("scor = 1\nscore = 'tanh'\nmax_tokens = 4");
        let expected = [
            "scor = 1: unknown key, did you mean score? accepted keys are score, max_tokens, \
             model, tokenizer",
            "max_tokens = 4: expected an integer from 8 to 131072",
            r#"score = "tanh": expected "logit" or "sigmoid""#,
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
