//! The keys of `adapter_config.json`: which modules carry adapters, of which sizes, and what else is trained.
//!
//! Every key of PEFT's `LoraConfig` is read, irrelevant, or refused if it selects another computation. A key on none
//! of the three lists is refused unless its value is empty.

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::lora::{AdapterConfig, BaseName, LoraTargets};

/// Keys that decide what is computed. `read_keys` reads them.
const READ_KEYS: [&str; 15] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "use_dora",
    "bias",
    "ensure_weight_tying",
    "base_model_name_or_path",
];
/// Keys that change nothing in what saved adapters compute.
const IRRELEVANT_KEYS: [&str; 14] = [
    // The base's branch or commit; part of its name.
    "revision",
    // Which class PEFT makes, and for which task.
    "auto_mapping",
    "task_type",
    "inference_mode",
    "peft_version",
    // Acts while PEFT trains. This program trains without dropout.
    "lora_dropout",
    // Settings of initialisations; `init_lora_weights` says if one of them was used.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    // Where and how PEFT computes.
    "megatron_config",
    "megatron_core",
    "runtime_config",
    // Only read with `use_qalora`.
    "qalora_group_size",
];
/// Keys that can select another computation, with the values that do not.
const PLAIN_KEYS: [(&str, &[&str]); 13] = [
    ("lora_bias", &["false"]),
    ("fan_in_fan_out", &["false"]),
    ("layer_replication", &["[]"]),
    ("alora_invocation_tokens", &["[]"]),
    ("arrow_config", &[]),
    ("kasa_config", &[]),
    ("velora_config", &[]),
    ("monteclora_config", &[]),
    ("use_bdlora", &["false"]),
    ("use_qalora", &["false"]),
    ("target_parameters", &["[]"]),
    ("trainable_token_indices", &["[]", "{}"]),
    // Other initialisations change the base weights.
    ("init_lora_weights", &["true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\""]),
];

/// A choice of modules by their names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Selection {
    /// Every linear module of every layer.
    AllLinear,
    /// Modules whose names are these or end in a dot and one of these.
    Names(Vec<String>),
    /// Modules whose whole names match a regular expression of Python.
    Expression(String),
}

/// The biases that are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrainedBiases {
    None,
    All,
    /// Those of the modules with adapters.
    OfAdapted,
}

/// The description of a set of adapters, in PEFT's terms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AdapterKeys {
    pub(super) rank: usize,
    pub(super) alpha: f64,
    pub(super) rank_stabilised: bool,
    pub(super) targets: Selection,
    pub(super) excluded: Option<Selection>,
    /// Layers that carry adapters; `None` means all.
    pub(super) layers: Option<Vec<usize>>,
    /// Expressions for the name before a layer's index; without any, every name fits.
    pub(super) layers_patterns: Vec<String>,
    /// Expressions for the ends of module names, with the rank there. The first that matches decides.
    pub(super) ranks: Vec<(String, usize)>,
    /// The same for the numerator of the scale.
    pub(super) alphas: Vec<(String, f64)>,
    /// Ends of the names of modules that are trained whole.
    pub(super) saved: Vec<String>,
    pub(super) dora: bool,
    pub(super) biases: TrainedBiases,
    /// `true` if changes of the embedding or the head apply to both, in a model that ties them.
    pub(super) ties: bool,
}

/// A key whose value is not accepted.
#[derive(Debug)]
pub(super) struct WrongKey {
    pub(super) key: String,
    pub(super) accepted: String,
}

impl WrongKey {
    pub(super) fn new(key: &str, accepted: impl Into<String>) -> Self {
        Self { key: key.to_owned(), accepted: accepted.into() }
    }
}

/// A JSON object in the order of the file. The first matching entry of a pattern decides.
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[derive(Deserialize)]
struct Patterns {
    #[serde(default)]
    rank_pattern: Option<Ordered>,
    #[serde(default)]
    alpha_pattern: Option<Ordered>,
}

impl AdapterKeys {
    /// Describes adapters of one size on the same modules of every layer.
    pub(super) fn uniform(config: AdapterConfig) -> Self {
        let AdapterConfig { rank, alpha, rank_stabilised, targets } = config;
        Self {
            rank,
            alpha,
            rank_stabilised,
            targets: Selection::Names(targets.names().map(str::to_owned).collect()),
            excluded: None,
            layers: None,
            layers_patterns: Vec::new(),
            ranks: Vec::new(),
            alphas: Vec::new(),
            saved: Vec::new(),
            dora: false,
            biases: TrainedBiases::None,
            ties: false,
        }
    }

    /// Reads `keys`, which `bytes` hold in their order, and the base model, which may be unknown.
    ///
    /// # Errors
    /// Returns the first key with a value that is not accepted.
    pub(super) fn read(
        keys: &Map<String, Value>,
        bytes: &[u8],
    ) -> Result<(Self, Option<BaseName>), WrongKey> {
        check_listed(keys)?;
        let reader = Reader(keys);
        let rank = keys.get("r").and_then(Value::as_u64).filter(|&rank| rank > 0);
        let rank = rank.ok_or_else(|| WrongKey::new("r", "an integer of at least 1"))?;
        let alpha = keys.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| *alpha > 0.0);
        let patterns: Patterns = serde_json::from_slice(bytes).map_err(|_| {
            WrongKey::new("rank_pattern", "an object of ranks by expressions for module names")
        })?;
        let described = Self {
            rank: rank as usize,
            alpha: alpha.ok_or_else(|| WrongKey::new("lora_alpha", "a number above 0"))?,
            rank_stabilised: reader.flag("use_rslora")?,
            targets: reader.selection("target_modules")?.ok_or_else(|| {
                let all = LoraTargets::ALL_WORD;
                let accepted = format!("\"{all}\", an expression, or a list of module names");
                WrongKey::new("target_modules", accepted)
            })?,
            excluded: reader.selection("exclude_modules")?.map(|selection| match selection {
                Selection::AllLinear => Selection::Expression(LoraTargets::ALL_WORD.to_owned()),
                other => other,
            }),
            layers: reader.layers()?,
            layers_patterns: reader.texts("layers_pattern")?,
            ranks: entries("rank_pattern", patterns.rank_pattern, |value| {
                value.as_u64().filter(|&rank| rank > 0).map(|rank| rank as usize)
            })?,
            alphas: entries("alpha_pattern", patterns.alpha_pattern, |value| {
                value.as_f64().filter(|alpha| *alpha > 0.0)
            })?,
            saved: reader.texts("modules_to_save")?,
            dora: reader.flag("use_dora")?,
            biases: match keys.get("bias").map(Value::as_str) {
                None | Some(Some("none")) => TrainedBiases::None,
                Some(Some("all")) => TrainedBiases::All,
                Some(Some("lora_only")) => TrainedBiases::OfAdapted,
                _ => return Err(WrongKey::new("bias", "\"none\", \"all\", \"lora_only\"")),
            },
            ties: reader.flag("ensure_weight_tying")?,
        };
        if described.layers.is_some() && !matches!(described.targets, Selection::Names(_)) {
            let accepted = "null, unless target_modules is a list of names";
            return Err(WrongKey::new("layers_to_transform", accepted));
        }
        Ok((described, reader.base()?))
    }

    /// Returns the keys that describe these adapters, as PEFT reads them.
    pub(super) fn written(&self, base: &BaseName) -> String {
        // PEFT expects an integral alpha to be written as an integer.
        let number =
            |alpha: f64| if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) };
        let selected = |selection: &Selection| match selection {
            Selection::AllLinear => json!(LoraTargets::ALL_WORD),
            Selection::Names(names) => json!(names),
            Selection::Expression(text) => json!(text),
        };
        let listed = |names: &[String]| match names {
            [] => Value::Null,
            [only] => json!(only),
            several => json!(several),
        };
        let mut keys = json!({
            "base_model_name_or_path": base.name,
            "bias": match self.biases {
                TrainedBiases::None => "none",
                TrainedBiases::All => "all",
                TrainedBiases::OfAdapted => "lora_only",
            },
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": number(self.alpha),
            "lora_dropout": 0.0,
            "peft_type": "LORA",
            "r": self.rank,
            "revision": base.revision,
            "target_modules": selected(&self.targets),
            "task_type": "CAUSAL_LM",
            "use_dora": self.dora,
            "use_rslora": self.rank_stabilised,
        });
        if let Some(excluded) = &self.excluded {
            keys["exclude_modules"] = selected(excluded);
        }
        if let Some(layers) = &self.layers {
            keys["layers_to_transform"] = json!(layers);
            keys["layers_pattern"] = listed(&self.layers_patterns);
        }
        if !self.saved.is_empty() {
            keys["modules_to_save"] = json!(self.saved);
        }
        if self.ties {
            keys["ensure_weight_tying"] = json!(true);
        }
        let mut text = format!("{keys:#}\n");
        // The order of a pattern's entries decides, and a JSON object of this program has none.
        for (key, entries) in [
            ("rank_pattern", self.ranks.iter().map(|(k, v)| (k, json!(v))).collect::<Vec<_>>()),
            ("alpha_pattern", self.alphas.iter().map(|(k, v)| (k, number(*v))).collect()),
        ] {
            if !entries.is_empty() {
                let entry = |(name, value): &(&String, Value)| format!("{}: {value}", json!(name));
                let entries: Vec<String> = entries.iter().map(entry).collect();
                let opened = format!("{{\n  \"{key}\": {{{}}},", entries.join(", "));
                text.replace_range(..1, &opened);
            }
        }
        text
    }
}

/// Refuses keys with values that select another computation, and filled keys that are on no list.
fn check_listed(keys: &Map<String, Value>) -> Result<(), WrongKey> {
    let kind = keys.get("peft_type").unwrap_or(&Value::Null);
    if !kind.is_null() && kind != "LORA" {
        return Err(WrongKey::new("peft_type", "\"LORA\", null"));
    }
    for (key, accepted) in PLAIN_KEYS {
        let value = keys.get(key).unwrap_or(&Value::Null);
        if !value.is_null() && !accepted.contains(&value.to_string().as_str()) {
            return Err(WrongKey::new(key, [accepted, &["null"]].concat().join(", ")));
        }
    }
    let is_listed = |key: &str| {
        let is_plain = PLAIN_KEYS.iter().any(|&(plain, _)| plain == key);
        is_plain || READ_KEYS.contains(&key) || IRRELEVANT_KEYS.contains(&key)
    };
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    match keys.iter().find(|(key, value)| !is_listed(key) && !is_empty(value)) {
        Some((key, _)) => {
            Err(WrongKey::new(key, "null or false, since this program does not know the key"))
        }
        None => Ok(()),
    }
}

/// Reads the entries of a pattern.
fn entries<T>(
    key: &str,
    pattern: Option<Ordered>,
    value_of: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(String, T)>, WrongKey> {
    let accepted = || WrongKey::new(key, "an object with numbers above 0");
    let entries = pattern.map(|Ordered(entries)| entries).unwrap_or_default();
    let read = |(name, value): (String, Value)| Ok((name, value_of(&value).ok_or_else(accepted)?));
    entries.into_iter().map(read).collect()
}

struct Reader<'k>(&'k Map<String, Value>);

impl Reader<'_> {
    /// Reads a key that may be null.
    fn value<T: DeserializeOwned>(&self, key: &str, accepted: &str) -> Result<Option<T>, WrongKey> {
        let value = self.0.get(key).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|_| WrongKey::new(key, accepted))
    }

    fn flag(&self, key: &str) -> Result<bool, WrongKey> {
        Ok(self.value(key, "true or false")?.unwrap_or(false))
    }

    /// Reads a list of texts, or a single text as a list.
    fn texts(&self, key: &str) -> Result<Vec<String>, WrongKey> {
        if let Some(Value::String(text)) = self.0.get(key) {
            return Ok(vec![text.clone()]);
        }
        Ok(self.value(key, "a list of names")?.unwrap_or_default())
    }

    /// Reads a choice of modules; an empty list is none.
    fn selection(&self, key: &str) -> Result<Option<Selection>, WrongKey> {
        if let Some(Value::String(text)) = self.0.get(key) {
            let is_word = text.to_lowercase() == LoraTargets::ALL_WORD;
            let expression = || Selection::Expression(text.clone());
            return Ok(Some(if is_word { Selection::AllLinear } else { expression() }));
        }
        let names: Option<Vec<String>> =
            self.value(key, "an expression, or a list of module names")?;
        Ok(names.filter(|names| !names.is_empty()).map(Selection::Names))
    }

    fn layers(&self) -> Result<Option<Vec<usize>>, WrongKey> {
        let key = "layers_to_transform";
        if let Some(layer) = self.0.get(key).and_then(Value::as_u64) {
            return Ok(Some(vec![layer as usize]));
        }
        let layers: Option<Vec<usize>> =
            self.value(key, "an index of a layer, or a list of them")?;
        Ok(layers.filter(|layers| !layers.is_empty()))
    }

    fn base(&self) -> Result<Option<BaseName>, WrongKey> {
        let name: Option<String> =
            self.value("base_model_name_or_path", "a path or a name on the hub")?;
        let revision = self.value("revision", "a branch, tag or commit on the hub")?;
        let name = name.filter(|name| !name.is_empty());
        Ok(name.map(|name| BaseName { name, revision }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording of the newest PEFT holds every key that its `LoraConfig` writes.
    #[test]
    fn every_key_that_peft_writes_is_on_one_list() {
        let text = std::fs::read(crate::golden::path("lora-tiny-qwen2/adapter_config.json"));
        let keys: Map<String, Value> = serde_json::from_slice(&text.unwrap()).unwrap();
        assert!(keys.len() > 40, "{} keys", keys.len());
        for key in keys.keys() {
            let lists = [
                READ_KEYS.contains(&key.as_str()),
                IRRELEVANT_KEYS.contains(&key.as_str()),
                PLAIN_KEYS.iter().any(|(plain, _)| plain == key),
            ];
            assert_eq!(lists.iter().filter(|&&on| on).count(), 1, "{key}: {lists:?}");
        }
    }
}
