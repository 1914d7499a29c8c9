//! The packed weights of a model.

use super::kernel::{Instructions, Number, PANEL};
use super::pack::{Layout, PackedMatrix, in_blocks, in_order, in_pairs};
use super::shape::Shape;
use super::workers::Workers;
use crate::policy::{HostLayer, HostLinear, HostModel};

/// Tokens of the vocabulary whose logits the head computes at a time.
pub(super) const VOCABULARY_BLOCK: usize = 256;

/// A packed linear map with its bias, which is zero where the model has none.
#[derive(Debug)]
pub(super) struct PackedLinear<T> {
    pub(super) weight: PackedMatrix<T>,
    pub(super) bias: Vec<f32>,
}

/// The weights of one layer; the norms are padded with zeros.
#[derive(Debug)]
pub(super) struct PackedLayer<T> {
    pub(super) input_norm: Vec<f32>,
    pub(super) query_key_value: PackedLinear<T>,
    /// `[heads + kv_heads, head_dim]`
    pub(super) query_key_norm: Option<Vec<f32>>,
    pub(super) output: PackedLinear<T>,
    pub(super) post_norm: Vec<f32>,
    pub(super) gate_up: PackedLinear<T>,
    pub(super) down: PackedLinear<T>,
}

/// All weights that a pass reads.
#[derive(Debug)]
pub(super) struct PackedModel<T> {
    /// `[vocab, hidden]`
    pub(super) embedding: Vec<f32>,
    pub(super) layers: Vec<PackedLayer<T>>,
    pub(super) final_norm: Vec<f32>,
    pub(super) head: PackedMatrix<T>,
    layouts: Layouts,
}

/// The layout of each kind of matrix.
#[derive(Debug)]
struct Layouts {
    query_key_value: Layout,
    output: Layout,
    gate_up: Layout,
    down: Layout,
    head: Layout,
}

impl Layouts {
    fn new(shape: &Shape) -> Self {
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
    /// Allocates the weights of a model, all zeros; as integers of 8 bits with scales if `bytes`.
    pub(super) fn zeros(shape: &Shape, layers: usize, bytes: bool) -> Self {
        let layouts = Layouts::new(shape);
        let linear = |layout: &Layout| PackedLinear {
            weight: PackedMatrix::zeros(layout, bytes),
            bias: Vec::new(),
        };
        let layer = |_| PackedLayer {
            input_norm: Vec::new(),
            query_key_value: linear(&layouts.query_key_value),
            query_key_norm: None,
            output: linear(&layouts.output),
            post_norm: Vec::new(),
            gate_up: linear(&layouts.gate_up),
            down: linear(&layouts.down),
        };
        Self {
            embedding: vec![0.0; shape.vocabulary * shape.hidden],
            layers: (0..layers).map(layer).collect(),
            final_norm: Vec::new(),
            head: PackedMatrix::zeros(&layouts.head, bytes),
            layouts,
        }
    }

    /// Copies all weights of `source`, which must have the shape that this model was allocated for.
    pub(super) fn fill(
        &mut self,
        instructions: Instructions,
        workers: &mut Workers,
        source: &HostModel<'_>,
    ) {
        let columns = source.embedding.columns;
        let mut rows: Vec<(usize, &mut [f32])> =
            self.embedding.chunks_mut(columns * VOCABULARY_BLOCK).enumerate().collect();
        workers.each(&mut rows, |(block, rows)| {
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
            let mut fill =
                |linear: &mut PackedLinear<T>, source: &HostLinear<'_>, layout: &Layout| {
                    linear.weight.fill(instructions, workers, &source.weight, layout);
                    linear.bias = layout.spread(source.bias.as_deref());
                };
            fill(&mut layer.query_key_value, &source.query_key_value, query_key_value);
            fill(&mut layer.output, &source.output, output);
            fill(&mut layer.gate_up, &source.gate_up, gate_up);
            fill(&mut layer.down, &source.down, down);
        }
        self.head.fill(instructions, workers, &source.head, head);
    }
}

/// Returns the weights of a norm, padded with zeros to whole panels.
fn padded(weights: &[f32]) -> Vec<f32> {
    let mut weights = weights.to_vec();
    weights.resize(weights.len().next_multiple_of(PANEL), 0.0);
    weights
}
