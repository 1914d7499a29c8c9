//! Grouped-query attention: the projections of a layer, and who attends to whom.
//!
//! Only attention knows where a sequence begins and ends, so mixing is a trait: causal within each
//! packed sequence (training), or over a key/value cache (rollouts).

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
    /// Query, key and value rows one below the other: `[(heads + 2 kv_heads) * head_dim, hidden]`.
    pub(crate) query_key_value: Linear,
    /// Norm of each query and key head before it is turned, `[heads + kv_heads, head_dim]`.
    pub(crate) query_key_norm: Option<RmsNorm>,
    /// `[hidden, heads * head_dim]`
    pub(crate) output: Linear,
}

impl AttentionWeights {
    /// Of the module `prefix`, such as `model.layers.0.self_attn`.
    pub(super) fn new(masters: Masters<'_>, config: &ModelConfig, prefix: &str) -> Self {
        let part = |name: &str| format!("{prefix}.{name}");
        let ModelConfig { heads, key_value_heads, head_dim, .. } = *config;
        let query_key_norm = config.query_key_norm.then(|| {
            // One weight for all query heads and one for all key heads, so that both are one norm.
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

    /// Query, key and value heads of `[tokens, hidden]`, as [`Attention`] takes them. A layer without
    /// a rotation sees no positions (NoPE, arXiv 2305.19466).
    pub(super) fn project(
        &self,
        normed: &Tensor,
        rotation: Option<&Rotation>,
    ) -> (Tensor, Tensor, Tensor) {
        let HeadShape { heads, key_value_heads, head_dim } = self.shape;
        let joined = self.query_key_value.apply(normed);
        let kind = joined.kind();
        let joined = joined.view([-1, heads + 2 * key_value_heads, head_dim]);
        // Split rather than narrow: the gradients of a split are joined once, those of a narrow are
        // each spread over zeros of the whole.
        let turning_and_value =
            joined.split_with_sizes([heads + key_value_heads, key_value_heads], 1);
        // Query and key heads are normed and turned together; value heads stay as they are.
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

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        Self {
            shape: self.shape,
            query_key_value: self.query_key_value.deep_copy(),
            query_key_norm: self.query_key_norm.as_ref().map(RmsNorm::deep_copy),
            output: self.output.deep_copy(),
        }
    }
}

/// Which layer attends, and how far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpan {
    /// Counted from the embedding.
    pub index: usize,
    /// Tokens that a token attends to, itself among them; all before it if there is none.
    pub window: Option<i64>,
}

/// Mixes information between the tokens of a sequence.
pub trait Attention {
    /// `query` is `[tokens, heads, head_dim]`, `key` and `value` `[tokens, kv_heads, head_dim]`, all
    /// rotated; returns `[tokens, heads * head_dim]`.
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor;
}

/// Causal attention within each of several packed sequences; nothing is cached or padded.
#[derive(Debug)]
pub struct PackedCausalAttention {
    /// In packing order.
    pub groups: Vec<PromptGroup>,
}

/// Sequences that begin with the same prompt, whose rows are there once, before the sequences' own.
#[derive(Debug)]
pub struct PromptGroup {
    /// Rows of the prompt; 0 if nothing is shared.
    pub prompt: i64,
    /// Rows of each sequence after the prompt.
    pub own: Vec<i64>,
}

impl PackedCausalAttention {
    /// Sequences of so many tokens each that share nothing.
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
            for (place, &rows) in own.iter().enumerate() {
                // The prompt is attended once more with each sequence, which costs less than to mask
                // what a sequence does not see: attention that is plainly causal has faster kernels.
                let [query, key, value] = [0, 1, 2].map(|part| {
                    let own = &parts[part][start + 1 + place];
                    if *prompt == 0 {
                        own.shallow_clone()
                    } else {
                        Tensor::cat(&[&parts[part][start], own], 0)
                    }
                });
                let (key, value) = (repeat_heads(&key, repeats), repeat_heads(&value, repeats));
                let whole = attend_one(&query, &key, &value, layer.window);
                let kept = if place == 0 { prompt + rows } else { rows };
                mixed.push(whole.narrow(0, prompt + rows - kept, kept));
            }
            start += 1 + own.len();
        }
        Tensor::cat(&mixed, 0)
    }
}

/// Each key/value head once per query head of its group: `[tokens, heads, head_dim]`.
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

/// Attention of the last `q` tokens of one sequence over all its `k`: `[q, heads, dim]` and
/// `[k, heads, dim]` to `[q, heads * dim]`; causal, and no further back than `window` tokens.
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

/// `[tokens, total]`, true where the last `tokens` of `total` attend; nothing where that is plainly
/// causal, for which there are faster kernels.
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
