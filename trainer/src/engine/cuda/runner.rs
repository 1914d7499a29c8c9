//! The runner of a pass: the order of kernels and matrix products.

#![expect(unsafe_code, reason = "kernels are given addresses")]

use std::ops::Range;

use tch::{Kind, Tensor};

use super::arguments::{
    AddNorm, Attend, BLOCK_WARPS, DrawTokens, Gate, Launch, Launcher, RotateAndStore,
};
use super::upload::Upload;
use crate::engine::EngineError;
use crate::engine::eager::{Distributions, KeyValueTensors, attend_over_blocks};
use crate::engine::runner::{Draw, Pass, Runner};
use crate::engine::sample::Choice;
use crate::policy::{Decoder, LayerSpan, LayerWeights, RmsNorm, Weights};

/// The fewest blocks of the cache for each warp: a context is not cut into smaller parts.
const WARP_BLOCKS_LEAST: usize = 2;
/// Blocks of a kernel that each multiprocessor should get: contexts are cut into parts until it has them.
const PROCESSOR_BLOCKS: usize = 4;

/// A decoder with its weights and its cache, on the device of a launcher.
#[derive(Debug)]
pub(super) struct FusedRunner<L> {
    pub(super) decoder: Decoder,
    pub(super) weights: Weights,
    cache: KeyValueTensors,
    launcher: L,
}

/// A pass whose numbers are on the device.
struct RunningPass<'a, L> {
    runner: &'a FusedRunner<L>,
    pass: &'a Pass<'a>,
    upload: &'a Upload,
    /// The uploaded words.
    words: &'a Tensor,
}

impl<L: Launcher> FusedRunner<L> {
    /// Allocates a cache of `blocks` in the weights' type, on their device, which must be the launcher's.
    pub(super) fn new(decoder: Decoder, weights: Weights, blocks: usize, launcher: L) -> Self {
        let cache = KeyValueTensors::new(&decoder.config, blocks, weights.kind(), weights.device());
        Self { decoder, weights, cache, launcher }
    }

    /// Returns the decoder and the weights.
    pub(super) fn into_parts(self) -> (Decoder, Weights) {
        (self.decoder, self.weights)
    }

    pub(super) fn blocks(&self) -> usize {
        self.cache.all.size()[2] as usize
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The contract of [`Launcher::launch`].
    unsafe fn launch(&self, launch: &Launch, blocks: usize) -> Result<(), EngineError> {
        // SAFETY: the caller upholds the contract of `Launcher::launch`.
        unsafe { self.launcher.launch(launch, blocks as u32) }
            .map_err(|error| EngineError::Kernel(error.to_string()))
    }

    /// Adds `delta` to the residual stream and returns the norm of the sum, `[rows, width]` in the compute type.
    fn add_norm(
        &self,
        residual: &Tensor,
        delta: Option<&Tensor>,
        norm: &RmsNorm,
    ) -> Result<Tensor, EngineError> {
        let (rows, width) = (residual.size()[0], residual.size()[1]);
        let normed = Tensor::empty([rows, width], (self.weights.kind(), residual.device()));
        let launch = Launch::AddNorm(AddNorm {
            residual: address(residual, Kind::Float, rows * width),
            delta: delta.map_or(0, |delta| address(delta, self.weights.kind(), rows * width)),
            weight: address(&norm.weight, Kind::Float, width),
            normed: address(&normed, self.weights.kind(), rows * width),
            width: width as u32,
            epsilon: norm.epsilon as f32,
        });
        // SAFETY: `address` checked that the tensors have the types and sizes that the kernel expects.
        unsafe { self.launch(&launch, rows as usize)? };
        Ok(normed)
    }

    /// Returns `silu(gate) * up` of the joined `[rows, 2 * width]`.
    fn gate(&self, gate_up: &Tensor) -> Result<Tensor, EngineError> {
        let (rows, width) = (gate_up.size()[0], gate_up.size()[1] / 2);
        let active = Tensor::empty([rows, width], (gate_up.kind(), gate_up.device()));
        let launch = Launch::Gate(Gate {
            joined: address(gate_up, self.weights.kind(), rows * 2 * width),
            active: address(&active, self.weights.kind(), rows * width),
            width: width as u32,
            unused: 0,
        });
        // SAFETY: as in `add_norm`.
        unsafe { self.launch(&launch, rows as usize)? };
        Ok(active)
    }

    /// Draws a token for each of the upload's draws from `[distributions, vocab]` logits; `words` is the upload
    /// on the device.
    pub(super) fn draw(
        &self,
        logits: &Tensor,
        upload: &Upload,
        words: &Tensor,
    ) -> Result<Vec<Choice>, EngineError> {
        let (draws, vocabulary) = (upload.temperatures.len(), logits.size()[1]);
        // Tokens and log-probs in one tensor, so that one copy brings both back.
        let results = Tensor::empty([2, draws as i64], (Kind::Int, logits.device()));
        let tokens = address(&results, Kind::Int, 2 * draws as i64);
        let launch = Launch::DrawTokens(DrawTokens {
            logits: address(logits, self.weights.kind(), logits.numel() as i64),
            rows: word_address(words, &upload.distributions),
            temperatures: word_address(words, &upload.temperatures),
            uniforms: word_address(words, &upload.uniforms),
            tokens,
            log_probs: tokens + 4 * draws as u64,
            vocabulary: vocabulary as u32,
            unused: 0,
        });
        // SAFETY: every draw's distribution is a row of `logits`, and `results` has two words for each draw.
        unsafe { self.launch(&launch, draws)? };
        let mut words = vec![0_i32; 2 * draws];
        results.to_device(tch::Device::Cpu).copy_data(&mut words, 2 * draws);
        let (tokens, log_probs) = words.split_at(draws);
        let choice = |(&token, &bits): (&i32, &i32)| Choice {
            token: token.cast_unsigned(),
            log_prob: f32::from_bits(bits.cast_unsigned()),
        };
        Ok(tokens.iter().zip(log_probs).map(choice).collect())
    }
}

impl<L: Launcher> RunningPass<'_, L> {
    /// Returns the address of a part of the upload.
    fn address(&self, part: &Range<usize>) -> u64 {
        word_address(self.words, part)
    }

    /// Returns a part of the upload as a tensor.
    fn tensor(&self, part: &Range<usize>) -> Tensor {
        self.words.narrow(0, part.start as i64, part.len() as i64)
    }

    /// Computes all layers. Returns the residual stream and the last layer's output, which is not yet added.
    fn layers(&self) -> Result<(Tensor, Tensor), EngineError> {
        let runner = self.runner;
        let residual = runner.weights.embed(&self.tensor(&self.upload.ids));
        // Over the layers, each in two halves. A half's output is added to the residual stream by the kernel
        // that also computes the next norm, which saves a pass over memory: hence the pending `delta`.
        let mut delta: Option<Tensor> = None;
        for (index, layer) in runner.weights.layers.iter().enumerate() {
            let normed = runner.add_norm(&residual, delta.as_ref(), &layer.input_norm)?;
            let mixed = self.attention(index, layer, &normed)?;
            let attended = layer.attention.output.apply(&mixed);
            let normed = runner.add_norm(&residual, Some(&attended), &layer.post_norm)?;
            let active = runner.gate(&layer.feed_forward.gate_up.apply(&normed))?;
            delta = Some(layer.feed_forward.down.apply(&active));
        }
        let delta = delta.expect("a checked model configuration has at least one layer");
        Ok((residual, delta))
    }

    /// Computes attention of a layer for all rows, `[rows, heads * head_dim]`.
    fn attention(
        &self,
        index: usize,
        layer: &LayerWeights,
        normed: &Tensor,
    ) -> Result<Tensor, EngineError> {
        let runner = self.runner;
        let config = &runner.decoder.config;
        let (kind, device) = (runner.weights.kind(), normed.device());
        let (rows, heads, width) = (normed.size()[0], config.heads, config.head_dim);
        let joined = layer.attention.query_key_value.apply(normed);
        let query = Tensor::empty([rows, heads, width], (kind, device));
        let (keys, values) = (&runner.cache.keys[index], &runner.cache.values[index]);
        let all_heads = heads + 2 * config.key_value_heads;
        let normed_heads = heads + config.key_value_heads;
        let norm = layer.attention.query_key_norm.as_ref();
        let tables = runner.decoder.rotary.tables();
        let rotates = config.layers[index].rotary;
        let table = |number: usize| {
            let all = tables[number];
            if rotates { address(all, Kind::Float, all.numel() as i64) } else { 0 }
        };
        // A warp for each row and head: norm and rotation of queries and keys, and the copy of keys and values
        // into the cache, in one pass over the joined projection.
        let launch = Launch::RotateAndStore(RotateAndStore {
            joined: address(&joined, kind, rows * all_heads * width),
            norm: norm.map_or(0, |norm| address(&norm.weight, Kind::Float, normed_heads * width)),
            cosines: table(0),
            sines: table(1),
            positions: self.address(&self.upload.positions),
            slots: self.address(&self.upload.slots),
            query: address(&query, kind, rows * heads * width),
            keys: address(keys, kind, keys.numel() as i64),
            values: address(values, kind, values.numel() as i64),
            heads: heads as u32,
            key_value_heads: config.key_value_heads as u32,
            epsilon: norm.map_or(0.0, |norm| norm.epsilon as f32),
            unused: 0,
        });
        let row_blocks = (all_heads as usize).div_ceil(BLOCK_WARPS as usize);
        // SAFETY: sizes were checked; positions and slots of a pass are within the tables and the cache.
        unsafe { runner.launch(&launch, rows as usize * row_blocks)? };
        let mixed = Tensor::empty([rows, heads * width], (kind, device));
        let layer = LayerSpan { index, window: config.layers[index].window };
        // Attention follows the writes, since new tokens attend to themselves and to each other. Spans of one
        // row share one launch; longer spans take one call of libtorch each.
        self.attend_singles(layer, &query, &mixed)?;
        for (number, table) in &self.upload.long_tables {
            let span = &self.pass.spans[*number];
            let (start, tokens) = (span.rows.start as i64, span.rows.len() as i64);
            let total = span.past as i64 + tokens;
            let blocks = self.tensor(table);
            let query = query.narrow(0, start, tokens);
            let attended = attend_over_blocks(&runner.cache, layer, &blocks, total, &query);
            mixed.narrow(0, start, tokens).copy_(&attended);
        }
        Ok(mixed)
    }

    /// Computes attention of the spans of one row, from `query` into `mixed`.
    fn attend_singles(
        &self,
        layer: LayerSpan,
        query: &Tensor,
        mixed: &Tensor,
    ) -> Result<(), EngineError> {
        let (runner, upload) = (self.runner, self.upload);
        let config = &runner.decoder.config;
        let kind = runner.weights.kind();
        let singles = upload.single_rows.len();
        if singles == 0 {
            return Ok(());
        }
        // A block for each single row, key/value head and part of the context. Few rows leave multiprocessors
        // idle, so contexts are then cut into parts, whose results a second kernel joins.
        let pairs = singles * config.key_value_heads as usize;
        let wanted =
            (runner.launcher.multiprocessors() as usize * PROCESSOR_BLOCKS).div_ceil(pairs);
        let possible = upload.table_blocks / (BLOCK_WARPS as usize * WARP_BLOCKS_LEAST);
        let parts = wanted.min(possible).max(1);
        let groups = config.heads / config.key_value_heads;
        let numbers = (pairs * parts) as i64 * groups * (config.head_dim + 2);
        let partials = Tensor::empty([numbers], (Kind::Float, query.device()));
        let (keys, values) = (&runner.cache.keys[layer.index], &runner.cache.values[layer.index]);
        // 0 means no window. A window that does not fit 32 bits is longer than any context.
        let window = layer.window.map_or(0, |window| u32::try_from(window).unwrap_or(0));
        let arguments = Attend {
            query: address(query, kind, query.numel() as i64),
            keys: address(keys, kind, keys.numel() as i64),
            values: address(values, kind, values.numel() as i64),
            rows: self.address(&upload.single_rows),
            lengths: self.address(&upload.single_lengths),
            tables: self.address(&upload.single_tables),
            mixed: address(mixed, kind, query.numel() as i64),
            partials: address(&partials, Kind::Float, numbers),
            table_blocks: upload.table_blocks as u32,
            key_value_heads: config.key_value_heads as u32,
            parts: parts as u32,
            window,
            scale: (config.head_dim as f32).sqrt().recip(),
            unused: 0,
        };
        // SAFETY: rows are those of the pass, tables hold the blocks of their lengths, and `partials` has
        // space for every part.
        unsafe {
            runner.launch(&Launch::Attend(arguments), pairs * parts)?;
            if parts > 1 {
                runner.launch(&Launch::JoinParts(arguments), pairs)?;
            }
        }
        Ok(())
    }
}

impl<L: Launcher> Runner for FusedRunner<L> {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        tch::no_grad(|| {
            let distributions = Distributions::new(draws);
            let upload = Upload::new(pass, draws, &distributions);
            let words = upload.to_device(self.weights.device());
            let running = RunningPass { runner: self, pass, upload: &upload, words: &words };
            let (residual, delta) = running.layers()?;
            if draws.is_empty() {
                return Ok(Vec::new());
            }
            let rows = running.tensor(&upload.drawn_rows);
            let (residual, delta) = (residual.index_select(0, &rows), delta.index_select(0, &rows));
            let hidden = self.add_norm(&residual, Some(&delta), &self.weights.final_norm)?;
            let logits = self.weights.head_products(&hidden);
            if draws.iter().any(|draw| draw.sampling.top_p < 1.0) {
                // Top-p needs sorted probabilities, which the host computes as for the other runners.
                return Ok(distributions.choose(&logits.to_kind(Kind::Float), draws));
            }
            self.draw(&logits, &upload, &words)
        })
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }
}

/// Returns the address of a part of an upload.
fn word_address(words: &Tensor, part: &Range<usize>) -> u64 {
    words.data_ptr().addr() as u64 + 4 * part.start as u64
}

/// Returns the address of a tensor's numbers, and checks that they are `count` contiguous numbers of `kind`.
fn address(tensor: &Tensor, kind: Kind, count: i64) -> u64 {
    assert!(
        tensor.kind() == kind && tensor.numel() as i64 == count && tensor.is_contiguous(),
        "a kernel was given {tensor:?}, expected {count} contiguous numbers of {kind:?}"
    );
    tensor.data_ptr().addr() as u64
}
