//! The runner on emulated kernels, compared with the runner of tensor operations on every family's checkpoint.

#![expect(unsafe_code, reason = "launches are unsafe")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;
use shared::contract::splitmix;
use tch::{Device, Kind, Tensor};

use super::arguments::{
    AddNorm, Attend, BLOCK_THREADS, DRAW_THREADS, DrawTokens, Gate, Launch, Launcher,
    RotateAndStore, VOCABULARY_MAX,
};
use super::device::SOURCE;
use super::emulated::EmulatedDevice;
use super::fused_or_eager_runner;
use super::runner::FusedRunner;
use super::shape::KernelShape;
use super::upload::Upload;
use crate::engine::eager::{Distributions, EagerRunner};
use crate::engine::{
    BLOCK_TOKENS, Choice, Draw, Pass, Runner, RunnerChoice, RunnerKind, Sampling, SamplingKey, Span,
};
use crate::policy::tests::{BF16, CHECKPOINTS, F32, tiny};
use crate::policy::{Decoder, Policy};

/// Blocks of the runners under test.
const BLOCKS: usize = 40;
/// Positions of the rotary tables.
const POSITIONS: usize = 640;

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };
const WARM: Sampling = Sampling { temperature: 0.7, top_p: 1.0 };
const CUT: Sampling = Sampling { temperature: 1.0, top_p: 0.8 };

fn decoder(policy: &Policy) -> Decoder {
    Decoder::new(&policy.config, POSITIONS, policy.compute.device)
}

fn fused(policy: &Policy, multiprocessors: u32) -> FusedRunner<EmulatedDevice> {
    let shape = KernelShape::new(&policy.config, policy.compute.kind).unwrap();
    let launcher = EmulatedDevice::new(shape, multiprocessors);
    FusedRunner::new(decoder(policy), policy.detached_weights(), BLOCKS, launcher)
}

/// A sequence that is fed in parts.
struct FedSequence {
    ids: Vec<u32>,
    blocks: Vec<u32>,
    past: usize,
}

impl FedSequence {
    /// Creates a sequence of `tokens` random tokens, in the blocks from `block` on, in reverse order.
    fn new(policy: &Policy, tokens: usize, block: usize) -> Self {
        let mut state = tokens as u64;
        let vocabulary = policy.config.vocab_size as u64;
        let ids = (0..tokens).map(|_| (splitmix::next(&mut state) % vocabulary) as u32).collect();
        let count = tokens.div_ceil(BLOCK_TOKENS);
        Self {
            ids,
            blocks: (0..count).map(|index| (block + count - index) as u32).collect(),
            past: 0,
        }
    }
}

/// Feeds the next `counts` tokens of the sequences in one pass, and draws from each row with each of `sampling`.
fn feed(
    runner: &mut dyn Runner,
    sequences: &mut [FedSequence],
    counts: &[usize],
    sampling: &[Sampling],
) -> Vec<Choice> {
    let (mut ids, mut positions, mut spans, mut draws) = (vec![], vec![], vec![], vec![]);
    for (number, (sequence, &count)) in sequences.iter().zip(counts).enumerate() {
        if count == 0 {
            continue;
        }
        let start = ids.len();
        let past = sequence.past;
        ids.extend(&sequence.ids[past..past + count]);
        positions.extend((past..past + count).map(|position| position as u32));
        spans.push(Span { rows: start..ids.len(), past, blocks: &sequence.blocks });
        for row in 0..count {
            draws.extend(sampling.iter().enumerate().map(|(sample, &sampling)| Draw {
                row: start + row,
                sampling,
                key: SamplingKey { seed: 3, step: 0, prompt: number as u64, sample: sample as u64 },
                position: (past + row + 1) as u64,
            }));
        }
    }
    let choices =
        runner.run(&Pass { ids: &ids, positions: &positions, spans: &spans }, &draws).unwrap();
    for (sequence, count) in sequences.iter_mut().zip(counts) {
        sequence.past += count;
    }
    choices
}

/// Prompts, single tokens and passages of three sequences, in passes that mix them.
const PASSES: [[usize; 3]; 6] =
    [[35, 1, 0], [1, 1, 60], [20, 1, 1], [1, 1, 1], [1, 33, 0], [1, 1, 1]];

fn choices(runner: &mut dyn Runner, policy: &Policy, sampling: &[Sampling]) -> Vec<Choice> {
    let mut fed =
        [(61, 0), (90, 5), (99, 20)].map(|(tokens, block)| FedSequence::new(policy, tokens, block));
    PASSES.iter().flat_map(|counts| feed(runner, &mut fed, counts, sampling)).collect()
}

fn eager(policy: &Policy) -> EagerRunner {
    EagerRunner::new(decoder(policy), policy.detached_weights(), BLOCKS)
}

#[test]
fn every_family_in_f32_draws_what_tensor_operations_draw() {
    for name in CHECKPOINTS {
        let (policy, _) = tiny(name, F32);
        let sampling = [GREEDY, WARM];
        let actual = choices(&mut fused(&policy, 1), &policy, &sampling);
        let expected = choices(&mut eager(&policy), &policy, &sampling);
        for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            assert_eq!(actual.token, expected.token, "{name} {index}");
            let gap = (actual.log_prob - expected.log_prob).abs();
            assert!(gap < 3e-5, "{name} {index}: {actual:?}, not {expected:?}");
        }
    }
}

#[test]
fn every_family_in_bf16_stays_near_tensor_operations() {
    for name in CHECKPOINTS {
        let (policy, _) = tiny(name, BF16);
        let gap = fused(&policy, 1).check().unwrap();
        assert!(gap < 0.03, "{name}: {gap}");
        assert!(gap > 1e-5, "{name} was computed in f32");
    }
}

/// Cuts contexts into parts for many multiprocessors, with windows that leave some parts empty.
#[test]
fn contexts_in_parts_are_those_of_one_part() {
    for name in ["llama-tiny-tied", "mistral-tiny", "qwen2-tiny-window"] {
        let (policy, _) = tiny(name, F32);
        let lengths = [600, 300];
        let mut actual = Vec::new();
        for multiprocessors in [1, 7, 1000] {
            let mut runner = fused(&policy, multiprocessors);
            let mut fed = [FedSequence::new(&policy, 600, 0), FedSequence::new(&policy, 300, 20)];
            feed(&mut runner, &mut fed, &lengths.map(|length| length - 3), &[]);
            let passes = [(); 3].map(|()| feed(&mut runner, &mut fed, &[1, 1], &[GREEDY]));
            actual.push(passes.concat());
        }
        for other in &actual[1..] {
            for (first, other) in actual[0].iter().zip(other) {
                assert_eq!(first.token, other.token, "{name}");
                let gap = (first.log_prob - other.log_prob).abs();
                assert!(gap < 1e-5, "{name}: {first:?}, {other:?}");
            }
        }
    }
}

/// Top-p is left to the host, with the same result.
#[test]
fn a_cut_distribution_is_drawn_from_on_the_host() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let sampling = [CUT, GREEDY];
    let actual = choices(&mut fused(&policy, 1), &policy, &sampling);
    let expected = choices(&mut eager(&policy), &policy, &sampling);
    let tokens = |choices: &[Choice]| choices.iter().map(|choice| choice.token).collect::<Vec<_>>();
    assert_eq!(tokens(&actual), tokens(&expected));
}

#[test]
fn a_copied_block_reads_as_the_first() {
    let (policy, _) = tiny("qwen3-tiny", F32);
    let mut runner = fused(&policy, 1);
    let mut fed = [FedSequence::new(&policy, 40, 0)];
    feed(&mut runner, &mut fed, &[38], &[]);
    let (last, copy) = (fed[0].blocks[1], 30);
    runner.copy_block(last, copy);
    let first = feed(&mut runner, &mut fed, &[1], &[WARM]);
    fed[0].past -= 1;
    fed[0].blocks[1] = copy;
    assert_eq!(feed(&mut runner, &mut fed, &[1], &[WARM]), first);
}

/// A launcher whose norms use a wrong epsilon.
#[derive(Debug)]
struct WrongEpsilon(EmulatedDevice);

impl Launcher for WrongEpsilon {
    type Fault = Infallible;

    unsafe fn launch(&self, launch: &Launch, blocks: u32) -> Result<(), Infallible> {
        let launch = match *launch {
            Launch::AddNorm(given) => Launch::AddNorm(AddNorm { epsilon: 1.0, ..given }),
            other => other,
        };
        // SAFETY: the caller upholds the contract of `Launcher::launch`.
        unsafe { self.0.launch(&launch, blocks) }
    }

    fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors()
    }
}

#[test]
fn kernels_that_compute_something_else_fail_the_check() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    assert!(fused(&policy, 1).check().unwrap() < 1e-5);
    let shape = KernelShape::new(&policy.config, policy.compute.kind).unwrap();
    let launcher = WrongEpsilon(EmulatedDevice::new(shape, 1));
    let mut runner =
        FusedRunner::new(decoder(&policy), policy.detached_weights(), BLOCKS, launcher);
    let reason = runner.check().unwrap_err();
    assert!(reason.contains("log-probs"), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Compares the kernel's draws from random logits with those of the host.
    #[test]
    fn draws_follow_the_distribution(
        vocabulary in 1_usize..5000,
        sharpness in 0.1_f32..8.0,
        temperature in 0.2_f32..2.0,
        seed in any::<u64>(),
    ) {
        let (policy, _) = tiny("llama-tiny-tied", F32);
        let runner = fused(&policy, 1);
        let mut state = seed;
        let logits: Vec<f32> =
            (0..vocabulary).map(|_| splitmix::unit(splitmix::next(&mut state)) as f32 * sharpness).collect();
        let logits = Tensor::from_slice(&logits).unsqueeze(0);
        let draws: Vec<Draw> = (0..40).map(|sample| Draw {
            row: 0,
            sampling: Sampling { temperature, top_p: 1.0 },
            key: SamplingKey { seed, step: 0, prompt: 0, sample },
            position: 1,
        }).collect();
        let distributions = Distributions::new(&draws);
        let pass = Pass { ids: &[], positions: &[], spans: &[] };
        let upload = Upload::new(&pass, &draws, &distributions);
        let actual = runner.draw(&logits, &upload, &upload.to_device(Device::Cpu)).unwrap();
        let expected = distributions.choose(&logits, &draws);
        let same = actual.iter().zip(&expected).filter(|(drawn, host)| drawn.token == host.token).count();
        // The two sums differ by rounding, so a draw close to a boundary may choose a neighbour.
        prop_assert!(same >= 39, "{same} of 40: {actual:?}, not {expected:?}");
        for (actual, expected) in actual.iter().zip(&expected) {
            let gap = (actual.log_prob - expected.log_prob).abs();
            prop_assert!(actual.token != expected.token || gap < 2e-5, "{actual:?}, not {expected:?}");
        }
    }
}

#[test]
fn arguments_and_constants_are_those_of_the_kernels() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let emulated = EmulatedDevice::new(KernelShape::new(&policy.config, Kind::Float).unwrap(), 1);
    let sizes = BTreeMap::from([
        ("add_norm", size_of::<AddNorm>()),
        ("rotate_and_store", size_of::<RotateAndStore>()),
        ("attend", size_of::<Attend>()),
        ("join_parts", size_of::<Attend>()),
        ("gate", size_of::<Gate>()),
        ("draw_tokens", size_of::<DrawTokens>()),
    ]);
    for name in Launch::NAMES {
        assert_eq!(emulated.argument_bytes(name) as usize, sizes[name], "{name}");
    }
    assert_eq!(emulated.argument_bytes("none"), 0);
    let define = |name: &str| -> i64 {
        let line =
            SOURCE.lines().find(|line| line.starts_with(&format!("#define {name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(define("BLOCK_THREADS"), i64::from(BLOCK_THREADS));
    assert_eq!(define("DRAW_THREADS"), i64::from(DRAW_THREADS));
    assert_eq!(define("BLOCK_TOKENS"), BLOCK_TOKENS as i64);
    assert_eq!(define("SLICE_TOKENS") * define("SLICES_MAX"), VOCABULARY_MAX);
}

#[test]
fn unsupported_shapes_are_refused_with_the_reason() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let refusal = |kind: Kind, change: &dyn Fn(&mut crate::policy::ModelConfig)| {
        let mut config = policy.config.clone();
        change(&mut config);
        KernelShape::new(&config, kind).unwrap_err()
    };
    assert!(refusal(Kind::Half, &|_| {}).contains("Half"));
    assert!(refusal(Kind::Float, &|config| config.head_dim = 7).contains("heads of 7 numbers"));
    assert!(refusal(Kind::Float, &|config| config.vocab_size = 1 << 20).contains("1048576"));
    let wide = refusal(Kind::Float, &|config| {
        (config.head_dim, config.heads, config.key_value_heads) = (256, 64, 1);
    });
    assert!(wide.contains("64 query heads of 256 numbers"), "{wide}");
}

/// Without a CUDA device, kernels that are required are refused with the reason; otherwise they are replaced.
#[test]
fn without_a_device_tensor_operations_run() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let open = |required: bool| {
        fused_or_eager_runner(decoder(&policy), policy.detached_weights(), BLOCKS, required)
    };
    let refused = open(true).unwrap_err().to_string();
    assert!(refused.contains("\"fused\"") && refused.contains("the model is on Cpu"), "{refused}");
    let sampling = [GREEDY];
    let actual = choices(open(false).unwrap().as_mut(), &policy, &sampling);
    assert_eq!(actual, choices(&mut eager(&policy), &policy, &sampling));
    let choice = RunnerChoice { kind: RunnerKind::Fused, format: None };
    let refused = choice.native_format(Device::Cpu, Kind::Float).unwrap_err().to_string();
    assert!(refused.contains("`rollout.runner` = \"fused\""), "{refused}");
    assert_eq!(choice.native_format(Device::Cuda(0), Kind::BFloat16).unwrap(), None);
}
