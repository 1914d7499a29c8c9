//! The values of keys that take one of a few words. Names them only; what each does is said in
//! docs/algorithms.md and done by the module that uses it.

use std::fmt;

use super::value::{ConfigValue, Range, RawValue, Rejection, nearest_word, quoted};
use crate::policy::{LORA_MODULES, LoraTargets};
use crate::token::ChatDate;

/// Declares an enum whose variants are written as the given words.
macro_rules! choices {
    ($(
        $(#[$outer:meta])*
        pub enum $name:ident { $( $(#[$inner:meta])* $variant:ident = $word:literal, )+ }
    )+) => {$(
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$inner])* $variant, )+ }

        impl $name {
            /// Every word that is accepted, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word that the configuration file uses.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
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
                    $( $word => Ok(Self::$variant), )+
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

choices! {
    /// A set of values that takes the place of the defaults.
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
        /// What the project would start from.
        Recommended = "recommended",
    }

    /// Whose defaults are followed where the project's own differ.
    pub enum Compat {
        /// The project's fixed defaults.
        None = "none",
        /// Reproduces Search-R1 where it differs; each difference is listed in docs/algorithms.md.
        SearchR1 = "search-r1",
    }

    /// Number format in which the model computes; master weights stay in f32.
    pub enum ComputeDtype {
        /// bf16 where the hardware multiplies it faster than f32, else f32.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
    }

    /// What computes rollouts.
    pub enum RolloutRunner {
        /// `native` on a CPU that has the instructions for it, `fused` on a CUDA device where it finds what
        /// libtorch finds, else `eager`.
        Auto = "auto",
        /// Kernels of our own, on the CPU alone.
        Native = "native",
        /// Kernels of our own between libtorch's matrix products, on a CUDA device alone.
        Fused = "fused",
        /// Tensor operations, on any device.
        Eager = "eager",
    }

    /// What rollouts keep weights as, where kernels of our own compute them.
    pub enum RolloutWeights {
        /// The type that the model computes in.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
        /// 8 bits and a scale for each output: quickest, another policy by rounding, which truncated
        /// importance sampling corrects.
        Int8 = "int8",
    }

    /// Number format of saved models.
    pub enum CheckpointDtype {
        F32 = "f32",
        Bf16 = "bf16",
    }

    /// What a trajectory is rewarded for.
    pub enum RewardKind {
        /// The answer equals a golden answer after normalisation.
        Em = "em",
        /// The answer contains a golden answer after normalisation.
        SubEm = "sub_em",
        /// Overlap of the answer's and the best golden answer's words.
        F1 = "f1",
        /// Exact match with part scores for structure and retrieval.
        Structured = "structured",
    }

    /// How the divergence from the reference model is estimated from one sampled token.
    pub enum KlEstimator {
        /// `log p - log q`.
        K1 = "k1",
        /// `|log p - log q|`.
        Abs = "abs",
        /// `(log p - log q)^2 / 2`.
        K2 = "k2",
        /// `q / p - log(q / p) - 1`, never negative and unbiased.
        K3 = "k3",
        /// The value of `k3` with the gradient of `k2`.
        K3Plus = "k3+",
    }

    /// What a pass keeps of its layers for the way back.
    pub enum ActivationCheckpoints {
        /// Everything.
        None = "none",
        /// What went into each layer, which is computed once more: more time for less memory.
        Layers = "layers",
    }

    /// How per-token losses become one number.
    pub enum LossAggregation {
        /// Mean over all trained tokens of the update.
        TokenMean = "token-mean",
        /// Mean over trajectories of each one's mean over its tokens.
        SeqMeanTokenMean = "seq-mean-token-mean",
        /// Mean over trajectories of each one's sum over its tokens.
        SeqMeanTokenSum = "seq-mean-token-sum",
        /// The same over a constant, so that length does not weigh.
        SeqMeanTokenSumNorm = "seq-mean-token-sum-norm",
        /// Sum over all trained tokens of the update.
        TokenSum = "token-sum",
    }

    /// Who samples the turns of training.
    pub enum EngineKind {
        /// This process.
        Builtin = "builtin",
        /// Servers of vLLM.
        Vllm = "vllm",
        /// Servers of SGLang.
        Sglang = "sglang",
    }

    /// How rewards become advantages.
    pub enum AdvantageEstimator {
        /// Distance from the group's mean, in units of its standard deviation.
        Grpo = "grpo",
        /// Distance from the group's mean.
        DrGrpo = "dr-grpo",
        /// Distance from the mean of the others of the group.
        Rloo = "rloo",
        /// Distance from the group's mean, weighted by length.
        Opo = "opo",
        /// Distance from the group's mean, scaled by the share of scores that are not 0.
        Gpg = "gpg",
        /// The reward.
        Reinforce = "reinforce",
        /// The reward less its mean over the step.
        ReinforceBaseline = "reinforce-baseline",
        /// The discounted return, whitened over the step.
        ReinforcePlusPlus = "reinforce++",
        /// Distance from the group's mean, whitened over the step.
        ReinforcePlusPlusBaseline = "reinforce++-baseline",
        /// Generalised advantage estimation from a critic: PPO.
        Gae = "gae",
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

    /// What the divergence from the reference is part of.
    pub enum KlPlacement {
        /// The loss.
        Loss = "loss",
        /// The reward of each token.
        Reward = "reward",
    }

    /// What happens to the weight of the divergence during a run.
    pub enum KlControllerKind {
        /// It stays.
        Fixed = "fixed",
        /// It is steered towards a target divergence.
        Adaptive = "adaptive",
    }

    /// What must have become less likely for the likelihood term to hold a token.
    pub enum LikelihoodGateKind {
        /// The action that the token belongs to.
        Action = "action",
        /// The whole trajectory.
        Response = "response",
    }
}

/// Where the model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl AdvantageEstimator {
    /// Whether a trajectory is compared with others of its question.
    pub fn compares_groups(self) -> bool {
        match self {
            Self::Grpo
            | Self::DrGrpo
            | Self::Rloo
            | Self::Opo
            | Self::Gpg
            | Self::ReinforcePlusPlusBaseline => true,
            Self::Reinforce | Self::ReinforceBaseline | Self::ReinforcePlusPlus | Self::Gae => {
                false
            }
        }
    }
}

impl PolicyLossKind {
    /// Whether the loss is one of whole trajectories.
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
        Self::of(names.iter().copied()).map_err(|wrong| {
            let known = LORA_MODULES.into_iter().chain([Self::ALL_WORD]);
            let nearest = nearest_word(wrong, known).map(|right| {
                let put = |&name: &&str| if name == wrong { right } else { name }.to_owned();
                quoted(&names.iter().map(put).collect::<Vec<_>>().join(","))
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

/// How a question becomes a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The instructions that Search-R1 gives, in our words.
    SearchR1,
    /// The same protocol in few tokens, for models that are warmed up on it.
    Short,
    /// A text of the user's with `{question}` in it.
    Text(String),
}

impl TemplateChoice {
    /// What names the template, or the text itself.
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

/// `"a", "b" or "c"`.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}
