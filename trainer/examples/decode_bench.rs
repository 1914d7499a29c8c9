//! Measures how fast the CPU runner decodes and prefills a model, and how fast this machine reads memory in the
//! same run: `decode_bench MODEL [f32|bf16|int8] [THREADS]`. The defaults are bf16 and the threads of a tensor
//! operation. Each sequence has a prompt of 128 tokens and 64 new tokens.

#![expect(clippy::print_stdout, reason = "the program prints its measurements")]

#[path = "support/reading.rs"]
mod reading;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tch::Device;
use trainer::engine::{
    BLOCK_TOKENS, Draw, Instructions, NativeConfig, NativeRunner, Pass, Runner, Sampling,
    SamplingKey, Span, WeightFormat,
};
use trainer::policy::{Decoder, Policy, select_compute, threads};

const PROMPT_TOKENS: usize = 128;
const NEW_TOKENS: usize = 64;
const SEQUENCES: [usize; 3] = [1, 16, 64];
const LONG_PROMPT_TOKENS: usize = 1024;

const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0 };

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).context("MODEL is missing")?;
    let (format, bytes) = match arguments.next().as_deref() {
        None | Some("bf16") => (WeightFormat::Bf16, 2),
        Some("f32") => (WeightFormat::F32, 4),
        Some("int8") => (WeightFormat::Int8, 1),
        Some(other) => bail!("the format is {other:?}, expected f32, bf16 or int8"),
    };
    let threads = match arguments.next() {
        Some(text) => {
            text.parse().with_context(|| format!("THREADS is {text:?}, expected a number"))?
        }
        None => threads(),
    };
    let dtype = if format == WeightFormat::F32 { "f32" } else { "bf16" };
    let policy = Policy::load(&folder, select_compute("cpu", dtype)?)?;
    let decoder = Decoder::new(&policy.config, LONG_PROMPT_TOKENS, Device::Cpu);
    let per_sequence = (PROMPT_TOKENS + NEW_TOKENS).div_ceil(BLOCK_TOKENS);
    let blocks = (SEQUENCES[2] * per_sequence).max(LONG_PROMPT_TOKENS.div_ceil(BLOCK_TOKENS));
    let instructions = Instructions::detect();
    let config = NativeConfig { format, blocks, threads, instructions };
    let weights = policy.detached_weights();
    let mut runner = NativeRunner::new(&decoder, &weights, config)?;
    let start = Instant::now();
    runner.set_weights(weights);
    println!("{format:?}, {}, {threads} threads", instructions.name());
    println!("weights packed in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let bandwidth = reading::bytes_per_second(Device::Cpu, threads);
    println!("memory is read at {:.1} GB/s", bandwidth / 1e9);

    let vocabulary = policy.config.vocab_size as u64;
    let read_bytes = reading::numbers_of_a_pass(&policy) * bytes;
    for sequences in SEQUENCES {
        let (tokens, seconds) = decode(&mut runner, sequences, vocabulary)?;
        let rate = tokens as f64 / seconds;
        let read = read_bytes as f64 * rate / sequences as f64;
        println!(
            "{sequences:2} sequences: {rate:6.0} tokens/s, weights read at {:.1} GB/s ({:.0} %)",
            read / 1e9,
            100.0 * read / bandwidth,
        );
    }
    let table: Vec<u32> = (0..blocks as u32).collect();
    let start = Instant::now();
    prefill(&mut runner, &prompt(LONG_PROMPT_TOKENS, 0, vocabulary), &table, 0)?;
    let rate = LONG_PROMPT_TOKENS as f64 / start.elapsed().as_secs_f64();
    println!("a prompt of {LONG_PROMPT_TOKENS}: {rate:.0} tokens/s");
    Ok(())
}

/// Returns meaningless tokens that differ between sequences.
fn prompt(tokens: usize, sequence: usize, vocabulary: u64) -> Vec<u32> {
    (0..tokens)
        .map(|position| ((position * 37 + sequence * 11 + 5) as u64 % vocabulary) as u32)
        .collect()
}

fn draw(row: usize, sequence: usize, position: usize) -> Draw {
    let key = SamplingKey { seed: 0, step: 0, prompt: sequence as u64, sample: 0 };
    Draw { row, sampling: SAMPLING, key, position: position as u64 }
}

/// Reads a whole prompt and returns the token after it.
fn prefill(runner: &mut NativeRunner, ids: &[u32], blocks: &[u32], sequence: usize) -> Result<u32> {
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let span = Span { rows: 0..ids.len(), past: 0, blocks };
    let pass = Pass { ids, positions: &positions, spans: &[span] };
    Ok(runner.run(&pass, &[draw(ids.len() - 1, sequence, ids.len())])?[0].token)
}

/// Returns the number of decoded tokens and the seconds that decoding took.
fn decode(runner: &mut NativeRunner, sequences: usize, vocabulary: u64) -> Result<(usize, f64)> {
    let per_sequence = (PROMPT_TOKENS + NEW_TOKENS).div_ceil(BLOCK_TOKENS) as u32;
    let table = |sequence: u32| (0..per_sequence).map(|b| sequence * per_sequence + b).collect();
    let tables: Vec<Vec<u32>> = (0..sequences as u32).map(table).collect();
    let mut ids = Vec::with_capacity(sequences);
    for (sequence, blocks) in tables.iter().enumerate() {
        let prompt = prompt(PROMPT_TOKENS, sequence, vocabulary);
        ids.push(prefill(runner, &prompt, blocks, sequence)?);
    }
    let start = Instant::now();
    for past in PROMPT_TOKENS..PROMPT_TOKENS + NEW_TOKENS {
        let positions = vec![past as u32; sequences];
        let spans = tables.iter().enumerate();
        let spans = spans.map(|(row, blocks)| Span { rows: row..row + 1, past, blocks });
        let spans: Vec<Span<'_>> = spans.collect();
        let draws: Vec<Draw> = (0..sequences).map(|row| draw(row, row, past + 1)).collect();
        let pass = Pass { ids: &ids, positions: &positions, spans: &spans };
        ids = runner.run(&pass, &draws)?.into_iter().map(|choice| choice.token).collect();
    }
    Ok((sequences * NEW_TOKENS, start.elapsed().as_secs_f64()))
}
