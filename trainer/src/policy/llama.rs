//! The Llama decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
//!
//! Tokens of several sequences lie packed in one row dimension, without padding: every linear
//! layer sees `[tokens, hidden]`. Only attention knows where a sequence begins and ends, so it is
//! a trait: causal within each packed sequence (training), or over a key/value cache (rollouts).

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::config::ModelConfig;

/// Weights of one decoder layer, in the compute type.
#[derive(Debug)]
pub struct LayerWeights {
    /// `[hidden]`, f32.
    input_norm: Tensor,
    /// Query, key and value rows one below the other: `[(heads + 2 kv_heads) * head_dim, hidden]`.
    query_key_value: Tensor,
    /// `[hidden, heads * head_dim]`
    output: Tensor,
    /// `[hidden]`, f32.
    post_norm: Tensor,
    /// Gate and up rows one below the other: `[2 * intermediate, hidden]`.
    gate_up: Tensor,
    /// `[hidden, intermediate]`
    down: Tensor,
}

/// Everything a forward pass reads.
#[derive(Debug)]
pub struct Weights {
    /// `[vocab, hidden]`, f32.
    embedding: Tensor,
    layers: Vec<LayerWeights>,
    /// `[hidden]`, f32.
    final_norm: Tensor,
    /// `[vocab, hidden]`, compute type.
    head: Tensor,
    kind: Kind,
}

impl Weights {
    /// Casts and joins the master weights; differentiable.
    pub(super) fn from_parameters(
        config: &ModelConfig,
        parameters: &BTreeMap<String, Tensor>,
        kind: Kind,
    ) -> Self {
        let master = |name: &str| &parameters[name];
        let layers = (0..config.layers)
            .map(|layer| {
                let part = |part: &str| master(&format!("model.layers.{layer}.{part}.weight"));
                let joined = |parts: &[&str]| {
                    let tensors: Vec<&Tensor> = parts.iter().map(|name| part(name)).collect();
                    Tensor::cat(&tensors, 0).to_kind(kind)
                };
                LayerWeights {
                    input_norm: part("input_layernorm").shallow_clone(),
                    query_key_value: joined(&[
                        "self_attn.q_proj",
                        "self_attn.k_proj",
                        "self_attn.v_proj",
                    ]),
                    output: part("self_attn.o_proj").to_kind(kind),
                    post_norm: part("post_attention_layernorm").shallow_clone(),
                    gate_up: joined(&["mlp.gate_proj", "mlp.up_proj"]),
                    down: part("mlp.down_proj").to_kind(kind),
                }
            })
            .collect();
        let embedding = master("model.embed_tokens.weight").shallow_clone();
        let head = if config.tied_embeddings {
            embedding.to_kind(kind)
        } else {
            master("lm_head.weight").to_kind(kind)
        };
        let final_norm = master("model.norm.weight").shallow_clone();
        Self { embedding, layers, final_norm, head, kind }
    }

    /// Where the weights lie.
    pub fn device(&self) -> tch::Device {
        self.head.device()
    }

    /// The compute type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().copy();
        Self {
            embedding: copy(&self.embedding),
            layers: self
                .layers
                .iter()
                .map(|layer| LayerWeights {
                    input_norm: copy(&layer.input_norm),
                    query_key_value: copy(&layer.query_key_value),
                    output: copy(&layer.output),
                    post_norm: copy(&layer.post_norm),
                    gate_up: copy(&layer.gate_up),
                    down: copy(&layer.down),
                })
                .collect(),
            final_norm: copy(&self.final_norm),
            head: copy(&self.head),
            kind: self.kind,
        }
    }
}

/// Mixes information between the tokens of a sequence.
pub trait Attention {
    /// `query` is `[tokens, heads, head_dim]`, `key` and `value` `[tokens, kv_heads, head_dim]`, all
    /// rotated; returns `[tokens, heads * head_dim]`.
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor;
}

/// The decoder's constants: configuration and rotary tables.
#[derive(Debug)]
pub struct Decoder {
    pub config: ModelConfig,
    /// cos and sin of each position's angles, `[positions, head_dim]`, f32 (both halves equal).
    rotary: (Tensor, Tensor),
}

impl Decoder {
    /// Tables for `positions` tokens of context.
    pub fn new(config: &ModelConfig, positions: usize, device: tch::Device) -> Self {
        let half = config.head_dim / 2;
        let options = (Kind::Float, device);
        let exponents = Tensor::arange(half, options) * (2.0 / config.head_dim as f64);
        let frequencies = (exponents * -config.rope_theta.ln()).exp();
        let angles = Tensor::arange(positions as i64, options).outer(&frequencies);
        let angles = Tensor::cat(&[&angles, &angles], 1);
        Self { config: config.clone(), rotary: (angles.cos(), angles.sin()) }
    }

    /// Hidden states after the final norm, `[tokens, hidden]` in the compute type.
    ///
    /// `ids` and `positions` are `[tokens]`, i64: the packed sequences and each token's place in
    /// its own sequence.
    pub fn hidden_states(
        &self,
        weights: &Weights,
        ids: &Tensor,
        positions: &Tensor,
        attention: &mut dyn Attention,
    ) -> Tensor {
        let cos = self.rotary.0.index_select(0, positions).unsqueeze(1);
        let sin = self.rotary.1.index_select(0, positions).unsqueeze(1);
        let mut residual = Tensor::embedding(&weights.embedding, ids, -1, false, false);
        for (index, layer) in weights.layers.iter().enumerate() {
            let normed = self.norm(&residual, &layer.input_norm, weights.kind);
            let (query, key, value) = self.project(&normed, layer, &cos, &sin, weights.kind);
            let mixed = attention.attend(index, &query, &key, &value);
            // Not in place: the norms keep what they read for the backward pass.
            let attended = residual + mixed.linear(&layer.output, None::<&Tensor>);
            let normed = self.norm(&attended, &layer.post_norm, weights.kind);
            let gate_up = normed.linear(&layer.gate_up, None::<&Tensor>).chunk(2, -1);
            let inner = gate_up[0].silu() * &gate_up[1];
            residual = attended + inner.linear(&layer.down, None::<&Tensor>);
        }
        self.norm(&residual, &weights.final_norm, weights.kind)
    }

    /// Logits in f32 of the given hidden states, `[tokens, vocab]`.
    pub fn logits(weights: &Weights, hidden: &Tensor) -> Tensor {
        hidden.linear(&weights.head, None::<&Tensor>).to_kind(Kind::Float)
    }

    fn norm(&self, input: &Tensor, weight: &Tensor, kind: Kind) -> Tensor {
        let epsilon = self.config.rms_norm_epsilon;
        input.rms_norm([self.config.hidden_size], Some(weight), epsilon).to_kind(kind)
    }

    fn project(
        &self,
        normed: &Tensor,
        layer: &LayerWeights,
        cos: &Tensor,
        sin: &Tensor,
        kind: Kind,
    ) -> (Tensor, Tensor, Tensor) {
        let ModelConfig { heads, key_value_heads, head_dim, .. } = self.config;
        let joined = normed.linear(&layer.query_key_value, None::<&Tensor>);
        let joined = joined.view([-1, heads + 2 * key_value_heads, head_dim]);
        // Query and key heads turn together; value heads do not turn.
        let turned = rotate(&joined.narrow(1, 0, heads + key_value_heads), cos, sin).to_kind(kind);
        let query = turned.narrow(1, 0, heads);
        let key = turned.narrow(1, heads, key_value_heads);
        let value = joined.narrow(1, heads + key_value_heads, key_value_heads);
        (query, key, value)
    }
}

/// Rotary embedding over halves, as in the Hugging Face layout: `x cos + rotate_half(x) sin`.
fn rotate(input: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let halves = input.chunk(2, -1);
    let rotated = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
    input * cos + rotated * sin
}

/// Causal attention within each of several packed sequences; nothing is cached or padded.
#[derive(Debug)]
pub struct PackedCausalAttention {
    /// Tokens of each sequence, in packing order.
    pub lengths: Vec<i64>,
}

impl Attention for PackedCausalAttention {
    fn attend(&mut self, _layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let queries = query.split_with_sizes(&self.lengths[..], 0);
        let keys = key.split_with_sizes(&self.lengths[..], 0);
        let values = value.split_with_sizes(&self.lengths[..], 0);
        let groups = query.size()[1] / key.size()[1];
        let mixed: Vec<Tensor> = queries
            .iter()
            .zip(&keys)
            .zip(&values)
            .map(|((query, key), value)| {
                attend_one(query, &repeat_heads(key, groups), &repeat_heads(value, groups), None)
            })
            .collect();
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

/// Attention of one sequence: `[q, heads, dim]` over `[k, heads, dim]` to `[q, heads * dim]`;
/// causal if there is no mask.
pub(crate) fn attend_one(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: Option<&Tensor>,
) -> Tensor {
    let heads_first = |tensor: &Tensor| tensor.transpose(0, 1).unsqueeze(0);
    let causal = mask.is_none();
    let mixed = Tensor::scaled_dot_product_attention(
        &heads_first(query),
        &heads_first(key),
        &heads_first(value),
        mask,
        0.0,
        causal,
        None::<f64>,
        false,
    );
    let tokens = query.size()[0];
    mixed.squeeze_dim(0).transpose(0, 1).reshape([tokens, -1])
}
