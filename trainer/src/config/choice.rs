//! The values of keys that accept one of a few words. Only the names: docs/algorithms.md describes them, and the
//! modules that use them implement them.

use std::fmt;

use super::value::{ConfigValue, Range, RawValue, Rejection, nearest_word, quoted};
use crate::algo::{
    AdvantageEstimator, Aggregation, KlEstimator, LikelihoodGate, OutcomeEstimator, TokenEstimator,
};
use crate::engine::{RunnerKind, WeightFormat};
use crate::policy::{LORA_MODULES, LoraTargets};
use crate::reward::RewardKind;
use crate::search::record::{MissRule, RecordMode};
use crate::token::ChatDate;

/// Declares the words of an enum, by which the configuration file names its values.
macro_rules! words {
    ($(
        $name:ident {
            $( $variant:ident $( ( $($inner:tt)+ ) )? = $word:literal, )+
        }
    )+) => {$(
        impl $name {
            /// Every accepted word, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// Returns the word that the configuration file uses.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant $( ( $($inner)+ ) )? => $word, )+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl ConfigValue for $name {
            fn accepts(_range: &Range) -> String {
                one_of(Self::WORDS)
            }

            fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
                let RawValue::Text(text) = raw else { return Err(Rejection::default()) };
                match text.as_str() {
                    $( $word => Ok(Self::$variant $( ( $($inner)+ ) )?), )+
                    other => Err(Rejection {
                        nearest: nearest_word(other, Self::WORDS.iter().copied()).map(quoted),
                    }),
                }
            }

            fn to_toml(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }
        }
    )+};
}

/// Declares an enum with the words of its variants.
macro_rules! choices {
    ($(
        $(#[$outer:meta])*
        pub enum $name:ident { $( $(#[$inner:meta])* $variant:ident = $word:literal, )+ }
    )+) => {$(
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$inner])* $variant, )+ }

        words! { $name { $( $variant = $word, )+ } }
    )+};
}

// The enums of other modules.
words! {
    AdvantageEstimator {
        Outcome(OutcomeEstimator::Grpo) = "grpo",
        Outcome(OutcomeEstimator::DrGrpo) = "dr-grpo",
        Outcome(OutcomeEstimator::Rloo) = "rloo",
        Outcome(OutcomeEstimator::Opo) = "opo",
        Outcome(OutcomeEstimator::Gpg) = "gpg",
        Outcome(OutcomeEstimator::Reinforce) = "reinforce",
        Outcome(OutcomeEstimator::ReinforceBaseline) = "reinforce-baseline",
        Token(TokenEstimator::ReinforcePlusPlus) = "reinforce++",
        Outcome(OutcomeEstimator::ReinforcePlusPlusBaseline) = "reinforce++-baseline",
        Token(TokenEstimator::Gae) = "gae",
    }

    Aggregation {
        TokenMean = "token-mean",
        SequenceMeanTokenMean = "seq-mean-token-mean",
        SequenceMeanTokenSum = "seq-mean-token-sum",
        SequenceMeanTokenSumNorm = "seq-mean-token-sum-norm",
        TokenSum = "token-sum",
    }

    KlEstimator {
        K1 = "k1",
        Abs = "abs",
        K2 = "k2",
        K3 = "k3",
        K3Plus = "k3+",
    }

    LikelihoodGate {
        Action = "action",
        Response = "response",
    }

    MissRule {
        Stop = "stop",
        Drop = "drop",
    }

    RecordMode {
        Off = "off",
        Record = "record",
        Replay = "replay",
        Fill = "fill",
    }

    RewardKind {
        ExactMatch = "em",
        SubExactMatch = "sub_em",
        F1 = "f1",
        Structured = "structured",
    }

    RunnerKind {
        Auto = "auto",
        Native = "native",
        Fused = "fused",
        Eager = "eager",
    }
}

const WEIGHT_FORMATS: [(&str, Option<WeightFormat>); 4] = [
    ("auto", None),
    ("f32", Some(WeightFormat::F32)),
    ("bf16", Some(WeightFormat::Bf16)),
    ("int8", Some(WeightFormat::Int8)),
];

choices! {
    /// A named set of values that replaces the defaults.
    pub enum Preset {
        /// The project's fixed defaults.
        None = "none",
        /// PPO as in the main table of the Search-R1 paper.
        Paper = "paper",
        /// The GRPO script of Search-R1's first release.
        SearchR1V01 = "search-r1-v0.1",
        /// The GRPO script of its second release.
        SearchR1V02 = "search-r1-v0.2",
        /// The GRPO script of its third release.
        SearchR1V03 = "search-r1-v0.3",
        /// The same with the reward for structure.
        SearchR1V03Format = "search-r1-v0.3-format",
        /// The project's recommended starting point.
        Recommended = "recommended",
    }

    /// The project whose behaviour to follow where this project's own differs.
    pub enum Compat {
        /// The project's fixed defaults.
        None = "none",
        /// Reproduces Search-R1 where it differs; each difference is listed in docs/algorithms.md.
        SearchR1 = "search-r1",
    }

    /// The source of prompts.
    pub enum PromptSource {
        /// The template, filled with the question.
        Template = "template",
        /// The prompt that each row of the question file carries.
        File = "file",
    }

    /// Number format in which the model computes; master weights stay in f32.
    pub enum ComputeDtype {
        /// bf16 where the hardware multiplies it faster than f32, else f32.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
    }

    /// Number format of saved models.
    pub enum CheckpointDtype {
        F32 = "f32",
        Bf16 = "bf16",
    }

    /// The end of a run whose checkpoint cannot be written.
    pub enum FailedWrite {
        /// The run ends.
        Stop = "stop",
        /// The run goes on and tries the next one.
        Continue = "continue",
    }

    /// The consequence of an alarm of the guard.
    pub enum GuardAction {
        /// None: nothing is watched.
        Off = "off",
        /// A warning, and a word in the metrics.
        Warn = "warn",
        /// The return to the last healthy checkpoint, if the alarms last.
        RollBack = "roll-back",
    }

    /// The activations that a pass keeps for the backward pass.
    pub enum ActivationCheckpoints {
        /// Everything.
        None = "none",
        /// The input of each layer; the layer is then computed again, which trades time for memory.
        Layers = "layers",
    }

    /// The engine that samples the turns of training.
    pub enum EngineKind {
        /// This process.
        Builtin = "builtin",
        /// Servers of vLLM.
        Vllm = "vllm",
        /// Servers of SGLang.
        Sglang = "sglang",
    }

    /// The loss of one token, or of a trajectory spread over its tokens.
    pub enum PolicyLossKind {
        /// PPO's clipped ratio.
        Clip = "clip",
        /// The ratio of whole trajectories.
        Gspo = "gspo",
        /// Clipped ratios as weights of the log-prob.
        Cispo = "cispo",
        /// Soft gates in place of the clip.
        Sapo = "sapo",
        /// The geometric mean of clipped ratios.
        Gmpo = "gmpo",
        /// Advantage times log-prob, without a ratio.
        Reinforce = "reinforce",
    }

    /// The place where the divergence from the reference enters.
    pub enum KlPlacement {
        /// The loss.
        Loss = "loss",
        /// The reward of each token.
        Reward = "reward",
    }

    /// The control of the divergence's coefficient during a run.
    pub enum KlControllerKind {
        /// The coefficient stays the same.
        Fixed = "fixed",
        /// The coefficient follows a target divergence.
        Adaptive = "adaptive",
    }

}

/// The device that the model computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl PolicyLossKind {
    /// Returns `true` if the loss is one of whole trajectories.
    pub fn is_of_sequences(self) -> bool {
        matches!(self, Self::Gspo | Self::Sapo | Self::Gmpo)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl ConfigValue for DeviceChoice {
    fn accepts(_range: &Range) -> String {
        "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\"".to_owned()
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let RawValue::Text(text) = raw else { return Err(Rejection::default()) };
        match text.as_str() {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        if let Some(number) = text.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
            return Ok(Self::Cuda(number));
        }
        let nearest = match text.to_lowercase().as_str() {
            "gpu" => Some("cuda"),
            other => nearest_word(other, ["auto", "cpu", "cuda", "cuda:0"]),
        };
        Err(Rejection { nearest: nearest.map(quoted) })
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// The format of rollout weights; `None`, written `auto`, is the type that the model computes in.
impl ConfigValue for Option<WeightFormat> {
    fn accepts(_range: &Range) -> String {
        one_of(&WEIGHT_FORMATS.map(|(word, _)| word))
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let RawValue::Text(text) = raw else { return Err(Rejection::default()) };
        let format =
            WEIGHT_FORMATS.iter().find(|(word, _)| word == text).map(|(_, format)| *format);
        format.ok_or_else(|| {
            let words = WEIGHT_FORMATS.iter().map(|(word, _)| *word);
            Rejection { nearest: nearest_word(text, words).map(quoted) }
        })
    }

    fn to_toml(&self) -> Option<String> {
        WEIGHT_FORMATS.iter().find(|(_, format)| format == self).map(|(word, _)| quoted(word))
    }
}

impl ConfigValue for LoraTargets {
    fn accepts(_range: &Range) -> String {
        let words = LORA_MODULES.join(", ");
        format!("{}, or names with commas between them, of {words}", quoted(Self::ALL_WORD))
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let RawValue::Text(text) = raw else { return Err(Rejection::default()) };
        if text == Self::ALL_WORD {
            return Ok(Self::ALL);
        }
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        Self::from_names(names.iter().copied()).map_err(|wrong| {
            let known = LORA_MODULES.into_iter().chain([Self::ALL_WORD]);
            let nearest = nearest_word(wrong, known).map(|right| {
                let corrected: Vec<&str> =
                    names.iter().map(|name| if *name == wrong { right } else { name }).collect();
                quoted(&corrected.join(","))
            });
            Rejection { nearest }
        })
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl ConfigValue for ChatDate {
    fn accepts(_range: &Range) -> String {
        "a day, such as \"2024-07-26\"".to_owned()
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let (RawValue::Text(text) | RawValue::Date(text)) = raw else {
            return Err(Rejection::default());
        };
        text.parse().map_err(|_| Rejection::default())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// The template that turns a question into a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The instructions of Search-R1 in this project's words.
    SearchR1,
    /// The same protocol in fewer tokens, for models with a warm start on it.
    Short,
    /// A text of the user that contains `{question}`.
    Text(String),
}

impl TemplateChoice {
    /// Returns the name of the template, or the text itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::SearchR1 => "search-r1",
            Self::Short => "short",
            Self::Text(text) => text,
        }
    }
}

impl ConfigValue for TemplateChoice {
    fn accepts(_range: &Range) -> String {
        "\"search-r1\", \"short\" or a text with {question} in it".to_owned()
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let RawValue::Text(text) = raw else { return Err(Rejection::default()) };
        match text.as_str() {
            "search-r1" => Ok(Self::SearchR1),
            "short" => Ok(Self::Short),
            other if other.contains("{question}") => Ok(Self::Text(other.to_owned())),
            other => {
                Err(Rejection { nearest: nearest_word(other, ["search-r1", "short"]).map(quoted) })
            }
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

/// Returns the words as `"a", "b" or "c"`.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}
