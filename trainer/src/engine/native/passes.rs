//! Passes through the model in one type of numbers, from token ids to drawn tokens.

use std::cell::RefCell;

use super::activations::Activations;
use super::cache::{CacheSlot, KeyValueCache};
use super::head::{HeadInputs, LanguageModelHead};
use super::kernel::{Bf16, Instructions, Number, PANEL, lanes};
use super::layer::{self, InScratch, LayerInputs, PassContext, Scratch};
use super::shape::Shape;
use super::weights::PackedModel;
use super::workers::Workers;
use super::{NativeConfig, WeightFormat};
use crate::engine::sample::Choice;
use crate::engine::{BLOCK_TOKENS, Draw, EngineError, Pass};
use crate::policy::{Decoder, HostRotations, HostWeights, LayerConfig, Weights};

/// A model with its KV cache and the threads that compute it. Activations, keys and values are `T`.
#[derive(Debug)]
pub(super) struct PassRunner<T> {
    layers: Vec<LayerConfig>,
    shape: Shape,
    instructions: Instructions,
    workers: Workers,
    rotations: HostRotations,
    model: PackedModel<T>,
    cache: KeyValueCache<T>,
    blocks: usize,
    activations: Activations<T>,
    head: LanguageModelHead<T>,
}

thread_local! {
    static SCRATCH_F32: RefCell<Scratch<f32>> = RefCell::default();
    static SCRATCH_BF16: RefCell<Scratch<Bf16>> = RefCell::default();
}

impl InScratch for f32 {
    fn with_scratch<R>(compute: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
        SCRATCH_F32.with_borrow_mut(compute)
    }
}

impl InScratch for Bf16 {
    fn with_scratch<R>(compute: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
        SCRATCH_BF16.with_borrow_mut(compute)
    }
}

impl<T: Number + InScratch> PassRunner<T> {
    /// Creates a runner for the model of `decoder`, whose weights are zeros until they are packed.
    pub(super) fn new(decoder: &Decoder, config: NativeConfig) -> Result<Self, EngineError> {
        let shape = Shape::new(&decoder.config);
        let layers = decoder.config.layers.clone();
        let NativeConfig { format, blocks, threads, instructions } = config;
        let workers =
            Workers::new(threads).map_err(|error| EngineError::Threads { threads, error })?;
        Ok(Self {
            shape,
            instructions,
            workers,
            rotations: HostRotations::new(decoder),
            model: PackedModel::zeros(&shape, layers.len(), format == WeightFormat::Int8),
            cache: KeyValueCache::new(&shape, layers.len(), blocks),
            layers,
            blocks,
            activations: Activations::default(),
            head: LanguageModelHead::default(),
        })
    }

    pub(super) fn pack(&mut self, weights: &Weights) {
        let host = HostWeights::new(weights);
        self.model.fill(self.instructions, &mut self.workers, &host.model(weights));
    }

    pub(super) fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from as usize, to as usize);
    }

    pub(super) fn run(
        &mut self,
        pass: &Pass<'_>,
        draws: &[Draw],
    ) -> Result<Vec<Choice>, EngineError> {
        self.check(pass, draws)?;
        if pass.ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut slots = Vec::with_capacity(pass.ids.len());
        for span in pass.spans {
            slots.extend((span.past..span.past + span.rows.len()).map(|token| CacheSlot {
                block: span.blocks[token / BLOCK_TOKENS] as usize,
                token: token % BLOCK_TOKENS,
            }));
        }
        self.embed(pass);
        let Self { instructions, shape, rotations, model, workers, cache, activations, .. } = self;
        let context = PassContext {
            instructions: *instructions,
            shape,
            pass,
            slots: &slots,
            cosines: &rotations.cosines,
            sines: &rotations.sines,
        };
        // Each layer is followed by the input norm of the next one, the last by the final norm.
        let norms = model.layers.iter().skip(1).map(|layer| layer.input_norm.as_slice());
        let norms = norms.chain([model.final_norm.as_slice()]);
        let layers = self.layers.iter().zip(&mut cache.layers);
        for ((config, cache), (weights, next_norm)) in layers.zip(model.layers.iter().zip(norms)) {
            let layer = LayerInputs { config, weights, next_norm };
            layer::compute(&context, workers, activations, &layer, cache);
        }
        let inputs = HeadInputs { instructions: *instructions, shape, model };
        self.head.draw(&inputs, workers, activations, draws)
    }

    /// Checks that a pass stays within the vocabulary, the positions and the cache.
    fn check(&self, pass: &Pass<'_>, draws: &[Draw]) -> Result<(), EngineError> {
        let refuse = |text: String| Err(EngineError::InvalidPass(text));
        let rows = pass.ids.len();
        if pass.positions.len() != rows {
            return refuse(format!("has {} positions for {rows} ids", pass.positions.len()));
        }
        let vocabulary = self.shape.vocabulary;
        if let Some(id) = pass.ids.iter().find(|&&id| id as usize >= vocabulary) {
            return refuse(format!("has the token {id}, the vocabulary {vocabulary}"));
        }
        let positions = self.rotations.cosines.len() / self.shape.head_dim;
        let beyond = pass.positions.iter().find(|&&position| position as usize >= positions);
        if let Some(position) = beyond {
            return refuse(format!("has the position {position}, the runner {positions}"));
        }
        let mut end = 0;
        for span in pass.spans {
            if span.rows.start != end || span.rows.end <= end || span.rows.end > rows {
                return refuse(format!(
                    "of {rows} rows has a span of rows {:?} after row {end}",
                    span.rows
                ));
            }
            end = span.rows.end;
            let needed = (span.past + span.rows.len()).div_ceil(BLOCK_TOKENS);
            let given = span.blocks.len();
            if given < needed {
                return refuse(format!("has a span of {given} blocks that needs {needed}"));
            }
            if let Some(block) = span.blocks.iter().find(|&&block| block as usize >= self.blocks) {
                return refuse(format!("names the block {block}, the cache has {}", self.blocks));
            }
        }
        if end != rows {
            return refuse(format!("of {rows} rows has spans of {end}"));
        }
        if let Some(draw) = draws.iter().find(|draw| draw.row >= rows) {
            return refuse(format!("of {rows} rows has a draw from row {}", draw.row));
        }
        Ok(())
    }

    /// Writes the embeddings of all rows to the residual stream, and prepares the first norm.
    fn embed(&mut self, pass: &Pass<'_>) {
        let Self { shape, instructions, activations, model, .. } = self;
        activations.resize(shape, pass.ids.len());
        let padded = activations.padded;
        let residual = activations.residual.chunks_exact_mut(PANEL * padded);
        let normed = activations.normed.chunks_exact_mut(PANEL * padded);
        let squares = activations.squares.chunks_exact_mut(padded);
        // One unit for each panel of the hidden state, as after every layer; within it over the rows.
        let mut units: Vec<_> = residual.zip(normed.zip(squares)).enumerate().collect();
        let norm = model.layers.first().map_or(&model.final_norm, |layer| &layer.input_norm);
        self.workers.each(&mut units, |(panel, (residual, (normed, squares)))| {
            let engaged = instructions.engage();
            let columns = *panel * PANEL..((*panel + 1) * PANEL).min(shape.hidden);
            let (residual, _) = residual.as_chunks_mut::<PANEL>();
            let (normed, _) = normed.as_chunks_mut::<PANEL>();
            let norm = layer::panel_of(norm, *panel);
            for (row, &id) in pass.ids.iter().enumerate() {
                let embedding = &model.embedding[id as usize * shape.hidden..][..shape.hidden];
                let residual = &mut residual[row];
                residual.fill(0.0);
                residual[..columns.len()].copy_from_slice(&embedding[columns.clone()]);
                squares[row] = lanes::begin_norm(&engaged, residual, norm, &mut normed[row]);
            }
        });
    }
}
