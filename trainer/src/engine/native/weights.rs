//! The weights of a model, packed.

use super::kernel::{Instructions, Number, PANEL};
use super::pack::{Layout, Packed, in_blocks, in_order, in_pairs};
use super::pool::Pool;
use super::shape::Shape;
use crate::policy::{HostLayer, HostLinear, HostModel};

/// Tokens of the vocabulary that the head computes at a time.
pub(super) const VOCABULARY_BLOCK: usize = 256;

/// A packed map and its bias, zeros where the model has none.
#[derive(Debug)]
pub(super) struct Map<T> {
    pub(super) weight: Packed<T>,
    pub(super) bias: Vec<f32>,
}

/// Weights of one layer; the norms are filled up with zeros.
#[derive(Debug)]
pub(super) struct LayerWeights<T> {
    pub(super) input_norm: Vec<f32>,
    pub(super) query_key_value: Map<T>,
    /// `[heads + kv_heads, head_dim]`
    pub(super) query_key_norm: Option<Vec<f32>>,
    pub(super) output: Map<T>,
    pub(super) post_norm: Vec<f32>,
    pub(super) gate_up: Map<T>,
    pub(super) down: Map<T>,
}

/// All that a pass reads.
#[derive(Debug)]
pub(super) struct PackedModel<T> {
    /// `[vocab, hidden]`
    pub(super) embedding: Vec<f32>,
    pub(super) layers: Vec<LayerWeights<T>>,
    pub(super) final_norm: Vec<f32>,
    pub(super) head: Packed<T>,
    layouts: Layouts,
}

/// How each kind of matrix is laid out.
#[derive(Debug)]
struct Layouts {
    query_key_value: Layout,
    output: Layout,
    gate_up: Layout,
    down: Layout,
    head: Layout,
}

impl Layouts {
    fn of(shape: &Shape) -> Self {
        let hidden = || in_order(shape.hidden, PANEL);
        Self {
            query_key_value: Layout {
                outputs: in_blocks(shape.heads + 2 * shape.key_value_heads, shape.head_dim),
                inputs: hidden(),
            },
            output: Layout { outputs: hidden(), inputs: in_blocks(shape.heads, shape.head_dim) },
            gate_up: Layout { outputs: in_pairs(2 * shape.intermediate), inputs: hidden() },
            down: Layout { outputs: hidden(), inputs: in_order(shape.intermediate, PANEL) },
            head: Layout {
                outputs: in_order(shape.vocabulary, VOCABULARY_BLOCK),
                inputs: hidden(),
            },
        }
    }
}

impl<T: Number> PackedModel<T> {
    /// Room for the weights of a model, in bytes with scales if `bytes`.
    pub(super) fn zeros(shape: &Shape, layers: usize, bytes: bool) -> Self {
        let layouts = Layouts::of(shape);
        let map = |layout: &Layout| Map { weight: Packed::zeros(layout, bytes), bias: Vec::new() };
        let layer = |_| LayerWeights {
            input_norm: Vec::new(),
            query_key_value: map(&layouts.query_key_value),
            query_key_norm: None,
            output: map(&layouts.output),
            post_norm: Vec::new(),
            gate_up: map(&layouts.gate_up),
            down: map(&layouts.down),
        };
        Self {
            embedding: vec![0.0; shape.vocabulary * shape.hidden],
            layers: (0..layers).map(layer).collect(),
            final_norm: Vec::new(),
            head: Packed::zeros(&layouts.head, bytes),
            layouts,
        }
    }

    /// Takes over all weights of `source`, which has the shape that this was made for.
    pub(super) fn fill(
        &mut self,
        instructions: Instructions,
        pool: &mut Pool,
        source: &HostModel<'_>,
    ) {
        let columns = source.embedding.columns;
        let mut rows: Vec<(usize, &mut [f32])> =
            self.embedding.chunks_mut(columns * VOCABULARY_BLOCK).enumerate().collect();
        pool.each(&mut rows, |(block, rows)| {
            for (row, numbers) in rows.chunks_exact_mut(columns).enumerate() {
                source.embedding.read_row(*block * VOCABULARY_BLOCK + row, numbers);
            }
        });
        self.final_norm = padded(&source.final_norm);
        let Layouts { query_key_value, output, gate_up, down, head } = &self.layouts;
        for (layer, source) in self.layers.iter_mut().zip(&source.layers) {
            let HostLayer { input_norm, post_norm, .. } = source;
            (layer.input_norm, layer.post_norm) = (padded(input_norm), padded(post_norm));
            layer.query_key_norm.clone_from(&source.query_key_norm);
            let mut fill = |map: &mut Map<T>, source: &HostLinear<'_>, layout: &Layout| {
                map.weight.fill(instructions, pool, &source.weight, layout);
                map.bias = layout.spread(source.bias.as_deref());
            };
            fill(&mut layer.query_key_value, &source.query_key_value, query_key_value);
            fill(&mut layer.output, &source.output, output);
            fill(&mut layer.gate_up, &source.gate_up, gate_up);
            fill(&mut layer.down, &source.down, down);
        }
        self.head.fill(instructions, pool, &source.head, head);
    }
}

/// The weights of a norm with zeros behind them.
fn padded(weights: &[f32]) -> Vec<f32> {
    let mut weights = weights.to_vec();
    weights.resize(weights.len().next_multiple_of(PANEL), 0.0);
    weights
}
