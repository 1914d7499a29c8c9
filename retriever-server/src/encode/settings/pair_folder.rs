//! The settings that a cross-encoder's folder states.

use std::path::{Path, PathBuf};

use super::json::read;
use super::saved::{MODEL_FILE, Saved, SavedKind};
use super::{ModelFiles, Positions, TokenizerSettings, default_model};

/// The settings of a folder.
#[derive(Debug, Default)]
pub(in crate::encode) struct PairFolder {
    /// The most tokens of a pair, with the key that states them for the model.
    pub(in crate::encode) max_tokens: Option<(usize, Option<&'static str>)>,
    pub(in crate::encode) positions: Option<Positions>,
    pub(in crate::encode) query_prefix: String,
    /// The function from logits to scores, a class of `torch.nn`, with the file and key that state it.
    pub(in crate::encode) activation: Option<(String, &'static str)>,
    pub(in crate::encode) model: PathBuf,
    pub(in crate::encode) tokenizer: TokenizerSettings,
}

impl PairFolder {
    /// Reads the folder. The error names what cannot be served.
    pub(in crate::encode) fn read(folder: &Path) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let saved = Saved::read(folder, SavedKind::CrossEncoder, &mut faults);
        let is_saved = saved.is_some();
        let saved =
            saved.unwrap_or_else(|| Saved { folder: folder.to_owned(), ..Saved::default() });
        let files = ModelFiles::read(&saved.folder, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let stated = saved
            .max_tokens
            .map(|tokens| (tokens, Some("sentence_bert_config.json: max_seq_length")));
        let usual = files.max_tokens.or(files.positions.map(|positions| positions.usable));
        let prompt = saved.default_prompt.and_then(|name| saved.prompts.get(&name).cloned());
        Ok(Self {
            max_tokens: stated.or(usual.map(|tokens| (tokens, None))),
            positions: files.positions,
            query_prefix: prompt.unwrap_or_default(),
            activation: activation(folder, &saved.folder),
            model: default_model(folder, &saved.folder),
            tokenizer: TokenizerSettings {
                path: saved.folder.join("tokenizer.json"),
                lowercases: saved.lowercases,
                bert: files.bert.filter(|_| is_saved),
                append: None,
                cuts_left: files.cuts_left,
                padding: files.padding,
            },
        })
    }
}

/// Returns the function that the folder states, in the order in which sentence-transformers 6.2 looks for it: in its
/// own file, in that of the model, and under the name of the versions before 4. It does not trust other classes than
/// those of torch, and takes none.
fn activation(folder: &Path, model_folder: &Path) -> Option<(String, &'static str)> {
    let own = read(&folder.join(MODEL_FILE)).ok().flatten().unwrap_or_default();
    let model = read(&model_folder.join("config.json")).ok().flatten().unwrap_or_default();
    let places = [
        (&own["activation_fn"], "config_sentence_transformers.json: activation_fn"),
        (
            &model["sentence_transformers"]["activation_fn"],
            "config.json: sentence_transformers.activation_fn",
        ),
        (
            &model["sbert_ce_default_activation_function"],
            "config.json: sbert_ce_default_activation_function",
        ),
    ];
    let mut stated = places.into_iter().filter_map(|(value, key)| Some((value.as_str()?, key)));
    let (name, key) = stated.find(|(name, _)| name.starts_with("torch."))?;
    Some((name.to_owned(), key))
}
