//! Grouped-query attention: the projections of a layer, and the mixing of tokens.
//!
//! Only attention knows where sequences begin and end. Mixing is therefore a trait: training attends causally
//! within each packed sequence, rollouts attend over a key/value cache.

use tch::{Device, Kind, Tensor};

use super::config::ModelConfig;
use super::linear::{Linear, Masters};
use super::norm::RmsNorm;
use super::rotary::Rotation;

/// Number and width of the heads.
#[derive(Clone, Copy, Debug)]
struct HeadShape {
    heads: i64,
    key_value_heads: i64,
    head_dim: i64,
}

/// Weights of one layer's attention.
#[derive(Debug)]
pub(crate) struct AttentionWeights {
    shape: HeadShape,
    /// Query, key and value rows, stacked: `[(heads + 2 kv_heads) * head_dim, hidden]`.
    pub(crate) query_key_value: Linear,
    /// Norm of each query and key head before the rotation, `[heads + kv_heads, head_dim]`.
    pub(crate) query_key_norm: Option<RmsNorm>,
    /// `[hidden, heads * head_dim]`
    pub(crate) output: Linear,
}

impl AttentionWeights {
    /// Collects the weights of the module `prefix`, such as `model.layers.0.self_attn`.
    pub(super) fn new(masters: Masters<'_>, config: &ModelConfig, prefix: &str) -> Self {
        let part = |name: &str| format!("{prefix}.{name}");
        let ModelConfig { heads, key_value_heads, head_dim, .. } = *config;
        let query_key_norm = config.query_key_norm.then(|| {
            // All query heads share one weight, and so do all key heads. Spread out, they form one norm.
            let spread = |name: &str, count: i64| {
                masters.tensor(&part(name)).expand([count, head_dim], false)
            };
            let query = spread("q_norm.weight", heads);
            let key = spread("k_norm.weight", key_value_heads);
            RmsNorm::new(Tensor::cat(&[query, key], 0), config.rms_norm_epsilon)
        });
        let joined = [part("q_proj"), part("k_proj"), part("v_proj")];
        Self {
            shape: HeadShape { heads, key_value_heads, head_dim },
            query_key_value: masters.linear(&joined, config.biases.query_key_value),
            query_key_norm,
            output: masters.linear(&[part("o_proj")], config.biases.attention_output),
        }
    }

    /// Projects `[tokens, hidden]` to the query, key and value heads that [`Attention`] takes. A layer without a
    /// rotation sees no positions (NoPE, arXiv 2305.19466).
    pub(super) fn project(
        &self,
        normed: &Tensor,
        rotation: Option<&Rotation>,
    ) -> (Tensor, Tensor, Tensor) {
        let HeadShape { heads, key_value_heads, head_dim } = self.shape;
        let joined = self.query_key_value.apply(normed);
        let kind = joined.kind();
        let joined = joined.view([-1, heads + 2 * key_value_heads, head_dim]);
        // A split joins the gradients of its parts once. Each narrow would spread its gradient over zeros of
        // the whole.
        let turning_and_value =
            joined.split_with_sizes([heads + key_value_heads, key_value_heads], 1);
        // Query and key heads are normed and turned together. Value heads stay unchanged.
        let mut turning = turning_and_value[0].shallow_clone();
        if let Some(norm) = &self.query_key_norm {
            turning = norm.apply_to_heads(&turning);
        }
        if let Some(rotation) = rotation {
            turning = rotation.apply(&turning);
        }
        let query_and_key = turning.to_kind(kind).split_with_sizes([heads, key_value_heads], 1);
        let part = |tensor: &Tensor| tensor.shallow_clone();
        (part(&query_and_key[0]), part(&query_and_key[1]), part(&turning_and_value[1]))
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self {
            shape: self.shape,
            query_key_value: self.query_key_value.deep_copy(),
            query_key_norm: self.query_key_norm.as_ref().map(RmsNorm::deep_copy),
            output: self.output.deep_copy(),
        }
    }
}

/// The layer that attends, and how far back it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpan {
    /// Index of the layer, counted from the embedding.
    pub index: usize,
    /// Number of tokens that a token attends to, itself included. `None` means all tokens before it.
    pub window: Option<i64>,
}

/// Mixes information between the tokens of a sequence.
pub trait Attention {
    /// Returns the mixed values, `[tokens, heads * head_dim]`. `query` is `[tokens, heads, head_dim]`; `key` and
    /// `value` are `[tokens, kv_heads, head_dim]`. Queries and keys are rotated already.
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor;
}

/// Causal attention within each of several packed sequences, without a cache or padding.
#[derive(Debug)]
pub struct PackedCausalAttention {
    /// The packed sequences, in packing order.
    pub groups: Vec<PromptGroup>,
}

/// Sequences that begin with the same prompt. The prompt's rows exist once, before the sequences' own rows.
#[derive(Debug)]
pub struct PromptGroup {
    /// Number of rows of the prompt; 0 if nothing is shared.
    pub prompt: i64,
    /// Number of rows of each sequence after the prompt.
    pub own: Vec<i64>,
}

impl PackedCausalAttention {
    /// Creates the attention of sequences with these lengths that share nothing.
    pub fn of_lengths(lengths: &[i64]) -> Self {
        let group = |&length: &i64| PromptGroup { prompt: 0, own: vec![length] };
        Self { groups: lengths.iter().map(group).collect() }
    }
}

impl Attention for PackedCausalAttention {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let rows = |group: &PromptGroup| [&[group.prompt][..], &group.own].concat();
        let sizes: Vec<i64> = self.groups.iter().flat_map(rows).collect();
        let parts = [query, key, value].map(|all| all.split_with_sizes(&sizes[..], 0));
        let repeats = query.size()[1] / key.size()[1];
        let mut mixed = Vec::with_capacity(sizes.len());
        let mut start = 0;
        for PromptGroup { prompt, own } in &self.groups {
            for (member, &rows) in own.iter().enumerate() {
                // The prompt attends again with each sequence. That costs less than a mask of the other
                // sequences, because plainly causal attention has faster kernels.
                let [query, key, value] = [0, 1, 2].map(|part| {
                    let own = &parts[part][start + 1 + member];
                    if *prompt == 0 {
                        own.shallow_clone()
                    } else {
                        Tensor::cat(&[&parts[part][start], own], 0)
                    }
                });
                let (key, value) = (repeat_heads(&key, repeats), repeat_heads(&value, repeats));
                let whole = attend_one(&query, &key, &value, layer.window);
                // The prompt's own rows are kept from the first sequence only.
                let kept = if member == 0 { prompt + rows } else { rows };
                mixed.push(whole.narrow(0, prompt + rows - kept, kept));
            }
            start += 1 + own.len();
        }
        Tensor::cat(&mixed, 0)
    }
}

/// Repeats each key/value head for every query head of its group: `[tokens, heads, head_dim]`.
pub(crate) fn repeat_heads(tensor: &Tensor, groups: i64) -> Tensor {
    if groups == 1 {
        return tensor.shallow_clone();
    }
    let size = tensor.size();
    tensor.unsqueeze(2).expand([size[0], size[1], groups, size[2]], false).reshape([
        size[0],
        size[1] * groups,
        size[2],
    ])
}

/// Attends from the last `q` tokens of one sequence to all its `k` tokens: `[q, heads, dim]` and
/// `[k, heads, dim]` to `[q, heads * dim]`. Attention is causal and reaches back `window` tokens at most.
pub(crate) fn attend_one(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    window: Option<i64>,
) -> Tensor {
    let heads_first = |tensor: &Tensor| tensor.transpose(0, 1).unsqueeze(0);
    let (tokens, total) = (query.size()[0], key.size()[0]);
    let mask = span_mask(tokens, total, window, query.device());
    let causal = mask.is_none();
    let mixed = Tensor::scaled_dot_product_attention(
        &heads_first(query),
        &heads_first(key),
        &heads_first(value),
        mask.as_ref(),
        0.0,
        causal,
        None::<f64>,
        false,
    );
    mixed.squeeze_dim(0).transpose(0, 1).reshape([tokens, -1])
}

/// Returns the mask `[tokens, total]`, true where the last `tokens` of `total` attend, or `None` if the attention
/// is plainly causal, which has faster kernels.
fn span_mask(tokens: i64, total: i64, window: Option<i64>, device: Device) -> Option<Tensor> {
    let past = total - tokens;
    let window = window.filter(|&window| window < total);
    if past == 0 && window.is_none() {
        return None;
    }
    let causal = Tensor::ones([tokens, total], (Kind::Bool, device)).tril(past);
    Some(match window {
        Some(window) => causal.triu(past - window + 1),
        None => causal,
    })
}
