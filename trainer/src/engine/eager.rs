//! The runner of eager tensor operations, on any device.
//!
//! Layout of the cache: `[layers, 2 (keys, values), blocks, BLOCK_TOKENS, kv_heads, head_dim]`. Spans of one
//! row attend together over their gathered blocks; longer spans attend one by one.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::runner::{BLOCK_TOKENS, Draw, Pass, Runner, Span};
use super::sample::{Choice, choose};
use super::{EngineError, Sampling};
use crate::policy::{
    Attention, Decoder, LayerSpan, ModelConfig, Weights, attend_one, repeat_heads,
};

/// Returns a runner of eager tensor operations with a cache of `blocks`, on the weights' device.
pub fn eager_runner(decoder: Decoder, weights: Weights, blocks: usize) -> Box<dyn Runner> {
    Box::new(EagerRunner::new(decoder, weights, blocks))
}

/// A decoder with its weights and its KV cache.
#[derive(Debug)]
pub(super) struct EagerRunner {
    decoder: Decoder,
    weights: Weights,
    cache: KeyValueTensors,
}

impl EagerRunner {
    /// Allocates a cache of `blocks` in the weights' type, on their device.
    pub(super) fn new(decoder: Decoder, weights: Weights, blocks: usize) -> Self {
        let cache = KeyValueTensors::new(&decoder.config, blocks, weights.kind(), weights.device());
        Self { decoder, weights, cache }
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
            let mut attention = PagedAttention::new(&self.cache, pass.spans);
            let hidden =
                self.decoder.hidden_states(&self.weights, &ids, &positions, &mut attention);
            if draws.is_empty() {
                return Ok(Vec::new());
            }
            let distributions = Distributions::new(draws);
            let hidden = hidden.index_select(0, &index(&distributions.rows));
            Ok(distributions.choose(&Decoder::logits(&self.weights, &hidden), draws))
        })
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }
}

/// The KV cache as tensors: keys and values of all blocks, with views of them for each layer.
#[derive(Debug)]
pub(super) struct KeyValueTensors {
    pub(super) all: Tensor,
    /// `[blocks, BLOCK_TOKENS, kv_heads, head_dim]` of each layer.
    pub(super) keys: Vec<Tensor>,
    pub(super) values: Vec<Tensor>,
    query_heads_per_group: i64,
    kind: Kind,
    device: Device,
}

impl KeyValueTensors {
    /// Allocates zeros for `blocks` blocks.
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

    /// Copies a block in every layer.
    pub(super) fn copy_block(&self, from: u32, to: u32) {
        let block = |number: u32| self.all.select(2, i64::from(number));
        block(to).copy_(&block(from));
    }
}

/// Computes attention of the last tokens of one sequence over all its `total` tokens, which lie in `blocks` of
/// the cache. `query` is `[tokens, heads, head_dim]`, the result `[tokens, heads * head_dim]`.
pub(super) fn attend_over_blocks(
    cache: &KeyValueTensors,
    layer: LayerSpan,
    blocks: &Tensor,
    total: i64,
    query: &Tensor,
) -> Tensor {
    let cached = |numbers: &[Tensor], groups: i64| {
        let gathered = numbers[layer.index].index_select(0, blocks).flatten(0, 1);
        repeat_heads(&gathered.narrow(0, 0, total), groups)
    };
    let groups = cache.query_heads_per_group;
    attend_one(query, &cached(&cache.keys, groups), &cached(&cache.values, groups), layer.window)
}

/// Attention of the rows of one pass.
struct PagedAttention<'a> {
    cache: &'a KeyValueTensors,
    spans: &'a [Span<'a>],
    /// `[rows]`, the index of each row's key and value among all tokens of the cache.
    slots: Tensor,
    single: Option<SingleRows>,
    /// The blocks of each longer span that has cached tokens.
    blocks: Vec<Option<Tensor>>,
}

/// The spans of one row, which attend together.
struct SingleRows {
    /// Their rows of the pass, in order.
    rows: Vec<i64>,
    /// `[rows * blocks of the longest]`, the blocks of each row, padded with its first block.
    blocks: Tensor,
    /// Tokens that the blocks of the longest context hold.
    longest: i64,
    /// `[rows, 1]`, the position of each row in its sequence.
    positions: Tensor,
    /// Masks by the window of a layer, made when a layer first needs them.
    masks: BTreeMap<Option<i64>, Tensor>,
}

impl<'a> PagedAttention<'a> {
    fn new(cache: &'a KeyValueTensors, spans: &'a [Span<'a>]) -> Self {
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(cache.device);
        let mut slots = Vec::new();
        let mut blocks = Vec::with_capacity(spans.len());
        for span in spans {
            let tokens = span.past..span.past + span.rows.len();
            slots.extend(tokens.map(|token| {
                let block = span.blocks[token / BLOCK_TOKENS] as usize;
                (block * BLOCK_TOKENS + token % BLOCK_TOKENS) as i64
            }));
            let gathers = span.rows.len() > 1 && span.past > 0;
            blocks.push(gathers.then(|| tensor(&filled_blocks(span))));
        }
        let slots = tensor(&slots);
        Self { cache, spans, slots, single: SingleRows::new(cache, spans), blocks }
    }

    fn attend_span(&self, index: usize, layer: LayerSpan, rows: [&Tensor; 3]) -> Tensor {
        let span = &self.spans[index];
        let (start, tokens) = (span.rows.start as i64, span.rows.len() as i64);
        let groups = self.cache.query_heads_per_group;
        let [query, key, value] = rows;
        let query = query.narrow(0, start, tokens);
        if let Some(blocks) = &self.blocks[index] {
            let total = span.past as i64 + tokens;
            return attend_over_blocks(self.cache, layer, blocks, total, &query);
        }
        let new = |all: &Tensor| repeat_heads(&all.narrow(0, start, tokens), groups);
        attend_one(&query, &new(key), &new(value), layer.window)
    }
}

/// Returns the blocks of a span's tokens, including the new ones.
fn filled_blocks(span: &Span<'_>) -> Vec<i64> {
    let filled = (span.past + span.rows.len()).div_ceil(BLOCK_TOKENS);
    span.blocks[..filled].iter().map(|&block| i64::from(block)).collect()
}

impl Attention for PagedAttention<'_> {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        for (cached, new) in [(&self.cache.keys, key), (&self.cache.values, value)] {
            let _ = cached[layer.index].flatten(0, 1).index_copy_(0, &self.slots, new);
        }
        let size = query.size();
        let single = self.single.as_mut().map(|single| single.attend(self.cache, layer, query));
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
    /// Collects the spans of one row; `None` if there are none.
    fn new(cache: &KeyValueTensors, spans: &[Span<'_>]) -> Option<Self> {
        let single: Vec<&Span<'_>> = spans.iter().filter(|span| span.rows.len() == 1).collect();
        let tables: Vec<Vec<i64>> = single.iter().map(|span| filled_blocks(span)).collect();
        let longest = tables.iter().map(Vec::len).max()?;
        let mut blocks = Vec::with_capacity(tables.len() * longest);
        for table in &tables {
            blocks.extend(table);
            // The padding is masked.
            blocks.resize(blocks.len() + longest - table.len(), table[0]);
        }
        let positions: Vec<i64> = single.iter().map(|span| span.past as i64).collect();
        Some(Self {
            rows: single.iter().map(|span| span.rows.start as i64).collect(),
            blocks: Tensor::from_slice(&blocks).to_device(cache.device),
            longest: (longest * BLOCK_TOKENS) as i64,
            positions: Tensor::from_slice(&positions).to_device(cache.device).unsqueeze(1),
            masks: BTreeMap::new(),
        })
    }

    /// Computes attention of all single rows, `[single rows, heads * head_dim]`.
    fn attend(&mut self, cache: &KeyValueTensors, layer: LayerSpan, query: &Tensor) -> Tensor {
        let mask = self.mask(cache, layer.window);
        let (rows, size) = (self.rows.len() as i64, query.size());
        let query = if rows == size[0] {
            query.shallow_clone()
        } else {
            query.index_select(0, &Tensor::from_slice(&self.rows).to_device(cache.device))
        };
        let gather = |cached: &Tensor| {
            let size = cached.size();
            cached
                .index_select(0, &self.blocks)
                .view([rows, self.longest, size[2], size[3]])
                .transpose(1, 2)
        };
        let (keys, values) = (gather(&cache.keys[layer.index]), gather(&cache.values[layer.index]));
        let groups = cache.query_heads_per_group;
        // The query heads of a group take the dimension of query tokens, so keys are read once per group.
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

    /// Returns the mask of a window, `[rows, 1, 1, longest]` in the compute type: 0 where a row has a token
    /// within the window, -inf elsewhere.
    fn mask(&mut self, cache: &KeyValueTensors, window: Option<i64>) -> Tensor {
        let (rows, longest, positions) = (self.rows.len() as i64, self.longest, &self.positions);
        let mask = self.masks.entry(window).or_insert_with(|| {
            let columns = Tensor::arange(longest, (Kind::Int64, cache.device)).unsqueeze(0);
            let mut hidden = columns.gt_tensor(positions);
            if let Some(window) = window {
                hidden = hidden.logical_or(&columns.le_tensor(&(positions - window)));
            }
            Tensor::zeros([rows, longest], (cache.kind, cache.device))
                .masked_fill(&hidden, f64::NEG_INFINITY)
                .view([rows, 1, 1, longest])
        });
        mask.shallow_clone()
    }
}

/// The distributions that a pass draws from; each is a row at a temperature.
pub(super) struct Distributions {
    pub(super) rows: Vec<u32>,
    temperatures: Vec<f32>,
    /// The index of each draw's distribution.
    pub(super) by_draw: Vec<usize>,
}

impl Distributions {
    /// Collects the distributions of `draws`, each once.
    pub(super) fn new(draws: &[Draw]) -> Self {
        let mut distributions =
            Self { rows: Vec::new(), temperatures: Vec::new(), by_draw: Vec::new() };
        let mut known = BTreeMap::new();
        for draw in draws {
            let Sampling { temperature, .. } = draw.sampling;
            // The log-prob of a greedy draw is taken at temperature 1.
            let temperature = if temperature > 0.0 { temperature } else { 1.0 };
            let next = distributions.rows.len();
            let index = *known.entry((draw.row, temperature.to_bits())).or_insert(next);
            if index == next {
                distributions.rows.push(draw.row as u32);
                distributions.temperatures.push(temperature);
            }
            distributions.by_draw.push(index);
        }
        distributions
    }

    /// Draws a token for each draw from `[distributions, vocab]` logits.
    pub(super) fn choose(&self, logits: &Tensor, draws: &[Draw]) -> Vec<Choice> {
        let vocab = logits.size()[1] as usize;
        let temperatures =
            Tensor::from_slice(&self.temperatures).to_device(logits.device()).unsqueeze(1);
        let log_probs = (logits / temperatures).log_softmax(-1, Kind::Float);
        let probabilities = host_values(&log_probs.exp());
        let log_probs = host_values(&log_probs);
        let choose_one = |(draw, &distribution): (&Draw, &usize)| {
            let row = distribution * vocab..(distribution + 1) * vocab;
            let (log_probs, probabilities) = (&log_probs[row.clone()], &probabilities[row]);
            choose(log_probs, probabilities, draw.sampling, draw.key, draw.position)
        };
        draws.iter().zip(&self.by_draw).map(choose_one).collect()
    }
}

fn host_values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0_f32; tensor.numel()];
    tensor.to_device(Device::Cpu).contiguous().copy_data(&mut values, tensor.numel());
    values
}
