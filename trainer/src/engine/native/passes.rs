//! Passes through the model in one type of numbers, from token ids to drawn tokens.

use std::cell::RefCell;

use super::cache::Cache;
use super::head::Head;
use super::kernel::{Bf16, Instructions, Number, PANEL, lanes};
use super::layer::{self, Context, InScratch, Scratch};
use super::pool::Pool;
use super::shape::Shape;
use super::state::State;
use super::weights::PackedModel;
use super::{NativeConfig, WeightFormat};
use crate::engine::sample::Choice;
use crate::engine::{BLOCK_TOKENS, Draw, EngineError, Pass};
use crate::policy::{Decoder, HostRotations, HostWeights, LayerConfig, Weights};

/// A model, its pool of blocks and what computes it; activations, keys and values are `T`.
#[derive(Debug)]
pub(super) struct Passes<T> {
    layers: Vec<LayerConfig>,
    shape: Shape,
    instructions: Instructions,
    pool: Pool,
    rotations: HostRotations,
    model: PackedModel<T>,
    cache: Cache<T>,
    blocks: usize,
    state: State<T>,
    head: Head<T>,
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

impl<T: Number + InScratch> Passes<T> {
    /// For the model of `decoder`, its weights still zeros.
    pub(super) fn new(decoder: &Decoder, config: NativeConfig) -> Result<Self, EngineError> {
        let shape = Shape::of(&decoder.config);
        let layers = decoder.config.layers.clone();
        let NativeConfig { format, blocks, threads, instructions } = config;
        let pool = Pool::new(threads).map_err(|error| {
            EngineError::Other(format!("cannot start {threads} threads for rollouts: {error}"))
        })?;
        Ok(Self {
            shape,
            instructions,
            pool,
            rotations: HostRotations::new(decoder),
            model: PackedModel::zeros(&shape, layers.len(), format == WeightFormat::Int8),
            cache: Cache::new(&shape, layers.len(), blocks),
            layers,
            blocks,
            state: State::default(),
            head: Head::default(),
        })
    }

    pub(super) fn pack(&mut self, weights: &Weights) {
        let host = HostWeights::new(weights);
        self.model.fill(self.instructions, &mut self.pool, &host.model(weights));
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
        let mut places = Vec::with_capacity(pass.ids.len());
        for span in pass.spans {
            let place =
                |token: usize| [span.blocks[token / BLOCK_TOKENS] as usize, token % BLOCK_TOKENS];
            places.extend((span.past..span.past + span.rows.len()).map(place));
        }
        self.embed(pass);
        let Self { instructions, shape, rotations, model, pool, cache, state, head, .. } = self;
        let context = Context {
            instructions: *instructions,
            shape,
            pass,
            places: &places,
            cosines: &rotations.cosines,
            sines: &rotations.sines,
        };
        let norms = model.layers.iter().skip(1).map(|layer| layer.input_norm.as_slice());
        let norms = norms.chain([model.final_norm.as_slice()]);
        let layers = self.layers.iter().zip(&mut cache.layers);
        for ((config, cache), weights) in layers.zip(model.layers.iter().zip(norms)) {
            layer::compute(&context, pool, state, (config, cache), weights);
        }
        head.draw(*instructions, pool, (shape, model), state, draws)
    }

    /// That a pass stays within the vocabulary, the positions and the pool.
    fn check(&self, pass: &Pass<'_>, draws: &[Draw]) -> Result<(), EngineError> {
        let refuse = |text: String| Err(EngineError::Other(format!("a pass {text}")));
        let rows = pass.ids.len();
        if pass.positions.len() != rows {
            return refuse(format!("has {} positions for {rows} ids", pass.positions.len()));
        }
        let vocabulary = self.shape.vocabulary;
        if let Some(id) = pass.ids.iter().find(|&&id| id as usize >= vocabulary) {
            return refuse(format!("has the token {id}, the vocabulary {vocabulary}"));
        }
        let positions = self.rotations.cosines.len() / self.shape.head_dim;
        if let Some(place) = pass.positions.iter().find(|&&place| place as usize >= positions) {
            return refuse(format!("has the position {place}, the runner {positions}"));
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
            if span.blocks.len() < needed {
                let found = span.blocks.len();
                return refuse(format!("has a span of {found} blocks that needs {needed}"));
            }
            if let Some(block) = span.blocks.iter().find(|&&block| block as usize >= self.blocks) {
                return refuse(format!("names the block {block}, the pool has {}", self.blocks));
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

    /// The embeddings of all rows, and what the first norm needs.
    fn embed(&mut self, pass: &Pass<'_>) {
        let Self { shape, instructions, state, model, .. } = self;
        state.resize(shape, pass.ids.len());
        let padded = state.padded;
        let residual = state.residual.chunks_exact_mut(PANEL * padded);
        let normed = state.normed.chunks_exact_mut(PANEL * padded);
        let squares = state.squares.chunks_exact_mut(padded);
        let mut units: Vec<_> = residual.zip(normed.zip(squares)).enumerate().collect();
        let norm = model.layers.first().map_or(&model.final_norm, |layer| &layer.input_norm);
        self.pool.each(&mut units, |(panel, (residual, (normed, squares)))| {
            let engaged = instructions.engage();
            let columns = *panel * PANEL..((*panel + 1) * PANEL).min(shape.hidden);
            let (residual, _) = residual.as_chunks_mut::<PANEL>();
            let (normed, _) = normed.as_chunks_mut::<PANEL>();
            let norm = layer::of_panel(norm, *panel);
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
