//! The decoder that all families share: norms before attention and feed-forward, each added to what
//! went in.
//!
//! Tokens of several sequences lie packed in one row dimension, without padding: every linear
//! layer sees `[tokens, hidden]`.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, AttentionWeights, LayerSpan};
use super::config::ModelConfig;
use super::feed_forward::FeedForward;
use super::linear::{Adapters, Masters, deep_copy};
use super::norm::RmsNorm;
use super::rotary::{RotaryTables, Rotation};

/// Weights of one decoder layer, in the compute type.
#[derive(Debug)]
pub struct LayerWeights {
    pub(crate) input_norm: RmsNorm,
    pub(crate) attention: AttentionWeights,
    pub(crate) post_norm: RmsNorm,
    pub(crate) feed_forward: FeedForward,
}

/// Everything a forward pass reads.
#[derive(Debug)]
pub struct Weights {
    /// `[vocab, hidden]`, f32.
    pub(super) embedding: Tensor,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) final_norm: RmsNorm,
    /// `[vocab, hidden]`, compute type.
    pub(super) head: Tensor,
    kind: Kind,
}

impl Weights {
    /// Casts and joins the master weights; differentiable.
    pub(super) fn from_parameters(
        config: &ModelConfig,
        parameters: &BTreeMap<String, Tensor>,
        adapters: Adapters<'_>,
        kind: Kind,
    ) -> Self {
        let masters = Masters { parameters, adapters, kind };
        let norm = |name: &str| RmsNorm::new(masters.tensor(name), config.rms_norm_epsilon);
        let layers = (0..config.layers.len())
            .map(|layer| {
                let part = |part: &str| format!("model.layers.{layer}.{part}");
                LayerWeights {
                    input_norm: norm(&part("input_layernorm.weight")),
                    attention: AttentionWeights::new(masters, config, &part("self_attn")),
                    post_norm: norm(&part("post_attention_layernorm.weight")),
                    feed_forward: FeedForward::new(masters, config, &part("mlp")),
                }
            })
            .collect();
        let embedding = masters.tensor("model.embed_tokens.weight");
        let head = if config.tied_embeddings {
            embedding.to_kind(kind)
        } else {
            masters.tensor("lm_head.weight").to_kind(kind)
        };
        let final_norm = norm("model.norm.weight");
        Self { embedding, layers, final_norm, head, kind }
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.head.device()
    }

    /// The compute type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What goes into the first layer, `[tokens, hidden]`, f32; `ids` are `[tokens]`, i64.
    pub(crate) fn embed(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, ids, -1, false, false)
    }

    /// Logits of `[tokens, hidden]` in the compute type, `[tokens, vocab]`.
    pub(crate) fn head_products(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.head, None::<&Tensor>)
    }

    /// What the last layer gave, after the final norm, in the compute type.
    pub(super) fn finish(&self, residual: &Tensor) -> Tensor {
        self.final_norm.apply(residual).to_kind(self.kind)
    }

    /// Storage of its own for every tensor.
    pub(super) fn deep_copy(&self) -> Self {
        let copy_layer = |layer: &LayerWeights| LayerWeights {
            input_norm: layer.input_norm.deep_copy(),
            attention: layer.attention.deep_copy(),
            post_norm: layer.post_norm.deep_copy(),
            feed_forward: layer.feed_forward.deep_copy(),
        };
        Self {
            embedding: deep_copy(&self.embedding),
            layers: self.layers.iter().map(copy_layer).collect(),
            final_norm: self.final_norm.deep_copy(),
            head: deep_copy(&self.head),
            kind: self.kind,
        }
    }
}

/// The decoder's constants: configuration, rotary tables, and what training passes keep.
#[derive(Debug)]
pub struct Decoder {
    pub config: ModelConfig,
    /// Whether a training pass keeps only what went into each layer and computes the layer again on the
    /// way back.
    pub recomputes_layers: bool,
    pub(crate) rotary: RotaryTables,
}

/// The tokens of a pass, as the layers need them.
#[derive(Debug)]
pub(super) struct PassTokens {
    rotation: Rotation,
    /// Rows that are read in the end, `[rows]`, i64: the last layer computes nothing else for them. All
    /// rows if there is none.
    read: Option<Tensor>,
}

impl Decoder {
    /// Tables for `positions` tokens of context.
    pub fn new(config: &ModelConfig, positions: usize, device: Device) -> Self {
        let rotary = RotaryTables::new(&config.rope, config.head_dim, positions, device);
        Self { config: config.clone(), recomputes_layers: false, rotary }
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
        let tokens = self.pass_tokens(positions, None);
        let mut residual = weights.embed(ids);
        for layer in 0..self.config.layers.len() {
            residual = self.layer(weights, layer, &residual, &tokens, attention);
        }
        weights.finish(&residual)
    }

    /// The tokens at `positions`, of which the rows `read` are read in the end.
    pub(super) fn pass_tokens(&self, positions: &Tensor, read: Option<Tensor>) -> PassTokens {
        PassTokens { rotation: self.rotary.at(positions), read }
    }

    /// One layer over the residual stream, `[tokens, hidden]`, f32; the last layer returns the rows that
    /// are read, `[rows, hidden]`.
    pub(super) fn layer(
        &self,
        weights: &Weights,
        index: usize,
        residual: &Tensor,
        tokens: &PassTokens,
        attention: &mut dyn Attention,
    ) -> Tensor {
        let (layer, kind) = (&weights.layers[index], self.config.layers[index]);
        let normed = layer.input_norm.apply(residual).to_kind(weights.kind);
        let rotation = kind.rotary.then_some(&tokens.rotation);
        let (query, key, value) = layer.attention.project(&normed, rotation);
        let span = LayerSpan { index, window: kind.window };
        let mut mixed = attention.attend(span, &query, &key, &value);
        let mut residual = residual.shallow_clone();
        if let Some(read) = tokens.read.as_ref().filter(|_| index + 1 == weights.layers.len()) {
            mixed = mixed.index_select(0, read);
            residual = residual.index_select(0, read);
        }
        // Not in place: the norms keep what they read for the backward pass.
        let attended = residual + layer.attention.output.apply(&mixed);
        let normed = layer.post_norm.apply(&attended).to_kind(weights.kind);
        &attended + layer.feed_forward.apply(&normed)
    }

    /// Logits in f32 of the given hidden states, `[tokens, vocab]`.
    pub fn logits(weights: &Weights, hidden: &Tensor) -> Tensor {
        weights.head_products(hidden).to_kind(Kind::Float)
    }
}
