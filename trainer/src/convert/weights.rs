//! Maps the tensors of a GGUF file to those of `model.safetensors`, and writes that file with one tensor
//! in memory at a time.
//!
//! Invariant: every tensor of the model is present with the right shape, and no tensor of the file is left out.
//! `rope_freqs.weight` becomes part of `config.json`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;

use safetensors::View;

use super::architecture::{Architecture, Family};
use super::dtype::Dtype;
use super::error::ConvertError;
use super::error::GgufError;
use super::gguf::Gguf;
use super::gguf::Tensor;
use super::rope;

/// All tensors to write.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) tensors: Vec<(String, PlannedTensor<'a>)>,
    /// `true` if the embedding is also the output layer.
    pub(super) tied: bool,
    /// `true` if attention, and if the feed-forward layers have biases.
    pub(super) biases: (bool, bool),
}

/// One tensor to write.
#[derive(Debug)]
pub(super) struct PlannedTensor<'a> {
    source: &'a Tensor<'a>,
    dtype: Dtype,
    /// Number of heads whose rows are interleaved in the file.
    interleaved_heads: Option<usize>,
}

impl Plan<'_> {
    pub(super) fn parameters(&self) -> usize {
        self.tensors.iter().map(|(_, planned)| planned.source.shape.iter().product::<usize>()).sum()
    }
}

/// A tensor of a layer: its names in both layouts, its shape, and the number of heads whose rows the
/// file interleaves.
struct LayerTensor {
    gguf_name: &'static str,
    hugging_face_name: &'static str,
    shape: Vec<usize>,
    interleaved_heads: Option<usize>,
}

/// Lists the tensors of a layer. `biases` tells if attention and feed-forward have biases.
fn layer_tensors(shape: &Architecture, biases: (bool, bool)) -> Vec<LayerTensor> {
    let (hidden, inner) = (shape.hidden, shape.feed_forward);
    let (queries, keys) = (shape.heads * shape.head_size, shape.key_value_heads * shape.head_size);
    let mut tensors = Vec::new();
    let mut add = |part, name, shape: &[usize], interleaved_heads| {
        tensors.push(LayerTensor {
            gguf_name: part,
            hugging_face_name: name,
            shape: shape.to_vec(),
            interleaved_heads,
        });
    };
    // Files of Llama models keep the rows of queries and keys in another order, and their biases too.
    let interleaved = |heads| (shape.family == Family::Llama).then_some(heads);
    let (query_heads, key_heads) = (interleaved(shape.heads), interleaved(shape.key_value_heads));
    add("attn_norm.weight", "input_layernorm.weight", &[hidden], None);
    add("attn_q.weight", "self_attn.q_proj.weight", &[queries, hidden], query_heads);
    add("attn_k.weight", "self_attn.k_proj.weight", &[keys, hidden], key_heads);
    add("attn_v.weight", "self_attn.v_proj.weight", &[keys, hidden], None);
    add("attn_output.weight", "self_attn.o_proj.weight", &[hidden, queries], None);
    if biases.0 {
        add("attn_q.bias", "self_attn.q_proj.bias", &[queries], query_heads);
        add("attn_k.bias", "self_attn.k_proj.bias", &[keys], key_heads);
        add("attn_v.bias", "self_attn.v_proj.bias", &[keys], None);
        if shape.family != Family::Qwen2 {
            add("attn_output.bias", "self_attn.o_proj.bias", &[hidden], None);
        }
    }
    if shape.family == Family::Qwen3 {
        add("attn_q_norm.weight", "self_attn.q_norm.weight", &[shape.head_size], None);
        add("attn_k_norm.weight", "self_attn.k_norm.weight", &[shape.head_size], None);
    }
    add("ffn_norm.weight", "post_attention_layernorm.weight", &[hidden], None);
    add("ffn_gate.weight", "mlp.gate_proj.weight", &[inner, hidden], None);
    add("ffn_up.weight", "mlp.up_proj.weight", &[inner, hidden], None);
    add("ffn_down.weight", "mlp.down_proj.weight", &[hidden, inner], None);
    if biases.1 {
        add("ffn_gate.bias", "mlp.gate_proj.bias", &[inner], None);
        add("ffn_up.bias", "mlp.up_proj.bias", &[inner], None);
        add("ffn_down.bias", "mlp.down_proj.bias", &[hidden], None);
    }
    tensors
}

/// Maps every tensor of the file to its name in the output. Checks that none is missing or unknown.
pub(super) fn plan<'a>(
    gguf: &'a Gguf<'a>,
    shape: &Architecture,
    dtype: Dtype,
) -> Result<Plan<'a>, GgufError> {
    let mut unused: BTreeSet<&str> = gguf.tensors.keys().copied().collect();
    unused.remove(rope::FACTORS);
    let has = |name: &str| gguf.tensors.contains_key(name);
    let attention_bias = shape.family == Family::Qwen2 || has("blk.0.attn_q.bias");
    let biases = (attention_bias, shape.family == Family::Llama && has("blk.0.ffn_gate.bias"));
    let mut tensors = Vec::with_capacity(gguf.tensors.len());
    let mut add = |from: &str, to: String, shape: &[usize], interleaved_heads| {
        let expected = || format!("shape {shape:?}");
        let source =
            gguf.tensors.get(from).ok_or_else(|| GgufError::tensor(from, expected(), "nothing"))?;
        if source.shape != shape {
            return Err(GgufError::tensor(from, expected(), format!("shape {:?}", source.shape)));
        }
        unused.remove(from);
        tensors.push((to, PlannedTensor { source, dtype, interleaved_heads }));
        Ok(())
    };

    let embedding_shape = [shape.vocabulary, shape.hidden];
    add("token_embd.weight", "model.embed_tokens.weight".to_owned(), &embedding_shape, None)?;
    for layer in 0..shape.layers {
        for tensor in layer_tensors(shape, biases) {
            add(
                &format!("blk.{layer}.{}", tensor.gguf_name),
                format!("model.layers.{layer}.{}", tensor.hugging_face_name),
                &tensor.shape,
                tensor.interleaved_heads,
            )?;
        }
    }
    add("output_norm.weight", "model.norm.weight".to_owned(), &[shape.hidden], None)?;
    let tied = !gguf.tensors.contains_key("output.weight");
    if !tied {
        add("output.weight", "lm_head.weight".to_owned(), &embedding_shape, None)?;
    }
    match unused.first() {
        None => Ok(Plan { tensors, tied, biases }),
        Some(name) => {
            let expected = format!("only tensors of a {} model", shape.family.name());
            Err(GgufError::tensor(*name, expected, "another one"))
        }
    }
}

impl PlannedTensor<'_> {
    fn values(&self) -> Vec<f32> {
        let values = self.source.block_type.dequantize(self.source.data);
        match self.interleaved_heads {
            Some(heads) => separate_halves(&values, self.source.shape[0], heads),
            None => values,
        }
    }
}

/// Restores Hugging Face's row order of query and key projections.
///
/// Rotary embedding rotates pairs of rows of a head. Hugging Face pairs row `i` with row
/// `i + head_size / 2`. GGUF files of Llama models keep the two rows of a pair next to each other.
fn separate_halves(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let head_size = rows / heads;
    let mut separated = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_size, row % head_size);
        let (pair, side) = (within % (head_size / 2), within / (head_size / 2));
        let source = head * head_size + pair * 2 + side;
        separated.extend_from_slice(&values[source * columns..][..columns]);
    }
    separated
}

/// Counts the tensors written. The safetensors writer requests the bytes of each tensor once, in turn.
struct TensorCount<'a> {
    done: usize,
    total: usize,
    report: &'a mut dyn FnMut(usize, usize),
}

struct TensorView<'a> {
    planned: PlannedTensor<'a>,
    count: &'a RefCell<TensorCount<'a>>,
}

impl View for TensorView<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.planned.dtype {
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::F32 => safetensors::Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.planned.source.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.planned.dtype.encode(&self.planned.values());
        let mut count = self.count.borrow_mut();
        count.done += 1;
        let (done, total) = (count.done, count.total);
        (count.report)(done, total);
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.planned.source.shape.iter().product::<usize>() * self.planned.dtype.bytes()
    }
}

/// Writes `model.safetensors` at `path`.
pub(super) fn write(
    plan: Plan<'_>,
    path: &Path,
    report: &mut dyn FnMut(usize, usize),
) -> Result<(), ConvertError> {
    let total = plan.tensors.len();
    report(0, total);
    let count = RefCell::new(TensorCount { done: 0, total, report });
    let views = plan
        .tensors
        .into_iter()
        .map(|(name, planned)| (name, TensorView { planned, count: &count }));
    // Hugging Face's libraries check this mark before they load a file.
    let mark = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(mark), path)
        .map_err(|source| ConvertError::Weights { path: path.to_path_buf(), source })
}
