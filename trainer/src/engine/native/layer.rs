//! One layer of the decoder for all rows of a pass: five jobs, each shared by all threads.
//!
//! A unit of a job is a panel of outputs, or a head, for all rows: every weight is read from memory
//! once a pass, by one thread. What follows a product (bias, norm, rotation, cache, gate, residual)
//! is done while its sums are at hand.

use super::attention::{AttentionScratch, Queries, attend};
use super::buffer::Buffer;
use super::cache::{HeadCache, write_key, write_value};
use super::kernel::{Engaged, Instructions, Number, PANEL, Product, ROWS_MAX, Step, lanes};
use super::pool::Pool;
use super::shape::Shape;
use super::state::{State, row_blocks, steps};
use super::weights::{LayerWeights, Map};
use crate::engine::{Pass, Span};
use crate::policy::LayerConfig;

/// What stays the same over the layers of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) instructions: Instructions,
    pub(super) shape: &'a Shape,
    pub(super) pass: &'a Pass<'a>,
    /// Block and token within it of each row.
    pub(super) places: &'a [[usize; 2]],
    /// `[positions, head_dim]`
    pub(super) cosines: &'a [f32],
    pub(super) sines: &'a [f32],
}

/// What a thread computes in, one for each thread and type.
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

/// Computes a layer; `next_norm` is the norm that follows it.
pub(super) fn compute<T: Number + InScratch>(
    context: &Context<'_>,
    pool: &mut Pool,
    state: &mut State<T>,
    (config, cache): (&LayerConfig, &mut [HeadCache<T>]),
    (weights, next_norm): (&LayerWeights<T>, &[f32]),
) {
    state.scale_rows(context.shape);
    project(context, pool, state, (config, cache), weights);
    attend_all(context, pool, state, config, cache);
    let shape = context.shape;
    let width = shape.group * shape.head_dim_padded;
    add(context, pool, state, (Left::Mixed, width), (&weights.output, &weights.post_norm));
    state.scale_rows(shape);
    gate(context, pool, state, &weights.gate_up);
    add(context, pool, state, (Left::Gated, PANEL), (&weights.down, next_norm));
}

/// The products of rows from `first` on with one panel of a matrix, into columns `column` to
/// `column + PANEL` of the sums.
pub(super) struct PanelProduct<'a, T> {
    pub(super) steps: &'a [Step],
    pub(super) left: &'a [T],
    pub(super) left_stride: usize,
    pub(super) panel: &'a [T],
}

impl<T: Number> PanelProduct<'_, T> {
    pub(super) fn compute(
        &self,
        engaged: &Engaged,
        (first, rows): (usize, usize),
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

/// Where a head of the joined projection goes.
enum Head<'a, T> {
    Query(&'a mut [T]),
    Key(&'a mut [T]),
    Value(&'a mut [T]),
}

/// Queries, keys and values of all rows; keys and values go into the cache.
fn project<T: Number + InScratch>(
    context: &Context<'_>,
    pool: &mut Pool,
    state: &mut State<T>,
    (config, cache): (&LayerConfig, &mut [HeadCache<T>]),
    weights: &LayerWeights<T>,
) {
    let Shape { head_dim, head_dim_padded: width, .. } = *context.shape;
    let (rows, padded) = (state.rows, state.padded);
    let map = &weights.query_key_value;
    let steps = steps(map.weight.depth(), PANEL, padded);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for head in cache {
        keys.push(Head::Key(&mut head.keys));
        values.push(Head::Value(&mut head.values));
    }
    let queries = state.queries.chunks_exact_mut(width * padded).map(Head::Query);
    let mut units: Vec<_> = queries.chain(keys).chain(values).enumerate().collect();
    let (normed, scales) = (&state.normed, &state.scales);
    pool.each(&mut units, |(index, head)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(ROWS_MAX * width);
            let (index, panels) = (*index, width / PANEL);
            let columns = index * width..(index + 1) * width;
            let own = &map.weight.scales[columns.clone()];
            let norm = weights.query_key_norm.as_ref();
            let norm = norm.and_then(|norm| norm.chunks_exact(head_dim).nth(index));
            let panels = map.weight.panels(&engaged, index * panels, panels, &mut scratch.panels);
            for block in row_blocks(rows) {
                for (part, panel) in panels.chunks_exact(map.weight.depth() * PANEL).enumerate() {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    product.compute(&engaged, block, &mut scratch.sums[part * PANEL..], width);
                }
                for (offset, sums) in scratch.sums.chunks_exact_mut(width).take(block.1).enumerate()
                {
                    let row = block.0 + offset;
                    let bias = &map.bias[columns.clone()];
                    lanes::scale_and_shift(&engaged, sums, scales[row], own, bias);
                    let sums = &mut sums[..head_dim];
                    if !matches!(head, Head::Value(_)) {
                        if let Some(norm) = norm {
                            norm_head(sums, norm, context.shape.epsilon);
                        }
                        if config.rotary {
                            let at = context.pass.positions[row] as usize * head_dim;
                            let angles = at..at + head_dim;
                            let cosines = &context.cosines[angles.clone()];
                            lanes::turn(&engaged, sums, cosines, &context.sines[angles]);
                        }
                    }
                    match head {
                        Head::Query(place) => {
                            let place = &mut place[row * width..][..head_dim];
                            lanes::narrow(&engaged, sums, place);
                        }
                        Head::Key(keys) => write_key(keys, width, context.places[row], sums),
                        Head::Value(values) => {
                            write_value(values, width, context.places[row], sums);
                        }
                    }
                }
            }
        });
    });
}

/// Norms one head in place.
fn norm_head(head: &mut [f32], weights: &[f32], epsilon: f32) {
    let squares: f32 = head.iter().map(|number| number * number).sum();
    let scale = 1.0 / (squares / head.len() as f32 + epsilon).sqrt();
    for (number, weight) in head.iter_mut().zip(weights) {
        *number = *number * scale * weight;
    }
}

/// Attention of all spans; a unit is one key and value head for some tokens of a span.
fn attend_all<T: Number + InScratch>(
    context: &Context<'_>,
    pool: &mut Pool,
    state: &mut State<T>,
    config: &LayerConfig,
    cache: &[HeadCache<T>],
) {
    let shape = context.shape;
    let width = shape.group * shape.head_dim_padded;
    let tokens_max = (ROWS_MAX / shape.group).max(1);
    let padded = state.padded;
    let mut units = Vec::new();
    let heads = state.mixed.chunks_exact_mut(width * padded);
    for ((head, mixed), cache) in heads.enumerate().zip(cache) {
        let queries = &state.queries[head * width * padded..][..width * padded];
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
                    window: config.window.and_then(|window| usize::try_from(window).ok()),
                };
                units.push((queries, cache, mixed));
            }
        }
    }
    pool.each(&mut units, |(queries, cache, mixed)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            attend(&engaged, queries, cache, &mut scratch.attention, mixed);
        });
    });
}

/// What a map into the residual stream reads.
#[derive(Clone, Copy, Debug)]
enum Left {
    Mixed,
    Gated,
}

/// Adds what a map gives to the residual stream, and prepares the norm that comes next.
fn add<T: Number + InScratch>(
    context: &Context<'_>,
    pool: &mut Pool,
    state: &mut State<T>,
    (left, left_stride): (Left, usize),
    (map, norm): (&Map<T>, &[f32]),
) {
    let (rows, padded) = (state.rows, state.padded);
    let steps = steps(map.weight.depth(), left_stride, padded);
    let left = match left {
        Left::Mixed => &state.mixed,
        Left::Gated => &state.gated,
    };
    let residual = state.residual.chunks_exact_mut(PANEL * padded);
    let normed = state.normed.chunks_exact_mut(PANEL * padded);
    let squares = state.squares.chunks_exact_mut(padded);
    let mut units: Vec<_> = residual.zip(normed.zip(squares)).enumerate().collect();
    pool.each(&mut units, |(index, (residual, (normed, squares)))| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(ROWS_MAX * PANEL);
            let panel = map.weight.panels(&engaged, *index, 1, &mut scratch.panels);
            let product = PanelProduct { steps: &steps, left, left_stride, panel };
            let scales = of_panel(&map.weight.scales, *index);
            let (bias, norm) = (of_panel(&map.bias, *index), of_panel(norm, *index));
            let (residual, _) = residual.as_chunks_mut::<PANEL>();
            let (normed, _) = normed.as_chunks_mut::<PANEL>();
            for block in row_blocks(rows) {
                product.compute(&engaged, block, &mut scratch.sums, PANEL);
                let (sums, _) = scratch.sums.as_chunks::<PANEL>();
                for (row, sums) in (block.0..).zip(&sums[..block.1]) {
                    let (residual, normed) = (&mut residual[row], &mut normed[row]);
                    lanes::add_to_residual(&engaged, residual, sums, scales, bias);
                    squares[row] = lanes::begin_norm(&engaged, residual, norm, normed);
                }
            }
        });
    });
}

/// The gated unit: a panel of gates and one of ups make a panel of what the last map reads.
fn gate<T: Number + InScratch>(
    context: &Context<'_>,
    pool: &mut Pool,
    state: &mut State<T>,
    map: &Map<T>,
) {
    let (rows, padded) = (state.rows, state.padded);
    let steps = steps(map.weight.depth(), PANEL, padded);
    let (normed, scales) = (&state.normed, &state.scales);
    let mut units: Vec<_> = state.gated.chunks_exact_mut(PANEL * padded).enumerate().collect();
    pool.each(&mut units, |(index, gated)| {
        T::with_scratch(|scratch| {
            let engaged = context.instructions.engage();
            scratch.sums.resize(2 * ROWS_MAX * PANEL);
            let (gated, _) = gated.as_chunks_mut::<PANEL>();
            let pair = [2 * *index, 2 * *index + 1];
            let own = pair.map(|panel| of_panel(&map.weight.scales, panel));
            let biases = pair.map(|panel| of_panel(&map.bias, panel));
            let panels = map.weight.panels(&engaged, pair[0], 2, &mut scratch.panels);
            for block in row_blocks(rows) {
                let (gates, ups) = scratch.sums.split_at_mut(ROWS_MAX * PANEL);
                let panels = panels.chunks_exact(map.weight.depth() * PANEL);
                for (panel, sums) in panels.zip([&mut *gates, &mut *ups]) {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    product.compute(&engaged, block, sums, PANEL);
                }
                let (gates, ups) = (gates.as_chunks::<PANEL>().0, ups.as_chunks::<PANEL>().0);
                for ((row, gate), up) in (block.0..).zip(&gates[..block.1]).zip(ups) {
                    let scale = scales[row];
                    lanes::gate(&engaged, [gate, up], scale, own, biases, &mut gated[row]);
                }
            }
        });
    });
}

/// The numbers of one panel.
pub(super) fn of_panel(numbers: &[f32], panel: usize) -> &[f32; PANEL] {
    &numbers.as_chunks::<PANEL>().0[panel]
}

/// The scratch of the calling thread.
pub(super) trait InScratch: Number {
    fn with_scratch<R>(compute: impl FnOnce(&mut Scratch<Self>) -> R) -> R;
}
