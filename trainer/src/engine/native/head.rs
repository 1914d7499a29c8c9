//! The language model head: logits of the rows that are drawn from, and the draws.
//!
//! The logits are computed in blocks. While a block is in the processor's cache, its largest logit and
//! the sum of its exponentials are computed too. They give the log-sum-exp of the row and, for a draw,
//! the block that the draw falls into. Only that block is searched for the token.

use super::activations::{Activations, row_blocks, steps};
use super::buffer::Buffer;
use super::kernel::{Instructions, Number, PANEL, lanes};
use super::layer::{InScratch, PanelProduct};
use super::shape::{Shape, padded_rows};
use super::weights::{PackedModel, VOCABULARY_BLOCK};
use super::workers::Workers;
use crate::engine::sample::{Choice, choose, uniform};
use crate::engine::{Draw, EngineError};

const BLOCK_PANELS: usize = VOCABULARY_BLOCK / PANEL;

/// A distribution that tokens are drawn from: a row of the pass at a temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Distribution {
    row: usize,
    temperature: f32,
}

impl Distribution {
    /// Returns the distribution of a draw. The log-prob of a greedy draw is taken at temperature 1.
    fn new(draw: &Draw) -> Self {
        let temperature = draw.sampling.temperature;
        Self { row: draw.row, temperature: if temperature > 0.0 { temperature } else { 1.0 } }
    }
}

/// Statistics of a block of logits, which are divided by the temperature.
#[derive(Clone, Copy, Debug, Default)]
struct BlockStatistics {
    largest: f32,
    /// The sum of `e^(logit - largest)`.
    sum: f32,
}

/// The model whose head is computed.
#[derive(Debug)]
pub(super) struct HeadInputs<'a, T> {
    pub(super) instructions: Instructions,
    pub(super) shape: &'a Shape,
    pub(super) model: &'a PackedModel<T>,
}

/// The logits of the rows that are drawn from.
#[derive(Debug)]
pub(super) struct LanguageModelHead<T> {
    distributions: Vec<Distribution>,
    padded: usize,
    /// `[hidden / PANEL][distributions][PANEL]`
    normed: Buffer<T>,
    /// `[vocabulary / VOCABULARY_BLOCK][distributions][VOCABULARY_BLOCK]`, divided by the temperature.
    logits: Buffer<f32>,
    /// `[vocabulary / VOCABULARY_BLOCK][distributions]`
    statistics: Vec<BlockStatistics>,
}

impl<T: Number> Default for LanguageModelHead<T> {
    fn default() -> Self {
        Self {
            distributions: Vec::new(),
            padded: 0,
            normed: Buffer::zeros(0),
            logits: Buffer::zeros(0),
            statistics: Vec::new(),
        }
    }
}

impl<T: Number + InScratch> LanguageModelHead<T> {
    /// Draws a token for each of `draws`, after the last layer of a pass.
    pub(super) fn draw(
        &mut self,
        inputs: &HeadInputs<'_, T>,
        workers: &mut Workers,
        activations: &mut Activations<T>,
        draws: &[Draw],
    ) -> Result<Vec<Choice>, EngineError> {
        if draws.is_empty() {
            return Ok(Vec::new());
        }
        activations.scale_rows(inputs.shape);
        self.gather(activations, draws);
        self.compute_logits(inputs, workers, activations);
        let mut choices: Vec<(&Draw, Option<Result<Choice, EngineError>>)> =
            draws.iter().map(|draw| (draw, None)).collect();
        let head = &*self;
        workers.each(&mut choices, |(draw, choice)| {
            *choice = Some(head.choose(inputs.shape, draw));
        });
        let computed = |(_, choice): (&Draw, Option<_>)| choice.expect("each draw is a unit");
        choices.into_iter().map(computed).collect()
    }

    /// Copies the rows that are drawn from, once for each temperature.
    fn gather(&mut self, activations: &Activations<T>, draws: &[Draw]) {
        self.distributions.clear();
        for draw in draws {
            let distribution = Distribution::new(draw);
            if !self.distributions.contains(&distribution) {
                self.distributions.push(distribution);
            }
        }
        self.padded = padded_rows(self.distributions.len());
        let panels = activations.normed.len() / (activations.padded * PANEL);
        self.normed.resize(panels * self.padded * PANEL);
        // Panel by panel, since rows lie in panels here as there.
        let panels = activations.normed.chunks_exact(activations.padded * PANEL);
        for (from, to) in panels.zip(self.normed.chunks_exact_mut(self.padded * PANEL)) {
            for (distribution, to) in self.distributions.iter().zip(to.chunks_exact_mut(PANEL)) {
                to.copy_from_slice(&from[distribution.row * PANEL..][..PANEL]);
            }
        }
    }

    /// Computes the logits of all distributions and their statistics.
    fn compute_logits(
        &mut self,
        inputs: &HeadInputs<'_, T>,
        workers: &mut Workers,
        activations: &Activations<T>,
    ) {
        let HeadInputs { instructions, shape, model } = *inputs;
        let count = self.distributions.len();
        let blocks = shape.vocabulary.div_ceil(VOCABULARY_BLOCK);
        self.logits.resize(blocks * self.padded * VOCABULARY_BLOCK);
        self.statistics.resize(blocks * count, BlockStatistics::default());
        let steps = steps(model.head.depth(), PANEL, self.padded);
        // One unit for each block of the vocabulary: the head's weights, by far the largest matrix, are
        // read once for all distributions.
        let logits = self.logits.chunks_exact_mut(self.padded * VOCABULARY_BLOCK);
        let statistics = self.statistics.chunks_exact_mut(count);
        let mut units: Vec<_> = logits.zip(statistics).enumerate().collect();
        let (normed, distributions) = (&self.normed, &self.distributions);
        workers.each(&mut units, |(block, (logits, statistics))| {
            T::with_scratch(|scratch| {
                let engaged = instructions.engage();
                let first = *block * BLOCK_PANELS;
                let panels = model.head.panels(&engaged, first, BLOCK_PANELS, &mut scratch.panels);
                // Over the panels of the block, and within a panel over blocks of rows: the panel's weights
                // stay in the processor's cache while all rows use them.
                for (part, panel) in panels.chunks_exact(model.head.depth() * PANEL).enumerate() {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    for rows in row_blocks(count) {
                        let sums = &mut logits[rows.first * VOCABULARY_BLOCK + part * PANEL..];
                        product.compute(&engaged, rows, sums, VOCABULARY_BLOCK);
                    }
                }
                let column_scales = &model.head.scales[first * PANEL..][..VOCABULARY_BLOCK];
                let tokens = (shape.vocabulary - *block * VOCABULARY_BLOCK).min(VOCABULARY_BLOCK);
                // Over the distributions, whose logits of the block are now complete. Columns after the
                // vocabulary can never be drawn.
                let rows = logits.chunks_exact_mut(VOCABULARY_BLOCK);
                for ((distribution, logits), statistics) in
                    distributions.iter().zip(rows).zip(statistics.iter_mut())
                {
                    let Distribution { row, temperature } = *distribution;
                    let scale = activations.scales[row];
                    lanes::finish_logits(&engaged, logits, scale, column_scales, temperature);
                    logits[tokens..].fill(f32::NEG_INFINITY);
                    let largest = lanes::largest(&engaged, logits);
                    let sum = lanes::sum_of_exponentials(&engaged, logits, largest);
                    *statistics = BlockStatistics { largest, sum };
                }
            });
        });
    }

    /// Returns the logits of a distribution in a block.
    fn block_logits(&self, distribution: usize, block: usize) -> &[f32] {
        let start = (block * self.padded + distribution) * VOCABULARY_BLOCK;
        &self.logits[start..][..VOCABULARY_BLOCK]
    }

    /// Draws one token.
    fn choose(&self, shape: &Shape, draw: &Draw) -> Result<Choice, EngineError> {
        let drawn_from = Distribution::new(draw);
        let index = self.distributions.iter().position(|distribution| *distribution == drawn_from);
        let index = index.expect("the distribution of every draw was gathered");
        let count = self.distributions.len();
        let statistics = || self.statistics.iter().skip(index).step_by(count);
        // The blocks' sums are relative to their own largest logit; they become shares of one total.
        let largest = statistics().map(|block| block.largest).fold(f32::NEG_INFINITY, f32::max);
        let shares = statistics()
            .map(|block| f64::from(block.sum) * f64::from(block.largest - largest).exp());
        let shares: Vec<f64> = shares.collect();
        let total: f64 = shares.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(EngineError::LogitsNotFinite { row: draw.row });
        }
        let log_sum = f64::from(largest) + total.ln();
        let log_prob = |logit: f32| (f64::from(logit) - log_sum) as f32;
        let choice = |block: usize, offset: usize| Choice {
            token: (block * VOCABULARY_BLOCK + offset) as u32,
            log_prob: log_prob(self.block_logits(index, block)[offset]),
        };
        if draw.sampling.temperature <= 0.0 {
            let block = statistics().position(|block| block.largest >= largest);
            let block = block.expect("the largest logit is that of a block");
            let logits = self.block_logits(index, block);
            let offset = logits.iter().position(|logit| *logit >= largest);
            return Ok(choice(block, offset.expect("the largest logit is in its block")));
        }
        if draw.sampling.top_p < 1.0 {
            let blocks = 0..shares.len();
            let log_probs = blocks.flat_map(|block| self.block_logits(index, block));
            let log_probs: Vec<f32> =
                log_probs.take(shape.vocabulary).map(|logit| log_prob(*logit)).collect();
            let probabilities: Vec<f32> = log_probs.iter().map(|value| value.exp()).collect();
            let Draw { sampling, key, position, .. } = *draw;
            return Ok(choose(&log_probs, &probabilities, sampling, key, position));
        }
        // Over the shares of the blocks first, then over the tokens of one block: the draw falls where the
        // running sum exceeds it.
        let target = uniform(draw.key, draw.position) * total;
        let (block, mut rest) = block_of_draw(&shares, target);
        let mut drawn = 0;
        for (offset, logit) in self.block_logits(index, block).iter().enumerate() {
            let share = f64::from(*logit - largest).exp();
            if share > 0.0 {
                drawn = offset;
                if rest < share {
                    break;
                }
                rest -= share;
            }
        }
        Ok(choice(block, drawn))
    }
}

/// Returns the block whose share `rest` falls into, and the rest within it. Rounding may leave a rest after
/// the last share; then the last block with a share is returned.
fn block_of_draw(shares: &[f64], mut rest: f64) -> (usize, f64) {
    let mut drawn = (0, rest);
    for (index, &share) in shares.iter().enumerate() {
        if share > 0.0 {
            drawn = (index, rest);
            if rest < share {
                break;
            }
            rest -= share;
        }
    }
    drawn
}
