//! The runner of eager tensor operations, on any device.
//!
//! Layout of the pool: `[layers, 2 (keys, values), blocks, BLOCK_TOKENS, kv_heads, head_dim]`. Spans of
//! one row attend together over their gathered blocks, longer ones each for itself.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::runner::{BLOCK_TOKENS, Draw, Pass, Runner, Span};
use super::sample::{Choice, choose};
use super::{EngineError, Sampling};
use crate::policy::{
    Attention, Decoder, LayerSpan, ModelConfig, Weights, attend_one, repeat_heads,
};

/// A runner of eager tensor operations with a pool of `blocks`, on the weights' device.
pub fn eager_runner(decoder: Decoder, weights: Weights, blocks: usize) -> Box<dyn Runner> {
    Box::new(EagerRunner::new(decoder, weights, blocks))
}

/// A decoder with its weights and its pool.
#[derive(Debug)]
pub(super) struct EagerRunner {
    decoder: Decoder,
    weights: Weights,
    pool: Pool,
}

impl EagerRunner {
    /// Allocates a pool of `blocks` in the weights' type, on their device.
    pub(super) fn new(decoder: Decoder, weights: Weights, blocks: usize) -> Self {
        let pool = Pool::new(&decoder.config, blocks, weights.kind(), weights.device());
        Self { decoder, weights, pool }
    }
}

impl Runner for EagerRunner {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        tch::no_grad(|| {
            let device = self.weights.device();
            let index = |values: &[u32]| {
                let values: Vec<i64> = values.iter().map(|&value| i64::from(value)).collect();
                Tensor::from_slice(&values).to_device(device)
            };
            let (ids, positions) = (index(pass.ids), index(pass.positions));
            let mut attention = PagedAttention::new(&self.pool, pass.spans);
            let hidden =
                self.decoder.hidden_states(&self.weights, &ids, &positions, &mut attention);
            if draws.is_empty() {
                return Ok(Vec::new());
            }
            let distributions = Distributions::of(draws);
            let hidden = hidden.index_select(0, &index(&distributions.rows));
            Ok(distributions.choose(&Decoder::logits(&self.weights, &hidden), draws))
        })
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.pool.copy_block(from, to);
    }

    fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }
}

/// Keys and values of all blocks, and views of them by layer.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) all: Tensor,
    /// `[blocks, BLOCK_TOKENS, kv_heads, head_dim]` of each layer.
    pub(super) keys: Vec<Tensor>,
    pub(super) values: Vec<Tensor>,
    query_heads_per_group: i64,
    kind: Kind,
    device: Device,
}

impl Pool {
    /// Zeros, for `blocks`.
    pub(super) fn new(config: &ModelConfig, blocks: usize, kind: Kind, device: Device) -> Self {
        let layers = config.layers.len() as i64;
        let block = [BLOCK_TOKENS as i64, config.key_value_heads, config.head_dim];
        let shape = [layers, 2, blocks as i64, block[0], block[1], block[2]];
        let all = Tensor::zeros(shape, (kind, device));
        let part = |part: i64| (0..layers).map(|layer| all.get(layer).get(part)).collect();
        let (keys, values) = (part(0), part(1));
        let query_heads_per_group = config.heads / config.key_value_heads;
        Self { all, keys, values, query_heads_per_group, kind, device }
    }

    /// Copies a block of every layer.
    pub(super) fn copy_block(&self, from: u32, to: u32) {
        let block = |number: u32| self.all.select(2, i64::from(number));
        block(to).copy_(&block(from));
    }
}

/// Attention of the last tokens of one sequence, whose query is `[tokens, heads, head_dim]`, over all its
/// `total` tokens in the pool, which lie in `blocks`: `[tokens, heads * head_dim]`.
pub(super) fn attend_over_blocks(
    pool: &Pool,
    layer: LayerSpan,
    (blocks, total): (&Tensor, i64),
    query: &Tensor,
) -> Tensor {
    let cached = |pool: &[Tensor], groups: i64| {
        let gathered = pool[layer.index].index_select(0, blocks).flatten(0, 1);
        repeat_heads(&gathered.narrow(0, 0, total), groups)
    };
    let groups = pool.query_heads_per_group;
    attend_one(query, &cached(&pool.keys, groups), &cached(&pool.values, groups), layer.window)
}

/// Attention of the rows of one pass.
struct PagedAttention<'a> {
    pool: &'a Pool,
    spans: &'a [Span<'a>],
    /// `[rows]`, where in the flat pool the keys and values of each row go.
    places: Tensor,
    single: Option<SingleRows>,
    /// Blocks of each longer span that has a past.
    blocks: Vec<Option<Tensor>>,
}

/// The spans of one row, which attend together.
struct SingleRows {
    /// Their rows of the pass, in order.
    rows: Vec<i64>,
    /// `[rows * longest]`, the blocks of each, filled up with any block.
    blocks: Tensor,
    /// Tokens that the most blocks of one hold.
    longest: i64,
    /// `[rows, 1]`, the place of each row in its sequence.
    positions: Tensor,
    /// By the window of a layer, as the layers ask for them.
    masks: BTreeMap<Option<i64>, Tensor>,
}

impl<'a> PagedAttention<'a> {
    fn new(pool: &'a Pool, spans: &'a [Span<'a>]) -> Self {
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(pool.device);
        let mut places = Vec::new();
        let mut blocks = Vec::with_capacity(spans.len());
        for span in spans {
            let tokens = span.past..span.past + span.rows.len();
            places.extend(tokens.map(|token| {
                let block = span.blocks[token / BLOCK_TOKENS] as usize;
                (block * BLOCK_TOKENS + token % BLOCK_TOKENS) as i64
            }));
            let gathers = span.rows.len() > 1 && span.past > 0;
            blocks.push(gathers.then(|| tensor(&filled_blocks(span))));
        }
        let places = tensor(&places);
        Self { pool, spans, places, single: SingleRows::of(pool, spans), blocks }
    }

    fn attend_span(&self, index: usize, layer: LayerSpan, rows: [&Tensor; 3]) -> Tensor {
        let span = &self.spans[index];
        let (start, tokens) = (span.rows.start as i64, span.rows.len() as i64);
        let groups = self.pool.query_heads_per_group;
        let [query, key, value] = rows;
        let query = query.narrow(0, start, tokens);
        if let Some(blocks) = &self.blocks[index] {
            let total = span.past as i64 + tokens;
            return attend_over_blocks(self.pool, layer, (blocks, total), &query);
        }
        let new = |all: &Tensor| repeat_heads(&all.narrow(0, start, tokens), groups);
        attend_one(&query, &new(key), &new(value), layer.window)
    }
}

/// The blocks in which a span's tokens lie, its new ones among them.
fn filled_blocks(span: &Span<'_>) -> Vec<i64> {
    let filled = (span.past + span.rows.len()).div_ceil(BLOCK_TOKENS);
    span.blocks[..filled].iter().map(|&block| i64::from(block)).collect()
}

impl Attention for PagedAttention<'_> {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        for (pool, new) in [(&self.pool.keys, key), (&self.pool.values, value)] {
            let _ = pool[layer.index].flatten(0, 1).index_copy_(0, &self.places, new);
        }
        let size = query.size();
        let single = self.single.as_mut().map(|single| single.attend(self.pool, layer, query));
        if let (Some(mixed), true) = (&single, self.blocks.len() == size[0] as usize) {
            return mixed.shallow_clone();
        }
        let mut singles = 0;
        let mut mixed = Vec::with_capacity(self.spans.len());
        for (index, span) in self.spans.iter().enumerate() {
            match &single {
                Some(single) if span.rows.len() == 1 => {
                    mixed.push(single.narrow(0, singles, 1));
                    singles += 1;
                }
                _ => mixed.push(self.attend_span(index, layer, [query, key, value])),
            }
        }
        Tensor::cat(&mixed, 0)
    }
}

impl SingleRows {
    fn of(pool: &Pool, spans: &[Span<'_>]) -> Option<Self> {
        let single: Vec<&Span<'_>> = spans.iter().filter(|span| span.rows.len() == 1).collect();
        let tables: Vec<Vec<i64>> = single.iter().map(|span| filled_blocks(span)).collect();
        let longest = tables.iter().map(Vec::len).max()?;
        let mut blocks = Vec::with_capacity(tables.len() * longest);
        for table in &tables {
            blocks.extend(table);
            // What lies behind a sequence's own tokens is masked.
            blocks.resize(blocks.len() + longest - table.len(), table[0]);
        }
        let positions: Vec<i64> = single.iter().map(|span| span.past as i64).collect();
        Some(Self {
            rows: single.iter().map(|span| span.rows.start as i64).collect(),
            blocks: Tensor::from_slice(&blocks).to_device(pool.device),
            longest: (longest * BLOCK_TOKENS) as i64,
            positions: Tensor::from_slice(&positions).to_device(pool.device).unsqueeze(1),
            masks: BTreeMap::new(),
        })
    }

    /// `[single rows, heads * head_dim]`
    fn attend(&mut self, pool: &Pool, layer: LayerSpan, query: &Tensor) -> Tensor {
        let mask = self.mask(pool, layer.window);
        let (rows, size) = (self.rows.len() as i64, query.size());
        let query = if rows == size[0] {
            query.shallow_clone()
        } else {
            query.index_select(0, &Tensor::from_slice(&self.rows).to_device(pool.device))
        };
        let gather = |pool: &Tensor| {
            let size = pool.size();
            pool.index_select(0, &self.blocks)
                .view([rows, self.longest, size[2], size[3]])
                .transpose(1, 2)
        };
        let (keys, values) = (gather(&pool.keys[layer.index]), gather(&pool.values[layer.index]));
        let groups = pool.query_heads_per_group;
        // The query heads of a group stand where query tokens would: keys are read once per group.
        let query = query.reshape([rows, size[1] / groups, groups, size[2]]);
        let mixed = Tensor::scaled_dot_product_attention(
            &query,
            &keys,
            &values,
            Some(&mask),
            0.0,
            false,
            None::<f64>,
            false,
        );
        mixed.reshape([rows, size[1] * size[2]])
    }

    /// `[rows, 1, 1, longest]`, 0 where a row has a token within the window and -inf elsewhere,
    /// compute type.
    fn mask(&mut self, pool: &Pool, window: Option<i64>) -> Tensor {
        let (rows, longest, positions) = (self.rows.len() as i64, self.longest, &self.positions);
        let made = self.masks.entry(window).or_insert_with(|| {
            let columns = Tensor::arange(longest, (Kind::Int64, pool.device)).unsqueeze(0);
            let mut hidden = columns.gt_tensor(positions);
            if let Some(window) = window {
                hidden = hidden.logical_or(&columns.le_tensor(&(positions - window)));
            }
            Tensor::zeros([rows, longest], (pool.kind, pool.device))
                .masked_fill(&hidden, f64::NEG_INFINITY)
                .view([rows, 1, 1, longest])
        });
        made.shallow_clone()
    }
}

/// The distributions that the draws of a pass are from: a row at a temperature each.
pub(super) struct Distributions {
    pub(super) rows: Vec<u32>,
    temperatures: Vec<f32>,
    /// Which of them each draw is from.
    pub(super) of_draw: Vec<usize>,
}

impl Distributions {
    pub(super) fn of(draws: &[Draw]) -> Self {
        let mut found = Self { rows: Vec::new(), temperatures: Vec::new(), of_draw: Vec::new() };
        let mut known = BTreeMap::new();
        for draw in draws {
            let Sampling { temperature, .. } = draw.sampling;
            // The log-prob of a token that is chosen greedily is that of the model as it is.
            let temperature = if temperature > 0.0 { temperature } else { 1.0 };
            let next = found.rows.len();
            let place = *known.entry((draw.row, temperature.to_bits())).or_insert(next);
            if place == next {
                found.rows.push(draw.row as u32);
                found.temperatures.push(temperature);
            }
            found.of_draw.push(place);
        }
        found
    }

    /// A token for each draw from `[distributions, vocab]` logits.
    pub(super) fn choose(&self, logits: &Tensor, draws: &[Draw]) -> Vec<Choice> {
        let vocab = logits.size()[1] as usize;
        let temperatures =
            Tensor::from_slice(&self.temperatures).to_device(logits.device()).unsqueeze(1);
        let log_probs = (logits / temperatures).log_softmax(-1, Kind::Float);
        let probabilities = host_values(&log_probs.exp());
        let log_probs = host_values(&log_probs);
        let choose_one = |(draw, &place): (&Draw, &usize)| {
            let row = place * vocab..(place + 1) * vocab;
            let (log_probs, probabilities) = (&log_probs[row.clone()], &probabilities[row]);
            choose(log_probs, probabilities, draw.sampling, draw.key, draw.position)
        };
        draws.iter().zip(&self.of_draw).map(choose_one).collect()
    }
}

fn host_values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.to_device(Device::Cpu).contiguous().copy_data(&mut values, tensor.numel());
    values
}
