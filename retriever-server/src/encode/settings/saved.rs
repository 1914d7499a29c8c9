//! A folder that sentence-transformers saved: `modules.json` and the files of its modules, as versions 5
//! and 6 write them. The values mean what version 6.2 makes of them.
//!
//! What this program cannot compute is refused by its name, never left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json::{JsonObject, quoted, read};
use super::reader::alternatives;
use super::{Activation, ModuleSettings, Pooling};

/// The file that lists the modules.
pub(super) const MODULES_FILE: &str = "modules.json";
pub(super) const MODEL_FILE: &str = "config_sentence_transformers.json";
const TRANSFORMER_FILE: &str = "sentence_bert_config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
/// The package of the classes that this module knows.
const PACKAGE: &str = "sentence_transformers.";
const KNOWN_MODULES: &str = "Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout of \
                             sentence_transformers";

/// The keys with which version 5 chooses poolings, in the order in which they are joined.
const OLD_POOLINGS: [(&str, Pooling); 6] = [
    ("pooling_mode_cls_token", Pooling::Cls),
    ("pooling_mode_max_tokens", Pooling::Max),
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
    ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("pooling_mode_lasttoken", Pooling::LastToken),
];

/// The keys of `sentence_bert_config.json` that an ONNX file makes irrelevant: they choose how PyTorch
/// loads and computes the same model.
const IRRELEVANT_KEYS: [&str; 6] = [
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "unpad_inputs",
    "transformer_task",
];
const TRANSFORMER_KEYS: [&str; 18] = [
    "max_seq_length",
    "do_lower_case",
    "query_length",
    "document_length",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "query_expansion",
    "tokenizer_args",
    "processor_kwargs",
    "tokenizer_name_or_path",
    "model_name_or_path",
    IRRELEVANT_KEYS[0],
    IRRELEVANT_KEYS[1],
    IRRELEVANT_KEYS[2],
    IRRELEVANT_KEYS[3],
    IRRELEVANT_KEYS[4],
    IRRELEVANT_KEYS[5],
];

/// The function that compares two vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Similarity {
    #[default]
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
}

/// The settings of a saved folder.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// The folder of the tokenizer, which is nearly always the model's folder.
    pub(super) folder: PathBuf,
    /// The methods of pooling, whose vectors are joined. Empty if the folder has no pooling.
    pub(super) pooling: Vec<Pooling>,
    pub(super) leaves_out_prompt: bool,
    pub(super) modules: Vec<ModuleSettings>,
    /// The most tokens of a text, as `sentence_bert_config.json` states it.
    pub(super) max_tokens: Option<usize>,
    pub(super) max_query_tokens: Option<usize>,
    pub(super) max_document_tokens: Option<usize>,
    pub(super) lowercases: bool,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    pub(super) similarity: Similarity,
    pub(super) dimension: Option<usize>,
}

/// The kind of model that a folder was saved as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::encode) enum SavedKind {
    Encoder,
    CrossEncoder,
}

impl SavedKind {
    /// Returns the `model_type` of the kind.
    fn name(self) -> &'static str {
        match self {
            Self::Encoder => "SentenceTransformer",
            Self::CrossEncoder => "CrossEncoder",
        }
    }
}

impl Saved {
    /// Reads the folder if it has a list of modules. What cannot be served is added to `faults`.
    pub(super) fn read(folder: &Path, kind: SavedKind, faults: &mut Vec<String>) -> Option<Self> {
        let modules = match read(&folder.join(MODULES_FILE)) {
            Ok(None) => return None,
            Ok(Some(Value::Array(modules))) if !modules.is_empty() => modules,
            Ok(Some(value)) => {
                let value = quoted(&value);
                faults.push(format!("{MODULES_FILE}: is {value}, expected an array of modules"));
                Vec::new()
            }
            Err(reason) => {
                faults.push(format!("{MODULES_FILE}: {reason}"));
                Vec::new()
            }
        };
        let mut saved = Self { folder: folder.to_owned(), ..Self::default() };
        for (number, module) in modules.iter().enumerate() {
            saved.read_module(folder, kind, number, module, faults);
        }
        saved.read_model_file(folder, kind, faults);
        Some(saved)
    }

    fn read_module(
        &mut self,
        folder: &Path,
        kind: SavedKind,
        number: usize,
        module: &Value,
        faults: &mut Vec<String>,
    ) {
        let (Some(class), Some(path)) = (
            module.get("type").and_then(Value::as_str),
            module.get("path").and_then(Value::as_str),
        ) else {
            let module = quoted(module);
            faults.push(format!(
                "{MODULES_FILE}: module {number} is {module}, expected an object with type and path"
            ));
            return;
        };
        let name = class.rsplit('.').next().filter(|_| class.starts_with(PACKAGE));
        let is_first = number == 0;
        let is_encoder = kind == SavedKind::Encoder;
        match name {
            Some("Transformer") if is_first => self.read_transformer(folder, path, kind, faults),
            Some("Pooling") if is_encoder && !is_first && self.pooling.is_empty() => {
                self.read_pooling(folder, path, faults);
            }
            Some("Dense") if is_encoder && !self.pooling.is_empty() => {
                self.read_dense(folder, path, faults);
            }
            Some("LayerNorm") if is_encoder && !self.pooling.is_empty() => {
                let weights = folder.join(path).join(WEIGHTS_FILE);
                require_weights(folder, path, faults);
                self.modules.push(ModuleSettings::LayerNorm { weights });
            }
            Some("Normalize") if is_encoder && !self.pooling.is_empty() => {
                if let Some(mut config) = JsonObject::read(folder, file(path, "config.json"), faults)
                {
                    of_sentence(&mut config);
                }
                self.modules.push(ModuleSettings::Normalize);
            }
            // It does nothing outside training.
            Some("Dropout") if !is_first => {}
            _ => faults.push(format!(
                "{MODULES_FILE}: module {number} has type = {class:?}: expected {}, in the order of \
                 an {}",
                if is_encoder { KNOWN_MODULES } else { "Transformer of sentence_transformers" },
                if is_encoder { "encoder of texts" } else { "encoder of pairs" },
            )),
        }
    }

    fn read_transformer(
        &mut self,
        folder: &Path,
        path: &str,
        kind: SavedKind,
        faults: &mut Vec<String>,
    ) {
        self.folder = folder.join(path);
        let Some(mut config) = JsonObject::read(folder, file(path, TRANSFORMER_FILE), faults)
        else {
            return;
        };
        config.refuse_unknown(&TRANSFORMER_KEYS);
        self.max_tokens = config.count("max_seq_length");
        self.max_query_tokens = config.count("query_length");
        self.max_document_tokens = config.count("document_length");
        self.lowercases = config.flag("do_lower_case").unwrap_or(false);
        let task = match kind {
            SavedKind::Encoder => "feature-extraction",
            SavedKind::CrossEncoder => "sequence-classification",
        };
        let is = |expected: &'static str| move |value: &Value| (value == expected).then_some(());
        config.take("transformer_task", &format!("{task:?}"), is(task));
        if kind == SavedKind::Encoder {
            config.take("module_output_name", r#""token_embeddings""#, is("token_embeddings"));
            config.take("modality_config", "text from last_hidden_state", |value| {
                let text = value.get("text")?;
                let method = text.get("method")? == "forward";
                (method && text.get("method_output_name")? == "last_hidden_state").then_some(())
            });
        }
        for key in ["processing_kwargs", "query_expansion", "tokenizer_name_or_path"] {
            config.refuse_if_set(key, "null");
        }
        for key in ["tokenizer_args", "processor_kwargs"] {
            let accepted = "an object with no key but model_max_length or trust_remote_code";
            let limit = config.take(key, accepted, |value| {
                let keys = value.as_object()?;
                let known = ["model_max_length", "trust_remote_code"];
                keys.keys().all(|key| known.contains(&key.as_str())).then_some(())?;
                Some(keys.get("model_max_length").and_then(Value::as_u64))
            });
            // Both keys name the argument of the tokenizer, which wins.
            let limit = limit.flatten().and_then(|limit| usize::try_from(limit).ok());
            self.max_tokens = limit.or(self.max_tokens);
        }
    }

    fn read_pooling(&mut self, folder: &Path, path: &str, faults: &mut Vec<String>) {
        let Some(mut config) = JsonObject::required(folder, file(path, "config.json"), faults)
        else {
            return;
        };
        let mut known = vec![
            "embedding_dimension",
            "word_embedding_dimension",
            "pooling_mode",
            "include_prompt",
        ];
        known.extend(OLD_POOLINGS.map(|(key, _)| key));
        config.refuse_unknown(&known);
        self.leaves_out_prompt = config.flag("include_prompt") == Some(false);
        let accepted = alternatives(&Pooling::SAVED.map(Pooling::name));
        let named = |value: &Value| {
            Pooling::SAVED.into_iter().find(|pooling| Some(pooling.name()) == value.as_str())
        };
        let chosen = config.take("pooling_mode", &accepted, |value| match value {
            Value::Array(values) if !values.is_empty() => values.iter().map(named).collect(),
            value => named(value).map(|pooling| vec![pooling]),
        });
        let old = OLD_POOLINGS.into_iter().filter(|(key, _)| config.flag(key) == Some(true));
        let old: Vec<Pooling> = old.map(|(_, pooling)| pooling).collect();
        self.pooling = match chosen {
            Some(chosen) => chosen,
            None if old.is_empty() => vec![Pooling::Mean],
            None => old,
        };
    }

    fn read_dense(&mut self, folder: &Path, path: &str, faults: &mut Vec<String>) {
        require_weights(folder, path, faults);
        let Some(mut config) = JsonObject::required(folder, file(path, "config.json"), faults)
        else {
            return;
        };
        of_sentence(&mut config);
        let names = Activation::ALL.map(Activation::name);
        let accepted = format!("an activation of torch.nn: {}", names.join(", "));
        let activation = config.take("activation_function", &accepted, |value| {
            let class = value.as_str().filter(|class| class.starts_with("torch."))?;
            let name = class.rsplit('.').next()?;
            Activation::ALL.into_iter().find(|activation| activation.name() == name)
        });
        self.modules.push(ModuleSettings::Dense {
            weights: folder.join(path).join(WEIGHTS_FILE),
            activation: activation.unwrap_or(Activation::Tanh),
            has_residual: config.flag("use_residual").unwrap_or(false),
        });
    }

    fn read_model_file(&mut self, folder: &Path, kind: SavedKind, faults: &mut Vec<String>) {
        let Some(mut config) = JsonObject::read(folder, MODEL_FILE, faults) else { return };
        config.take("model_type", &format!("{:?}", kind.name()), |value| {
            (value == kind.name()).then_some(())
        });
        let prompts = config.take("prompts", "an object of texts", |value| {
            let prompts = value.as_object()?.iter();
            let prompts = prompts.map(|(name, prompt)| match prompt {
                Value::Null => Some((name.clone(), String::new())),
                Value::String(prompt) => Some((name.clone(), prompt.clone())),
                _ => None,
            });
            prompts.collect::<Option<BTreeMap<_, _>>>()
        });
        self.prompts = prompts.unwrap_or_default();
        let prompts = &self.prompts;
        let names: Vec<&str> = prompts.keys().map(String::as_str).collect();
        self.default_prompt = config.take(
            "default_prompt_name",
            &format!("the name of a prompt: {}", names.join(", ")),
            // Version 6 adds these two to every model.
            |value| {
                let name = value.as_str()?;
                let is_known = prompts.contains_key(name) || ["query", "document"].contains(&name);
                is_known.then(|| name.to_owned())
            },
        );
        self.dimension = config.count("truncate_dim");
        // Other programs' functions count as none, and none as cosine.
        self.similarity = match config.get("similarity_fn_name").and_then(Value::as_str) {
            Some("dot") => Similarity::Dot,
            Some("euclidean") => Similarity::Euclidean,
            Some("manhattan") => Similarity::Manhattan,
            _ => Similarity::Cosine,
        };
    }
}

/// Refuses a module that works on other values than the vector of the text.
fn of_sentence(config: &mut JsonObject<'_>) {
    for key in ["module_input_name", "module_output_name"] {
        config.take(key, r#""sentence_embedding""#, |value| {
            (value == "sentence_embedding").then_some(())
        });
    }
}

fn require_weights(folder: &Path, path: &str, faults: &mut Vec<String>) {
    if folder.join(path).join(WEIGHTS_FILE).is_file() {
        return;
    }
    let weights = file(path, WEIGHTS_FILE);
    let pickled = file(path, "pytorch_model.bin");
    let remedy = if folder.join(&pickled).is_file() {
        format!(
            "; {pickled} is pickled and is not read: save the folder with sentence-transformers 3 or later"
        )
    } else {
        String::new()
    };
    faults.push(format!("{weights}: does not exist{remedy}"));
}

/// Returns the path of a module's file relative to the model's folder.
fn file(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
