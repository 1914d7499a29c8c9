//! The head: logits of the rows that are drawn from, and the draws.
//!
//! While a block of logits is at hand, its largest and the sum of its exponentials are taken, from
//! which follow the log-sum-exp of the row and, for a draw, the block that it falls into: only that
//! block is walked through.

use super::buffer::Buffer;
use super::kernel::{Instructions, Number, PANEL, lanes};
use super::layer::{InScratch, PanelProduct};
use super::pool::Pool;
use super::shape::{Shape, padded_rows};
use super::state::{State, row_blocks, steps};
use super::weights::{PackedModel, VOCABULARY_BLOCK};
use crate::engine::sample::{Choice, choose, uniform};
use crate::engine::{Draw, EngineError};

const BLOCK_PANELS: usize = VOCABULARY_BLOCK / PANEL;

/// A distribution that something is drawn from: a row of the pass at a temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Source {
    row: usize,
    temperature: f32,
}

/// What is known of a block of logits, all divided by the temperature.
#[derive(Clone, Copy, Debug, Default)]
struct BlockStatistics {
    largest: f32,
    /// The sum of `e^(logit - largest)`.
    sum: f32,
}

/// Logits of the rows that are drawn from.
#[derive(Debug)]
pub(super) struct Head<T> {
    sources: Vec<Source>,
    padded: usize,
    /// `[hidden / PANEL][sources][PANEL]`
    normed: Buffer<T>,
    /// `[vocabulary / VOCABULARY_BLOCK][sources][VOCABULARY_BLOCK]`, divided by the temperature.
    logits: Buffer<f32>,
    /// `[vocabulary / VOCABULARY_BLOCK][sources]`
    statistics: Vec<BlockStatistics>,
}

impl<T: Number> Default for Head<T> {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            padded: 0,
            normed: Buffer::zeros(0),
            logits: Buffer::zeros(0),
            statistics: Vec::new(),
        }
    }
}

/// The temperature that log-probs are taken at.
fn temperature_of(draw: &Draw) -> f32 {
    if draw.sampling.temperature > 0.0 { draw.sampling.temperature } else { 1.0 }
}

impl<T: Number + InScratch> Head<T> {
    /// A token for each draw, after the last layer of a pass.
    pub(super) fn draw(
        &mut self,
        instructions: Instructions,
        pool: &mut Pool,
        (shape, model): (&Shape, &PackedModel<T>),
        state: &mut State<T>,
        draws: &[Draw],
    ) -> Result<Vec<Choice>, EngineError> {
        if draws.is_empty() {
            return Ok(Vec::new());
        }
        state.scale_rows(shape);
        self.gather(state, draws);
        self.compute_logits(instructions, pool, (shape, model), state);
        let mut choices: Vec<(&Draw, Result<Choice, EngineError>)> = draws
            .iter()
            .map(|draw| (draw, Err(EngineError::Other("a draw was left out".to_owned()))))
            .collect();
        let head = &*self;
        pool.each(&mut choices, |(draw, choice)| *choice = head.choose(shape, draw));
        choices.into_iter().map(|(_, choice)| choice).collect()
    }

    /// Collects the rows that are drawn from, each once for each of its temperatures.
    fn gather(&mut self, state: &State<T>, draws: &[Draw]) {
        self.sources.clear();
        for draw in draws {
            let source = Source { row: draw.row, temperature: temperature_of(draw) };
            if !self.sources.contains(&source) {
                self.sources.push(source);
            }
        }
        self.padded = padded_rows(self.sources.len());
        let panels = state.normed.len() / (state.padded * PANEL);
        self.normed.resize(panels * self.padded * PANEL);
        let panels = state.normed.chunks_exact(state.padded * PANEL);
        for (from, to) in panels.zip(self.normed.chunks_exact_mut(self.padded * PANEL)) {
            for (source, to) in self.sources.iter().zip(to.chunks_exact_mut(PANEL)) {
                to.copy_from_slice(&from[source.row * PANEL..][..PANEL]);
            }
        }
    }

    fn compute_logits(
        &mut self,
        instructions: Instructions,
        pool: &mut Pool,
        (shape, model): (&Shape, &PackedModel<T>),
        state: &State<T>,
    ) {
        let count = self.sources.len();
        let blocks = shape.vocabulary.div_ceil(VOCABULARY_BLOCK);
        self.logits.resize(blocks * self.padded * VOCABULARY_BLOCK);
        self.statistics.resize(blocks * count, BlockStatistics::default());
        let steps = steps(model.head.depth(), PANEL, self.padded);
        let logits = self.logits.chunks_exact_mut(self.padded * VOCABULARY_BLOCK);
        let statistics = self.statistics.chunks_exact_mut(count);
        let mut units: Vec<_> = logits.zip(statistics).enumerate().collect();
        let (normed, sources) = (&self.normed, &self.sources);
        pool.each(&mut units, |(block, (logits, statistics))| {
            T::with_scratch(|scratch| {
                let engaged = instructions.engage();
                let first = *block * BLOCK_PANELS;
                let panels = model.head.panels(&engaged, first, BLOCK_PANELS, &mut scratch.panels);
                for (part, panel) in panels.chunks_exact(model.head.depth() * PANEL).enumerate() {
                    let product =
                        PanelProduct { steps: &steps, left: normed, left_stride: PANEL, panel };
                    for rows in row_blocks(count) {
                        let sums = &mut logits[rows.0 * VOCABULARY_BLOCK + part * PANEL..];
                        product.compute(&engaged, rows, sums, VOCABULARY_BLOCK);
                    }
                }
                let own = &model.head.scales[first * PANEL..][..VOCABULARY_BLOCK];
                let tokens = (shape.vocabulary - *block * VOCABULARY_BLOCK).min(VOCABULARY_BLOCK);
                let rows = logits.chunks_exact_mut(VOCABULARY_BLOCK);
                for ((source, logits), statistics) in
                    sources.iter().zip(rows).zip(statistics.iter_mut())
                {
                    let scale = state.scales[source.row];
                    lanes::finish_logits(&engaged, logits, scale, own, source.temperature);
                    logits[tokens..].fill(f32::NEG_INFINITY);
                    let largest = lanes::largest(&engaged, logits);
                    let sum = lanes::sum_of_exponentials(&engaged, logits, largest);
                    *statistics = BlockStatistics { largest, sum };
                }
            });
        });
    }

    /// The logits of a source in a block.
    fn logits_of(&self, source: usize, block: usize) -> &[f32] {
        let start = (block * self.padded + source) * VOCABULARY_BLOCK;
        &self.logits[start..][..VOCABULARY_BLOCK]
    }

    /// The choice of one draw.
    fn choose(&self, shape: &Shape, draw: &Draw) -> Result<Choice, EngineError> {
        let own = Source { row: draw.row, temperature: temperature_of(draw) };
        let found = self.sources.iter().position(|source| *source == own);
        let source = found.unwrap_or(0);
        let count = self.sources.len();
        let statistics = || self.statistics.iter().skip(source).step_by(count);
        let largest = statistics().map(|block| block.largest).fold(f32::NEG_INFINITY, f32::max);
        let shares = statistics()
            .map(|block| f64::from(block.sum) * f64::from(block.largest - largest).exp());
        let shares: Vec<f64> = shares.collect();
        let total: f64 = shares.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(EngineError::Other(format!(
                "row {} of a pass has logits that are not numbers: the weights are not finite",
                draw.row
            )));
        }
        let log_sum = f64::from(largest) + total.ln();
        let log_prob = |logit: f32| (f64::from(logit) - log_sum) as f32;
        let at = |token: usize| {
            let logit = self.logits_of(source, token / VOCABULARY_BLOCK)[token % VOCABULARY_BLOCK];
            Choice { token: token as u32, log_prob: log_prob(logit) }
        };
        if draw.sampling.temperature <= 0.0 {
            let block = statistics().position(|block| block.largest >= largest).unwrap_or(0);
            let logits = self.logits_of(source, block);
            let offset = logits.iter().position(|logit| *logit >= largest).unwrap_or(0);
            return Ok(at(block * VOCABULARY_BLOCK + offset));
        }
        if draw.sampling.top_p < 1.0 {
            let blocks = 0..shares.len();
            let log_probs = blocks.flat_map(|block| self.logits_of(source, block));
            let log_probs: Vec<f32> =
                log_probs.take(shape.vocabulary).map(|logit| log_prob(*logit)).collect();
            let probabilities: Vec<f32> = log_probs.iter().map(|value| value.exp()).collect();
            let Draw { sampling, key, position, .. } = *draw;
            return Ok(choose(&log_probs, &probabilities, sampling, key, position));
        }
        let rest = uniform(draw.key, draw.position) * total;
        let (block, mut rest) = find(&shares, rest);
        let mut chosen = 0;
        for (offset, logit) in self.logits_of(source, block).iter().enumerate() {
            let share = f64::from(*logit - largest).exp();
            if share > 0.0 {
                chosen = offset;
                if rest < share {
                    break;
                }
                rest -= share;
            }
        }
        Ok(at(block * VOCABULARY_BLOCK + chosen))
    }
}

/// The share that `rest` falls into, and how far; the last one that is not empty if it is beyond all.
fn find(shares: &[f64], mut rest: f64) -> (usize, f64) {
    let mut found = (0, rest);
    for (index, &share) in shares.iter().enumerate() {
        if share > 0.0 {
            found = (index, rest);
            if rest < share {
                break;
            }
            rest -= share;
        }
    }
    found
}
