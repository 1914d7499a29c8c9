//! The settings that define how a text becomes a vector. They come from a folder of sentence-transformers
//! (`saved`) or from a preset in `retriever.toml`, and every key of that file wins over both.
//!
//! Lengths come from the same files. One that a file states for the model is refused if the model has
//! fewer positions; a default is lowered to them (`model_files`).

mod reader;
mod json;
mod model_files;
mod saved;
mod resolve;
mod pair_folder;

use std::path::{Path, PathBuf};

use super::{EncodeError, graph};
use saved::{Saved, SavedKind};

pub(super) use model_files::ModelFiles;
pub use model_files::{BertNormalization, Positions};
pub(super) use pair_folder::PairFolder;
pub(super) use reader::{SettingsReader, read, table};
pub(super) use resolve::limit;

/// The name of the file.
pub const SETTINGS_FILE: &str = "retriever.toml";

const DEFAULT_MAX_QUERY_TOKENS: usize = 256;
const DEFAULT_MAX_PASSAGE_TOKENS: usize = 180;
/// The most tokens of a text if neither settings nor model limit them.
const UNLIMITED_TOKENS: usize = 8192;
/// The places of the ONNX file, in the order in which they are looked at.
const MODEL_PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

const KEYS: [&str; 15] = [
    "preset",
    "pooling",
    "normalize",
    "query_prefix",
    "passage_prefix",
    "max_query_tokens",
    "max_passage_tokens",
    "model",
    "tokenizer",
    "query_prompt",
    "passage_prompt",
    "dimension",
    "append_token",
    "padding",
    "output",
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
    /// Takes the greatest number of each component.
    Max,
    /// Takes their sum over the square root of their number.
    MeanSqrtLength,
    /// Takes their mean, each weighted with its position, from 1.
    WeightedMean,
    /// Takes the last.
    LastToken,
}

impl Pooling {
    /// The methods of sentence-transformers.
    const SAVED: [Self; 6] = [
        Self::Mean,
        Self::Cls,
        Self::Max,
        Self::MeanSqrtLength,
        Self::WeightedMean,
        Self::LastToken,
    ];
    const ALL: [Self; 7] = [
        Self::Mean,
        Self::Cls,
        Self::Pooler,
        Self::Max,
        Self::MeanSqrtLength,
        Self::WeightedMean,
        Self::LastToken,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Pooler => "pooler",
            Self::Max => "max",
            Self::MeanSqrtLength => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }
}

/// The function that a dense layer applies to each number. The names are those of `torch.nn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Keeps the number.
    Identity,
    /// Computes the hyperbolic tangent.
    Tanh,
    /// Computes the positive part.
    Relu,
    /// Computes x Φ(x) with the distribution function Φ of the normal distribution.
    Gelu,
    /// Computes x / (1 + e^−x).
    Silu,
    /// Computes 1 / (1 + e^−x).
    Sigmoid,
}

impl Activation {
    const ALL: [Self; 6] =
        [Self::Identity, Self::Tanh, Self::Relu, Self::Gelu, Self::Silu, Self::Sigmoid];

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Tanh => "Tanh",
            Self::Relu => "ReLU",
            Self::Gelu => "GELU",
            Self::Silu => "SiLU",
            Self::Sigmoid => "Sigmoid",
        }
    }
}

/// A step between the pooled vector and the vector of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSettings {
    /// Scales the vector to length 1.
    Normalize,
    /// Multiplies with a matrix.
    Dense {
        /// The file of its weights.
        weights: PathBuf,
        /// The function of its results.
        activation: Activation,
        /// `true` to add its input to its output.
        has_residual: bool,
    },
    /// Scales the numbers to mean 0 and variance 1, then by its weights.
    LayerNorm {
        /// The file of its weights.
        weights: PathBuf,
    },
}

impl ModuleSettings {
    /// Returns the file of its weights, if it has any.
    pub fn weights(&self) -> Option<&Path> {
        match self {
            Self::Normalize => None,
            Self::Dense { weights, .. } | Self::LayerNorm { weights } => Some(weights),
        }
    }
}

/// The settings of a tokenizer that its own file does not have, or has otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerSettings {
    /// The file.
    pub path: PathBuf,
    /// `true` to change texts to lower case before anything else.
    pub lowercases: bool,
    /// The flags with which `transformers` builds the tokenizer of a BERT anew.
    pub bert: Option<BertNormalization>,
    /// The token to append to every text.
    pub append: Option<String>,
    /// `true` to cut a long text at its start; `None` for the side in the file.
    pub cuts_left: Option<bool>,
    /// The token that pads rows; `None` for the one in the file.
    pub padding: Option<String>,
}

/// The side of padding: `true` for the start of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The user's choice.
    Stated(bool),
    /// The choice of the tokenizer's files, if there is one.
    OfTokenizer(Option<bool>),
}

/// The most tokens of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimit {
    /// The number, including special tokens.
    pub tokens: usize,
    /// `true` if the user states it, so that it must not be lowered.
    pub is_stated: bool,
}

/// The settings for turning texts into vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderSettings {
    /// The methods of pooling. The vectors of several are joined.
    pub pooling: Vec<Pooling>,
    /// `true` to pool only the tokens behind the prefix.
    pub leaves_out_prompt: bool,
    /// The steps after pooling.
    pub modules: Vec<ModuleSettings>,
    /// The number of components to keep; `None` for all.
    pub dimension: Option<usize>,
    /// `true` to scale vectors to length 1 at the end.
    pub normalize: bool,
    /// The text to put before a query.
    pub query_prefix: String,
    /// The text to put before a passage.
    pub passage_prefix: String,
    /// The limit of a query. Longer queries are cut.
    pub max_query_tokens: TokenLimit,
    /// The limit of a passage. Longer passages are cut.
    pub max_passage_tokens: TokenLimit,
    /// The positions of the model, if they are known. No limit is over them.
    pub positions: Option<Positions>,
    /// The ONNX file.
    pub model: PathBuf,
    /// The model's output to read; `None` to find it by its name.
    pub output: Option<String>,
    /// The side of padding.
    pub pads_left: Padding,
    /// The tokenizer.
    pub tokenizer: TokenizerSettings,
    /// Things about the folder that a user may not expect.
    pub notes: Vec<String>,
}

impl EncoderSettings {
    /// Reads the files in `folder`. The error names every invalid key.
    pub fn load(folder: &Path) -> Result<Self, EncodeError> {
        let path = folder.join(SETTINGS_FILE);
        let text = read(&path)?;
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |faults| EncodeError::Settings { path, faults }
        };
        let table = text.as_deref().map(table).transpose().map_err(refused(&path))?;
        let mut faults = Vec::new();
        let uses_modules = table.as_ref().is_none_or(|table| !table.contains_key("preset"));
        let saved = uses_modules.then(|| Saved::read(folder, SavedKind::Encoder, &mut faults));
        let saved = saved.flatten();
        if table.is_none() && saved.is_none() {
            return Err(EncodeError::NoSettings { path });
        }
        let place = saved.as_ref().map_or(folder, |saved| &saved.folder).to_owned();
        let files = ModelFiles::read(&place, &mut faults);
        if !faults.is_empty() {
            return Err(refused(folder)(faults));
        }
        let has_table = table.is_some();
        let table = table.unwrap_or_default();
        let parsed = Self::parse(&table, folder, saved, &files);
        parsed.map_err(refused(if has_table { &path } else { folder }))
    }
}

impl EncoderSettings {
    /// Returns the settings that determine the vector of a passage, apart from the contents of files.
    /// Those that are not set add nothing, so that vectors of older versions keep their digest.
    pub fn passage_parts(&self) -> Vec<String> {
        let pooling = match self.pooling.as_slice() {
            [pooling] => format!("{pooling:?}"),
            several => format!("{several:?}"),
        };
        let normalize = self.normalize.to_string();
        let tokens = self.max_passage_tokens.tokens.to_string();
        let mut parts = vec![pooling, normalize, tokens, self.passage_prefix.clone()];
        let mut add = |is_set: bool, part: String| parts.extend(is_set.then_some(part));
        add(self.leaves_out_prompt, "leaves out the prompt".to_owned());
        for module in &self.modules {
            let (activation, residual) = match module {
                ModuleSettings::Dense { activation, has_residual, .. } => {
                    (Some(activation), *has_residual)
                }
                ModuleSettings::Normalize | ModuleSettings::LayerNorm { .. } => (None, false),
            };
            let kind = match module {
                ModuleSettings::Normalize => "normalize",
                ModuleSettings::Dense { .. } => "dense",
                ModuleSettings::LayerNorm { .. } => "layer norm",
            };
            add(true, format!("{kind} {activation:?} {residual}"));
        }
        add(self.dimension.is_some(), format!("dimension {:?}", self.dimension));
        add(self.output.is_some(), format!("output {:?}", self.output));
        let TokenizerSettings { lowercases, bert, append, cuts_left, .. } = &self.tokenizer;
        add(*lowercases, "lowercases".to_owned());
        add(bert.is_some(), format!("{bert:?}"));
        add(append.is_some(), format!("append {append:?}"));
        add(*cuts_left == Some(true), "cuts left".to_owned());
        add(matches!(self.pads_left, Padding::Stated(true)), "pads left".to_owned());
        parts
    }

    /// Returns the files of weights beside the ONNX file: its own and those of the steps after it.
    pub fn other_files(&self) -> Vec<PathBuf> {
        let mut files = graph::external_files(&self.model);
        let weights = self.modules.iter().filter_map(ModuleSettings::weights);
        files.extend(weights.map(Path::to_owned));
        files
    }
}

/// Returns the ONNX file in the first of its places that has one, also in the folder of the first module.
pub(super) fn default_model(folder: &Path, first_module: &Path) -> PathBuf {
    let folders = [folder, first_module];
    let mut places = folders.iter().flat_map(|folder| MODEL_PLACES.map(|name| folder.join(name)));
    places.find(|path| path.is_file()).unwrap_or_else(|| folder.join(MODEL_PLACES[0]))
}

#[cfg(test)]
mod tests;
