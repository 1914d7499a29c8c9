//! One layer of the decoder for all rows of a pass: five jobs, each shared by all threads.
//!
//! A unit of a job is a panel of outputs, or a head, for all rows. One thread computes the whole unit,
//! so each weight is read from memory once a pass. The work that follows a product (bias, norm,
//! rotation, cache, gate, residual) is done while its sums are still in the processor's cache.

use super::activations::{Activations, RowBlock, row_blocks, steps};
use super::attention::{AttentionScratch, Queries, attend};
use super::buffer::Buffer;
use super::cache::{CacheSlot, HeadCache, write_key, write_value};
use super::kernel::{EngagedThread, Instructions, Number, PANEL, Product, ROWS_MAX, Step, lanes};
use super::shape::Shape;
use super::weights::{PackedLayer, PackedLinear};
use super::workers::Workers;
use crate::engine::{Pass, Span};
use crate::policy::LayerConfig;

/// The inputs that are the same for all layers of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassContext<'a> {
    pub(super) instructions: Instructions,
    pub(super) shape: &'a Shape,
    pub(super) pass: &'a Pass<'a>,
    /// The cache slot of each row's key and value.
    pub(super) slots: &'a [CacheSlot],
    /// `[positions, head_dim]`
    pub(super) cosines: &'a [f32],
    pub(super) sines: &'a [f32],
}

/// The inputs of one layer.
#[derive(Debug)]
pub(super) struct LayerInputs<'a, T> {
    pub(super) config: &'a LayerConfig,
    pub(super) weights: &'a PackedLayer<T>,
    /// The weights of the norm that follows the layer.
    pub(super) next_norm: &'a [f32],
}

/// The buffers that a thread computes in; each thread has its own for each type.
#[derive(Debug)]
pub(super) struct Scratch<T> {
    pub(super) sums: Buffer<f32>,
    pub(super) panels: Buffer<T>,
    attention: AttentionScratch<T>,
}

impl<T: Number> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            sums: Buffer::zeros(0),
            panels: Buffer::zeros(0),
            attention: AttentionScratch::default(),
        }
    }
}

/// Computes a layer.
pub(super) fn compute<T: Number + InScratch>(
    context: &PassContext<'_>,
    workers: &mut Workers,
    activations: &mut Activations<T>,
    layer: &LayerInputs<'_, T>,
    cache: &mut [HeadCache<T>],
) {
    let LayerInputs { config, weights, next_norm } = *layer;
    activations.scale_rows(context.shape);
    project(context, workers, activations, layer, cache);
    attend_all(context, workers, activations, config, cache);
    let (linear, next) = (&weights.output, weights.post_norm.as_slice());
    let output = ResidualUpdate { input: ResidualInput::Attention, linear, next_norm: next };
    add(context, workers, activations, &output);
    activations.scale_rows(context.shape);
    gate(context, workers, activations, &weights.gate_up);
    let down =
        ResidualUpdate { input: ResidualInput::FeedForward, linear: &weights.down, next_norm };
    add(context, workers, activations, &down);
}

/// The product of rows with one panel of a matrix.
pub(super) struct PanelProduct<'a, T> {
    pub(super) steps: &'a [Step],
    pub(super) left: &'a [T],
    pub(super) left_stride: usize,
    pub(super) panel: &'a [T],
}

impl<T: Number> PanelProduct<'_, T> {
    /// Writes the products of a block of rows to the first [`PANEL`] columns of `sums`.
    pub(super) fn compute(
        &self,
        engaged: &EngagedThread,
        RowBlock { first, rows }: RowBlock,
        sums: &mut [f32],
        sums_stride: usize,
    ) {
        T::multiply(
            engaged,
            &mut Product {
                steps: self.steps,
                left: &self.left[first * self.left_stride..],
                left_stride: self.left_stride,
                right: self.panel,
                right_columns: PANEL,
                rows,
                sums,
                sums_stride,
                adds: false,
            },
        );
    }
}

/// The destination of one head of the joined projection.
enum ProjectedHead<'a, T> {
    Query(&'a mut [T]),
    Key(&'a mut [T]),
    Value(&'a mut [T]),
}

/// Computes queries, keys and values of all rows, and writes keys and values to the cache.
fn project<T: Number + InScratch>(
    context: &PassContext<'_>,
    workers: &mut Workers,
    activations: &mut Activations<T>,
    layer: &LayerInputs<'_, T>,
    cache: &mut [HeadCache<T>],
) {
    let Shape { head_dim, head_dim_padded: width, .. } = *context.shape;
    let (rows, padded) = (activations.rows, activations.padded);
    let (config, weights) = (layer.config, layer.weights);
    let linear = &weights.query_key_value;
    let steps = steps(linear.weight.depth(), PANEL, padded);
    // One unit for each head, in the order of the joined matrix: queries, keys, values.
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for head in cache {
        keys.push(ProjectedHead::Key(&mut head.keys));
        values.push(ProjectedHead::Value(&mut head.values));
    }
    let queries = activations.queries.chunks_exact_mut(width * padded).map(ProjectedHead::Query);
    let mut units: Vec<_> = queries.chain(keys).chain(values).enumerate().collect();
    let (normed, scales) = (&activations.normed, &activations.scales);
    workers.each(&mut units, |(index, head)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(ROWS_MAX * width);
            let (index, panels) = (*index, width / PANEL);
            let columns = index * width..(index + 1) * width;
            let column_scales = &linear.weight.scales[columns.clone()];
            let norm = weights.query_key_norm.as_ref();
            let norm = norm.and_then(|norm| norm.chunks_exact(head_dim).nth(index));
            let panels =
                linear.weight.panels(&engaged, index * panels, panels, &mut scratch.panels);
            // Over blocks of rows, and within a block over the panels of the head: the sums of one block
            // are then complete heads, small enough to be finished where they are.
            for block in row_blocks(rows) {
                for (part, panel) in panels.chunks_exact(linear.weight.depth() * PANEL).enumerate()
                {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    product.compute(&engaged, block, &mut scratch.sums[part * PANEL..], width);
                }
                // Over the rows of the block: scale and bias, then norm and rotation of queries and keys
                // (in this order, as Qwen3 defines them), then the destination.
                let heads = scratch.sums.chunks_exact_mut(width).take(block.rows);
                for (offset, sums) in heads.enumerate() {
                    let row = block.first + offset;
                    let bias = &linear.bias[columns.clone()];
                    lanes::scale_and_shift(&engaged, sums, scales[row], column_scales, bias);
                    let sums = &mut sums[..head_dim];
                    if !matches!(head, ProjectedHead::Value(_)) {
                        if let Some(norm) = norm {
                            norm_head(sums, norm, context.shape.epsilon);
                        }
                        if config.rotary {
                            let start = context.pass.positions[row] as usize * head_dim;
                            let angles = start..start + head_dim;
                            let cosines = &context.cosines[angles.clone()];
                            lanes::rotate(&engaged, sums, cosines, &context.sines[angles]);
                        }
                    }
                    let slot = context.slots[row];
                    match head {
                        ProjectedHead::Query(queries) => {
                            let query = &mut queries[row * width..][..head_dim];
                            lanes::narrow(&engaged, sums, query);
                        }
                        ProjectedHead::Key(keys) => write_key(keys, width, slot, sums),
                        ProjectedHead::Value(values) => write_value(values, width, slot, sums),
                    }
                }
            }
        });
    });
}

/// Normalises one head in place.
fn norm_head(head: &mut [f32], weights: &[f32], epsilon: f32) {
    let squares: f32 = head.iter().map(|number| number * number).sum();
    let scale = 1.0 / (squares / head.len() as f32 + epsilon).sqrt();
    for (number, weight) in head.iter_mut().zip(weights) {
        *number = *number * scale * weight;
    }
}

/// Computes attention of all spans. A unit is one key and value head for some tokens of a span.
fn attend_all<T: Number + InScratch>(
    context: &PassContext<'_>,
    workers: &mut Workers,
    activations: &mut Activations<T>,
    config: &LayerConfig,
    cache: &[HeadCache<T>],
) {
    let shape = context.shape;
    let width = shape.group * shape.head_dim_padded;
    let tokens_max = (ROWS_MAX / shape.group).max(1);
    let padded = activations.padded;
    let window = config
        .window
        .map(|window| usize::try_from(window).expect("a checked window is at least 1"));
    // Over key and value heads, then spans, then as many tokens as one product takes with all query heads
    // of the group: outputs lie in this order, so each unit gets the next slice of them.
    let mut units = Vec::new();
    let heads = activations.mixed.chunks_exact_mut(width * padded);
    for ((head, mixed), cache) in heads.enumerate().zip(cache) {
        let queries = &activations.queries[head * width * padded..][..width * padded];
        let mut rest = mixed;
        for span in context.pass.spans {
            let Span { rows, past, blocks } = span;
            for first in rows.clone().step_by(tokens_max) {
                let tokens = (rows.end - first).min(tokens_max);
                let (mixed, others) = rest.split_at_mut(tokens * width);
                rest = others;
                let queries = Queries {
                    numbers: queries,
                    padded_rows: padded,
                    group: shape.group,
                    head_dim: shape.head_dim,
                    row: first,
                    position: past + first - rows.start,
                    blocks,
                    window,
                };
                units.push((queries, cache, mixed));
            }
        }
    }
    workers.each(&mut units, |(queries, cache, mixed)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            attend(&engaged, queries, cache, &mut scratch.attention, mixed);
        });
    });
}

/// The activations that a linear map into the residual stream reads.
#[derive(Clone, Copy, Debug)]
enum ResidualInput {
    Attention,
    FeedForward,
}

/// A linear map whose outputs are added to the residual stream.
#[derive(Debug)]
struct ResidualUpdate<'a, T> {
    input: ResidualInput,
    linear: &'a PackedLinear<T>,
    /// The weights of the norm that follows.
    next_norm: &'a [f32],
}

/// Adds the outputs of a linear map to the residual stream, and prepares the next norm.
fn add<T: Number + InScratch>(
    context: &PassContext<'_>,
    workers: &mut Workers,
    activations: &mut Activations<T>,
    update: &ResidualUpdate<'_, T>,
) {
    let ResidualUpdate { input, linear, next_norm } = *update;
    let (rows, padded) = (activations.rows, activations.padded);
    let shape = context.shape;
    let (left, left_stride) = match input {
        ResidualInput::Attention => (&activations.mixed, shape.group * shape.head_dim_padded),
        ResidualInput::FeedForward => (&activations.gated, PANEL),
    };
    let steps = steps(linear.weight.depth(), left_stride, padded);
    // One unit for each panel of the hidden state: the residual, the normed numbers and the squares of a
    // panel lie together, so no two threads write to the same slice.
    let residual = activations.residual.chunks_exact_mut(PANEL * padded);
    let normed = activations.normed.chunks_exact_mut(PANEL * padded);
    let squares = activations.squares.chunks_exact_mut(padded);
    let mut units: Vec<_> = residual.zip(normed.zip(squares)).enumerate().collect();
    workers.each(&mut units, |(index, (residual, (normed, squares)))| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(ROWS_MAX * PANEL);
            let panel = linear.weight.panels(&engaged, *index, 1, &mut scratch.panels);
            let product = PanelProduct { steps: &steps, left, left_stride, panel };
            let scales = panel_of(&linear.weight.scales, *index);
            let (bias, norm) = (panel_of(&linear.bias, *index), panel_of(next_norm, *index));
            let (residual, _) = residual.as_chunks_mut::<PANEL>();
            let (normed, _) = normed.as_chunks_mut::<PANEL>();
            // Over blocks of rows, each product followed by its rows while their sums are in the cache.
            for block in row_blocks(rows) {
                product.compute(&engaged, block, &mut scratch.sums, PANEL);
                let (sums, _) = scratch.sums.as_chunks::<PANEL>();
                for (row, sums) in (block.first..).zip(&sums[..block.rows]) {
                    let (residual, normed) = (&mut residual[row], &mut normed[row]);
                    lanes::add_to_residual(&engaged, residual, sums, scales, bias);
                    squares[row] = lanes::begin_norm(&engaged, residual, norm, normed);
                }
            }
        });
    });
}

/// Computes the gated unit: a panel of gates and a panel of ups make one panel of the down map's input.
fn gate<T: Number + InScratch>(
    context: &PassContext<'_>,
    workers: &mut Workers,
    activations: &mut Activations<T>,
    linear: &PackedLinear<T>,
) {
    let (rows, padded) = (activations.rows, activations.padded);
    let steps = steps(linear.weight.depth(), PANEL, padded);
    let (normed, scales) = (&activations.normed, &activations.scales);
    let gated = activations.gated.chunks_exact_mut(PANEL * padded);
    let mut units: Vec<_> = gated.enumerate().collect();
    workers.each(&mut units, |(index, gated)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(2 * ROWS_MAX * PANEL);
            let (gated, _) = gated.as_chunks_mut::<PANEL>();
            let pair = [2 * *index, 2 * *index + 1];
            let column_scales = pair.map(|panel| panel_of(&linear.weight.scales, panel));
            let biases = pair.map(|panel| panel_of(&linear.bias, panel));
            let panels = linear.weight.panels(&engaged, pair[0], 2, &mut scratch.panels);
            // Over blocks of rows; the two products of a block come first, since the gate needs both.
            for block in row_blocks(rows) {
                let (gates, ups) = scratch.sums.split_at_mut(ROWS_MAX * PANEL);
                let panels = panels.chunks_exact(linear.weight.depth() * PANEL);
                for (panel, sums) in panels.zip([&mut *gates, &mut *ups]) {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    product.compute(&engaged, block, sums, PANEL);
                }
                let (gates, ups) = (gates.as_chunks::<PANEL>().0, ups.as_chunks::<PANEL>().0);
                for ((row, gate), up) in (block.first..).zip(&gates[..block.rows]).zip(ups) {
                    let (scale, gated) = (scales[row], &mut gated[row]);
                    lanes::gate(&engaged, [gate, up], scale, column_scales, biases, gated);
                }
            }
        });
    });
}

/// Returns the numbers of one panel.
pub(super) fn panel_of(numbers: &[f32], panel: usize) -> &[f32; PANEL] {
    &numbers.as_chunks::<PANEL>().0[panel]
}

/// A type of numbers whose scratch buffers each thread keeps.
pub(super) trait InScratch: Number {
    /// Calls `compute` with the scratch buffers of the calling thread.
    fn with_scratch<R>(compute: impl FnOnce(&mut Scratch<Self>) -> R) -> R;
}
