//! Measures how many texts an encoder turns into vectors each second: `encode_bench MODEL LIBRARY TEXTS
//! THREADS BATCHES GOAL PRODUCTS`. TEXTS is a file with one text on each line. BATCHES are sizes of
//! batches, separated by commas. GOAL is `latency`, as for queries, or `throughput`, as for a corpus.
//! PRODUCTS is `auto`, or `runtime` for the products of ONNX Runtime. Prints one JSON object. Each figure
//! is the best of three rounds, because other programs can only slow it down.

#![expect(clippy::print_stdout, reason = "prints its measurements")]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use retriever_server::device::Device;
use retriever_server::encode::{Encoder, EncoderOptions, Goal, Products, Role};

const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, library, texts, threads, batches, goal, products] = arguments.as_slice() else {
        bail!("expected MODEL LIBRARY TEXTS THREADS BATCHES GOAL PRODUCTS");
    };
    let options = EncoderOptions {
        device: Device::Cpu,
        threads: Some(threads.parse::<NonZeroUsize>().context("THREADS")?),
        library: Some(library.into()),
        goal: match goal.as_str() {
            "latency" => Goal::Latency,
            "throughput" => Goal::Throughput,
            other => bail!("GOAL is {other}, expected latency or throughput"),
        },
        products: match products.as_str() {
            "auto" => Products::Auto,
            "runtime" => Products::Runtime,
            other => bail!("PRODUCTS is {other}, expected auto or runtime"),
        },
    };
    let encoder = Encoder::open(Path::new(model), &options)?;
    let text = fs::read_to_string(texts).with_context(|| texts.clone())?;
    let texts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut speeds = BTreeMap::new();
    for batch in batches.split(',') {
        let size: NonZeroUsize = batch.parse().context("BATCHES")?;
        let mut fastest = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for part in texts.chunks(size.get()) {
                black_box(encoder.encode(part, Role::Query, &|| false)?);
            }
            fastest = fastest.min(begun.elapsed().as_secs_f64());
        }
        speeds.insert(batch.to_owned(), texts.len() as f64 / fastest);
    }
    println!("{}", serde_json::to_string(&speeds)?);
    Ok(())
}
