//! The numbers of a pass that kernels read, in one tensor, so that a pass costs one copy to the device.

use std::ops::Range;

use tch::{Device, Tensor};

use crate::engine::runner::{BLOCK_TOKENS, Draw, Pass, Span};
use crate::engine::sample::uniform;

/// Words of 32 bits, and where each part of them lies.
#[derive(Debug)]
pub(super) struct Upload {
    words: Vec<i32>,
    /// `[draws]`, f64 in two words each; first, for their alignment.
    pub(super) uniforms: Range<usize>,
    /// `[draws]`, f32.
    pub(super) temperatures: Range<usize>,
    /// `[draws]`, the distribution of each.
    pub(super) distributions: Range<usize>,
    /// `[distributions]`, the row of each.
    pub(super) drawn_rows: Range<usize>,
    /// `[rows]`
    pub(super) ids: Range<usize>,
    /// `[rows]`
    pub(super) positions: Range<usize>,
    /// `[rows]`, where in the cache keys and values go, in tokens.
    pub(super) places: Range<usize>,
    /// `[singles]`, rows of the spans of one row.
    pub(super) single_rows: Range<usize>,
    /// `[singles]`, tokens of their contexts.
    pub(super) single_lengths: Range<usize>,
    /// `[singles, table_blocks]`
    pub(super) single_tables: Range<usize>,
    /// Blocks of the longest of these contexts.
    pub(super) table_blocks: usize,
    /// The blocks of each longer span, with its number.
    pub(super) long_tables: Vec<(usize, Range<usize>)>,
}

impl Upload {
    /// Of a pass, the rows of whose distributions are `drawn_rows`; each draw is from one of them.
    pub(super) fn new(
        pass: &Pass<'_>,
        draws: &[Draw],
        (drawn_rows, of_draw): (&[u32], &[usize]),
    ) -> Self {
        let mut words = Vec::new();
        let mut put = |part: &mut dyn Iterator<Item = u32>| {
            let start = words.len();
            words.extend(part.map(u32::cast_signed));
            start..words.len()
        };
        let uniforms = put(&mut draws.iter().flat_map(|draw| {
            let bits = uniform(draw.key, draw.position).to_bits();
            [bits as u32, (bits >> 32) as u32]
        }));
        let temperatures = put(&mut draws.iter().map(|draw| draw.sampling.temperature.to_bits()));
        let distributions = put(&mut of_draw.iter().map(|&place| place as u32));
        let drawn_rows = put(&mut drawn_rows.iter().copied());
        let ids = put(&mut pass.ids.iter().copied());
        let positions = put(&mut pass.positions.iter().copied());
        let places = put(&mut pass.spans.iter().flat_map(|span| {
            (span.past..span.past + span.rows.len()).map(|token| {
                span.blocks[token / BLOCK_TOKENS] * BLOCK_TOKENS as u32
                    + (token % BLOCK_TOKENS) as u32
            })
        }));
        let singles = || pass.spans.iter().filter(|span| span.rows.len() == 1);
        let single_rows = put(&mut singles().map(|span| span.rows.start as u32));
        let single_lengths = put(&mut singles().map(|span| span.past as u32 + 1));
        let table_blocks = singles().map(|span| filled(span).len()).max().unwrap_or(0);
        let single_tables = put(&mut singles().flat_map(|span| {
            // What lies behind a sequence's own blocks is not read.
            let table = filled(span).iter().copied();
            table.chain(std::iter::repeat(0)).take(table_blocks)
        }));
        let long = pass.spans.iter().enumerate().filter(|(_, span)| span.rows.len() > 1);
        let long_tables =
            long.map(|(index, span)| (index, put(&mut filled(span).iter().copied()))).collect();
        Self {
            words,
            uniforms,
            temperatures,
            distributions,
            drawn_rows,
            ids,
            positions,
            places,
            single_rows,
            single_lengths,
            single_tables,
            table_blocks,
            long_tables,
        }
    }

    /// All of it on a device, i32.
    pub(super) fn to_device(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.words).to_device(device)
    }
}

/// The blocks in which a span's tokens lie, its new ones among them.
fn filled<'a>(span: &Span<'a>) -> &'a [u32] {
    &span.blocks[..(span.past + span.rows.len()).div_ceil(BLOCK_TOKENS)]
}
