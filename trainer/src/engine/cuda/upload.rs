//! The numbers of a pass that kernels read, in one tensor: a pass then costs one copy to the device.

use std::ops::Range;

use tch::{Device, Tensor};

use crate::engine::eager::Distributions;
use crate::engine::runner::{BLOCK_TOKENS, Draw, Pass, Span};
use crate::engine::sample::uniform;

/// Words of 32 bits, and the range of each part among them.
#[derive(Debug)]
pub(super) struct Upload {
    words: Vec<i32>,
    /// `[draws]`, f64 in two words each; the first part, so that they are aligned.
    pub(super) uniforms: Range<usize>,
    /// `[draws]`, f32.
    pub(super) temperatures: Range<usize>,
    /// `[draws]`, the index of each draw's distribution.
    pub(super) distributions: Range<usize>,
    /// `[distributions]`, the row of each distribution.
    pub(super) drawn_rows: Range<usize>,
    /// `[rows]`
    pub(super) ids: Range<usize>,
    /// `[rows]`
    pub(super) positions: Range<usize>,
    /// `[rows]`, the index of each row's key and value among all tokens of the cache.
    pub(super) slots: Range<usize>,
    /// `[singles]`, the rows of spans of one row.
    pub(super) single_rows: Range<usize>,
    /// `[singles]`, the tokens of their contexts.
    pub(super) single_lengths: Range<usize>,
    /// `[singles, table_blocks]`
    pub(super) single_tables: Range<usize>,
    /// Blocks of the longest of these contexts.
    pub(super) table_blocks: usize,
    /// The blocks of each longer span, with its number.
    pub(super) long_tables: Vec<(usize, Range<usize>)>,
}

impl Upload {
    /// Lays out the numbers of a pass; `distributions` are those of its draws.
    pub(super) fn new(pass: &Pass<'_>, draws: &[Draw], distributions: &Distributions) -> Self {
        let mut words = Vec::new();
        let mut append = |part: &mut dyn Iterator<Item = u32>| {
            let start = words.len();
            words.extend(part.map(u32::cast_signed));
            start..words.len()
        };
        let uniforms = append(&mut draws.iter().flat_map(|draw| {
            let bits = uniform(draw.key, draw.position).to_bits();
            [bits as u32, (bits >> 32) as u32]
        }));
        let temperatures =
            append(&mut draws.iter().map(|draw| draw.sampling.temperature.to_bits()));
        let distribution_of_draw =
            append(&mut distributions.by_draw.iter().map(|&index| index as u32));
        let drawn_rows = append(&mut distributions.rows.iter().copied());
        let ids = append(&mut pass.ids.iter().copied());
        let positions = append(&mut pass.positions.iter().copied());
        let slots = append(&mut pass.spans.iter().flat_map(|span| {
            (span.past..span.past + span.rows.len()).map(|token| {
                span.blocks[token / BLOCK_TOKENS] * BLOCK_TOKENS as u32
                    + (token % BLOCK_TOKENS) as u32
            })
        }));
        let singles = || pass.spans.iter().filter(|span| span.rows.len() == 1);
        let single_rows = append(&mut singles().map(|span| span.rows.start as u32));
        let single_lengths = append(&mut singles().map(|span| span.past as u32 + 1));
        let table_blocks = singles().map(|span| filled(span).len()).max().unwrap_or(0);
        let single_tables = append(&mut singles().flat_map(|span| {
            // The padding is never read.
            let table = filled(span).iter().copied();
            table.chain(std::iter::repeat(0)).take(table_blocks)
        }));
        let long = pass.spans.iter().enumerate().filter(|(_, span)| span.rows.len() > 1);
        let long_tables =
            long.map(|(index, span)| (index, append(&mut filled(span).iter().copied()))).collect();
        Self {
            words,
            uniforms,
            temperatures,
            distributions: distribution_of_draw,
            drawn_rows,
            ids,
            positions,
            slots,
            single_rows,
            single_lengths,
            single_tables,
            table_blocks,
            long_tables,
        }
    }

    /// Copies all words to a device, as i32.
    pub(super) fn to_device(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.words).to_device(device)
    }
}

/// Returns the blocks of a span's tokens, including the new ones.
fn filled<'a>(span: &Span<'a>) -> &'a [u32] {
    &span.blocks[..(span.past + span.rows.len()).div_ceil(BLOCK_TOKENS)]
}
