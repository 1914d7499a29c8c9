//! The configuration tree: every section, key, default and range, written down once. The doc
//! comments are also what messages and the reference page show. Relations between keys are checked
//! in `relations`.

use std::path::PathBuf;

use super::choice::{
    ActivationCheckpoints, CheckpointDtype, Compat, ComputeDtype, DeviceChoice, EngineKind,
    KlControllerKind, KlPlacement, PolicyLossKind, Preset, TemplateChoice,
};
use super::section::section;
use super::value::Range;
use crate::algo::{AdvantageEstimator, Aggregation, KlEstimator, LikelihoodGate, OutcomeEstimator};
use crate::engine::{RunnerKind, WeightFormat};
use crate::policy::LoraTargets;
use crate::reward::RewardKind;
use crate::token::ChatDate;

section! {
    /// What concerns the whole run.
    pub struct Config in "" {
        /// Values that take the place of the defaults, listed in docs/algorithms.md; every key that is
        /// set wins over them.
        preset: Preset = Preset::None;
        /// Seed of every random draw of the run.
        seed: u64 = 0;
        /// Folder that the run writes to: configuration, metrics, trajectories, checkpoints.
        run_dir: PathBuf = PathBuf::from("runs/default");
        /// Runs turns in lock step on one thread, so that a seed always gives the same metrics.
        deterministic: bool = false;
        /// Whose defaults are followed where the project's own differ from them.
        compat: Compat = Compat::None;
        /// Threads that the model computes on; 0 takes one per core.
        threads: usize ["threads"] = 0, Range::between(0.0, 1024.0);
        /// Training steps between timelines, `trace/step-N.json` in the run folder, which Perfetto opens;
        /// 0 writes none.
        trace_every_steps: usize ["steps"] = 1;
    }
    sections {
        model: ModelConfig,
        retriever: RetrieverConfig,
        data: DataConfig,
        rollout: RolloutConfig,
        engine: EngineConfig,
        reward: RewardConfig,
        lora: LoraConfig,
        optimizer: OptimizerConfig,
        sft: SftConfig,
        training: TrainingConfig,
        algorithm: AlgorithmConfig,
        critic: CriticConfig,
        update: UpdateConfig,
        checkpoint: CheckpointConfig,
        eval: EvalConfig,
        serve: ServeConfig,
    }
}

section! {
    /// The language model that is trained or asked.
    pub struct ModelConfig in "model" {
        /// Folder of the model in Hugging Face layout (config.json, tokenizer.json, safetensors), or its
        /// name on the hub, `org/name` or `org/name@revision`, to be downloaded.
        path: PathBuf = PathBuf::new();
        /// Where `model.path` is a folder of adapters (adapter_config.json): folder or name of the
        /// model that they belong to, in place of the one that the file names.
        base: Option<PathBuf> = None;
        /// Number format that the model computes in; `auto` is bf16 where the hardware multiplies it
        /// faster than f32 (CUDA, CPUs with AVX-512 BF16 or AMX), else f32.
        dtype: ComputeDtype = ComputeDtype::Auto;
        /// Device that the model computes on; `auto` is the first CUDA device, else the CPU.
        device: DeviceChoice = DeviceChoice::Auto;
        /// Day that a chat template takes for today, so that prompts do not change from day to day.
        chat_date: ChatDate = ChatDate::default();
    }
}

section! {
    /// The retriever that answers searches.
    pub struct RetrieverConfig in "retriever" {
        /// Address of the retriever's `/retrieve`.
        url: String = "http://127.0.0.1:8000/retrieve".to_owned();
        /// Passages asked for per search.
        top_k: usize ["passages"] = 3, Range::between(1.0, 1000.0);
        /// Longest wait for one attempt of a search, in milliseconds.
        attempt_timeout_ms: u64 ["ms"] = 10_000, Range::at_least(1.0);
        /// Longest wait for a search with all its attempts, in milliseconds.
        deadline_ms: u64 ["ms"] = 300_000, Range::at_least(1.0);
        /// Most requests under way at once.
        max_in_flight: usize ["requests"] = 16, Range::between(1.0, 4096.0);
    }
}

section! {
    /// Questions, their prompts and the passages used as a control.
    pub struct DataConfig in "data" {
        /// JSONL file of the training questions.
        train: PathBuf = PathBuf::new();
        /// JSONL file of the held-out questions.
        test: PathBuf = PathBuf::new();
        /// JSONL file of the corpus; read only to answer searches with random passages.
        corpus: Option<PathBuf> = None;
        /// How a question becomes a prompt.
        template: TemplateChoice = TemplateChoice::SearchR1;
        /// Puts the prompt into the model's chat template as the user's message; a model without one is
        /// asked plainly.
        chat: bool = true;
        /// Most training questions used, evenly spread over the file; 0 takes all.
        max_train_questions: usize ["questions"] = 0;
        /// Most hops of a question, where records say how many it takes; 0 takes all questions.
        max_hops: usize ["hops"] = 0;
    }
}

section! {
    /// How episodes are played.
    pub struct RolloutConfig in "rollout" {
        /// Most turns with searches; one more turn without follows for the answer.
        max_turns: usize ["turns"] = 4, Range::between(1.0, 64.0);
        /// Most tokens of the first prompt; a question that needs more is refused.
        max_prompt_tokens: usize ["tokens"] = 2048, Range::at_least(1.0);
        /// Most tokens sampled in one turn.
        max_response_tokens: usize ["tokens"] = 500, Range::at_least(1.0);
        /// Most tokens of one search's passages together.
        max_observation_tokens: usize ["tokens"] = 500, Range::at_least(1.0);
        /// Most tokens of one passage.
        max_passage_tokens: usize ["tokens"] = 160, Range::at_least(1.0);
        /// Most tokens of an episode, prompt and observations included; 0 takes what the other limits
        /// add up to. The model's own limit holds as well.
        max_context_tokens: usize ["tokens"] = 0;
        /// Sampling temperature in training; logits are divided by it.
        temperature: f64 = 1.0, Range::above(0.0);
        /// Share of the probability mass that is sampled from in training; 1 is all of it.
        top_p: f64 = 1.0, Range::above_up_to(0.0, 1.0);
        /// Most episodes that generate at once.
        max_sequences: usize ["episodes"] = 64, Range::between(1.0, 65_536.0);
        /// Groups that a training step plays beyond its own and does not wait for: the slowest go on in
        /// the next step, and their finished turns stay those of the policy that sampled them.
        carried_groups: usize ["groups"] = 0;
        /// Steps by which rollouts go ahead of the updates: while the policy learns from a step, the next
        /// ones are played on a thread of their own, by weights that are exactly as many updates old. 0
        /// plays and learns by turns.
        max_staleness: u64 ["steps"] = 0, Range::between(0.0, 8.0);
        /// Most tokens of prompts and passages that are read in one pass, beside the token that each
        /// running episode goes on with: fewer keep these from waiting.
        max_prefill_tokens: usize ["tokens"] = 512, Range::between(16.0, 65_536.0);
        /// Longest wait of a search for others that go out with it in one request; 0 sends each alone.
        search_batch_ms: u64 ["ms"] = 5, Range::between(0.0, 1000.0);
        /// What computes rollouts.
        runner: RunnerKind = RunnerKind::Auto;
        /// What rollouts keep weights as; other than `auto` for the native runner alone.
        weights: Option<WeightFormat> = None;
        /// Memory for keys and values of all episodes; never less than one whole episode takes. 0 takes
        /// what `rollout.max_sequences` episodes can need. With less, episodes that find no room wait, or
        /// are read again.
        kv_cache_mib: usize ["MiB"] = 0, Range::between(0.0, 16_777_216.0);
    }
}

section! {
    /// Who samples the turns of training: this process, or servers of vLLM or SGLang.
    pub struct EngineConfig in "engine" {
        /// The engine; the other keys of the section are for servers only.
        kind: EngineKind = EngineKind::Builtin;
        /// Base addresses of the servers, one a replica, with commas between them.
        urls: String = String::new();
        /// `RUN_DIR/rollout-weights` as the servers see it, where that is another path than here, such
        /// as in a container; without it the same.
        weights_dir: Option<PathBuf> = None;
        /// Longest wait for one answer of a server, in milliseconds.
        attempt_timeout_ms: u64 ["ms"] = 600_000, Range::at_least(1.0);
        /// Longest wait for a turn with all its attempts, in milliseconds: as long as a server may be away.
        deadline_ms: u64 ["ms"] = 1_800_000, Range::at_least(1.0);
        /// Most turns under way at one server.
        max_in_flight: usize ["turns"] = 256, Range::between(1.0, 65_536.0);
    }
}

section! {
    /// What a finished trajectory is worth.
    pub struct RewardConfig in "reward" {
        /// What is rewarded.
        kind: RewardKind = RewardKind::ExactMatch;
        /// `structured`: score of a well-formed trajectory with a wrong answer.
        structure_format_score: f64 = 0.2, Range::between(0.0, 1.0);
        /// `structured`: score of an ill-formed trajectory that does give an answer.
        final_format_score: f64 = 0.1, Range::between(0.0, 1.0);
        /// `structured`: added when a golden answer was among the passages.
        retrieval_score: f64 = 0.1, Range::between(0.0, 1.0);
    }
}

section! {
    /// Low-rank adapters (LoRA, arXiv 2106.09685) for the warm start, the policy and the critic: the
    /// model's own weights are frozen, and small matrices beside them are trained.
    pub struct LoraConfig in "lora" {
        /// Rank of the adapters; 0 trains the model's weights themselves.
        rank: usize ["rows"] = 0, Range::between(0.0, 4096.0);
        /// What adapters add is multiplied by this over the rank.
        alpha: f64 = 32.0, Range::above(0.0);
        /// Linear modules that get adapters in every layer.
        targets: LoraTargets = LoraTargets::ALL;
        /// Divides `alpha` by the square root of the rank instead of the rank, so that larger ranks
        /// learn no slower.
        rslora: bool = false;
        /// Checkpoints are whole models with the adapters merged into them, and the adapters beside in
        /// `adapter/`; without it checkpoints are folders of adapters alone, in PEFT's layout.
        merge_on_save: bool = true;
    }
}

section! {
    /// AdamW, for the warm start, for the policy and for the critic.
    pub struct OptimizerConfig in "optimizer" {
        /// Decay of the mean of the gradients.
        beta1: f64 = 0.9, Range::from_below(0.0, 1.0);
        /// Decay of the mean of the squared gradients.
        beta2: f64 = 0.999, Range::from_below(0.0, 1.0);
        /// Added to the denominator of the update.
        epsilon: f64 = 1e-8, Range::above(0.0);
        /// Share of a weight taken away per update, times the learning rate.
        weight_decay: f64 = 0.01, Range::at_least(0.0);
        /// Longest gradient, as an L2 norm over all weights; a longer one is scaled down.
        max_grad_norm: f64 = 1.0, Range::above(0.0);
        /// Keeps the moments in the host's memory and computes the update there, where the model is on a
        /// CUDA device whose memory is short; its weights and gradients pass through the host then.
        offload: bool = false;
    }
}

section! {
    /// The supervised warm start on demonstrations.
    pub struct SftConfig in "sft" {
        /// Demonstrations made from the training questions.
        demonstrations: usize ["demonstrations"] = 256, Range::at_least(1.0);
        /// Share of the demonstrations that answer without a search.
        direct_fraction: f64 = 0.0, Range::between(0.0, 1.0);
        /// Times that each demonstration is trained on.
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
    /// Reinforcement learning, whatever the algorithm: sizes of a step, learning rate, loss.
    pub struct TrainingConfig in "training" {
        /// Training steps: rollout, scoring and update of one batch of questions.
        steps: usize ["steps"] = 100, Range::at_least(1.0);
        /// Questions per step.
        prompts_per_step: usize ["questions"] = 32, Range::at_least(1.0);
        /// Trajectories per question; algorithms that compare them with each other need 2.
        group_size: usize ["trajectories"] = 8, Range::at_least(1.0);
        /// Trajectories per optimizer step; 0 takes the whole step's.
        trajectories_per_update: usize ["trajectories"] = 0;
        /// Times that each trajectory is trained on.
        epochs_per_step: usize ["epochs"] = 1, Range::at_least(1.0);
        /// Learning rate after the warm-up.
        learning_rate: f64 = 1e-6, Range::above(0.0);
        /// Optimizer steps over which the learning rate rises from 0.
        warmup_updates: usize ["updates"] = 4;
        /// How far the probability ratio may fall below 1 before it is clipped.
        clip_low: f64 = 0.2, Range::between(0.0, 1.0);
        /// How far the probability ratio may rise above 1 before it is clipped.
        clip_high: f64 = 0.2, Range::at_least(0.0);
        /// Weight of the divergence from the starting model, in the loss or in the reward (see
        /// `algorithm.kl_placement`); 0 does without.
        kl_coefficient: f64 = 1e-3, Range::at_least(0.0);
        /// How that divergence is estimated.
        kl_estimator: KlEstimator = KlEstimator::K3;
        /// Weight of the policy's entropy in the loss, which keeps it varied; 0 does without.
        entropy_coefficient: f64 = 0.0, Range::at_least(0.0);
        /// Leaves out the trajectories of groups in which all rewards are equal: their advantage is 0,
        /// so that they would only add to the divergence term.
        skip_uniform_groups: bool = false;
        /// `algorithm.advantage` = "grpo": divides advantages by the standard deviation of their
        /// group.
        normalise_by_std: bool = true;
        /// How the losses of the tokens become one number.
        loss_aggregation: Aggregation = Aggregation::TokenMean;
        /// Steps between checkpoints; 0 saves the last one only.
        save_every_steps: usize ["steps"] = 50;
        /// Steps between evaluations on the held-out questions; 0 leaves them to `trainer eval`.
        eval_every_steps: usize ["steps"] = 0;
        /// Goes on from the last checkpoint in the run directory if there is one.
        resume: bool = true;
        /// Share of a step's trajectories lost to failed searches above which the run stops.
        max_failed_search_fraction: f64 = 0.5, Range::between(0.0, 1.0);
    }
}

section! {
    /// Which algorithm: how rewards become advantages, and advantages a loss.
    pub struct AlgorithmConfig in "algorithm" {
        /// How rewards become advantages; "gae" is PPO and trains a critic.
        advantage: AdvantageEstimator =
            AdvantageEstimator::Outcome(OutcomeEstimator::Grpo);
        /// The loss of a token.
        policy_loss: PolicyLossKind = PolicyLossKind::Clip;
        /// `policy_loss` = "clip": most that a token of negative advantage costs, in multiples of that
        /// advantage; 0 sets no bound.
        dual_clip: f64 = 0.0, Range::at_least(0.0);
        /// `policy_loss` = "sapo": steepness of the gate of tokens with a positive advantage.
        sapo_positive: f64 = 1.0, Range::above(0.0);
        /// `policy_loss` = "sapo": steepness of the gate of all other tokens.
        sapo_negative: f64 = 1.05, Range::above(0.0);
        /// `training.loss_aggregation` = "seq-mean-token-sum-norm": the constant that sums are divided by; 0
        /// takes the tokens that an episode can sample.
        norm_tokens: usize ["tokens"] = 0;
        /// Discount of a reward one token later, for "gae" and "reinforce++".
        gamma: f64 = 1.0, Range::above_up_to(0.0, 1.0);
        /// Discount of the estimate one token later, for "gae".
        lambda: f64 = 1.0, Range::between(0.0, 1.0);
        /// What the divergence from the starting model is part of.
        kl_placement: KlPlacement = KlPlacement::Loss;
        /// What happens to `training.kl_coefficient` during a run.
        kl_controller: KlControllerKind = KlControllerKind::Fixed;
        /// `kl_controller` = "adaptive": divergence wished for, in nats per token.
        kl_target: f64 = 0.1, Range::above(0.0);
        /// `kl_controller` = "adaptive": trajectories over which the weight may change by its own size.
        kl_horizon: usize ["trajectories"] = 10_000, Range::at_least(1.0);
        /// Largest weight that corrects a token where the sampler's probability was another than the
        /// trainer's (truncated importance sampling); 0 does not correct.
        importance_most: f64 = 2.0, Range::at_least(0.0);
        /// Weight of the term that keeps the likelihood of trajectories without a negative advantage
        /// (LLDS), against collapse; 0 does without.
        likelihood_coefficient: f64 = 0.0, Range::at_least(0.0);
        /// What must have become less likely for that term to hold a token.
        likelihood_gate: LikelihoodGate = LikelihoodGate::Action;
        /// Rolls out further questions in place of those whose trajectories all have one reward.
        dynamic_sampling: bool = false;
        /// `dynamic_sampling`: most rollouts of a step; what they have found by then is trained on.
        sampling_rounds: usize ["rollouts"] = 4, Range::between(1.0, 64.0);
        /// Sampled tokens before `overlong_limit_tokens` over which a penalty for length grows; 0 does
        /// without it.
        overlong_buffer_tokens: usize ["tokens"] = 0;
        /// Sampled tokens of a trajectory at which that penalty is whole; 0 takes as many as an episode
        /// can sample.
        overlong_limit_tokens: usize ["tokens"] = 0;
        /// The whole penalty.
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
        /// Steps at the beginning in which the critic learns alone.
        warmup_steps: usize ["steps"] = 0;
        /// How far a value may move within a step before its loss no longer shrinks.
        clip: f64 = 0.5, Range::above(0.0);
    }
}

section! {
    /// How a batch of trajectories becomes gradients.
    pub struct UpdateConfig in "update" {
        /// Tokens in one forward and backward pass, of which a prompt that several trajectories share
        /// counts once; a longer trajectory goes alone.
        tokens_per_micro_batch: usize ["tokens"] = 8192, Range::at_least(1.0);
        /// What a pass keeps for the way back: "none" keeps everything, "layers" only what went into each
        /// layer.
        checkpoint_activations: ActivationCheckpoints = ActivationCheckpoints::None;
    }
}

section! {
    /// Checkpoints: what training writes.
    pub struct CheckpointConfig in "checkpoint" {
        /// Number format of a saved model. A run that is gone on with needs all bits of f32: with
        /// "bf16" the checkpoints of `trainer train` keep them in a file of their own.
        dtype: CheckpointDtype = CheckpointDtype::F32;
    }
}

section! {
    /// Evaluation on held-out questions.
    pub struct EvalConfig in "eval" {
        /// Questions asked, evenly spread over the file; 0 asks all.
        questions: usize ["questions"] = 0;
        /// Sampling temperature; 0 always takes the most likely token.
        temperature: f64 = 0.0, Range::at_least(0.0);
        /// Most episodes that generate at once.
        batch: usize ["episodes"] = 64, Range::between(1.0, 65_536.0);
    }
}

section! {
    /// The chat endpoint of `trainer serve`.
    pub struct ServeConfig in "serve" {
        /// Address and port to listen at.
        addr: String = "127.0.0.1:8100".to_owned();
        /// What the model is called in requests; empty takes the name of its folder.
        name: String = String::new();
        /// Most questions that wait for a place among `rollout.max_sequences`; one more is answered 503.
        max_waiting: usize ["questions"] = 64, Range::between(0.0, 65_536.0);
        /// Largest body of a request.
        max_body_bytes: usize ["bytes"] = 1_048_576, Range::at_least(1.0);
        /// Longest time that questions under way are waited for once a stop is wished.
        grace_period_ms: u64 ["ms"] = 30_000;
    }
}
