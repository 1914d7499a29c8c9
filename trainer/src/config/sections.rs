//! The configuration tree: every section and key with its default and range. The doc comments also appear in
//! messages, in docs/configuration.md and in .env.example. `relations` checks how keys go together.

use std::path::PathBuf;

use super::choice::{
    ActivationCheckpoints, Compat, ComputeDtype, DeviceChoice, EngineKind, KlControllerKind,
    KlPlacement, PolicyLossKind, Preset,
};
use super::data::DataConfig;
use super::keeping::{CheckpointConfig, GuardConfig};
use super::record::RecordConfig;
use super::reward::{JudgeConfig, RewardConfig, RewardHttpConfig};
use super::section::section;
use super::tracking::TrackingConfig;
use super::value::{Addresses, Range};
use crate::algo::{AdvantageEstimator, Aggregation, KlEstimator, LikelihoodGate, OutcomeEstimator};
use crate::engine::{RunnerKind, WeightFormat};
use crate::policy::LoraTargets;
use crate::token::ChatDate;

section! {
    /// Settings of the whole run.
    pub struct Config in "" {
        /// A named set of defaults, listed in docs/algorithms.md. Any key that you set overrides it.
        preset: Preset = Preset::None;
        /// Seed of all random numbers in the run.
        seed: u64 = 0;
        /// Folder for everything that the run writes: configuration, metrics, trajectories, checkpoints.
        run_dir: PathBuf = PathBuf::from("runs/default");
        /// Plays all turns in lock step on one thread, so that the same seed always gives the same metrics.
        deterministic: bool = false;
        /// The project whose behaviour to follow where this project's own differs.
        compat: Compat = Compat::None;
        /// Threads for the model's computations; 0 uses one per core.
        threads: usize ["threads"] = 0, Range::between(0.0, 1024.0);
        /// Training steps from one timeline to the next; 0 writes none. Timelines are `trace/step-N.json` in
        /// the run folder, for Perfetto.
        trace_every_steps: usize ["steps"] = 1;
    }
    sections {
        model: ModelConfig,
        retriever: RetrieverConfig,
        record: RecordConfig,
        data: DataConfig,
        rollout: RolloutConfig,
        engine: EngineConfig,
        reward: RewardConfig,
        reward_http: RewardHttpConfig,
        judge: JudgeConfig,
        lora: LoraConfig,
        optimizer: OptimizerConfig,
        sft: SftConfig,
        training: TrainingConfig,
        algorithm: AlgorithmConfig,
        critic: CriticConfig,
        update: UpdateConfig,
        checkpoint: CheckpointConfig,
        guard: GuardConfig,
        eval: EvalConfig,
        serve: ServeConfig,
        tracking: TrackingConfig,
    }
}

section! {
    /// The language model to train or to ask.
    pub struct ModelConfig in "model" {
        /// Folder of the model in Hugging Face layout (config.json, tokenizer.json, safetensors), or its
        /// name on the hub, `org/name` or `org/name@revision`, which is then downloaded.
        path: PathBuf = PathBuf::new();
        /// Folder or name of the base model, if `model.path` is a folder of adapters; without it,
        /// adapter_config.json names the base model.
        base: Option<PathBuf> = None;
        /// Number format of the model's computations; `auto` is bf16 where the hardware multiplies it
        /// faster than f32 (CUDA, CPUs with AVX-512 BF16 or AMX), else f32.
        dtype: ComputeDtype = ComputeDtype::Auto;
        /// Device of the model; `auto` is the first CUDA device if there is one, else the CPU.
        device: DeviceChoice = DeviceChoice::Auto;
        /// Date that the chat template uses as today's date, so that prompts stay the same every day.
        chat_date: ChatDate = ChatDate::default();
    }
}

section! {
    /// The retriever that answers searches.
    pub struct RetrieverConfig in "retriever" {
        /// Address of the retriever: `http://host:port`, with or without `/retrieve`. Several are a list, or separated by
        /// commas; with the prefix `dns+`, each address of the host is a retriever. All must serve the same index.
        url: Addresses = Addresses("http://127.0.0.1:8000/retrieve".to_owned());
        /// Passages to request for each search.
        top_k: usize ["passages"] = 3, Range::between(1.0, 1000.0);
        /// Time limit for one attempt at a search, after which the retriever is asked anew. 0: a slow retriever is
        /// waited for until the deadline, one of several for half the time before it.
        attempt_timeout_ms: u64 ["ms"] = 0;
        /// Time limit for a search, all attempts included.
        deadline_ms: u64 ["ms"] = 300_000, Range::at_least(1.0);
        /// Maximum number of concurrent requests.
        max_in_flight: usize ["requests"] = 16, Range::between(1.0, 4096.0);
        /// Of several retrievers, a second one is asked if the first is later than 95 % of the latest answers. Maximum
        /// number of such requests, in percent of all; 0 asks no second one.
        hedge_percent: usize ["%"] = 5, Range::between(0.0, 100.0);
        /// File with the API key that the retriever needs, read for each request; without it, none is sent.
        api_key_file: Option<PathBuf> = None;
        /// Collector that receives a trace of each batch of searches over OTLP, such as `http://localhost:4318`; the
        /// retriever continues the traces. Empty: none.
        otlp_endpoint: String = String::new();
    }
}

section! {
    /// Rollouts: how episodes are played.
    pub struct RolloutConfig in "rollout" {
        /// Maximum number of turns that may search; one more turn follows for the answer.
        max_turns: usize ["turns"] = 4, Range::between(1.0, 64.0);
        /// Maximum length of the first prompt; a question that needs more is refused.
        max_prompt_tokens: usize ["tokens"] = 2048, Range::at_least(1.0);
        /// Maximum number of tokens sampled in one turn.
        max_response_tokens: usize ["tokens"] = 500, Range::at_least(1.0);
        /// Maximum length of all passages of one search together.
        max_observation_tokens: usize ["tokens"] = 500, Range::at_least(1.0);
        /// Maximum length of one passage.
        max_passage_tokens: usize ["tokens"] = 160, Range::at_least(1.0);
        /// Maximum length of an episode, prompt and observations included; 0 uses the sum of the other
        /// limits. The model's own limit applies as well.
        max_context_tokens: usize ["tokens"] = 0;
        /// Sampling temperature in training, by which logits are divided.
        temperature: f64 = 1.0, Range::above(0.0);
        /// Share of the probability mass to sample from in training; 1 is all of it.
        top_p: f64 = 1.0, Range::above_up_to(0.0, 1.0);
        /// Maximum number of episodes that generate concurrently.
        max_sequences: usize ["episodes"] = 64, Range::between(1.0, 65_536.0);
        /// Extra groups that a training step starts without waiting for them. The slowest groups continue in
        /// the next step; turns that are already finished keep the older policy's tokens.
        carried_groups: usize ["groups"] = 0;
        /// Steps that rollouts run ahead of the updates, on a thread of their own: while the policy learns
        /// from one step, the next ones are played with weights exactly that many steps old. 0 alternates
        /// between playing and learning.
        max_staleness: u64 ["steps"] = 0, Range::between(0.0, 8.0);
        /// Maximum number of prompt and passage tokens read in one pass, in addition to one token for each
        /// running episode. A smaller value makes running episodes wait less.
        max_prefill_tokens: usize ["tokens"] = 512, Range::between(16.0, 65_536.0);
        /// Time that a search waits for other searches to share one request; 0 sends each search alone.
        search_batch_ms: u64 ["ms"] = 5, Range::between(0.0, 1000.0);
        /// The code that computes rollouts.
        runner: RunnerKind = RunnerKind::Auto;
        /// Number format of the weights in rollouts; only the native runner accepts a value other than `auto`.
        weights: Option<WeightFormat> = None;
        /// Memory for the keys and values of all episodes, at least that of one whole episode. 0 allocates
        /// enough for `rollout.max_sequences` episodes. With less, episodes that do not fit wait, or are
        /// computed again.
        kv_cache_mib: usize ["MiB"] = 0, Range::between(0.0, 16_777_216.0);
    }
}

section! {
    /// The engine that samples the turns of training: this process, or servers of vLLM or SGLang.
    pub struct EngineConfig in "engine" {
        /// The engine; the other keys of this section apply to servers only.
        kind: EngineKind = EngineKind::Builtin;
        /// Base addresses of the servers, one for each replica, separated by commas.
        urls: String = String::new();
        /// Path of `RUN_DIR/rollout-weights` on the servers, if it differs from the path here, such as
        /// in a container.
        weights_dir: Option<PathBuf> = None;
        /// Time limit for one answer of a server.
        attempt_timeout_ms: u64 ["ms"] = 600_000, Range::at_least(1.0);
        /// Time limit for a turn, all attempts included; a server may be down for this long.
        deadline_ms: u64 ["ms"] = 1_800_000, Range::at_least(1.0);
        /// Maximum number of concurrent turns at one server.
        max_in_flight: usize ["turns"] = 256, Range::between(1.0, 65_536.0);
    }
}

section! {
    /// Low-rank adapters (LoRA, arXiv 2106.09685) for the warm start, the policy and the critic: small
    /// added matrices are trained, and the model's own weights stay frozen.
    pub struct LoraConfig in "lora" {
        /// Rank of the adapters; 0 trains the model's own weights instead.
        rank: usize ["rows"] = 0, Range::between(0.0, 4096.0);
        /// Scale of the adapters: their output is multiplied by `alpha` divided by the rank.
        alpha: f64 = 32.0, Range::above(0.0);
        /// Linear modules that get an adapter in every layer.
        targets: LoraTargets = LoraTargets::ALL;
        /// Divides `alpha` by the square root of the rank instead of the rank, so that larger ranks do not
        /// learn more slowly.
        rslora: bool = false;
        /// Saves checkpoints as whole models with the adapters merged in, and the adapters in `adapter/`.
        /// If false, a checkpoint holds only the adapters, in PEFT's layout.
        merge_on_save: bool = true;
    }
}

section! {
    /// AdamW, for the warm start, the policy and the critic.
    pub struct OptimizerConfig in "optimizer" {
        /// Decay rate of the mean of the gradients.
        beta1: f64 = 0.9, Range::from_below(0.0, 1.0);
        /// Decay rate of the mean of the squared gradients.
        beta2: f64 = 0.999, Range::from_below(0.0, 1.0);
        /// Small number added to the denominator of the update.
        epsilon: f64 = 1e-8, Range::above(0.0);
        /// Weight decay: each update takes this share of a weight away, times the learning rate.
        weight_decay: f64 = 0.01, Range::at_least(0.0);
        /// Maximum L2 norm of the gradient over all weights; a longer gradient is scaled down.
        max_grad_norm: f64 = 1.0, Range::above(0.0);
        /// Keeps the optimizer's moments in host memory and computes the update there, for a model on a
        /// CUDA device with little memory. Weights and gradients then pass through the host.
        offload: bool = false;
    }
}

section! {
    /// The supervised warm start on demonstrations.
    pub struct SftConfig in "sft" {
        /// Number of demonstrations to make from the training questions.
        demonstrations: usize ["demonstrations"] = 256, Range::at_least(1.0);
        /// Share of the demonstrations that answer without searching.
        direct_fraction: f64 = 0.0, Range::between(0.0, 1.0);
        /// Number of times each demonstration is used.
        epochs: usize ["epochs"] = 1, Range::at_least(1.0);
        /// Demonstrations per optimizer step.
        trajectories_per_update: usize ["trajectories"] = 16, Range::at_least(1.0);
        /// Learning rate after the warm-up.
        learning_rate: f64 = 1e-5, Range::above(0.0);
        /// Optimizer steps over which the learning rate rises from 0.
        warmup_updates: usize ["updates"] = 4;
    }
}

section! {
    /// Reinforcement learning with any algorithm: size of a step, learning rate, loss.
    pub struct TrainingConfig in "training" {
        /// Number of training steps; each rolls out, scores and learns from one batch of questions.
        steps: usize ["steps"] = 100, Range::at_least(1.0);
        /// Questions per step.
        prompts_per_step: usize ["questions"] = 32, Range::at_least(1.0);
        /// Trajectories per question; algorithms that compare trajectories of a question need at least 2.
        group_size: usize ["trajectories"] = 8, Range::at_least(1.0);
        /// Trajectories per optimizer step; 0 uses all trajectories of the training step.
        trajectories_per_update: usize ["trajectories"] = 0;
        /// Number of times each trajectory is used.
        epochs_per_step: usize ["epochs"] = 1, Range::at_least(1.0);
        /// Learning rate after the warm-up.
        learning_rate: f64 = 1e-6, Range::above(0.0);
        /// Optimizer steps over which the learning rate rises from 0.
        warmup_updates: usize ["updates"] = 4;
        /// Distance that the probability ratio may fall below 1 before it is clipped.
        clip_low: f64 = 0.2, Range::between(0.0, 1.0);
        /// Distance that the probability ratio may rise above 1 before it is clipped.
        clip_high: f64 = 0.2, Range::at_least(0.0);
        /// Weight of the KL divergence from the starting model, in the loss or in the reward (see
        /// `algorithm.kl_placement`); 0 turns it off.
        kl_coefficient: f64 = 1e-3, Range::at_least(0.0);
        /// Estimator of that divergence.
        kl_estimator: KlEstimator = KlEstimator::K3;
        /// Weight of the policy's entropy in the loss, which keeps outputs varied; 0 turns it off.
        entropy_coefficient: f64 = 0.0, Range::at_least(0.0);
        /// Leaves out groups in which all rewards are equal. Their advantage is 0, so they would only add
        /// to the divergence term.
        skip_uniform_groups: bool = false;
        /// For `algorithm.advantage` = "grpo": divides advantages by the standard deviation of their group.
        normalise_by_std: bool = true;
        /// Rule that combines the losses of all tokens into one number.
        loss_aggregation: Aggregation = Aggregation::TokenMean;
        /// Steps from one checkpoint to the next; 0 saves only the last step.
        save_every_steps: usize ["steps"] = 50;
        /// Steps from one evaluation on the held-out questions to the next; 0 evaluates only in `trainer eval`.
        eval_every_steps: usize ["steps"] = 0;
        /// Resumes from the last checkpoint in the run folder, if there is one.
        resume: bool = true;
        /// Stops the run if failed searches cost more than this share of a step's trajectories.
        max_failed_search_fraction: f64 = 0.5, Range::between(0.0, 1.0);
    }
}

section! {
    /// The algorithm: how rewards become advantages, and advantages a loss.
    pub struct AlgorithmConfig in "algorithm" {
        /// Advantage estimator; "gae" is PPO and trains a critic.
        advantage: AdvantageEstimator =
            AdvantageEstimator::Outcome(OutcomeEstimator::Grpo);
        /// Loss function of a token.
        policy_loss: PolicyLossKind = PolicyLossKind::Clip;
        /// For `policy_loss` = "clip": upper bound on the loss of a token with a negative advantage, in
        /// multiples of that advantage; 0 sets no bound.
        dual_clip: f64 = 0.0, Range::at_least(0.0);
        /// For `policy_loss` = "sapo": steepness of the gate for tokens with a positive advantage.
        sapo_positive: f64 = 1.0, Range::above(0.0);
        /// For `policy_loss` = "sapo": steepness of the gate for all other tokens.
        sapo_negative: f64 = 1.05, Range::above(0.0);
        /// For `training.loss_aggregation` = "seq-mean-token-sum-norm": constant that divides the sums; 0 uses
        /// the number of tokens that an episode can sample.
        norm_tokens: usize ["tokens"] = 0;
        /// For "gae" and "reinforce++": discount of rewards, per token.
        gamma: f64 = 1.0, Range::above_up_to(0.0, 1.0);
        /// For "gae": discount of later estimates, per token.
        lambda: f64 = 1.0, Range::between(0.0, 1.0);
        /// Place where the divergence from the starting model enters: the loss or the reward.
        kl_placement: KlPlacement = KlPlacement::Loss;
        /// Control of `training.kl_coefficient` during a run: constant, or following a target divergence.
        kl_controller: KlControllerKind = KlControllerKind::Fixed;
        /// For `kl_controller` = "adaptive": target divergence, in nats per token.
        kl_target: f64 = 0.1, Range::above(0.0);
        /// For `kl_controller` = "adaptive": trajectories over which the coefficient may change by its own size.
        kl_horizon: usize ["trajectories"] = 10_000, Range::at_least(1.0);
        /// Truncated importance sampling: upper bound on the weight that corrects a token whose probability
        /// differs between sampler and trainer; 0 turns the correction off.
        importance_most: f64 = 2.0, Range::at_least(0.0);
        /// Weight of the LLDS term, which preserves the likelihood of trajectories without a negative
        /// advantage and so prevents collapse; 0 turns it off.
        likelihood_coefficient: f64 = 0.0, Range::at_least(0.0);
        /// The LLDS term applies to a token if this has become less likely.
        likelihood_gate: LikelihoodGate = LikelihoodGate::Action;
        /// Replaces questions whose trajectories all have the same reward by further questions.
        dynamic_sampling: bool = false;
        /// For `dynamic_sampling`: maximum number of rollouts in a step; the step then trains on the questions
        /// kept so far.
        sampling_rounds: usize ["rollouts"] = 4, Range::between(1.0, 64.0);
        /// Number of sampled tokens before `overlong_limit_tokens` over which the length penalty grows; 0 turns
        /// the penalty off.
        overlong_buffer_tokens: usize ["tokens"] = 0;
        /// Number of sampled tokens at which the length penalty reaches its full size; 0 uses the number
        /// of tokens that an episode can sample.
        overlong_limit_tokens: usize ["tokens"] = 0;
        /// Full size of the length penalty.
        overlong_penalty: f64 = 1.0, Range::above(0.0);
    }
}

section! {
    /// The critic of PPO (`algorithm.advantage` = "gae"): a copy of the model with a value head.
    pub struct CriticConfig in "critic" {
        /// Learning rate after the warm-up.
        learning_rate: f64 = 1e-5, Range::above(0.0);
        /// Optimizer steps over which the learning rate rises from 0.
        warmup_updates: usize ["updates"] = 4;
        /// Steps at the start in which only the critic learns.
        warmup_steps: usize ["steps"] = 0;
        /// Distance that a value may move within a step before its loss is clipped.
        clip: f64 = 0.5, Range::above(0.0);
    }
}

section! {
    /// Gradient computation for a batch of trajectories.
    pub struct UpdateConfig in "update" {
        /// Tokens in one forward and backward pass. A prompt that several trajectories share counts once; a
        /// longer trajectory gets a pass of its own.
        tokens_per_micro_batch: usize ["tokens"] = 8192, Range::at_least(1.0);
        /// Activation checkpointing: "none" keeps all activations for the backward pass, "layers" keeps only
        /// each layer's input and recomputes the rest.
        checkpoint_activations: ActivationCheckpoints = ActivationCheckpoints::None;
    }
}

section! {
    /// Evaluation on held-out questions.
    pub struct EvalConfig in "eval" {
        /// Number of questions to ask, taken evenly from the file; 0 asks all.
        questions: usize ["questions"] = 0;
        /// Sampling temperature; 0 always picks the most likely token.
        temperature: f64 = 0.0, Range::at_least(0.0);
        /// Maximum number of episodes that generate concurrently.
        batch: usize ["episodes"] = 64, Range::between(1.0, 65_536.0);
        /// File that `trainer audit` wrote for these questions; the ceiling of the corpus then stands beside each score.
        audit: Option<PathBuf> = None;
    }
}

section! {
    /// The chat endpoint of `trainer serve`.
    pub struct ServeConfig in "serve" {
        /// Address and port to listen on.
        addr: String = "127.0.0.1:8100".to_owned();
        /// Name of the model in requests; if empty, the name of its folder.
        name: String = String::new();
        /// Maximum number of questions that wait while `rollout.max_sequences` are running; further questions
        /// are answered with 503.
        max_waiting: usize ["questions"] = 64, Range::between(0.0, 65_536.0);
        /// Maximum size of a request's body.
        max_body_bytes: usize ["bytes"] = 1_048_576, Range::at_least(1.0);
        /// How long to wait for running questions after a shutdown request.
        grace_period_ms: u64 ["ms"] = 30_000;
    }
}
