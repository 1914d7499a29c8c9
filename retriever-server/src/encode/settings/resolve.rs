//! The rules by which a value in `retriever.toml` wins over the saved folder, over the preset and over the
//! defaults.

use std::path::{Path, PathBuf};

use toml::Table;

use super::reader::{SettingsReader, alternatives};
use super::saved::{Saved, Similarity};
use super::{
    DEFAULT_MAX_PASSAGE_TOKENS, DEFAULT_MAX_QUERY_TOKENS, EncoderSettings, KEYS, ModelFiles,
    Padding, Pooling, Positions, TokenLimit, TokenizerSettings, UNLIMITED_TOKENS, default_model,
};

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

/// The length of a text before the model's own limits.
#[derive(Clone, Copy)]
struct Length {
    tokens: usize,
    /// The key that states the length, and its file; `None` for a default.
    origin: Option<&'static str>,
}

impl EncoderSettings {
    /// Resolves the settings of a folder. The faults name keys of `retriever.toml`, or of the file that
    /// they begin with.
    pub(super) fn parse(
        table: &Table,
        folder: &Path,
        saved: Option<Saved>,
        files: &ModelFiles,
    ) -> Result<Self, Vec<String>> {
        let mut reader = SettingsReader::new(table, &KEYS);
        let preset = reader.choice("preset", &PRESETS.map(|preset| (preset.name, preset)));
        let pooling =
            reader.choices("pooling", &Pooling::ALL.map(|pooling| (pooling.name(), pooling)));
        let is_saved = saved.is_some();
        let saved =
            saved.unwrap_or_else(|| Saved { folder: folder.to_owned(), ..Saved::default() });
        if !table.contains_key("pooling")
            && !table.contains_key("preset")
            && saved.pooling.is_empty()
        {
            let presets = alternatives(&PRESETS.map(|preset| preset.name));
            reader.refuse(format!(
                "neither preset nor pooling is set, expected preset = {presets}, or pooling"
            ));
        }
        let [query_prefix, passage_prefix] =
            prefixes(&mut reader, table, preset, is_saved.then_some(&saved));
        let dimension = reader.dimension("dimension");
        let normalize = reader.flag("normalize");
        let is_cosine = saved.similarity == Similarity::Cosine;
        if is_saved && normalize.is_none() && is_distance(&saved) {
            reader.refuse(format!(
                "config_sentence_transformers.json: similarity_fn_name = {:?}: expected \"cosine\" or \
                 \"dot\", or normalize in retriever.toml",
                format!("{:?}", saved.similarity).to_lowercase()
            ));
        }
        let [max_query_tokens, max_passage_tokens] =
            limits(&mut reader, is_saved.then_some(&saved), files);
        let path = |name: Option<&str>| name.map(|name| folder.join(name));
        let tokenizer = TokenizerSettings {
            path: path(reader.text("tokenizer")).unwrap_or_else(|| tokenizer(folder, &saved)),
            lowercases: saved.lowercases,
            bert: files.bert.filter(|_| is_saved),
            append: reader.text("append_token").map(str::to_owned),
            cuts_left: files.cuts_left,
            padding: files.padding.clone(),
        };
        let notes = notes(&saved, table, files);
        let settings = Self {
            pooling: pooling.unwrap_or(match preset {
                Some(preset) => vec![preset.pooling],
                None => saved.pooling,
            }),
            leaves_out_prompt: saved.leaves_out_prompt,
            modules: saved.modules,
            dimension: dimension.or(saved.dimension),
            normalize: normalize.unwrap_or(!is_saved || is_cosine || dimension.is_some()),
            query_prefix,
            passage_prefix,
            max_query_tokens,
            max_passage_tokens,
            positions: files.positions,
            model: path(reader.text("model"))
                .unwrap_or_else(|| default_model(folder, &saved.folder)),
            output: reader.text("output").map(str::to_owned),
            pads_left: reader
                .choice("padding", &[("left", true), ("right", false)])
                .map_or(Padding::OfTokenizer(files.pads_left), Padding::Stated),
            tokenizer,
            notes,
        };
        reader.finish(settings)
    }
}

/// Returns the texts to put before a query and before a passage.
fn prefixes(
    reader: &mut SettingsReader<'_>,
    table: &Table,
    preset: Option<Preset>,
    saved: Option<&Saved>,
) -> [String; 2] {
    let usual = if let Some(saved) = saved {
        [Side::Query, Side::Passage].map(|side| prompt(reader, saved, side))
    } else {
        for key in ["query_prompt", "passage_prompt"] {
            if let Some(value) = table.get(key) {
                reader.refuse(format!(
                    "{key} = {value}: expected no such key without prompts of sentence-transformers and \
                     beside a preset, query_prefix and passage_prefix hold texts"
                ));
            }
        }
        let preset = preset.unwrap_or(Preset::plain("none"));
        [preset.query_prefix, preset.passage_prefix].map(str::to_owned)
    };
    let given = ["query_prefix", "passage_prefix"].map(|key| reader.text(key).map(str::to_owned));
    let [[given_query, given_passage], [query, passage]] = [given, usual.map(Some)];
    [given_query.or(query), given_passage.or(passage)].map(Option::unwrap_or_default)
}

/// Returns what a user may not expect of a folder.
fn notes(saved: &Saved, table: &Table, files: &ModelFiles) -> Vec<String> {
    let mut notes = Vec::new();
    note_prompts(saved, table, &mut notes);
    if files.adds_end {
        notes.push(
            "add_eos_token in tokenizer_config.json has no effect: tokenizer.json decides which \
             tokens a text gets, as in transformers 5; append_token in retriever.toml adds one"
                .to_owned(),
        );
    }
    notes
}

/// A role of a text.
#[derive(Clone, Copy)]
enum Side {
    Query,
    Passage,
}

/// Returns the prompt of a role: that of `encode_query` or `encode_document` in sentence-transformers, or
/// the one that `retriever.toml` names.
fn prompt(reader: &mut SettingsReader<'_>, saved: &Saved, side: Side) -> String {
    let (key, usual) = match side {
        Side::Query => ("query_prompt", "query"),
        Side::Passage => ("passage_prompt", "document"),
    };
    let names: Vec<(&str, &str)> =
        saved.prompts.iter().map(|(name, prompt)| (name.as_str(), prompt.as_str())).collect();
    let chosen = reader.choice(key, &names);
    let usual = saved.prompts.get(usual).map(String::as_str).unwrap_or_default();
    chosen.unwrap_or(usual).to_owned()
}

/// Notes the prompts that a user may expect to be used, and that sentence-transformers does not use.
fn note_prompts(saved: &Saved, table: &Table, notes: &mut Vec<String>) {
    let is_set = |name: &str| saved.prompts.get(name).is_some_and(|prompt| !prompt.is_empty());
    let states = |keys: [&str; 2]| keys.iter().any(|key| table.contains_key(*key));
    if !is_set("document") && !states(["passage_prompt", "passage_prefix"]) {
        for name in ["passage", "corpus"].into_iter().filter(|name| is_set(name)) {
            notes.push(format!(
                "passages get no prompt: there is a prompt {name:?}, but encode_document of \
                 sentence-transformers uses only \"document\"; passage_prompt = {name:?} in \
                 retriever.toml uses it"
            ));
        }
    }
    if !is_set("query") && !states(["query_prompt", "query_prefix"]) {
        let others = saved.prompts.iter().filter(|(name, prompt)| {
            !prompt.is_empty() && !["document", "passage", "corpus"].contains(&name.as_str())
        });
        let others: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        if !others.is_empty() {
            notes.push(format!(
                "queries get no prompt: there is none called \"query\", only {}; query_prompt in \
                 retriever.toml chooses one",
                others.join(", ")
            ));
        }
    }
    if let Some(name) = saved.default_prompt.as_deref().filter(|name| is_set(name))
        && !["query", "document"].contains(&name)
    {
        notes.push(format!(
            "the default prompt {name:?} is not used: encode_query and encode_document of \
             sentence-transformers use the prompts \"query\" and \"document\""
        ));
    }
}

/// Returns `true` if vectors are compared by a distance that products cannot replace.
fn is_distance(saved: &Saved) -> bool {
    let is_unit = matches!(saved.modules.last(), Some(super::ModuleSettings::Normalize))
        && saved.dimension.is_none();
    match saved.similarity {
        Similarity::Cosine | Similarity::Dot => false,
        // Between vectors of length 1, the order by distance is that by product.
        Similarity::Euclidean => !is_unit,
        Similarity::Manhattan => true,
    }
}

/// Returns the limits of queries and of passages.
fn limits(
    reader: &mut SettingsReader<'_>,
    saved: Option<&Saved>,
    files: &ModelFiles,
) -> [TokenLimit; 2] {
    let own = |of_role: Option<usize>, key: &'static str| match saved {
        Some(saved) => of_role
            .map(|tokens| Length { tokens, origin: Some(key) })
            .or(saved.max_tokens.map(|tokens| Length {
                tokens,
                origin: Some("sentence_bert_config.json: max_seq_length"),
            }))
            .or(files.max_tokens.map(|tokens| Length { tokens, origin: None }))
            .or(files.positions.map(|positions| Length { tokens: positions.usable, origin: None })),
        None => None,
    };
    let query = own(
        saved.and_then(|saved| saved.max_query_tokens),
        "sentence_bert_config.json: query_length",
    );
    let passage = own(
        saved.and_then(|saved| saved.max_document_tokens),
        "sentence_bert_config.json: document_length",
    );
    let usual = |tokens| Length {
        tokens: if saved.is_some() { UNLIMITED_TOKENS } else { tokens },
        origin: None,
    };
    let query = query.unwrap_or(usual(DEFAULT_MAX_QUERY_TOKENS));
    let passage = passage.unwrap_or(usual(DEFAULT_MAX_PASSAGE_TOKENS));
    [("max_query_tokens", query), ("max_passage_tokens", passage)].map(|(key, length)| {
        let given = reader.tokens(key);
        let length = given.map_or(length, |tokens| Length { tokens, origin: Some(key) });
        let limit = limit(reader, length.tokens, length.origin, files.positions);
        TokenLimit { is_stated: given.is_some(), ..limit }
    })
}

/// Compares a length with the positions of a model. One that is stated must not be over them.
pub(in crate::encode) fn limit(
    reader: &mut SettingsReader<'_>,
    tokens: usize,
    origin: Option<&str>,
    positions: Option<Positions>,
) -> TokenLimit {
    let is_stated = origin.is_some();
    let Some(positions) = positions.filter(|positions| tokens > positions.usable) else {
        return TokenLimit { tokens, is_stated };
    };
    if let Some(key) = origin {
        let Positions { usable, stated } = positions;
        let remedy =
            if key.contains(':') { "; a lower number in the file of settings wins" } else { "" };
        let reason = if usable == stated {
            String::new()
        } else {
            format!(
                " (of {stated} in config.json, the first {} are not for tokens)",
                stated - usable
            )
        };
        reader.refuse(format!(
            "{key} = {tokens}: expected at most {usable}, the positions of the model{reason}{remedy}"
        ));
    }
    TokenLimit { tokens: positions.usable, is_stated }
}

/// Returns the place of a saved model's tokenizer.
fn tokenizer(folder: &Path, saved: &Saved) -> PathBuf {
    let own = saved.folder.join("tokenizer.json");
    if own.is_file() { own } else { folder.join("tokenizer.json") }
}
