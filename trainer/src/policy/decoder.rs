//! The decoder that all families share. Attention and feed-forward each read a normed input and add to the
//! residual stream.
//!
//! Tokens of several sequences are packed in one row dimension, without padding. Every linear layer sees
//! `[tokens, hidden]`.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::adapter::{EmbeddingAdapter, HeadAdapter};
use super::attention::{Attention, AttentionWeights, LayerSpan};
use super::config::ModelConfig;
use super::feed_forward::FeedForward;
use super::linear::{Adapters, Masters};
use super::lora::Lora;
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

/// All weights that a forward pass reads.
#[derive(Debug)]
pub struct Weights {
    /// `[vocab, hidden]`, f32.
    pub(super) embedding: Tensor,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) final_norm: RmsNorm,
    embedding_adapter: Option<EmbeddingAdapter>,
    /// `[vocab, hidden]`, compute type.
    pub(super) head: Tensor,
    /// Set only where an adapter of the head is trained. Rollouts use merged weights.
    head_adapter: Option<HeadAdapter>,
    kind: Kind,
}

impl Weights {
    /// Casts and joins the master weights, differentiably.
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
            embedding.shallow_clone()
        } else {
            masters.tensor("lm_head.weight")
        };
        let lora = match adapters {
            Adapters::Beside(lora) => Some(lora),
            Adapters::Off | Adapters::Merged(_) => None,
        };
        let of_head = lora.and_then(Lora::of_head);
        Self {
            embedding_adapter: lora.and_then(|lora| lora.of_embedding(&embedding)),
            layers,
            final_norm: norm("model.norm.weight"),
            head_adapter: of_head
                .map(|change| HeadAdapter { change, frozen: head.shallow_clone() }),
            head: head.to_kind(kind),
            embedding,
            kind,
        }
    }

    /// Returns the device of the weights.
    pub fn device(&self) -> Device {
        self.head.device()
    }

    /// Returns the compute type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the input of the first layer, `[tokens, hidden]`, f32. `ids` are `[tokens]`, i64.
    pub(crate) fn embed(&self, ids: &Tensor) -> Tensor {
        let rows = Tensor::embedding(&self.embedding, ids, -1, false, false);
        match &self.embedding_adapter {
            Some(adapter) => adapter.add_to(&rows, ids),
            None => rows,
        }
    }

    /// Returns the head with its adapter, differentiably, `[vocab, hidden]`, compute type.
    pub(super) fn whole_head(&self) -> Tensor {
        match &self.head_adapter {
            Some(adapter) => adapter.merged().to_kind(self.kind),
            None => self.head.shallow_clone(),
        }
    }

    /// Computes the logits of `[tokens, hidden]` in the compute type: `[tokens, vocab]`.
    pub(crate) fn head_products(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.whole_head(), None::<&Tensor>)
    }

    /// Applies the final norm to the last layer's output and casts it to the compute type.
    pub(super) fn finish(&self, residual: &Tensor) -> Tensor {
        self.final_norm.apply(residual).to_kind(self.kind)
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        let copy_layer = |layer: &LayerWeights| LayerWeights {
            input_norm: layer.input_norm.deep_copy(),
            attention: layer.attention.deep_copy(),
            post_norm: layer.post_norm.deep_copy(),
            feed_forward: layer.feed_forward.deep_copy(),
        };
        Self {
            embedding: self.embedding.detach().copy(),
            embedding_adapter: self.embedding_adapter.as_ref().map(EmbeddingAdapter::deep_copy),
            layers: self.layers.iter().map(copy_layer).collect(),
            final_norm: self.final_norm.deep_copy(),
            head: self.head.detach().copy(),
            head_adapter: self.head_adapter.as_ref().map(HeadAdapter::deep_copy),
            kind: self.kind,
        }
    }
}

/// The decoder's constants: configuration, rotary tables, and the memory policy of training passes.
#[derive(Debug)]
pub struct Decoder {
    pub config: ModelConfig,
    /// `true` if a training pass keeps only the input of each layer and computes the layer again in the
    /// backward pass.
    pub recomputes_layers: bool,
    pub(crate) rotary: RotaryTables,
}

/// The token data that the layers of a pass need.
#[derive(Debug)]
pub(super) struct PassTokens {
    rotation: Rotation,
    /// Rows whose hidden states are read, `[rows]`, i64. The last layer computes its output for no others.
    /// `None` means all rows.
    read: Option<Tensor>,
}

impl Decoder {
    /// Creates a decoder with rotary tables for `positions` tokens of context.
    pub fn new(config: &ModelConfig, positions: usize, device: Device) -> Self {
        let rotary = RotaryTables::new(&config.rope, config.head_dim, positions, device);
        Self { config: config.clone(), recomputes_layers: false, rotary }
    }

    /// Computes the hidden states after the final norm, `[tokens, hidden]` in the compute type.
    ///
    /// `ids` and `positions` are `[tokens]`, i64: the packed sequences and each token's position in its own
    /// sequence.
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

    /// Prepares the tokens at `positions`. Of their hidden states only the rows `read` are read.
    pub(super) fn pass_tokens(&self, positions: &Tensor, read: Option<Tensor>) -> PassTokens {
        PassTokens { rotation: self.rotary.at(positions), read }
    }

    /// Applies one layer to the residual stream, `[tokens, hidden]`, f32. The last layer returns only the rows
    /// that are read, `[rows, hidden]`.
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
        // Not in place: the norms keep their inputs for the backward pass.
        let attended = residual + layer.attention.output.apply(&mixed);
        let normed = layer.post_norm.apply(&attended).to_kind(weights.kind);
        &attended + layer.feed_forward.apply(&normed)
    }

    /// Computes the logits of hidden states in f32, `[tokens, vocab]`.
    pub fn logits(weights: &Weights, hidden: &Tensor) -> Tensor {
        weights.head_products(hidden).to_kind(Kind::Float)
    }
}
